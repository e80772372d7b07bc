"""What is taken into the ring and what is not: sources, SSRCs, payload types, and when anything is kept at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc_agent.media.sources import PROBATION, RELEARN_US, SILENCE_US
from tests.agent.media.feed import OTHER, PEER, Arrival, Line
from tests.agent.media.packets import packet, speech

EVER = 1 << 60
MS = 1_000


def talk(line: Line, sequences: range, *, at_us: int = 0, source: int = PEER, ssrc: int = 0x1234) -> None:
    for index, sequence in enumerate(sequences):
        line.send(sequence, speech(0, sequence), at_us + index * 20 * MS, source=source, ssrc=ssrc)


def sequences(line: Line) -> list[int]:
    return [sequence for sequence, _ in line.leave(EVER)]


def test_another_source_is_foreign_while_the_first_is_heard() -> None:
    """An attacker who sends to the port, with the right SSRC and next numbers, gets nothing in."""
    line = Line()
    for index in range(50):
        line.send(index, speech(0, index), index * 20 * MS)
        line.send(index + 1, b"\xaa" * 160, index * 20 * MS + 5 * MS, source=OTHER)
    line.intake.close_row(line.row)
    assert line.counted("foreign_source") == 50
    assert line.leave(EVER) == [(index, speech(0, index)) for index in range(50)]


def test_a_source_that_takes_over_without_notice_loses_nothing() -> None:
    """A relay moves to another port with the same SSRC: its packets wait until it is believed, and all are kept."""
    line = Line()
    talk(line, range(10))
    talk(line, range(10, 30), at_us=200 * MS, source=OTHER)
    assert sequences(line) == list(range(30))
    assert line.counted("foreign_source") == 0


def test_a_source_is_believed_at_once_after_a_re_invite() -> None:
    line = Line()
    talk(line, range(10))
    line.intake.expect_change(line.row, 200 * MS)
    line.send(10, speech(0, 10), 201 * MS, source=OTHER)
    line.send(11, b"\xaa" * 160, 202 * MS)
    assert sequences(line) == list(range(11))
    line.intake.close_row(line.row)
    assert line.counted("foreign_source") == 1


def test_a_re_invite_is_forgotten_after_a_while() -> None:
    line = Line()
    line.intake.expect_change(line.row, 0)
    talk(line, range(10), at_us=RELEARN_US)
    line.send(10, b"\xaa" * 160, RELEARN_US + 190 * MS, source=OTHER)
    assert sequences(line) == list(range(10))


def test_a_source_is_believed_at_once_when_the_other_fell_silent() -> None:
    line = Line()
    talk(line, range(10))
    line.send(10, speech(0, 10), 180 * MS + SILENCE_US, source=OTHER)
    assert sequences(line) == list(range(11))


def test_probation_needs_packets_of_one_source_in_a_row() -> None:
    """Sources that take turns are never believed while the locked one speaks between their packets."""
    line = Line()
    talk(line, range(3))
    for index in range(PROBATION - 1):
        line.send(3 + index, b"\xaa" * 160, 60 * MS + index, source=OTHER)
    talk(line, range(3, 6), at_us=70 * MS)
    for index in range(PROBATION - 1):
        line.send(6 + index, b"\xaa" * 160, 130 * MS + index, source=OTHER)
    talk(line, range(6, 9), at_us=140 * MS)
    line.intake.close_row(line.row)
    assert sequences(line) == list(range(9))
    assert line.counted("foreign_source") == 2 * (PROBATION - 1)


def test_an_ssrc_change_of_the_locked_source_is_taken_at_once() -> None:
    """Numbers and timestamps begin anew; packets of the old SSRC that were overtaken still find their place."""
    line = Line()
    talk(line, range(100, 110), ssrc=1)
    talk(line, range(5, 8), at_us=240 * MS, ssrc=2)
    line.send(110, speech(0, 110), 300 * MS, ssrc=1)
    talk(line, range(8, 10), at_us=320 * MS, ssrc=2)
    slots = line.ring.held(line.row)
    assert line.ring.ssrc[slots].tolist() == [1] * 11 + [2] * 5
    assert sequences(line) == [*range(100, 111), *range(5, 10)]
    assert line.counted("foreign_source") == 0


def test_two_ssrcs_that_take_turns_are_both_kept() -> None:
    line = Line()
    for index in range(200):
        line.send(1_000 + index, speech(0, index), index * 20 * MS, ssrc=1)
        line.send(5_000 + index, speech(1, index), index * 20 * MS + MS, ssrc=2)
        line.leave(index * 20 * MS - 1_000 * MS)
    assert line.counted("stored") == 400


@pytest.mark.parametrize("restart", [60_000, 100, 150], ids=["far", "within what was sent", "just ahead"])
def test_a_sender_that_begins_anew_under_its_ssrc_goes_on_being_kept(restart: int) -> None:
    """Numbers jump while the SSRC stays: the stream goes on, at most one packet is given up as late."""
    line = Line()
    for index in range(400):
        line.send(index, speech(0, index), index * 20 * MS, timestamp=index * 160)
        line.leave(index * 20 * MS - 5_000 * MS)
    for index in range(100):
        at_us = (400 + index) * 20 * MS
        line.send(restart + index, speech(1, index), at_us, timestamp=1_000_000_000 + index * 160)
        line.leave(at_us - 5_000 * MS)
    assert line.counted("stored") + line.counted("late") == 500
    assert line.counted("late") <= 1


@pytest.mark.parametrize("hold_back_ms", [1_000, 5_000])
def test_a_sender_that_begins_anew_with_the_very_same_numbers_is_no_copy(hold_back_ms: int) -> None:
    """Capture 22: after a codec change an SBC sends SSRC, sequence numbers and timestamps from the first on again."""
    line, left = Line(hold_back_ms), []
    for start_us, voice in ((0, 0), (5_000 * MS, 1)):
        for index in range(200):
            at_us = start_us + index * 20 * MS
            line.send(1000 + index, speech(voice, index), at_us, timestamp=16_000 + index * 160)
            left += line.leave(at_us - hold_back_ms * MS)
    left += line.leave(EVER)
    assert left == [(1000 + index, speech(voice, index)) for voice in range(2) for index in range(200)]
    assert (line.counted("duplicates"), line.counted("late")) == (0, 0)


@pytest.mark.parametrize("below", [1, 30, 63])
def test_a_new_beginning_a_little_below_the_first_number_is_not_put_before_it(below: int) -> None:
    """What was said last stays last, and nothing waits in the ring for it."""
    line = Line(hold_back_ms=1_000)
    talk(line, range(1_000, 1_100))
    talk(line, range(1_000 - below, 1_100 - below), at_us=4_000 * MS)
    left = [sequence for sequence, _ in line.leave(4_000 * MS - 1)]
    assert left == list(range(1_000, 1_100))
    assert sequences(line) == list(range(1_000 - below, 1_100 - below))
    assert (line.counted("late"), line.counted("reordered"), line.counted("duplicates")) == (0, 0, 0)


def test_a_single_packet_astray_is_late() -> None:
    line = Line()
    talk(line, range(1_000, 1_100))
    line.send(990, b"\xaa" * 160, 2_000 * MS)
    talk(line, range(1_100, 1_200), at_us=2_020 * MS)
    line.intake.close_row(line.row)
    assert sequences(line) == list(range(1_000, 1_200))
    assert line.counted("late") == 1


def test_a_copy_within_a_second_is_one() -> None:
    """What the network doubled is kept once."""
    line = Line()
    for index in range(100):
        line.send(index, speech(0, index), index * 20 * MS, timestamp=index * 160)
        line.send(index, speech(0, index), index * 20 * MS + 900 * MS * (index % 2), timestamp=index * 160)
    assert sequences(line) == list(range(100))
    assert line.counted("duplicates") == 100


@pytest.mark.parametrize("payload_type", [101, 96, 127])
def test_telephone_events_are_counted_and_never_stored(payload_type: int) -> None:
    """Negotiated or not, with another SSRC or not: no digit ever lies in the ring."""
    line = Line()
    talk(line, range(10))
    for index, ssrc in enumerate((0x1234, 0x9999)):
        line.send(10 + index, b"\x05\x8a\x03\x20", 200 * MS, payload_type=payload_type, ssrc=ssrc)
    talk(line, range(12, 14), at_us=220 * MS)
    assert line.counted("events_suppressed") == 2
    assert b"\x05\x8a\x03\x20" not in line.ring.bytes.tobytes()
    assert sequences(line) == [*range(10), 12, 13]


def test_other_codecs_and_comfort_noise_are_kept_raw() -> None:
    line = Line()
    for sequence, (payload_type, payload) in enumerate(
        [(111, b"opus" * 30), (13, b"\x40"), (9, b"\x11" * 160), (111, b"o" * 1_275), (0, b"\xff" * 240), (8, b"")]
    ):
        line.send(sequence, payload, sequence * 20 * MS, payload_type=payload_type)
    assert [payload for _, payload in line.leave(EVER)] == [
        b"opus" * 30, b"\x40", b"\x11" * 160, b"o" * 1_275, b"\xff" * 240, b"",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("no RTP at all", b"hello"),
        ("empty", b""),
        ("version 1", packet(3, b"x" * 160, first=0x40)),
        ("CSRCs beyond the end", packet(3, b"x" * 8, first=0x8F)),
        ("extension beyond the end", packet(3, b"", first=0x90, options=b"\xbe\xde\x00\x10")),
        ("padding beyond the payload", packet(3, b"\xff" * 8, first=0xA0)),
        ("padding of none", packet(3, b"\x00" * 8, first=0xA0)),
        ("a payload type that nobody explained", packet(3, b"x" * 33, payload_type=98)),
    ],
)
def test_what_is_no_audio_is_counted_and_dropped(name: str, data: bytes) -> None:
    line = Line()
    talk(line, range(3))
    line.take([Arrival(0, data, 60 * MS)])
    talk(line, range(3, 5), at_us=80 * MS)
    assert line.counted("malformed") == 1, name
    assert sequences(line) == list(range(5))


@pytest.mark.parametrize("kind", range(192, 224))
def test_rtcp_on_the_rtp_port_is_counted_and_dropped(kind: int) -> None:
    """RFC 5761 section 4: a second byte of 192 to 223 is RTCP's, never RTP's."""
    line = Line()
    talk(line, range(3))
    for first, size in ((0x80, 4), (0x81, 28), (0x9F, 28)):
        line.take([Arrival(0, bytes([first, kind, 0, 6]) + bytes(size), 60 * MS)])
    talk(line, range(3, 5), at_us=80 * MS)
    assert (line.counted("rtcp"), line.counted("malformed")) == (3, 0)
    assert sequences(line) == list(range(5))


def test_options_of_the_header_are_passed_over() -> None:
    """CSRCs, an extension and padding stand around the payload; the payload alone is kept."""
    line = Line()
    payload = speech(0, 1)
    for sequence, data in enumerate(
        [
            packet(0, payload),
            packet(1, payload, first=0x82, options=bytes(8)),
            packet(2, payload, first=0x90, options=b"\xbe\xde\x00\x01abcd"),
            packet(3, payload + b"\x00\x00\x00\x04", first=0xA0),
            packet(4, payload + b"\x01", first=0xB1, options=bytes(4) + b"\xbe\xde\x00\x00"),
        ]
    ):
        line.take([Arrival(0, data, sequence * 20 * MS)])
    assert line.leave(EVER) == [(sequence, payload) for sequence in range(5)]


def test_nothing_is_kept_outside_its_time() -> None:
    """What arrived before the answer, or while the stream was inactive, is dropped by its arrival, not by ours."""
    line = Line()
    line.intake.keep_from_us[line.row], line.intake.keep_until_us[line.row] = 100 * MS, 200 * MS
    talk(line, range(20))
    assert sequences(line) == [5, 6, 7, 8, 9, 10]
    assert line.counted("dropped") == 14


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=80),
            st.sampled_from([PEER, OTHER]),
            st.integers(0, 40),
            st.sampled_from([b"", b"\x80\x08", b"\x90\x08", b"\xb3\x08", b"\x80\x65"]),
        ),
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_no_datagrams_whatever_upset_it(datagrams: list[tuple[bytes, int, int, bytes]], drain: int) -> None:
    """Every datagram is counted exactly once, and what is stored leaves once."""
    line, now_us, left = Line(hold_back_ms=100), 0, 0
    for begin in range(0, len(datagrams), drain):
        batch = []
        for data, source, pause_ms, head in datagrams[begin : begin + drain]:
            now_us += pause_ms * MS
            batch.append(Arrival(0, head + data, now_us, source))
        line.take(batch)
        left += len(line.leave(now_us - 100 * MS))
    line.intake.close_row(line.row)
    counts = line.intake.counters.of(line.row)
    assert sum(counts.values()) - counts["reordered"] == len(datagrams)
    assert left + len(line.leave(EVER)) == counts["stored"]
