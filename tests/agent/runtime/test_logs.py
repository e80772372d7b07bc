"""The agent's log: structured, and free of personal data whatever is fed to it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbc_agent.runtime import logs
from sbc_agent.runtime.logs import Log

NUMBERS = (
    "+442079460123",
    "00442079460123",
    "020 7946 0123",
    "020.7946.0123",
    "020-7946-0123",
    "sip:+442079460123@192.0.2.7;user=phone",
    "tel:+1-555-010-0199",
    '"Alice Example" <sip:5550100001@198.51.100.15>',
    "5550100001@198.51.100.15",
    442079460123,
    5550100001,
)
FRAGMENTS = ("442079460123", "7946", "0100199", "5550100001", "Alice", "198.51")
FIGURES = {"bytes"}  # a size in bytes may have that many digits; nothing but a size is ever passed for it


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Log:
    return Log(stream=stream, level="debug", salt=b"s" * 32, clock=lambda: 1_790_000_000.5)


@pytest.fixture
def quiet_root() -> Iterator[None]:
    """Gives the root logger back as it was."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = before, level


def test_a_line_is_one_json_object_with_time_level_and_event(log: Log, stream: io.StringIO) -> None:
    """A line holds the time in UTC, the level, the event and the fields that were let in."""
    log.info("transfer", call="01J00000000000000000000000", object="part-00-000001.dtp", bytes=5, result="stored")
    assert json.loads(stream.getvalue()) == {
        "time": "2026-09-21T14:13:20.500Z",
        "level": "info",
        "event": "transfer",
        "call": "01J00000000000000000000000",
        "object": "part-00-000001.dtp",
        "bytes": 5,
        "result": "stored",
    }


@pytest.mark.parametrize("level", logs.LEVELS)
@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_passes_through_any_field_of_any_function(
    log: Log, stream: io.StringIO, level: str, number: object
) -> None:
    """Whatever field and whatever function a phone number is given to, it does not reach the line."""
    write = getattr(log, level)
    for field in [*logs.FIELDS, "caller", "aor"]:
        if field not in FIGURES or isinstance(number, str):
            write("event", **{field: number})
            write("event", **{field: [number]})
    write(str(number))
    assert not [fragment for fragment in FRAGMENTS if fragment in stream.getvalue()]
    assert logs.WITHHELD in stream.getvalue()


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_is_told_by_class_and_place_never_by_text(log: Log, stream: io.StringIO, number: object) -> None:
    """The text of an unexpected error, which may hold anything, stays out; its class and its way stay in."""
    try:
        int(f"cannot place {number}")
    except ValueError as error:
        log.failure("unexpected", error, reason=number)
    line = json.loads(stream.getvalue())
    assert line["error"] == "ValueError"
    assert line["where"][-1].startswith("test_logs.py:")
    assert not [fragment for fragment in FRAGMENTS if fragment in stream.getvalue()]


@pytest.mark.usefixtures("quiet_root")
@pytest.mark.parametrize("number", NUMBERS)
def test_libraries_log_without_their_message(log: Log, stream: io.StringIO, number: object) -> None:
    """A library's warning shows who warned and about which class of error, not what it wrote."""
    logs.capture_libraries(log)
    try:
        int(f"cannot place {number}")
    except ValueError:
        logging.getLogger("urllib3.connectionpool").warning("%s for %s", number, number, exc_info=True)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["state"], line["error"]) == (
        "library",
        "urllib3",
        "warning",
        "ValueError",
    )
    assert not [fragment for fragment in FRAGMENTS if fragment in stream.getvalue()]


def test_a_call_id_is_told_by_its_salted_hash(log: Log) -> None:
    """One Call-ID has one reference on one agent and another on every other agent; the reference may be logged."""
    call_id = "442079460123-1@198.51.100.15"
    reference = log.reference(call_id)
    assert reference == log.reference(call_id) != Log(salt=b"t" * 32).reference(call_id)
    assert not [fragment for fragment in FRAGMENTS if fragment in reference]


def test_a_reference_passes_its_field(log: Log, stream: io.StringIO) -> None:
    """The field ``sip`` takes a reference and withholds a Call-ID."""
    log.info("call", sip=log.reference("a@b"))
    log.info("call", sip="a@b")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["sip"] == log.reference("a@b")
    assert second["sip"] == logs.WITHHELD


def test_the_programs_own_words_pass(log: Log, stream: io.StringIO) -> None:
    """What preflight advises is told in full; a plain text in its place is not."""
    log.warning("preflight", message=logs.OwnWords("make room"))
    log.warning("preflight", message="make room")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["message"], second["message"]) == ("make room", logs.WITHHELD)


def test_alarms_are_counted(log: Log) -> None:
    """Events at level error are counted by name, whatever the level that is written."""
    log.error("uplink_refused")
    log.failure("uplink_refused", ValueError())
    log.warning("uplink_down")
    assert log.alarms == {"uplink_refused": 2}


def test_levels_below_the_chosen_one_are_silent(stream: io.StringIO) -> None:
    """A log at level warning writes warnings and errors only."""
    log = Log(stream=stream, level="warning")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["c", "d"]


def test_the_salt_is_drawn_once_and_private(tmp_path: Path) -> None:
    """The salt survives restarts, so that references do, and no other user can read it."""
    salt = logs.salt(tmp_path)
    assert len(salt) == 32
    assert logs.salt(tmp_path) == salt
    assert (tmp_path / "log.salt").stat().st_mode & 0o777 == 0o600


def test_what_a_stranger_can_cause_at_will_does_not_fill_the_disk() -> None:
    """Warnings and errors of one event are bounded; alarms count them all, and the next line those left out."""
    lines, now = io.StringIO(), 1_000.0
    log = Log(stream=lines, clock=lambda: now)
    for _ in range(1_000):
        log.error("ports_exhausted")
        log.info("call_began")
    events = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert (events.count("ports_exhausted"), events.count("call_began")) == (100, 1_000)
    assert log.alarms == {"ports_exhausted": 1_000}
    now += 1
    log.error("ports_exhausted")
    assert json.loads(lines.getvalue().splitlines()[-1])["left_out"] == 900
