"""A pause of a call as its recording declares it: what the agent's manifest and the cloud's ledger say together. Pure.

The agent blanks what it is told in time, the ledger knows what it was told too late or never. A recording is silent
wherever one of them says so. A pause has its number within its origin; where both know it, the earlier beginning and
the later end hold. Only an end that the ledger does not know (a resume on the LAN whose report is still on its way)
is the manifest's alone. Times that end in ``_us`` are the agent's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from dualtone.domain.agent_events import SilentFrom
from dualtone.domain.call_command import MARGIN_US, WORST_UNCERTAINTY_US
from dualtone.domain.call_files import PauseEntry
from dualtone.domain.pause_ledger import PauseSpan

MOST_PAUSES: Final = 200
"""Each has a certificate; so many of them fit an item of DynamoDB, which has at most 400 KB."""

FOREVER_US: Final = 1 << 62
"""Later than anything."""

_SECOND_US: Final = 1_000_000
_DOUBT_US: Final = MARGIN_US + WORST_UNCERTAINTY_US
_LONGEST_US: Final = 10 * 86_400 * _SECOND_US


class How(StrEnum):
    """How a span became silent."""

    WITHHELD = "withheld"
    """The agent kept nothing of it: no copy ever left its memory."""
    REMOVED = "removed"
    """Something of it had been kept, and was taken out before there was a recording."""
    DESTROYED = "destroyed"
    """It was part of a recording; the keys of its seconds were destroyed."""


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause.

    Attributes:
        cause: ``payment``, ``manual``, ``hold``, ``consent`` or ``dtmf``.
        from_us: From when on the call is silent.
        to_us: Until when, itself not included.
        origin: By which way the command came: ``cloud``, ``lan``, or ``agent`` for one of the agent's own.
        number: Its number within the origin.
        command: Its id.
        by: Who asked; an opaque id.
        effective_at_ms: The moment that was asked for, Unix time.
        silent_from: The first silent packet of each stream.
        how: How it became silent.
    """

    cause: str
    from_us: int
    to_us: int
    origin: str
    number: int
    command: str
    by: str
    effective_at_ms: int
    silent_from: tuple[SilentFrom, ...] = ()
    how: How = How.WITHHELD

    @property
    def name(self) -> tuple[str, int]:
        """What tells it from the call's other pauses."""
        return self.origin, self.number

    def overlaps(self, from_us: int, to_us: int) -> bool:
        """Whether a span touches it, both ends included."""
        return self.from_us <= to_us and self.to_us >= from_us

    def explains(self, from_us: int, to_us: int) -> bool:
        """Whether a record of a span may have been cut out for it.

        It may have been cut for a beginning that was reckoned before the agent's own word was there, with all the doubt
        about its clock.
        """
        return self.overlaps(from_us - _DOUBT_US, to_us + _DOUBT_US)

    def covers(self, other: Pause) -> bool:
        """Whether everything of another pause is silent by this one."""
        return self.from_us <= other.from_us and self.to_us >= other.to_us

    def with_span(self, from_us: int, to_us: int) -> Pause:
        """The pause, made to reach over a span too."""
        return replace(self, from_us=min(self.from_us, from_us), to_us=max(self.to_us, to_us))


def declared(entries: Iterable[PauseEntry]) -> list[Pause]:
    """The pauses of an agent's manifest."""
    return [
        Pause(
            cause=entry.cause,
            from_us=entry.from_us,
            to_us=entry.to_us,
            origin=entry.origin,
            number=entry.number,
            command=entry.command,
            by=entry.by,
            effective_at_ms=entry.effective_at_us // 1000,
            silent_from=tuple(SilentFrom(one.stream, one.rtp_timestamp, one.at_us) for one in entry.silent_from),
        )
        for entry in entries
    ]


def union(known: Iterable[Pause], spans: Iterable[PauseSpan], *, answered_us: int, ended_us: int) -> tuple[Pause, ...]:
    """All pauses of a call that touch it.

    Args:
        known: What the manifest says, or an earlier recording of the call.
        spans: What the ledger says; a span without an end lasts as long as nobody else knows one.
        answered_us: When the call began by the agent's clock.
        ended_us: When it ended.

    Returns:
        Each pause once, by beginning.
    """
    together = {pause.name: pause for pause in known}
    for span in spans:
        pause = together.get((span.origin, span.number))
        together[span.origin, span.number] = _merged(pause, span, ended_us)
    touching = (pause for pause in together.values() if pause.from_us < ended_us and pause.to_us > answered_us)
    return tuple(sorted(touching, key=lambda pause: (pause.from_us, pause.origin, pause.number)))


def joined(pauses: Sequence[Pause], most: int = MOST_PAUSES) -> tuple[list[Pause], list[int]]:
    """At most so many pauses: of more, those of one cause that lie closer than a second, two, four and so on are one.

    What is joined is called silent in between, too: a certificate may say too much, and never too little.

    Returns:
        The pauses, and for each that was given the place of the one which stands for it.
    """
    found, places, apart_us = list(pauses), list(range(len(pauses))), _SECOND_US
    while len(found) > most and apart_us <= _LONGEST_US:
        found, moved = _closer(found, apart_us)
        places, apart_us = [moved[place] for place in places], 2 * apart_us
    return found, places


def _merged(pause: Pause | None, span: PauseSpan, ended_us: int) -> Pause:
    if pause is None:
        return Pause(
            cause=span.cause,
            from_us=span.from_us,
            to_us=max(span.from_us, ended_us) if span.to_us is None else span.to_us,
            origin=span.origin,
            number=span.number,
            command=span.command,
            by=span.by,
            effective_at_ms=span.effective_at_ms,
            silent_from=span.silent_from,
        )
    wider = pause.with_span(span.from_us, pause.to_us if span.to_us is None else span.to_us)
    # The ledger's moment is true time; the manifest's is the agent's clock.
    return replace(
        wider, effective_at_ms=span.effective_at_ms, silent_from=pause.silent_from or tuple(span.silent_from)
    )


def _closer(pauses: Sequence[Pause], apart_us: int) -> tuple[list[Pause], list[int]]:
    found: list[Pause] = []
    places: list[int] = []
    latest: dict[tuple[str, str], int] = {}
    for pause in pauses:
        place = latest.get((pause.cause, pause.how))
        if place is not None and pause.from_us - found[place].to_us < apart_us:
            found[place] = found[place].with_span(pause.from_us, pause.to_us)
        else:
            place = latest[pause.cause, pause.how] = len(found)
            found.append(pause)
        places.append(place)
    return found, places
