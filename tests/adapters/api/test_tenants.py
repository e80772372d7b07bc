"""Another tenant's recording does not exist: the answer and the way to it are those of an id that nobody has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.client import BaseClient

from dualtone.adapters import clock, wiring
from tests.adapters.api import recordings
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import Answer, call, post_json
from tests.adapters.api.recordings import Made

UNKNOWN = "rec_aaaaaaaaaaaaaaaaaaaaaaaaaa"
RECORDING = "/v1/recordings/{recording_id}"


@pytest.fixture
def backend_calls() -> Iterator[list[str]]:
    """Every call to AWS, by service and operation, with the table that it is about."""
    calls: list[str] = []

    def note(model: Any, params: dict[str, Any], **_: object) -> None:
        calls.append(f"{model.service_model.service_name}.{model.name}")

    clients: list[BaseClient] = [wiring.dynamodb(), wiring.s3(), wiring.sts(), wiring.sqs(), wiring.kms()._client]
    for client in clients:
        client.meta.events.register("before-call", note)
    yield calls
    for client in clients:
        client.meta.events.unregister("before-call", note)


ROUTES: list[str] = [RECORDING, f"{RECORDING}/audio", f"{RECORDING}/evidence"]


@pytest.mark.parametrize("resource", ROUTES)
def test_a_strangers_request_ends_like_one_for_nothing(
    stranger: str, officer: str, recording: Made, backend_calls: list[str], trail: AuditTrail, resource: str
) -> None:
    """Same status, header fields and body, same backend calls, same events; the owner, as a control, gets it."""
    asked = {}
    for name in (recording.recording_id, UNKNOWN, "rec_malformed", "../../etc/passwd"):
        backend_calls.clear()
        answer = call("GET", resource, path={"recording_id": name}, token=stranger)
        events = [{k: v for k, v in e.items() if k not in ("pk", "sk", "when", "which")} for e in trail.new()]
        asked[name] = (answer.without_instance(), list(backend_calls), events)
    theirs, nobodys = asked[recording.recording_id], asked[UNKNOWN]
    assert theirs[0]["status"] == 404
    assert theirs == nobodys
    assert asked["rec_malformed"][0] == asked["../../etc/passwd"][0] == nobodys[0]
    assert call("GET", resource, path={"recording_id": recording.recording_id}, token=officer).status == 200


def test_a_call_of_another_tenant_is_not_found(stranger: str, recording: Made, backend_calls: list[str]) -> None:
    """By its Call-ID, as for a Call-ID that nobody used."""
    call("GET", "/v1/calls", query={"sip_call_id": "x"}, token=stranger)  # the tenant's live key is derived once
    asked = []
    for sip_call_id in (recording.sip_call_id, "nobody-ever@used.this"):
        backend_calls.clear()
        answer = call("GET", "/v1/calls", query={"sip_call_id": sip_call_id}, token=stranger)
        asked.append((answer.without_instance(), list(backend_calls)))
    assert asked[0] == asked[1]
    assert asked[0][0]["status"] == 404


def test_lists_and_searches_end_at_the_tenants_border(cloud: object, officer: str, stranger: str) -> None:
    """The same number in two tenants: each finds its own call."""
    at = clock.now_ms() - 600_000
    ours = recordings.make("acme", at, caller="+15557770000")
    theirs = recordings.make("globex", at, caller="+15557770000")

    def found(answer: Answer) -> set[str]:
        return {row["recording_id"] for row in answer.json["recordings"]}

    ways: list[Callable[[str], Answer]] = [
        lambda token: post_json("/v1/recordings/search", {"number": "+15557770000"}, token=token),
        lambda token: call("GET", "/v1/recordings", query={"limit": "100"}, token=token),
    ]
    for way in ways:
        assert ours.recording_id in found(way(officer))
        assert theirs.recording_id not in found(way(officer))
        assert theirs.recording_id in found(way(stranger))
        assert ours.recording_id not in found(way(stranger))


def test_a_recordings_row_moved_to_another_tenant_does_not_open(cloud: object, stranger: str) -> None:
    """Someone who can write the tables copies row and keys: the signature names the tenant, and so do the keys."""
    made = recordings.make("acme", clock.now_ms() - 900_000)
    settings, dynamodb = wiring.settings(), wiring.dynamodb()
    for sk in ("rec", "meta"):
        key = {"pk": {"S": f"acme#rec#{made.recording_id}"}, "sk": {"S": sk}}
        item = dynamodb.get_item(TableName=settings.index_table, Key=key)["Item"]
        moved = item | {"pk": {"S": f"globex#rec#{made.recording_id}"}}
        if sk == "rec":
            moved |= {"tenant": {"S": "globex"}, "gsi1pk": {"S": "globex#elsewhere"}}
        dynamodb.put_item(TableName=settings.index_table, Item=moved)
    key = {"pk": {"S": f"acme#{made.recording_id}"}, "sk": {"S": "v#0001"}}
    keys = dynamodb.get_item(TableName=settings.keys_table, Key=key)["Item"]
    dynamodb.put_item(TableName=settings.keys_table, Item=keys | {"pk": {"S": f"globex#{made.recording_id}"}})
    path = {"recording_id": made.recording_id}
    assert call("GET", f"{RECORDING}/audio", path=path, token=stranger).json["type"].endswith(":integrity")
    assert call("GET", RECORDING, path=path, token=stranger).json["type"].endswith(":integrity")
