"""Audio by ranges: exactly the bytes asked for, of exactly the seconds that were put on record first."""

from __future__ import annotations

import pytest

from dualtone.adapters import clock, wiring
from tests.adapters.api import recordings
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import Answer, call
from tests.adapters.api.recordings import Made

AUDIO = "/v1/recordings/{recording_id}/audio"
MOST = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def large(cloud: object) -> Made:
    """Seventy seconds of 65 kB each: more than one answer may hold."""
    return recordings.make("acme", clock.now_ms() - 7_200_000, seconds=70, page_bytes=65_000)


def play(made: Made, token: str, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return call("GET", AUDIO, path={"recording_id": made.recording_id}, token=token, headers=fields)


# Of a file of N bytes: Range, first byte, last byte (both as functions of N).
SATISFIABLE: list[tuple[str, str, int, int]] = [
    ("from the start", "bytes=0-99", 0, 99),
    ("one byte", "bytes=0-0", 0, 0),
    ("the last byte", "bytes=-1", -1, -1),
    ("within", "bytes=150-420", 150, 420),
    ("open-ended", "bytes=300-", 300, -1),
    ("everything", "bytes=0-", 0, -1),
    ("a suffix", "bytes=-200", -200, -1),
    ("a suffix longer than the file", "bytes=-99999", 0, -1),
    ("beyond the end", "bytes=100-99999", 100, -1),
    ("spaces", "bytes= 10-20", 10, 20),
    ("capitals", "Bytes=10-20", 10, 20),
    ("of several, the first", "bytes=5-9, 20-29", 5, 9),
    ("of several, the first that exists", "bytes=99999-, 20-29", 20, 29),
]


@pytest.mark.parametrize(
    ("field", "first", "last"), [row[1:] for row in SATISFIABLE], ids=[row[0] for row in SATISFIABLE]
)
def test_a_range_is_answered_with_206(officer: str, recording: Made, field: str, first: int, last: int) -> None:
    """REQ: RFC 9110 section 15.3.7: Content-Range tells which bytes; they are those of the file."""
    size = len(recording.file)
    first, last = first % size, last % size
    answer = play(recording, officer, Range=field)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert answer.body == recording.file[first : last + 1]
    assert answer.headers["ETag"] == recording.etag
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "audio/ogg; codecs=opus"


# REQ: RFC 9110 section 14.2: an unknown unit is ignored, and so may be an invalid ranges-specifier.
IGNORED = [
    "",
    "bytes",
    "bytes=",
    "bytes=9-5",
    "bytes=a-b",
    "bytes=-",
    "bytes=5",
    "seconds=0-1",
    "bytes=0-1;2-3",
    "bytes=1-2, x",
]


@pytest.mark.parametrize("field", IGNORED)
def test_what_is_no_range_is_ignored(officer: str, recording: Made, field: str) -> None:
    """The whole file, since it is small."""
    answer = play(recording, officer, Range=field)
    assert (answer.status, answer.body) == (200, recording.file)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("field", ["bytes=99999-", "bytes=99999-100000", "bytes=-0", "bytes=99999-, -0"])
def test_a_range_beyond_the_end_is_416(officer: str, recording: Made, field: str) -> None:
    """REQ: RFC 9110 section 15.5.17: with the size of the file."""
    answer = play(recording, officer, Range=field)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(recording.file)}"
    assert answer.json["total_bytes"] == len(recording.file)


@pytest.mark.parametrize(
    ("validator", "status"),
    [("{etag}", 206), ('"other"', 200), ("W/{etag}", 200), ("Tue, 24 Nov 2026 10:00:00 GMT", 200)],
)
def test_if_range_asks_for_the_same_file(officer: str, recording: Made, validator: str, status: int) -> None:
    """REQ: RFC 9110 section 13.1.5: by strong comparison; otherwise the whole file."""
    answer = play(recording, officer, Range="bytes=0-9", If_Range=validator.format(etag=recording.etag))
    assert answer.status == status


def test_without_a_range_a_large_recording_says_to_send_one(officer: str, large: Made) -> None:
    """A problem that names Range, with the sizes."""
    answer = play(large, officer)
    assert answer.status == 413
    assert answer.json["type"] == "urn:dualtone:problem:range-required"
    assert "Range: bytes=0-4194303" in answer.json["detail"]
    assert (answer.json["total_bytes"], answer.json["most_bytes"]) == (len(large.file), MOST)


def test_a_large_recording_is_read_by_open_ended_ranges(officer: str, large: Made) -> None:
    """Each answer is shortened to 4 MiB; following Content-Range gives the file."""
    parts, position = [], 0
    while position < len(large.file):
        answer = play(large, officer, Range=f"bytes={position}-")
        assert answer.status == 206
        assert len(answer.body) <= MOST
        parts.append(answer.body)
        position += len(answer.body)
    assert len(parts) == 2
    assert b"".join(parts) == large.file


def test_a_client_that_says_nothing_of_what_it_accepts_gets_audio(officer: str, recording: Made) -> None:
    """No Accept field, or one that does not name Ogg: there is one representation, and it is sent."""
    for accept in ({}, {"Accept": "audio/*"}, {"accept": "application/json"}):
        assert play(recording, officer, **accept).status == 200


def test_exactly_the_seconds_that_leave_are_on_record(officer: str, recording: Made, trail: AuditTrail) -> None:
    """The event names bytes, and the time of the segments that they touch."""
    offsets = recording.page_offsets
    play(recording, officer, Range=f"bytes={offsets[2]}-{offsets[3]}")
    play(recording, officer, Range=f"bytes=0-{offsets[0] - 1}")
    play(recording, officer)
    first, headers_only, whole = trail.new()
    assert first["details"] == {"bytes": [offsets[2], offsets[3]], "span_ms": [2000, 4000]}
    assert headers_only["details"] == {"bytes": [0, offsets[0] - 1]}
    assert whole["details"]["span_ms"] == [0, 5000]
    assert {event["which"] for event in (first, headers_only, whole)} == {recording.recording_id}
    assert {event["outcome"] for event in (first, headers_only, whole)} == {"granted"}


def test_what_cannot_be_opened_is_on_record_as_asked_for_and_failed(
    officer: str, cloud: object, trail: AuditTrail
) -> None:
    """The keys are gone: the event of the release stands, a second one says that it failed, and no byte left."""
    made = recordings.make("acme", clock.now_ms() - 5_000_000)
    wiring.dynamodb().delete_item(
        TableName=wiring.settings().keys_table,
        Key={"pk": {"S": f"acme#{made.recording_id}"}, "sk": {"S": "v#0001"}},
    )
    trail.new()
    assert play(made, officer).status == 404
    assert sorted(event["outcome"] for event in trail.new()) == ["granted", "not-found"]


def test_a_changed_object_is_never_played(officer: str, cloud: object) -> None:
    """The row points at other bytes: an integrity problem that says nothing more, whatever the range."""
    made = recordings.make("acme", clock.now_ms() - 5_500_000)
    row = {"pk": {"S": f"acme#rec#{made.recording_id}"}, "sk": {"S": "rec"}}
    table = wiring.settings().index_table
    item = wiring.dynamodb().get_item(TableName=table, Key=row)["Item"]
    settings, s3 = wiring.settings(), wiring.s3()
    sealed = s3.get_object(Bucket=settings.vault_bucket, Key=item["vault_key"]["S"])["Body"].read()
    changed = sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:]
    version = s3.put_object(Bucket=settings.vault_bucket, Key=item["vault_key"]["S"], Body=changed)["VersionId"]
    wiring.dynamodb().put_item(TableName=table, Item=item | {"vault_version_id": {"S": version}})
    answer = play(made, officer, Range="bytes=-10")
    assert answer.status == 500
    assert answer.json["type"] == "urn:dualtone:problem:integrity"
    assert "detail" not in answer.json
