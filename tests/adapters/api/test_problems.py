"""Whatever goes wrong is answered as a problem detail, says what to do, and quotes nothing that was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

import app as frontend
from dualtone.adapters import clock, wiring
from dualtone.adapters.recording_queries import RecordingQueries
from dualtone.domain.ids import RecordingId, TenantId
from tests.adapters.api import recordings
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import PROBLEM, call, event, post_json, send

SEARCH = "/v1/recordings/search"
JSON = {"Content-Type": "application/json"}


def test_an_unknown_route_is_not_found() -> None:
    """API Gateway answers it itself; should it ever reach us, so do we."""
    answer = call("GET", "/v1/nothing")
    assert (answer.status, answer.media_type) == (404, PROBLEM)


def test_a_wrong_method_names_the_right_ones() -> None:
    """REQ: RFC 9110 section 15.5.6: with Allow."""
    answer = call("DELETE", "/v1/recordings")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert answer.json["type"].endswith(":method-not-allowed")


def test_an_event_that_is_no_request_is_answered_too() -> None:
    """An invocation by hand."""
    answer = frontend.app({"detail": "x"}, None)
    assert answer["statusCode"] == 500
    assert json.loads(answer["body"])["type"] == "urn:dualtone:problem:internal"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_a_body_of_the_wrong_type_is_415(officer: str, media_type: str) -> None:
    """And names the right one."""
    headers = {"Content-Type": media_type} if media_type else {}
    answer = call("POST", SEARCH, body=b'{"number":"1"}', headers=headers, token=officer)
    assert answer.status == 415
    assert "application/json" in answer.json["detail"]


def test_parameters_of_the_media_type_do_not_matter(officer: str) -> None:
    """A charset, other capitals, another spelling of the field."""
    headers = {"content-TYPE": "Application/JSON; charset=utf-8"}
    assert call("POST", SEARCH, body=b'{"number":"1"}', headers=headers, token=officer).status == 200


MALFORMED: list[tuple[str, bytes, int]] = [
    ("nothing", b"", 400),
    ("cut off", b'{"number":', 400),
    ("not UTF-8", b'{"number":"\xff"}', 400),
    ("deeply nested", b"[" * 50_000, 400),
    ("too large", b'{"number":"' + b"1" * 70_000 + b'"}', 413),
    ("a list", b"[]", 422),
    ("text", b'"number"', 422),
    ("null", b"null", 422),
    ("without number", b"{}", 422),
    ("empty number", b'{"number":" "}', 422),
    ("no number in it", b'{"number":"sip:@host"}', 422),
    ("number is a number", b'{"number":4420}', 422),
    ("unknown field", b'{"number":"1","nummer":"2"}', 422),
    ("lone surrogate", b'{"number":"\\ud800"}', 422),
]


@pytest.mark.parametrize(("body", "status"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_body_that_cannot_be_meant_is_refused(officer: str, body: bytes, status: int) -> None:
    """400 if it cannot be read, 413 if it is too much of it, 422 if it can be read and makes no sense."""
    assert call("POST", SEARCH, body=body, headers=JSON, token=officer).status == status


def test_what_is_wrong_is_said_without_what_was_sent(officer: str) -> None:
    """Parameter and reason; a number or a name never comes back, nor goes into a log."""
    answer = post_json(SEARCH, {"number": "+442079460123" * 40, "limit": "Alice"}, token=officer)
    assert answer.status == 422
    assert {error["parameter"] for error in answer.json["errors"]} == {"number", "limit"}
    assert "2079460123" not in answer.body.decode()
    assert "Alice" not in answer.body.decode()


def test_a_parameter_given_twice_is_refused(officer: str) -> None:
    """Which one was meant?"""
    assert call("GET", "/v1/recordings", query={"limit": ["1", "2"]}, token=officer).status == 422


def test_a_body_that_is_not_the_base64_it_says_is_refused(officer: str) -> None:
    """A fault of whoever built the event, not of ours."""
    raw = event("POST", SEARCH, token=officer, headers=JSON) | {"body": "%%%", "isBase64Encoded": True}
    assert send(raw).status == 400


def test_a_fault_of_ours_says_nothing_and_is_counted(
    officer: str, trail: AuditTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    """500 without a detail; class, place and request in the log, never a text; the metric that an alarm watches."""
    made = recordings.make("acme", clock.now_ms() - 800_000)
    key = {"pk": {"S": f"acme#rec#{made.recording_id}"}, "sk": {"S": "rec"}}
    wiring.dynamodb().update_item(
        TableName=wiring.settings().index_table, Key=key, UpdateExpression="REMOVE duration_ms"
    )
    trail.new()
    capsys.readouterr()
    answer = call("GET", "/v1/recordings/{recording_id}", path={"recording_id": made.recording_id}, token=officer)
    assert answer.status == 500
    assert answer.without_instance()["problem"] == {
        "type": "urn:dualtone:problem:internal",
        "title": "The request failed",
        "status": 500,
    }
    (failed,) = trail.new()
    assert (failed["outcome"], failed["which"]) == ("failed", made.recording_id)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    (metric,) = [line for line in lines if "_aws" in line]
    assert metric["ApiFailed"] == [1.0]
    wiring.dynamodb().delete_item(TableName=wiring.settings().index_table, Key=key)


def test_no_answer_without_its_event(officer: str, recording: recordings.Made, cloud: Any) -> None:
    """The outbox refuses writes: nothing is released, neither a list nor a second of audio."""

    def refuse(params: dict[str, Any], **_: object) -> None:
        if params.get("TableName") == wiring.settings().audit_table:
            raise ConnectionError

    events = wiring.dynamodb().meta.events
    events.register("before-parameter-build.dynamodb.PutItem", refuse)
    try:
        path = {"recording_id": recording.recording_id}
        answers = [
            call("GET", "/v1/recordings", token=officer),
            call("GET", "/v1/recordings/{recording_id}/audio", path=path, token=officer),
            call("GET", "/v1/recordings"),
        ]
    finally:
        events.unregister("before-parameter-build.dynamodb.PutItem", refuse)
    assert [answer.status for answer in answers] == [503, 503, 503]
    assert answers[0].headers["Retry-After"]


def test_a_missing_table_is_a_fault_and_not_an_absence(officer: str, cloud: Any) -> None:
    """ResourceNotFoundException of DynamoDB must not look like 'no such recording'."""
    queries = RecordingQueries(wiring.dynamodb(), "no-such-table")
    with pytest.raises(ClientError):
        queries.recording(TenantId("acme"), RecordingId("rec_aaaaaaaaaaaaaaaaaaaaaaaaaa"))
