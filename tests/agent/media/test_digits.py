"""Telephone events: each press is told once, whatever a network does to its packets, and nothing of it is stored."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.media import digits
from sbc_agent.media.clock import FOREVER
from sbc_agent.media.digits import KEYS, TelephoneEvent
from tests.agent.media.dial import event
from tests.agent.media.feed import OTHER, Arrival, Line
from tests.agent.media.packets import packet

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"
SENDER = 0x1234
MS_20 = 20_000


def press(line: Line, code: int, timestamp: int, sequence: int, *, updates: int = 5, at_us: int = 0) -> int:
    """A whole press as section 2.5 has it: updates, then the end three times; returns the next sequence number."""
    for index in range(updates + 3):
        is_end = index >= updates
        payload = event(code, 160 * min(index + 1, updates + 1), is_end=is_end)
        line.send(sequence, payload, at_us + MS_20 * index, payload_type=101, timestamp=timestamp)
        sequence += 1
    return sequence


def keys(line: Line) -> str:
    return "".join(one.key for one in line.intake.presses.taken())


@pytest.mark.parametrize("code", range(16))
def test_every_key_has_its_code(code: int) -> None:
    """RFC 4733 section 3.2, table 3."""
    told = digits.event(event(code, 400, is_end=True), 8_000)
    assert told is not None
    assert (told.key, told.is_end, told.duration, told.timestamp) == (KEYS[code], True, 400, 8_000)


@pytest.mark.parametrize("code", [16, 32, 64, 255])
def test_what_is_no_key_is_none(code: int) -> None:
    """A hook flash and the tones of fax machines are events, and no presses."""
    told = digits.event(event(code, 400), 0)
    assert told is not None
    assert told.key is None


@given(st.binary(max_size=3))
def test_what_is_too_short_is_no_event(payload: bytes) -> None:
    """An event has four octets."""
    assert digits.event(payload, 0) is None


def test_a_press_is_told_once_at_its_first_packet() -> None:
    """Updates and the three copies of the end have one timestamp; none of them is stored."""
    line = Line()
    sequence = press(line, 4, 1_000, 0, at_us=70_000)
    press(line, 4, 9_000, sequence, at_us=1_000_000)
    first, second = line.intake.presses.taken()
    assert (first.key, first.at_us, second.key, second.at_us) == ("4", 70_000, "4", 1_000_000)
    assert (line.counted("events_suppressed"), line.counted("stored"), line.leave(FOREVER)) == (16, 0, [])


@pytest.mark.parametrize("lost", [range(5), range(5, 8), (0, 2, 4, 6, 7), range(7)])
def test_a_press_is_told_by_whichever_of_its_packets_come(lost: tuple[int, ...]) -> None:
    """Its beginning, its end, or all but one may be lost."""
    line = Line()
    for index in range(8):
        if index not in lost:
            payload = event(7, 160 * index, is_end=index >= 5)
            line.send(index, payload, MS_20 * index, payload_type=101, timestamp=4_000)
    assert keys(line) == "7"


def test_copies_and_stragglers_of_earlier_presses_tell_nothing() -> None:
    """A network repeats and reorders: the end of the last press may come behind the next one's beginning."""
    line = Line()
    for round_ in range(2):
        for timestamp, code in ((1_000, 1), (3_000, 2), (1_000, 1), (5_000, 1), (3_000, 2), (1_000, 1)):
            line.send(round_, event(code, 160), MS_20 * round_, payload_type=101, timestamp=timestamp)
    assert keys(line) == "121"


def test_a_press_in_segments_is_one() -> None:
    """Section 2.5.1.3: past 0xFFFF units of duration a key that is still held goes on under a later timestamp."""
    line = Line()
    for segment in range(3):
        line.send(segment, event(9, 0xFFFF), MS_20 * segment, payload_type=101, timestamp=1_000 + 0xFFFF * segment)
    line.send(4, event(9, 400, is_end=True), 100_000, payload_type=101, timestamp=1_000 + 0xFFFF * 3)
    assert keys(line) == "9"


def test_timestamps_that_wrap_part_presses_as_others_do() -> None:
    """Modulo 2**32."""
    line = Line()
    for index, timestamp in enumerate((0xFFFF_FF00, 0x0000_0800)):
        press(line, 3, timestamp, 10 * index)
    assert keys(line) == "33"


def test_each_ssrc_counts_for_itself() -> None:
    """The same timestamp under another source is another press."""
    line = Line()
    for ssrc in (SENDER, 0x9999):
        line.send(0, event(5, 160), 0, payload_type=101, timestamp=1_000, ssrc=ssrc)
    assert keys(line) == "55"


def test_events_of_a_stranger_are_not_heard() -> None:
    """Who can send to the port could else stop a recording; they are not stored either."""
    line = Line()
    line.send(0, bytes(160), 0)
    line.send(1, event(5, 160), MS_20, payload_type=101, timestamp=1_000, source=OTHER)
    line.send(1, event(6, 160), MS_20, payload_type=101, timestamp=1_000)
    assert keys(line) == "6"
    assert [number for number, _ in line.leave(FOREVER)] == [0]


def test_events_that_nobody_negotiated_are_heard_too() -> None:
    """A dynamic type that nothing explains, with four octets, looks like one."""
    line = Line()
    line.send(0, event(8, 160), 0, payload_type=97, timestamp=1_000)
    assert keys(line) == "8"


def test_a_captured_press_is_heard_as_it_was_made() -> None:
    """Of a real SBC: under another source than the speech, with a type that nobody offered."""
    capture = json.loads(gzip.decompress((CAPTURES / "24-dtmf.siprec.json.gz").read_bytes()))
    pressed = []
    for stream in capture["dialogs"][0]["streams"]:
        line = Line()
        line.intake.explain(line.row, [(8, "PCMA"), (96, "telephone-event")])
        for at_ms, coded in stream["rtp"]:
            line.take([Arrival(0, base64.b64decode(coded), round(1_000 * at_ms))])
        pressed += [(stream["label"], one.key) for one in line.intake.presses.taken()]
    assert pressed == [("1", "5")]


def test_what_comes_in_a_pause_says_so() -> None:
    """A key that is pressed while nothing is kept may still say yes or no to the recording, and is no card's digit."""
    line = Line()
    line.send(0, event(1, 160), 0, payload_type=101, timestamp=1_000)
    line.intake.keep_until_us[line.row] = 10_000
    line.send(1, event(2, 160), MS_20, payload_type=101, timestamp=3_000)
    assert [(one.key, one.is_kept) for one in line.intake.presses.taken()] == [("1", True), ("2", False)]


# -- redundant packets (RFC 2198) ------------------------------------------------------------------------------------


def redundant(primary: tuple[int, bytes], *earlier: tuple[int, int, bytes]) -> bytes:
    """A payload as section 3 lays it out: heads of earlier blocks (type, offset, octets), head and octets of this."""
    heads = b"".join(
        struct.pack(">I", 0x8000_0000 | kind << 24 | offset << 10 | len(octets)) for kind, offset, octets in earlier
    )
    return heads + bytes([primary[0]]) + b"".join(octets for *_, octets in earlier) + primary[1]


@pytest.fixture
def red() -> Line:
    line = Line()
    line.intake.explain(line.row, [(8, "PCMA"), (101, "telephone-event"), (121, "red")])
    return line


def test_events_in_redundant_packets_are_told_once_each(red: Line) -> None:
    """Three presses, each repeated as the history of the next, the first of them lost by itself."""
    history = [(5_000, 4), (7_000, 1), (9_000, 1)]
    for index in (1, 2):
        now, _ = history[index]
        earlier = [(101, now - at, event(code, 400, is_end=True)) for at, code in history[:index]]
        payload = redundant((101, event(history[index][1], 400)), *earlier)
        red.send(index, payload, MS_20 * index, payload_type=121, timestamp=now)
    assert keys(red) == "411"
    assert (red.counted("stored"), red.counted("events_suppressed")) == (0, 2)


def test_redundant_audio_is_kept_unless_it_carries_an_event(red: Line) -> None:
    """What a block is decides, in whichever place."""
    audio = bytes(160)
    red.send(0, redundant((8, audio), (8, 160, audio)), 0, payload_type=121, timestamp=160)
    red.send(1, redundant((8, audio), (101, 160, event(5, 160))), MS_20, payload_type=121, timestamp=320)
    assert [number for number, _ in red.leave(FOREVER)] == [0]
    assert keys(red) == "5"


@pytest.mark.parametrize("payload", [b"", b"\xe5", b"\xe5\x00\x28\x04", b"\xe5\x00\x28\xff\x65\x05"])
def test_redundant_packets_that_cannot_be_read_are_not_kept(red: Line, payload: bytes) -> None:
    """They may hold an event."""
    red.send(0, payload, 0, payload_type=121, timestamp=160)
    assert red.leave(FOREVER) == []


@given(st.binary(max_size=64), st.integers(0, 0xFFFFFFFF))
def test_whatever_comes_as_redundant_is_read_or_passed_over(payload: bytes, timestamp: int) -> None:
    """No octets raise anything, and no block is longer than the packet."""
    for kind, at, octets in digits.redundant(payload, timestamp):
        assert kind < 128
        assert 0 <= at <= 0xFFFFFFFF
        assert len(octets) < len(payload)


@given(
    st.lists(st.tuples(st.integers(0, 15), st.permutations(list(range(8))), st.integers(1, 8)), min_size=1, max_size=12)
)
def test_however_packets_are_lost_and_reordered_within_a_press_the_keys_are_those(
    presses: list[tuple[int, list[int], int]],
) -> None:
    """Any order, any copies, any losses but all: one press, one key."""
    line = Line()
    sequence = 0
    for index, (code, order, some) in enumerate(presses):
        arrivals = []
        for one, _copy in product(order[:some], range(2)):
            data = packet(
                sequence + one,
                event(code, 160 * one, is_end=one > 4),
                timestamp=4_000 * index,
                payload_type=101,
                ssrc=SENDER,
            )
            arrivals.append(Arrival(0, data, MS_20 * (sequence + one)))
        line.take(arrivals)
        sequence += 8
    assert keys(line) == "".join(KEYS[code] for code, *_ in presses)


def test_no_text_shows_a_key() -> None:
    """Representations leave out what was pressed."""
    line = Line()
    line.send(0, event(5, 160), 0, payload_type=101, timestamp=1_000)
    (told,) = line.intake.presses.taken()
    assert "5" not in repr(told).replace(str(told.at_us), "")
    assert (
        repr(TelephoneEvent(1, 5, is_end=False, duration=2)) == "TelephoneEvent(timestamp=1, is_end=False, duration=2)"
    )
