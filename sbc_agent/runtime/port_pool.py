"""RTP ports, handed out in turn. Pure state, time as an argument.

A port is used again only when the media process has let go of it and 32 s have passed since its call ended (INTEROP: a
peer that does not notice the end sends on). First in, first out: the port that has rested longest goes next.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Final

QUARANTINE_SECONDS: Final = 32.0


class PortPool:
    """The pool.

    Args:
        ports: Open RTP ports.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._free = collections.deque(ports)
        self._size = len(self._free)
        # Resting ports in the order of their ends: (when the quarantine is over, port).
        self._resting: collections.deque[tuple[float, int]] = collections.deque()
        self._held: set[int] = set()

    @property
    def in_use(self) -> int:
        """How many ports cannot be handed out now, resting ones included."""
        return self._size - len(self._free)

    def take(self, count: int, now: float) -> tuple[int, ...] | None:
        """Hands out ports.

        Args:
            count: How many.
            now: The time, in seconds.

        Returns:
            The ports, or None if there are fewer.
        """
        self._wake(now)
        if count > len(self._free):
            return None
        taken = tuple(self._free.popleft() for _ in range(count))
        self._held.update(taken)
        return taken

    def hold(self, ports: Iterable[int]) -> tuple[int, ...]:
        """Takes ports out that an earlier run of the agent has handed out.

        Returns:
            Those of them that were free; the others stay as they are.
        """
        taken = tuple(sorted(set(ports) & set(self._free)))
        self._free = collections.deque(port for port in self._free if port not in taken)
        self._held.update(taken)
        return taken

    def put_back(self, ports: Iterable[int]) -> None:
        """Takes back ports that nobody was told of: they need no rest."""
        for port in ports:
            self._held.discard(port)
            self._free.append(port)

    def rest(self, ports: Iterable[int], now: float) -> None:
        """A call has ended: its ports rest from now on."""
        self._resting.extend((now + QUARANTINE_SECONDS, port) for port in ports)

    def let_go(self, port: int) -> None:
        """The media process no longer listens for the port's call."""
        self._held.discard(port)

    def _wake(self, now: float) -> None:
        """Frees what has rested long enough; what the media process still holds keeps its place behind."""
        for _ in range(len(self._resting)):
            until, port = self._resting[0]
            if until > now:
                return
            self._resting.popleft()
            if port in self._held:
                self._resting.append((until, port))
            else:
                self._free.append(port)
