"""Recordings for the API to find: sealed, wrapped, signed, stored and committed by the product's own code."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from dualtone.adapters import wiring
from dualtone.domain import gap_certificate, ids, signing, vault_manifest
from dualtone.domain.audit_event import Outcome, RequestFacts
from dualtone.domain.call_session import CallSession
from dualtone.domain.commit_attempt import Attempt, Upload
from dualtone.domain.direction import Direction
from dualtone.domain.ids import AgentId, AttemptId, CallId, RecordingId, TenantId
from dualtone.domain.kek import KeyItem, KeyScope
from dualtone.domain.pause import Pause
from dualtone.domain.period import DAY_MS, month_of
from dualtone.domain.recording_entry import Channel, ChannelQuality, Gap, RecordingEntry
from dualtone.domain.recording_ruling import Chosen, Kept
from dualtone.domain.tenancy import Verb
from dualtone.usecases import wrap_keys
from dualtone.usecases.commit_recording import Commit
from dualtone.usecases.link_recording import LinkRecording
from dualtone.usecases.seal_recording import SealedRecording, seal
from tests.vault_samples import HEADER_PAGES, pages_of

AGENT: Final = AgentId("agt_01JD0000000000000000000000")
CALLER: Final = "+442079460123"
CALLEE: Final = "+33123456789"
KEPT: Final = Kept(3, "hotline", "consent", "consent", "keep", "dtmf", 1_800_000_000_000_000, "")
ACCEPTED: Final = Chosen("accept", "dtmf", 1_800_000_000_000_000, "")


@dataclass(frozen=True, slots=True)
class Made:
    """A recording that is in the cloud, and the file that it opens to."""

    tenant: TenantId
    recording_id: RecordingId
    call_id: CallId
    sip_call_id: str
    file: bytes = field(repr=False)
    page_offsets: tuple[int, ...]
    etag: str


def make(
    tenant: str,
    started_at_ms: int,
    *,
    seconds: int = 3,
    page_bytes: int = 120,
    caller: str = CALLER,
    callee: str = CALLEE,
    agent: AgentId = AGENT,
    session: CallSession | None = None,
    gaps: tuple[Gap, ...] | None = None,
) -> Made:
    """Makes a recording as the finaliser would, but for the decoding; ``session`` is what links it to others."""
    whose, month = TenantId(tenant), month_of(started_at_ms)
    call = CallId(ids.ulid(started_at_ms, secrets.token_bytes(10)))
    recording = ids.recording_id(whose, call)
    attempt_id = AttemptId(ids.ulid(started_at_ms + 1, secrets.token_bytes(10)))
    sip_call_id = f"{secrets.token_hex(12)}@sbc.example.com"
    pages = pages_of(seconds, page_bytes)
    sealed = seal(
        HEADER_PAGES,
        pages,
        tenant=whose,
        recording=recording,
        generation=1,
        attempt=attempt_id,
        call=call,
        started_at_ms=started_at_ms,
        created_at_ms=started_at_ms + 60_000,
        agent_manifest_sha256=hashlib.sha256(b"manifest").hexdigest(),
        root=secrets.token_bytes(32),
    )
    upload = Upload(whose, agent, call, 1, (), ())
    attempt = Attempt(attempt_id, started_at_ms, recording, sealed.vault_key, upload, "0" * 64)
    wiring.recording_index().open_attempt(attempt)
    version_id = wiring.vault_store().put(sealed.vault_key, sealed.data, sealed.sha256)
    entry = _entry(attempt, sealed, version_id, seconds, started_at_ms)
    entry = entry if gaps is None else replace(entry, gaps=gaps)
    link = LinkRecording(wiring.recording_links(), wiring.live_keys().of)
    commit = Commit(
        attempt=replace(attempt, vault_version_id=version_id, lock_until_ms=entry.retention_until_ms),
        entry=entry,
        metadata=wiring.metadata_store().seal(whose, recording, month, _metadata(caller, callee, sip_call_id)),
        keys=_keys(whose, recording, sealed, started_at_ms),
        number_tokens=[wiring.tokens().number(whose, month, number) for number in (caller, callee)],
        sip_tokens=[wiring.tokens().sip_call_id(whose, sip_call_id)],
        ledger_version=0,
        linkage=link(entry, session or CallSession()),
        call_state="recorded",
        event=RequestFacts(started_at_ms, "test", attempt_id).event(Verb.READ_PUBLIC, Outcome.GRANTED, tenant=whose),
    )
    assert wiring.recording_index().commit(commit)
    offsets = [len(HEADER_PAGES)]
    for page in pages:
        offsets.append(offsets[-1] + len(page))
    file = HEADER_PAGES + b"".join(pages)
    return Made(whose, recording, call, sip_call_id, file, tuple(offsets), f'"{sealed.sha256}"')


def _entry(
    attempt: Attempt, sealed: SealedRecording, version_id: str, seconds: int, started_at_ms: int
) -> RecordingEntry:
    duration_ms, signer = seconds * 1000, wiring.signer()
    return RecordingEntry(
        tenant=attempt.upload.tenant,
        recording_id=attempt.recording,
        call_id=attempt.upload.call,
        agent_id=attempt.upload.agent,
        generation=1,
        attempt=attempt.attempt,
        state="recorded",
        started_at_ms=started_at_ms,
        answered_at_ms=started_at_ms,
        ended_at_ms=started_at_ms + duration_ms,
        duration_ms=duration_ms,
        direction=Direction.OUTBOUND,
        media_type=sealed.manifest.media_type,
        vault_key=sealed.vault_key,
        vault_version_id=version_id,
        vault_sha256=sealed.sha256,
        vault_size_bytes=len(sealed.data),
        segment_count=sealed.segment_count,
        segment_ms=1000,
        manifest=sealed.manifest_payload,
        manifest_signature=signer.sign(signing.message(vault_manifest.KIND, sealed.manifest_payload)),
        signing_key_arn=signer.key_id,
        channels=(Channel(0, "1", "i1Pz3to5hGk8fuXl+PbwCw==", 0, "caller"), Channel(1, "2", None, None, "unknown")),
        gaps=(Gap(1, 1000, 1500, "inactive"), Gap(0, 2000, 3000, "payment", 0, 160)),
        quality=(ChannelQuality(0, 150, 1, 0, 1.25, 0.5, one_sided=False),),
        flags=("metadata-partial",),
        retention_until_ms=started_at_ms + 365 * DAY_MS,
        certificates=(_certificate(attempt, started_at_ms),),
        policy_rule=KEPT.rule,
        policy_version=KEPT.version,
    )


def _certificate(attempt: Attempt, started_at_ms: int) -> signing.Envelope:
    """The certificate of a payment pause in the third second."""
    pause = Pause(
        cause="payment",
        from_us=1000 * started_at_ms + 2_000_000,
        to_us=1000 * started_at_ms + 3_000_000,
        origin="cloud",
        number=1,
        command=ids.ulid(started_at_ms, bytes(10)),
        by="endpoint:pay_1",
        effective_at_ms=started_at_ms + 2250,
    )
    return gap_certificate.of_pause(
        pause,
        tenant=attempt.upload.tenant,
        recording=attempt.recording,
        call=attempt.upload.call,
        generation=1,
        agent_manifest_sha256="0" * 64,
        signed_at_ms=started_at_ms + 60_000,
    ).sealed_by(wiring.certifier())


def _keys(tenant: TenantId, recording: RecordingId, sealed: SealedRecording, created_at_ms: int) -> KeyItem:
    settings = wiring.settings()
    return wrap_keys.wrap(
        wiring.vault_access().custody(tenant),
        nodes=sealed.nodes,
        scope=KeyScope(tenant, recording),
        key_a=settings.custodian_a_key,
        key_b=settings.custodian_b_key,
        nonce=secrets.token_bytes(12),
        created_at_ms=created_at_ms,
    )


def _metadata(caller: str, callee: str, sip_call_id: str) -> dict[str, Any]:
    return {
        "participants": [
            {"participant_id": "p1", "aor": f"sip:{caller}@host", "name": "Alice", "number": caller, "role": "caller"},
            {"participant_id": "p2", "aor": f"sip:{callee}@host", "name": None, "number": callee, "role": "callee"},
        ],
        "sip_call_id": sip_call_id,
        "sip_session_ids": ["ab30317f1a784dc48ff824d0d3715d86"],
        "groups": [],
        "user_agent": "SBC/1.0",
        "extensions": {},
        "lines": [caller],
        "policy": asdict(KEPT),
        "consents": [asdict(ACCEPTED)],
    }
