"""Wires the finaliser: the one use case that needs numpy and ffmpeg."""

from __future__ import annotations

from functools import cache

from dualtone.adapters import clock, opus_encoder, speech_decoder, wiring
from dualtone.adapters.observability import Alarms
from dualtone.usecases.declare_call import DeclareCall
from dualtone.usecases.finalize_recording import FinalizeRecording
from dualtone.usecases.link_recording import LinkRecording
from dualtone.usecases.open_call import OpenCall
from dualtone.usecases.prepare_commit import Chance, CustodianKeys, PrepareCommit
from dualtone.usecases.render_audio import RenderAudio


@cache
def finalizer() -> FinalizeRecording:
    """The finaliser, made on first use."""
    settings = wiring.settings()
    chance = Chance(clock.now_ms, clock.random_bytes)
    open_call = OpenCall(wiring.ingest_store(), wiring.kms())
    return FinalizeRecording(
        uploads=wiring.ingest_store(),
        directory=wiring.directory(),
        watch=wiring.begin_watch,
        open_call=open_call,
        declare_call=DeclareCall(wiring.ingest_store(), open_call),
        render=RenderAudio(opus_encoder.started, speech_decoder.start),
        ledgers=wiring.call_ledger(),
        prepare=PrepareCommit(
            objects=wiring.commit_recording(),
            custody=wiring.vault_access().custody,
            signer=wiring.signer(),
            certifier=wiring.certifier(),
            metadata=wiring.metadata_store(),
            tokens=wiring.tokens(),
            link=LinkRecording(wiring.recording_links(), wiring.live_keys().of),
            keys=CustodianKeys(settings.custodian_a_key, settings.custodian_b_key),
            chance=chance,
        ),
        tokens=wiring.tokens(),
        index=wiring.recording_index(),
        commit=wiring.commit_recording(),
        alarms=Alarms(),
        ingest_key=settings.ingest_key,
        chance=chance,
    )
