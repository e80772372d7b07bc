"""Where packets belong: by their timestamps, anchored on arrival, and anchored again only when it lasts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio.placement import Anchor

MS = 8


def place(timestamps: list[int], arrivals: list[int]) -> list[int]:
    at = Anchor().place(np.array(timestamps, np.uint64).astype(np.uint32), np.array(arrivals, np.int64))
    return [int(one) for one in at]


def steady(count: int, *, first: int = 0) -> npt.NDArray[np.int64]:
    return np.arange(first, first + count) * 160


def test_jitter_moves_nothing() -> None:
    """Packets lie one behind the other, however unevenly they came."""
    dice = np.random.default_rng(1)
    arrivals = steady(500) + dice.integers(0, 60 * MS, 500)
    placed = Anchor().place(steady(500).astype(np.uint32), arrivals)
    assert set(np.diff(placed)) == {160}
    assert 0 <= placed[0] <= 10 * MS


def test_a_late_first_packet_does_not_shift_the_stream() -> None:
    """The fastest packet of the first second is the anchor."""
    arrivals = steady(100)
    arrivals[0] += 150 * MS
    assert place(steady(100).tolist(), arrivals.tolist()) == steady(100).tolist()


def test_a_small_first_delay_is_left_alone() -> None:
    """Below 10 ms the first packet itself is the anchor: its own arrival is as good as any."""
    arrivals = steady(100)
    arrivals[0] += 9 * MS
    assert place(steady(100).tolist(), arrivals.tolist())[0] == 9 * MS


@given(start=st.integers(0, 2**32 - 1), base=st.integers(-80_000, 10**9))
def test_timestamps_wrap_anywhere(start: int, base: int) -> None:
    """An arbitrary first timestamp, wrapping at 2**32, gives the same places."""
    timestamps = [(start + int(step)) % 2**32 for step in steady(60)]
    assert place(timestamps, (steady(60) + base).tolist()) == (steady(60) + base).tolist()


def test_silence_suppression_keeps_its_length() -> None:
    """Timestamps that went on while nothing was sent."""
    stamps = np.concatenate((steady(50), steady(50, first=300)))
    assert place(stamps.tolist(), stamps.tolist()) == stamps.tolist()


def test_a_hold_with_standing_timestamps_keeps_its_length() -> None:
    """The source's clock stood still for three seconds: arrival decides, and the stream is anchored again."""
    stamps, arrivals = steady(100), np.concatenate((steady(50), steady(50, first=200)))
    anchor = Anchor()
    assert np.array_equal(anchor.place(stamps.astype(np.uint32), arrivals), arrivals)
    assert anchor.anchored == 2


@pytest.mark.parametrize("jump", [-(10**6), -5000, 5000, 10**6, 2**31])
def test_a_restarted_clock_is_followed(jump: int) -> None:
    """Timestamps begin elsewhere in the middle of the call."""
    stamps = steady(200)
    stamps[100:] += jump
    assert place((stamps % 2**32).tolist(), steady(200).tolist()) == steady(200).tolist()


def test_a_burst_after_a_stall_is_placed_by_its_timestamps() -> None:
    """The network stood for three seconds and then delivered everything at once: nothing was said later for that."""
    arrivals = steady(400)
    arrivals[100:250] = 250 * 160
    anchor = Anchor()
    assert np.array_equal(anchor.place(steady(400).astype(np.uint32), arrivals), steady(400))
    assert anchor.anchored == 1


def test_one_mad_timestamp_is_not_believed() -> None:
    """A packet that claims to be from next week lies where it arrived; the others are not moved."""
    stamps = steady(200)
    stamps[100] += 10**7
    assert place(stamps.tolist(), steady(200).tolist()) == steady(200).tolist()


def test_an_anchor_lasts_from_window_to_window() -> None:
    """Windows are placed as one."""
    anchor, together = Anchor(), Anchor()
    arrivals = steady(300) + np.random.default_rng(2).integers(0, 20 * MS, 300)
    stamps = steady(300).astype(np.uint32)
    parts = [anchor.place(stamps[at : at + 100], arrivals[at : at + 100]) for at in (0, 100, 200)]
    assert np.array_equal(np.concatenate(parts), together.place(stamps, arrivals))
    assert anchor.anchored == 1


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(-(10**6), 10**9)), max_size=60))
def test_any_packets_get_a_place_near_their_arrival(packets: list[tuple[int, int]]) -> None:
    """Whatever timestamps claim, nothing is placed more than ten seconds before it arrived, or 200 ms after."""
    arrivals = np.array([arrival for _, arrival in packets], np.int64)
    placed = Anchor().place(np.array([stamp for stamp, _ in packets], np.uint32), arrivals)
    late = arrivals - placed
    assert late.size == len(packets)
    assert ((late >= -200 * MS) & (late <= 10_000 * MS)).all()
