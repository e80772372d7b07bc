"""Who is drained and who leaves at which tick, so that every tick has the same work. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from sbc_agent.media.records import Turn
from sbc_agent.media.ring import Int64s

_T = TypeVar("_T")


class DrainGroups:
    """Which sockets are drained together.

    Args:
        every: Each socket is drained once in so many ticks.
        largest: The most sockets of a group.
    """

    def __init__(self, every: int, largest: int) -> None:
        self._every, self._largest = every, largest
        self._descriptors: dict[int, int] = {}
        self._groups: list[tuple[Int64s, list[int]]] | None = None

    def __len__(self) -> int:
        return len(self._descriptors)

    def add(self, row: int, descriptor: int) -> None:
        """Begins to drain a row's socket."""
        self._descriptors[row] = descriptor
        self._groups = None

    def remove(self, row: int) -> None:
        """No longer drains a row's socket."""
        self._descriptors.pop(row, None)
        self._groups = None

    def of(self, rows: Iterable[int]) -> tuple[Int64s, list[int]]:
        """Rows in ascending order and their descriptors, of those rows that are drained."""
        chosen = sorted(row for row in rows if row in self._descriptors)
        return np.array(chosen, np.int64), [self._descriptors[row] for row in chosen]

    def due(self, tick: int) -> list[tuple[Int64s, list[int]]]:
        """The groups of a tick."""
        if self._groups is None:
            rows, descriptors = self.of(self._descriptors)
            count = self._every * max(-(-len(descriptors) // (self._every * self._largest)), 1)
            bounds = [len(descriptors) * index // count for index in range(count + 1)]
            self._groups = [(rows[begin:end], descriptors[begin:end]) for begin, end in pairwise(bounds)]
        return [group for group in self._groups[tick % self._every :: self._every] if group[1]]


class CallTurns(Generic[_T]):
    """Which calls leave the ring at which tick: each once in a round of ticks, evenly spread.

    Args:
        ticks: Ticks of a round.
        turn: Gathers the streams of calls.
    """

    def __init__(self, ticks: int, turn: Callable[[list[_T]], Turn]) -> None:
        self._calls: list[dict[str, _T]] = [{} for _ in range(ticks)]
        self._turns: list[tuple[list[_T], Turn] | None] = [None] * ticks
        self._turn = turn
        self._phase: dict[str, int] = {}

    def add(self, name: str, call: _T) -> None:
        """Gives a call the turn that has fewest."""
        phase = min(range(len(self._calls)), key=lambda one: len(self._calls[one]))
        self._calls[phase][name] = call
        self._turns[phase] = None
        self._phase[name] = phase

    def changed(self, name: str) -> None:
        """A call has other streams than before."""
        self._turns[self._phase[name]] = None

    def remove(self, name: str) -> None:
        """A call has left for good."""
        phase = self._phase.pop(name)
        del self._calls[phase][name]
        self._turns[phase] = None

    def due(self, tick: int) -> tuple[list[_T], Turn]:
        """The calls of a tick and their streams."""
        phase = tick % len(self._calls)
        entry = self._turns[phase]
        if entry is None:
            calls = list(self._calls[phase].values())
            entry = self._turns[phase] = (calls, self._turn(calls))
        return entry
