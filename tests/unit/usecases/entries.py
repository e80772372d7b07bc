"""A recording's entry in the index, for tests that need one and do not care."""

from __future__ import annotations

from dualtone.domain.direction import Direction
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId
from dualtone.domain.recording_entry import RecordingEntry


def entry(tenant: TenantId, recording: RecordingId) -> RecordingEntry:
    return RecordingEntry(
        tenant=tenant,
        recording_id=recording,
        call_id=CallId("01JD0000000000000000000000"),
        agent_id=AgentId("agt_01JD0000000000000000000000"),
        generation=1,
        attempt="01JD0000000000000000000001",
        state="recorded",
        started_at_ms=0,
        answered_at_ms=0,
        ended_at_ms=1000,
        duration_ms=1000,
        direction=Direction.UNKNOWN,
        media_type="audio/ogg; codecs=opus",
        vault_key="x",
        vault_version_id="1",
        vault_sha256="0" * 64,
        vault_size_bytes=1000,
        segment_count=1,
        segment_ms=1000,
        manifest=b"",
        manifest_signature=b"",
        signing_key_arn="arn",
        channels=(),
        gaps=(),
        quality=(),
        flags=(),
        retention_until_ms=0,
    )
