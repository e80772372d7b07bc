"""Deadlines of many things, the earliest first. Pure: time is an argument, in seconds of any monotonic clock."""

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """At most one deadline a key. Setting and cancelling leave stale entries in the heap; they are skipped when met."""

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
