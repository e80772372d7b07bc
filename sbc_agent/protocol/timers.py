"""Deadlines of many things, the earliest first. Pure: time is an argument, in seconds of any monotonic clock."""

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

_FEW: Final = 64

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """At most one deadline a key.

    Setting and cancelling leave stale entries in the heap. They are skipped when met, and thrown out when they are more
    than the others: a deadline an hour away that was moved a thousand times must not be kept a thousand times.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._deadlines: dict[Key, float] = {}
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(self, key: Key, at: float | None) -> None:
        """Set or move a deadline; None cancels it."""
        if at is None:
            self._deadlines.pop(key, None)
        elif self._deadlines.get(key) != at:
            self._deadlines[key] = at
            heapq.heappush(self._heap, (at, next(self._order), key))
        if len(self._heap) > _FEW + 2 * len(self._deadlines):
            self._heap = [entry for entry in self._heap if self._deadlines.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap:
            at, _, key = self._heap[0]
            if self._deadlines.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> Iterator[Key]:
        """The keys whose deadline has come, each once, its deadline removed."""
        while (at := self.next()) is not None and at <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._deadlines[key]
            yield key
