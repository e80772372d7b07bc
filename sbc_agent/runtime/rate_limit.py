"""How often somebody may ask: a token bucket for each key. Pure: time is an argument.

Memory is bounded: where there are too many buckets the one that was used longest ago is dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain.errors import DualtoneError

_MOST_KEYS: Final = 10_000


class TooMany(DualtoneError):  # noqa: N818 - what happened, in two words
    """Somebody asks too often.

    Attributes:
        wait_s: Whole seconds after which the next request is taken.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many requests")
        self.wait_s = max(1, math.ceil(wait_s))


@dataclass(slots=True)
class RateLimit:
    """Buckets of ``burst`` tokens, refilled with ``per_s`` a second.

    Attributes:
        burst: How many requests may come at once.
        per_s: How many a second in the long run.
        most_keys: How many keys are known at most.
    """

    burst: float
    per_s: float
    most_keys: int = _MOST_KEYS
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)  # tokens left, and when that was so

    def take(self, key: str, now: float) -> None:
        """Counts a request.

        Args:
            key: Who asks.
            now: Seconds on a monotonic clock.

        Raises:
            TooMany: If it is one too many; it is not counted then.
        """
        left = self._left(key, now)
        if left < 1.0:
            raise TooMany((1.0 - left) / self.per_s)
        self._buckets.pop(key, None)  # the last one used is the last one in order
        while len(self._buckets) >= self.most_keys:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = (left - 1.0, now)

    def _left(self, key: str, now: float) -> float:
        left, at = self._buckets.get(key, (self.burst, now))
        return min(self.burst, left + self.per_s * max(0.0, now - at))
