"""One hundred calls, twenty at a time: one recording each, none lost, none twice."""

from __future__ import annotations

import time
from typing import Any

import boto3

from tests.e2e.conftest import VECTORS, Local

CALLS, AT_ONCE = 100, 20


def all_recordings(local: Local) -> list[dict[str, Any]]:
    """Every recording of the tenant, page by page."""
    found: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": "30"}
    while True:
        page = local.officer.get("/v1/recordings", query)
        found += page["recordings"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def test_a_hundred_calls_leave_a_hundred_recordings(local: Local) -> None:
    """Each SIP Call-ID has its own recording of its own length; the ingest bucket is empty afterwards."""
    before = {entry["recording_id"] for entry in all_recordings(local)}
    calls = local.place_calls(
        "--calls", str(CALLS), "--parallel", str(AT_ONCE), "--duration", "3",
        "--caller-wav", str(VECTORS / "speech" / "alice.wav"), "--callee-wav", str(VECTORS / "speech" / "bob.wav"),
    )  # fmt: skip
    assert len({call["sip_call_id"] for call in calls}) == CALLS
    recordings = [local.wait_recorded(call["sip_call_id"], within_s=120) for call in calls]
    assert len({recording["recording_id"] for recording in recordings}) == CALLS
    assert len({recording["call_id"] for recording in recordings}) == CALLS
    assert max(abs(recording["duration_ms"] - 3000) for recording in recordings) <= 100
    after = [entry["recording_id"] for entry in all_recordings(local)]
    assert len(after) == len(set(after))
    assert set(after) - before == {recording["recording_id"] for recording in recordings}

    s3 = boto3.client(
        "s3",
        endpoint_url=local.line["aws_endpoint"],
        region_name="eu-west-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    until = time.monotonic() + 60
    bucket = local.line["resources"]["ingest_bucket"]
    while s3.list_objects_v2(Bucket=bucket).get("KeyCount") and time.monotonic() < until:
        time.sleep(0.2)
    assert s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0) == 0
    s3.close()
