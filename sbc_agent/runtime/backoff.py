"""Exponential back-off with jitter, without a clock or a sleep of its own. Pure but for the random source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 1.0
CEILING_S: Final = 300.0
_MAX_DOUBLINGS: Final = 32


@dataclass(slots=True)
class Backoff:
    """When something that failed may be tried again: never given up, ever more seldom.

    Attributes:
        random: Draws from [0, 1).
        first_s: The longest wait after the first failure.
        ceiling_s: The longest wait ever.
        failures: How many failures in a row.
        not_before: The time from which the next attempt may start; meaningless without a failure.
    """

    random: Callable[[], float]
    first_s: float = FIRST_S
    ceiling_s: float = CEILING_S
    failures: int = 0
    not_before: float = 0.0

    def fail(self, now: float) -> float:
        """Notes a failure; returns the seconds to wait: between half and all of a step that doubles each time."""
        step = min(self.ceiling_s, self.first_s * 2.0 ** min(self.failures, _MAX_DOUBLINGS))
        wait_s = step * (0.5 + self.random() / 2)
        self.failures += 1
        self.not_before = now + wait_s
        return wait_s

    @property
    def is_news(self) -> bool:
        """Whether the last failure is worth a line: the first, second, fourth and so on of those in a row."""
        return self.failures & (self.failures - 1) == 0

    def succeed(self) -> None:
        """Forgets the failures."""
        self.failures = 0

    def may_try(self, now: float) -> bool:
        """Whether an attempt may start."""
        return not self.failures or now >= self.not_before
