"""Wires what cuts paused spans out of what is stored."""

from __future__ import annotations

from functools import cache

from dualtone.adapters import clock, wiring
from dualtone.adapters.recorded_pauses import RecordedPauses
from dualtone.adapters.uploaded_parts import UploadedParts
from dualtone.usecases.cut_paused_spans import CutPausedSpans
from dualtone.usecases.puncture_recording import PunctureRecording


@cache
def cutter() -> CutPausedSpans:
    """The use case, made on first use."""
    settings = wiring.settings()
    recordings = RecordedPauses(wiring.dynamodb(), settings.index_table, wiring.key_store(), wiring.audit_outbox())
    return CutPausedSpans(
        ledgers=wiring.call_ledger(),
        parts=UploadedParts(wiring.s3(), settings.ingest_bucket),
        recordings=recordings,
        puncture=PunctureRecording(
            recordings=recordings,
            keys=wiring.key_store(),
            custody=wiring.vault_access().custody,
            certifier=wiring.certifier(),
            now_ms=clock.now_ms,
            random_bytes=clock.random_bytes,
        ),
        now_ms=clock.now_ms,
    )
