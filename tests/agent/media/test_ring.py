"""The ring: whatever the network does within the hold-back, each packet leaves once, in order, when it is due."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc_agent.media.ring import WIDEST_PACKET
from tests.agent.media.feed import Arrival, Line
from tests.agent.media.packets import packet, speech

EVER = 1 << 60


@dataclass(frozen=True)
class Weather:
    """What a network does to a run of packets: delay of each in packet times, which ones come twice or never."""

    first: int
    packet_time_ms: int
    delays: list[int]
    twice: list[bool]
    never: list[bool]
    drain_every: int


@st.composite
def weathers(draw: st.DrawFn) -> Weather:
    count = draw(st.integers(1, 120))
    return Weather(
        draw(st.one_of(st.integers(0, 0xFFFF), st.integers(0xFFFF - 60, 0xFFFF))),
        draw(st.sampled_from([10, 20, 30, 40, 50, 60])),
        draw(st.lists(st.integers(0, 30), min_size=count, max_size=count)),
        draw(st.lists(st.booleans(), min_size=count, max_size=count)),
        draw(st.lists(st.sampled_from([False, False, False, True]), min_size=count, max_size=count)),
        draw(st.integers(1, 40)),
    )


@settings(max_examples=150, deadline=None)
@given(weathers())
def test_each_packet_leaves_once_and_in_order(weather: Weather) -> None:
    """Any reordering, duplication and loss within the window: what came leaves once, in order, with its own bytes."""
    line, step_us = Line(), weather.packet_time_ms * 1000
    size = weather.packet_time_ms * 8
    network = []
    for index, (delay, twice, never) in enumerate(zip(weather.delays, weather.twice, weather.never, strict=True)):
        data = packet(weather.first + index, speech(1, index, size), timestamp=index * size)
        copies = 0 if never and index else 1 + twice
        network += [((index + delay * bool(index) + 3 * copy) * step_us, index, data) for copy in range(copies)]
    network.sort(key=lambda entry: entry[:2])
    for begin in range(0, len(network), weather.drain_every):
        line.take([Arrival(0, data, at_us) for at_us, _, data in network[begin : begin + weather.drain_every]])
    expected = [index for index in range(len(weather.delays)) if index == 0 or not weather.never[index]]
    assert line.leave(EVER) == [((weather.first + index) & 0xFFFF, speech(1, index, size)) for index in expected]
    assert line.counted("stored") == len(expected)
    assert line.counted("duplicates") == sum(weather.twice[index] for index in expected)
    assert line.counted("overflowed") == line.counted("late") == line.counted("foreign_source") == 0
    assert line.leave(EVER) == []


@pytest.mark.parametrize("packet_time_ms", [10, 20, 30, 40, 50, 60])
def test_the_hold_back_holds_at_every_packet_time(packet_time_ms: int) -> None:
    """Over 20 s nothing leaves before its time, nothing due stays for the next second, nothing is lost."""
    line, left = Line(), []
    count = 20_000 // packet_time_ms
    for index in range(count):
        now_us = index * packet_time_ms * 1000
        line.send(index, speech(0, index, packet_time_ms * 8), now_us)
        if now_us // 1_000_000 > (now_us - packet_time_ms * 1000) // 1_000_000:
            left += line.leave(now_us - 5_000_000)
            due = (now_us - 5_000_000) // (packet_time_ms * 1000) + 1
            assert len(left) == max(due, 0)
    left += line.leave(EVER)
    assert left == [(index, speech(0, index, packet_time_ms * 8)) for index in range(count)]


@pytest.mark.parametrize("times", [(20, 60, 20), (10, 40), (60, 10), (30, 20, 50, 10)])
def test_the_packet_time_may_change_in_mid_call(times: tuple[int, ...]) -> None:
    """Rows are laid out anew while packets of another size are still held."""
    line, now_us = Line(), 0
    left: list[tuple[int, bytes]] = []
    sent: list[tuple[int, bytes]] = []
    for packet_time_ms in times:
        for _ in range(8_000 // packet_time_ms):
            payload = speech(0, len(sent), packet_time_ms * 8)
            line.send(len(sent), payload, now_us)
            sent.append((len(sent), payload))
            now_us += packet_time_ms * 1000
            left += line.leave(now_us - 5_000_000)
    left += line.leave(EVER)
    assert left == sent
    assert line.counted("overflowed") == 0


def test_no_packet_overtakes_one_that_must_stay() -> None:
    """A packet that came late in order holds back those behind it, not those before it."""
    line = Line()
    for sequence, at_us in ((1, 0), (2, 20_000), (4, 60_000), (3, 900_000), (5, 80_000)):
        line.send(sequence, speech(0, sequence), at_us)
    assert [sequence for sequence, _ in line.leave(500_000)] == [1, 2]
    assert [sequence for sequence, _ in line.leave(900_000)] == [3, 4, 5]


def test_what_comes_after_its_turn_is_late_and_what_left_already_is_a_duplicate() -> None:
    line = Line()
    for sequence in (1, 2, 4):
        line.send(sequence, speech(0, sequence), sequence * 20_000)
    assert len(line.leave(EVER)) == 3
    line.send(3, speech(0, 3), 100_000)
    line.send(4, speech(0, 4), 120_000)
    line.intake.close_row(line.row)
    assert (line.counted("late"), line.counted("duplicates"), line.leave(EVER)) == (1, 1, [])


def test_packets_of_a_span_can_be_blanked() -> None:
    """What arrived within a span is gone from memory; the rest leaves as if it had never been."""
    line = Line()
    for sequence in range(10):
        line.send(sequence, bytes([sequence + 1]) * 160, sequence * 20_000)
    assert line.ring.blank(line.row, 60_000, 100_000) == 3
    assert not {4, 5, 6} & set(line.ring.bytes.tolist())
    assert [sequence for sequence, _ in line.leave(EVER)] == [0, 1, 2, 6, 7, 8, 9]


def test_a_cleared_row_holds_nothing_of_its_stream() -> None:
    line = Line()
    for sequence in range(40):
        line.send(sequence, b"\x55" * (160 if sequence < 20 else 1_200), sequence * 20_000)
    line.ring.clear_row(line.row)
    assert 0x55 not in line.ring.bytes
    assert line.ring.held(line.row).size == 0


def test_neighbouring_rows_are_left_alone() -> None:
    """A row's packets, however large, stay in its row."""
    line = Line()
    for sequence in range(700):
        line.send(sequence, b"\x55" * (160, 480, 1_500)[sequence % 3], sequence * 9_000)
        line.leave(sequence * 9_000 - 5_000_000)
    for row in (0, 2):
        assert line.ring.held(row).size == 0
        begin = row * line.ring._row_bytes
        assert 0x55 not in line.ring.bytes[begin : begin + line.ring._row_bytes]


def test_a_packet_that_no_row_can_hold_is_counted() -> None:
    line = Line(hold_back_ms=0)
    for sequence in range(0, 2_000, 2):
        line.send(sequence, speech(0, sequence), 1_000 + sequence)
    kept = line.counted("stored")
    assert kept + line.counted("overflowed") == 1_000
    assert line.counted("overflowed") > 0
    assert len(line.leave(EVER)) == kept
    assert np.max(line.ring.size) <= WIDEST_PACKET


def test_a_long_loss_does_not_stop_what_follows() -> None:
    """A gap larger than one pass looks at: what came after it leaves when it is due, not before."""
    line = Line()
    line.send(0, speech(0, 0), 0)
    for sequence in range(300, 310):
        line.send(sequence, speech(0, sequence), sequence * 20_000)
    assert [sequence for sequence, _ in line.leave(6_000_000)] == [0, 300]
    assert [sequence for sequence, _ in line.leave(6_060_000)] == [301, 302, 303]


@pytest.mark.parametrize("lost", [300, 800, 2_000])
def test_what_leaves_next_is_seen_before_however_long_a_loss_is_before_it(lost: int) -> None:
    """A pause of half a minute is a loss of 1,500 numbers: the tones behind it are looked for like any."""
    line = Line()
    for sequence in (0, 1, *range(lost, lost + 150)):
        line.send(sequence, speech(0, sequence), sequence * 20_000)
    until_us = (lost + 120) * 20_000
    for _ in range(2):
        position, slots = line.ring.ahead(np.array([0, line.row, 2]), until_us)
        assert set(position.tolist()) <= {1}
        seen = line.ring.sequence[slots].tolist()
        left = [sequence for sequence, _ in line.leave(until_us)]
        assert seen == left
        until_us += 1_000_000


@pytest.mark.parametrize("larger", [240, 1_200])
def test_packets_that_were_laid_out_anew_leave_nothing_where_they_were(larger: int) -> None:
    """Neither in a row of larger slots nor in the row that was left for a wide one."""
    line = Line()
    for sequence in range(100):
        line.send(sequence, b"\x55" * 160, sequence * 20_000)
    line.send(100, b"\x33" * larger, 2_000_000)
    assert line.ring.blank(line.row, 0, 1_999_999) == 100
    assert 0x55 not in line.ring.bytes
    assert line.leave(EVER) == [(100, b"\x33" * larger)]
