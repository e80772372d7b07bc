"""One clock: kernel timestamps mapped to it, also when the wall clock is set."""

from __future__ import annotations

import numpy as np
import pytest

from sbc_agent.media.clock import AgentClock
from sbc_agent.media.kernel_time import KernelTime

NOW = 1_700_000_000_000_000


def test_the_clock_goes_forward_with_monotonic_time() -> None:
    clock = AgentClock.measured()
    first, second = clock.now_us(), clock.now_us()
    assert first <= second
    assert abs(clock.wall_offset_us()) < 1_000_000


@pytest.mark.parametrize("offset_us", [0, 5_000_000, -3_600_000_000])
def test_stamps_are_mapped_by_the_wall_clocks_offset(offset_us: int) -> None:
    kernel = KernelTime(offset_us, NOW)
    arrivals = np.array([NOW + 10, NOW + 99_000])
    assert kernel.arrivals(arrivals + offset_us, NOW + 100_000, offset_us).tolist() == arrivals.tolist()
    assert kernel.steps == 0


@pytest.mark.parametrize("step_us", [3_600_000_000, -3_600_000_000, 1_500_000, -1_500_000])
def test_a_step_of_the_wall_clock_bends_no_timeline(step_us: int) -> None:
    """Packets stamped before the step are mapped by the old offset, those after it by the new one."""
    kernel = KernelTime(0, NOW)
    arrivals = NOW + np.arange(0, 100_000, 20_000)
    stamps = arrivals + np.where(np.arange(5) < 3, 0, step_us)
    assert kernel.arrivals(stamps, NOW + 100_000, step_us).tolist() == arrivals.tolist()
    assert kernel.steps == 1
    kernel.advance(NOW + 100_000, step_us)
    later = arrivals + 100_000
    assert kernel.arrivals(later + step_us, NOW + 200_000, step_us).tolist() == later.tolist()
    assert kernel.steps == 1
