"""Places on a recording's timeline: ticks of 8,000 a second since the call was answered. Pure.

A tick is a sample of a telephone. Streams of any other rate have places of their own; every 320 ticks, which are 40 ms,
a whole number of samples of every rate that is a multiple of 25 begins.
"""

from __future__ import annotations

from typing import Final

TICKS_HZ: Final = 8000
US_PER_TICK: Final = 1_000_000 // TICKS_HZ
TICKS_PER_MS: Final = TICKS_HZ // 1000

GRAIN: Final = TICKS_HZ // 25
"""40 ms: where windows may begin and end."""
