"""Lists, searches, single recordings, evidence, calls: what a tenant's people find."""

from __future__ import annotations

import base64
import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.period import DAY_MS, month_of
from tests.adapters.api import recordings
from tests.adapters.api.gateway import call, post_json
from tests.adapters.api.recordings import CALLEE, CALLER, Made

ACME = TenantId("acme")
LIST = "/v1/recordings"
SEARCH = "/v1/recordings/search"
ONE = "/v1/recordings/{recording_id}"


def iso(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def many(cloud: object) -> list[Made]:
    """Nine recordings of Acme's over three months, the newest first, with a number of their own."""
    base = clock.now_ms() - 10 * DAY_MS
    made = [recordings.make("acme", base - number * 9 * DAY_MS, caller="+15550001111") for number in range(9)]
    assert len({month_of(base - number * 9 * DAY_MS) for number in range(9)}) >= 3
    return made


def pages(fetch: Any) -> list[list[str]]:
    """Follows cursors to the end."""
    found, cursor = [], None
    while True:
        page = fetch(cursor).json
        found.append([row["recording_id"] for row in page["recordings"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_a_list_is_newest_first_and_its_pages_miss_and_repeat_nothing(officer: str, many: list[Made]) -> None:
    """Cursors lead across months; each page but the last is full."""
    span = {"from": iso(clock.now_ms() - 89 * DAY_MS), "to": iso(clock.now_ms() - 5 * DAY_MS), "limit": "4"}

    def fetch(cursor: str | None) -> Any:
        return call("GET", LIST, token=officer, query=span | ({"cursor": cursor} if cursor else {}))

    found = pages(fetch)
    assert [len(page) for page in found] == [4, 4, 1]
    assert [recording for page in found for recording in page] == [made.recording_id for made in many]


def test_the_last_page_knows_that_it_is_the_last(officer: str, many: list[Made]) -> None:
    """A page that ends exactly at the end has no cursor."""
    span = {"from": iso(clock.now_ms() - 89 * DAY_MS), "to": iso(clock.now_ms() - 5 * DAY_MS), "limit": "9"}
    assert [len(page) for page in pages(lambda _: call("GET", LIST, token=officer, query=span))] == [9]


def test_a_period_is_half_open(officer: str, many: list[Made]) -> None:
    """From its first millisecond, up to but without its last."""
    started = call("GET", ONE, path={"recording_id": many[3].recording_id}, token=officer).json["started_at"]
    later = call("GET", ONE, path={"recording_id": many[2].recording_id}, token=officer).json["started_at"]
    found = call("GET", LIST, token=officer, query={"from": started, "to": later}).json["recordings"]
    assert [row["recording_id"] for row in found] == [many[3].recording_id]


@pytest.mark.parametrize("spelling", ["+15550001111", "+1 (555) 000-1111", "tel:+1-555-000-1111", "sip:+15550001111@x"])
def test_a_number_is_found_in_any_spelling(officer: str, many: list[Made], spelling: str) -> None:
    """All of its recordings of the last 90 days, newest first, over pages."""

    def fetch(cursor: str | None) -> Any:
        body = {"number": spelling, "limit": 5} | ({"cursor": cursor} if cursor else {})
        return post_json(SEARCH, body, token=officer)

    assert [recording for page in pages(fetch) for recording in page] == [made.recording_id for made in many]


def test_a_number_that_never_called_is_not_found(officer: str, many: list[Made]) -> None:
    """An empty page, not an error."""
    found = post_json(SEARCH, {"number": "+4930123456"}, token=officer).json
    assert (found["recordings"], found["next_cursor"]) == ([], None)


def test_a_cursor_is_good_for_its_own_query_only(officer: str, stranger: str, many: list[Made]) -> None:
    """Another tenant, another number, another kind of query, another period, a changed byte: all refused alike."""
    query = {"number": "+15550001111", "limit": 2}
    cursor = post_json(SEARCH, query, token=officer).json["next_cursor"]
    changed = ("A" if cursor[-8] != "A" else "B").join([cursor[:-8], cursor[-7:]])
    attempts = [
        post_json(SEARCH, query | {"cursor": cursor}, token=stranger),
        post_json(SEARCH, query | {"cursor": cursor, "number": CALLEE}, token=officer),
        call("GET", LIST, query={"cursor": cursor}, token=officer),
        post_json(SEARCH, query | {"cursor": cursor, "from": "2020-01-01T00:00:00Z"}, token=officer),
        post_json(SEARCH, query | {"cursor": changed}, token=officer),
        post_json(SEARCH, query | {"cursor": "not a cursor"}, token=officer),
    ]
    assert [(answer.status, answer.json["type"]) for answer in attempts] == [
        (422, "urn:dualtone:problem:invalid-parameters")
    ] * 6


def test_officers_see_parties_and_administrators_do_not(officer: str, administrator: str, recording: Made) -> None:
    """The same list, masked by role."""
    query = {"limit": "1"}
    seen = call("GET", LIST, token=officer, query=query).json["recordings"][0]
    hidden = call("GET", LIST, token=administrator, query=query).json["recordings"][0]
    assert [party["number"] for party in seen["participants"]] == [CALLER, CALLEE]
    assert hidden == seen | {"participants": None}
    assert (hidden["policy_rule"], hidden["policy_version"]) == ("hotline", 3)


def test_a_recording_says_why_it_is_kept(officer: str, recording: Made) -> None:
    """Its line, the rule with its basis, and who chose what, when and how."""
    found = call("GET", ONE, path={"recording_id": recording.recording_id}, token=officer).json
    assert found["lines"] == [CALLER]
    assert (found["policy"]["rule"], found["policy"]["basis"], found["policy"]["how"]) == ("hotline", "consent", "dtmf")
    assert found["choices"] == [{"choice": "accept", "how": "dtmf", "by": "", "at": "2027-01-15T08:00:00.000Z"}]


def test_a_recording_says_who_is_heard_in_which_channel(officer: str, recording: Made) -> None:
    """Labels, streams, participants and roles as the metadata has them; unknown stays unknown."""
    found = call("GET", ONE, path={"recording_id": recording.recording_id}, token=officer).json
    first, second = found["channels"]
    assert (first["label"], first["role"], first["participant"]["number"]) == ("1", "caller", CALLER)
    assert (second["label"], second["role"], second["participant"], second["stream_id"]) == ("2", "unknown", None, None)
    hold, pause = found["gaps"]
    assert {name: value for name, value in hold.items() if value is not None} == {
        "channel": 1,
        "from_ms": 1000,
        "to_ms": 1500,
        "cause": "inactive",
    }
    assert (pause["channel"], pause["from_ms"], pause["to_ms"], pause["cause"]) == (0, 2000, 3000, "payment")
    assert found["quality"][0]["jitter_ms"] == 1.25
    assert (found["duration_ms"], found["direction"], found["sip_call_id"]) == (5000, "outbound", recording.sip_call_id)
    assert found["started_at"].endswith("Z")
    assert found["vault"]["sha256"] == recording.etag.strip('"')


def test_evidence_verifies_with_openssl_alone(officer: str, recording: Made, tmp_path: Path) -> None:
    """The message, its signature and the key are all that a stranger needs; one changed bit fails."""
    answer = call("GET", f"{ONE}/evidence", path={"recording_id": recording.recording_id}, token=officer).json
    message = base64.b64decode(answer["message"])
    assert message == b"DUALTONE/v1/recording\0" + base64.b64decode(answer["manifest"])
    (tmp_path / "key.pem").write_text(answer["public_key"])
    (tmp_path / "signature").write_bytes(base64.b64decode(answer["signature"]))

    def verify(signed: bytes) -> int:
        (tmp_path / "message").write_bytes(signed)
        command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert verify(message) == 0
    assert verify(message[:-1] + bytes([message[-1] ^ 1])) != 0
    assert answer["key_id"] == wiring.settings().signing_key


def test_a_pause_says_who_when_and_why_and_proves_it_with_openssl(
    officer: str, recording: Made, tmp_path: Path
) -> None:
    """The gap has it all; the evidence names the key, which signs nothing else."""
    path = {"recording_id": recording.recording_id}
    found = call("GET", ONE, path=path, token=officer).json
    evidence = call("GET", f"{ONE}/evidence", path=path, token=officer).json
    (pause,) = [gap for gap in found["gaps"] if gap["cause"] == "payment"]
    began = dt.datetime.fromisoformat(found["started_at"])
    moments = [
        (dt.datetime.fromisoformat(pause[name]) - began).total_seconds() for name in ("from", "effective_at", "to")
    ]
    assert moments == [2.0, 2.25, 3.0]
    assert (pause["by"], pause["origin"], pause["how"]) == ("endpoint:pay_1", "cloud", "withheld")
    assert pause["rtp_timestamp"] == 160
    certificate = pause["certificate"]
    assert evidence["gap_certificates"] == [certificate]
    assert evidence["gap_key_id"] == certificate["key_id"] == wiring.settings().certificate_key
    assert evidence["gap_public_key"] != evidence["public_key"]
    payload = base64.b64decode(certificate["payload"])
    (tmp_path / "key.pem").write_text(evidence["gap_public_key"])
    (tmp_path / "signature").write_bytes(base64.b64decode(certificate["signature"]))
    (tmp_path / "message").write_bytes(b"DUALTONE/v1/gap-certificate\0" + payload)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert json.loads(payload)["recording"] == recording.recording_id


def test_a_call_is_followed_by_its_sip_call_id(officer: str, administrator: str, recording: Made) -> None:
    """State and recording, for both roles; Call-IDs are case-sensitive."""
    for token in (officer, administrator):
        answer = call("GET", "/v1/calls", query={"sip_call_id": recording.sip_call_id}, token=token)
        assert answer.json == {
            "call_id": recording.call_id,
            "state": "recorded",
            "recording_id": recording.recording_id,
        }
    query = {"sip_call_id": recording.sip_call_id.upper()}
    assert call("GET", "/v1/calls", query=query, token=officer).status == 404


def test_a_call_on_its_way_has_a_state_and_no_recording_yet(officer: str, cloud: object) -> None:
    """From the arrival of its manifest on."""
    token = wiring.tokens().sip_call_id(ACME, "on-its-way@sbc")
    wiring.recording_index().announce(ACME, CallId("01JD0000000000000000000009"), [token])
    answer = call("GET", "/v1/calls", query={"sip_call_id": "on-its-way@sbc"}, token=officer).json
    assert answer == {"call_id": "01JD0000000000000000000009", "state": "finalising", "recording_id": None}


PERIODS: list[tuple[str, dict[str, str]]] = [
    ("upside down", {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
    ("empty", {"from": "2026-02-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}),
    ("too long", {"from": "2025-01-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}),
    ("without zone", {"from": "2026-02-01T00:00:00"}),
    ("no time", {"from": "yesterday"}),
    ("no rows", {"limit": "0"}),
    ("too many rows", {"limit": "101"}),
    ("unknown parameter", {"form": "2026-02-01T00:00:00Z"}),
]


@pytest.mark.parametrize("query", [case[1] for case in PERIODS], ids=[case[0] for case in PERIODS])
def test_a_query_that_cannot_be_meant_is_refused(officer: str, query: dict[str, str]) -> None:
    """422, with the name of the parameter or a hint, and without the value."""
    answer = call("GET", LIST, token=officer, query=query)
    assert answer.status == 422
    assert "yesterday" not in answer.body.decode()


def test_thirteen_months_may_be_asked_for(officer: str) -> None:
    """But no more."""
    query = {"from": "2025-01-15T00:00:00Z", "to": "2026-02-15T00:00:00Z"}
    assert call("GET", LIST, token=officer, query=query).status == 200
