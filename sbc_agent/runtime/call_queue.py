"""Which call is sent next: the oldest that waits, each in one pair of hands at a time. Pure: time is an argument.

Not thread-safe by itself; the uplink uses it under its lock.
"""

from __future__ import annotations

import heapq

from dualtone.domain.ids import CallId


class CallQueue:
    """Calls are *waiting*, *claimed*, or *delayed* after a failure; one pushed while claimed waits again later."""

    def __init__(self) -> None:
        self._heap: list[CallId] = []  # a call's id begins with its time: the smallest is the oldest
        self._waiting: set[CallId] = set()
        self._claimed: set[CallId] = set()
        self._again: set[CallId] = set()
        self._delays: list[tuple[float, CallId]] = []
        self._delayed: set[CallId] = set()

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
        if not self._heap:
            return None
        call = heapq.heappop(self._heap)
        self._waiting.discard(call)
        self._claimed.add(call)
        return call

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

    @property
    def busy(self) -> bool:
        """Whether a call waits or is claimed; delayed ones do not count."""
        return bool(self._waiting or self._claimed)

    def __len__(self) -> int:
        return len(self._waiting | self._claimed | self._delayed)

    def next_due(self) -> float | None:
        """When the first delay is over, or None."""
        return self._delays[0][0] if self._delays else None
