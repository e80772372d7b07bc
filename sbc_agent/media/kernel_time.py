"""Kernel receive timestamps, which are CLOCK_REALTIME, on the agent's clock; and whether the wall clock stepped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

STEP_US: Final = 2_000  # slewing moves the wall clock by 50 us in a tick; more than this is a step
TICKS_US: Final = 500_000


@dataclass(slots=True)
class KernelTime:
    """Maps kernel timestamps to the agent's clock, tick by tick.

    Attributes:
        wall_offset_us: Wall clock minus agent's clock, at the last tick.
        last_tick_us: The agent's time of the last tick.
        steps: How often the wall clock was seen to step.
    """

    wall_offset_us: int
    last_tick_us: int
    steps: int = field(default=0)

    def arrivals(self, stamp_us: npt.NDArray[np.int64], now_us: int, wall_offset_us: int) -> npt.NDArray[np.int64]:
        """Maps the stamps of packets.

        Where the wall clock stepped since the last tick, a packet was stamped before or after the step: the offset is
        taken under which it arrived about now.

        Args:
            stamp_us: CLOCK_REALTIME in microseconds, int64[n].
            now_us: The agent's time now.
            wall_offset_us: Wall clock minus agent's clock now.

        Returns:
            The agent's time of each arrival in microseconds, int64[n].
        """
        arrival = stamp_us - wall_offset_us
        if abs(wall_offset_us - self.wall_offset_us) > STEP_US:
            self.steps += 1
            other = stamp_us - self.wall_offset_us
            arrival = np.where(self._plausible(other, now_us) & ~self._plausible(arrival, now_us), other, arrival)
        return arrival

    def _plausible(self, arrival_us: npt.NDArray[np.int64], now_us: int) -> npt.NDArray[np.bool_]:
        """Sockets are drained every few ticks, and packets still come while they are."""
        plausible: npt.NDArray[np.bool_] = (arrival_us > self.last_tick_us - TICKS_US) & (
            arrival_us < now_us + TICKS_US
        )
        return plausible

    def advance(self, now_us: int, wall_offset_us: int) -> None:
        """Ends a tick."""
        self.last_tick_us, self.wall_offset_us = now_us, wall_offset_us
