"""Which call is sent next: the oldest that waits, each in one pair of hands at a time. Pure: time is an argument.

Not thread-safe by itself; the uplink uses it under its lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dualtone.domain.ids import CallId


@dataclass(frozen=True, slots=True)
class _Rest:
    """Until when a call is left alone, and while its directory does not change; a finished one's does not matter."""

    until: float
    changed_ns: int | None
    finished: bool


class CallQueue:
    """Calls are *waiting*, *claimed*, or *delayed* after a failure; one pushed while claimed waits again later.

    One of which there is nothing to send *rests*: it is remembered, so that looking through the spool passes over it.
    """

    def __init__(self) -> None:
        self._heap: list[CallId] = []  # a call's id begins with its time: the smallest is the oldest
        self._waiting: set[CallId] = set()
        self._claimed: set[CallId] = set()
        self._again: set[CallId] = set()
        self._delays: list[tuple[float, CallId]] = []
        self._delayed: set[CallId] = set()
        self._resting: dict[CallId, _Rest] = {}

    def push(self, call: CallId) -> None:
        """A call has something to send. One that is delayed stays so."""
        if call in self._claimed:
            self._again.add(call)
        elif call not in self._waiting and call not in self._delayed:
            self._waiting.add(call)
            heapq.heappush(self._heap, call)

    def claim(self, now: float) -> CallId | None:
        """Takes the oldest waiting call, those included whose delay is over."""
        while self._delays and self._delays[0][0] <= now:
            _, call = heapq.heappop(self._delays)
            self._delayed.discard(call)
            self.push(call)
        while self._heap:
            call = heapq.heappop(self._heap)
            self._waiting.discard(call)
            if call not in self._claimed:
                self._claimed.add(call)
                return call
            self._again.add(call)  # seized while it waited
        return None

    def seize(self, call: CallId) -> bool:
        """Claims a certain call; returns whether nobody else holds it."""
        if call in self._claimed:
            return False
        self._claimed.add(call)
        return True

    def release(self, call: CallId) -> None:
        """Gives a claimed call back; if it was pushed meanwhile, it waits again."""
        self._claimed.discard(call)
        if call in self._again:
            self._again.discard(call)
            self.push(call)

    def delay(self, call: CallId, until: float) -> None:
        """Keeps a claimed call back until a time, once it is released."""
        self._again.discard(call)
        if call not in self._delayed:
            self._delayed.add(call)
            heapq.heappush(self._delays, (until, call))

    def rest(self, call: CallId, until: float, changed_ns: int | None, *, finished: bool) -> None:
        """There is nothing to send of a call.

        Args:
            call: The call.
            until: The time from which there may be something.
            changed_ns: When its directory last changed; another change ends the rest sooner.
            finished: Whether all of it is up, so that no change matters.
        """
        self._resting[call] = _Rest(until, changed_ns, finished)

    def wake(self, calls: Iterable[CallId], now: float, changed_ns: Callable[[CallId], int | None]) -> None:
        """Pushes all calls that do not rest, and those that do but are not here any more.

        Args:
            calls: The calls of the spool.
            now: The time.
            changed_ns: Tells when a call's directory last changed.
        """
        gone = set(self._resting)
        for call in calls:
            gone.discard(call)
            rest = self._resting.get(call)
            if rest is None or now >= rest.until or not (rest.finished or rest.changed_ns == changed_ns(call)):
                self.push(call)
        for call in gone:
            self.push(call)

    def forget(self, call: CallId) -> None:
        """A call rests no more."""
        self._resting.pop(call, None)

    @property
    def unconfirmed(self) -> int:
        """How many calls are up as a whole."""
        return sum(rest.finished for rest in self._resting.values())

    @property
    def busy(self) -> bool:
        """Whether a call waits or is claimed; delayed ones do not count."""
        return bool(self._waiting or self._claimed)

    def __len__(self) -> int:
        return len(self._waiting | self._claimed | self._delayed)

    def next_due(self) -> float | None:
        """When the first delay is over, or None."""
        return self._delays[0][0] if self._delays else None
