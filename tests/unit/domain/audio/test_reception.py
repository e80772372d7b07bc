"""Loss and jitter as RFC 3550 counts them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio.reception import Reception


def counted(numbers: list[int], *, window: int = 1000) -> Reception:
    reception = Reception()
    for at in range(0, len(numbers), window):
        part = np.array(numbers[at : at + window])
        reception.sequence(1, (part % 0x10000).astype(np.uint16), part * 160)
    return reception


@pytest.mark.parametrize(
    ("numbers", "packets", "lost", "duplicates"),
    [
        (list(range(100)), 100, 0, 0),
        ([*range(40), *range(50, 100)], 90, 10, 0),
        (list(range(65_500, 65_600)), 100, 0, 0),
        ([0, 1, 1, 2, 2, 2, 3], 4, 0, 3),
        ([0, 2, 1, 3], 4, 0, 0),
        ([5, 10_000, 10_001], 3, 0, 0),
        ([5000, 5001, 7, 8], 4, 0, 0),
    ],
    ids=["whole", "ten lost", "wrap", "duplicates", "reordered", "restart ahead", "restart back"],
)
@pytest.mark.parametrize("window", [3, 1000])
def test_counting(numbers: list[int], packets: int, lost: int, duplicates: int, window: int) -> None:
    """RFC 3550 appendix A.1 and A.3, the same in any windows."""
    reception = counted(numbers, window=window)
    assert (reception.packets, reception.lost, reception.duplicates) == (packets, lost, duplicates)


def test_what_is_missing_in_a_declared_gap_is_not_lost() -> None:
    """A hold during which the source went on counting."""
    reception = Reception([(1600, 4800)])
    reception.sequence(
        1, np.array([*range(10), *range(30, 40)], np.uint16), np.array([*range(10), *range(30, 40)]) * 160
    )
    assert reception.lost == 0


def test_sources_count_by_themselves() -> None:
    """A telephone event from another source in the same stream loses nothing."""
    reception = Reception()
    for ssrc, first in ((1, 0), (2, 8000), (1, 10), (2, 8010)):
        reception.sequence(ssrc, np.arange(first, first + 10, dtype=np.uint16), np.arange(first, first + 10) * 160)
    assert (reception.packets, reception.lost) == (40, 0)


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=600), st.integers(1, 600))
def test_jitter_is_the_recursion_of_the_rfc(delays: list[int], window: int) -> None:
    """Vectorised over blocks and windows, it is J += (|D| - J) / 16 for each packet."""
    reception = Reception()
    for at in range(0, len(delays), window):
        reception.jitter(1, np.array(delays[at : at + window], np.int64))
    estimate, total, previous = 0.0, 0.0, delays[0]
    for delay in delays:
        estimate += (abs(delay - previous) - estimate) / 16
        total, previous = total + estimate, delay
    assert reception.jitter_ms == pytest.approx(total / len(delays) / 8)
