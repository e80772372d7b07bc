"""The agent's one clock: monotonic time mapped to Unix time once, so that no step of the wall clock bends a timeline.

All of an agent's processes share the offset that the first of them measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

FOREVER: Final = 1 << 62  # later than any time


@dataclass(frozen=True, slots=True)
class AgentClock:
    """Microseconds of Unix time that only ever go forward.

    Attributes:
        offset_us: Unix time minus CLOCK_MONOTONIC, as measured at the agent's start.
    """

    offset_us: int

    @classmethod
    def measured(cls) -> AgentClock:
        """Maps monotonic time to Unix time as it stands now."""
        return cls((time.time_ns() - time.monotonic_ns()) // 1000)

    def now_us(self) -> int:
        """The agent's time now, in microseconds of Unix time."""
        return time.monotonic_ns() // 1000 + self.offset_us

    def wall_offset_us(self) -> int:
        """How far the wall clock is ahead of the agent's clock now, in microseconds."""
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        return (wall - (before + after) // 2) // 1000 - self.offset_us


@dataclass(frozen=True, slots=True)
class Moment:
    """The agent's time, and how far the wall clock is ahead of it; microseconds."""

    now_us: int
    wall_offset_us: int
