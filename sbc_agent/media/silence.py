"""Why a call is silent: pauses as they were carried out, their causes as one set, numbered commands, leases.

A call is heard while the set of its causes is empty. Every pause command is kept as it was carried out, two of one
cause as well, so that the manifest says who asked for what; a resume ends all pauses of its cause. The commands of each
origin are numbered, and compared within a cause, since commands of different causes do not touch each other. A resume
that is not above the last changes nothing: an old one never reopens a newer pause. A pause that was overtaken on its
way is still owed its silence: from its beginning to the resume that overtook it. So whatever the order of delivery, the
causes are those of the numbers' order, and no span is kept that was to be silent.

Pure; times are microseconds of the agent's clock, spans include their beginning and not their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from dualtone.domain.call_files import PauseEntry, SilentEntry
from sbc_agent.media.clock import FOREVER

_STRICT: Final = ConfigDict(strict=True, extra="forbid")
BY_UNTIL: Final = "until"
BY_LEASE: Final = "lease"


@checked(config=_STRICT, slots=True)
class CallPause:
    """A pause that was carried out.

    Attributes:
        cause: Why.
        from_us: Nothing that arrived from here on is kept.
        origin: Who counts the command.
        command: Its id.
        number: Its number.
        by: Who asked for it.
        effective_at_us: The moment that was asked for.
        received_at_us: When the agent received it.
        until_us: Its end, if it was given with it.
        lease_until_us: When its lease runs out; None if it has none, or none any more.
        on_expiry: What happens then: ``silent`` or ``resume``.
        silent_from: The beginning of the silence in each stream.
        to_us: Its end; None while it lasts.
        resumed_by: Who ended it; ``until``, ``lease``, or empty for the end of the call.
        lease_expired: Whether its lease ran out.
    """

    cause: str
    from_us: int
    origin: str
    command: str
    number: int
    by: str
    effective_at_us: int
    received_at_us: int
    until_us: int | None
    lease_until_us: int | None
    on_expiry: str
    silent_from: list[SilentEntry] = field(default_factory=list)
    to_us: int | None = None
    resumed_by: str = ""
    lease_expired: bool = False

    def end(self, at_us: int, by: str) -> None:
        """It is over; one that had not begun silences nothing."""
        self.to_us, self.resumed_by = max(at_us, self.from_us), by

    def entry(self) -> PauseEntry:
        """What the manifest says of it, once it is over."""
        assert self.to_us is not None
        return PauseEntry(
            cause=self.cause,
            from_us=self.from_us,
            to_us=self.to_us,
            origin=self.origin,
            command=self.command,
            number=self.number,
            by=self.by,
            effective_at_us=self.effective_at_us,
            received_at_us=self.received_at_us,
            silent_from=self.silent_from,
            resumed_by=self.resumed_by,
            lease_expired=self.lease_expired,
        )


@dataclass(frozen=True, slots=True)
class Lapse:
    """A cause whose lease ran out, what its line's policy makes of that, and when."""

    cause: str
    on_expiry: str
    at_us: int


@checked(config=_STRICT, slots=True)
class Lifted:
    """The last resume of a cause by an origin: number, the moment in which it was carried out, and its id."""

    number: int
    at_us: int
    command: str = ""


@checked(config=_STRICT, slots=True)
class Silence:
    """All pauses of a call, in the order in which they were carried out, and the last numbers of each origin."""

    pauses: list[CallPause] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    lifted: dict[str, Lifted] = field(default_factory=dict)

    @property
    def open(self) -> list[CallPause]:
        """The pauses that last, those that are still to begin included."""
        return [pause for pause in self.pauses if pause.to_us is None]

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes for which the call is silent now, or will be, sorted."""
        return tuple(sorted({pause.cause for pause in self.open}))

    @property
    def due_us(self) -> int:
        """When something ends or runs out by itself; ``FOREVER`` if nothing does."""
        moments = [moment for pause in self.open for moment in (pause.until_us, pause.lease_until_us)]
        return min((moment for moment in moments if moment is not None), default=FOREVER)

    def last_number(self, origin: str, cause: str) -> int:
        """The highest number of an origin's commands of a cause; -1 before the first."""
        return self.numbers.get(_key(origin, cause), -1)

    def takes(self, origin: str, cause: str, number: int) -> bool:
        """Whether a command is newer than all that its origin sent of its cause; from now on it is one of those."""
        if number <= self.last_number(origin, cause):
            return False
        self.numbers[_key(origin, cause)] = number
        return True

    def owed_until(self, origin: str, cause: str, number: int) -> int | None:
        """Until when a pause is to hold that newer commands have overtaken; None if it was carried out already.

        To the newer resume, as far as one is known; to the resume that is still to come, if a newer pause was first.
        """
        if any((pause.origin, pause.cause, pause.number) == (origin, cause, number) for pause in self.pauses):
            return None
        lifted = self.lifted.get(_key(origin, cause))
        return lifted.at_us if lifted is not None and lifted.number > number else FOREVER

    def carried_out(self, origin: str, cause: str, number: int, command: str) -> CallPause | None:
        """The pause that a command has begun already, if it has."""
        asked = (origin, cause, number, command)
        found = (one for one in self.pauses if (one.origin, one.cause, one.number, one.command) == asked)
        return next(found, None)

    def lifted_at(self, origin: str, cause: str, number: int, command: str) -> int | None:
        """When a resume was carried out, if it is the last one of its origin and cause."""
        lifted = self.lifted.get(_key(origin, cause))
        return lifted.at_us if lifted is not None and (lifted.number, lifted.command) == (number, command) else None

    def lift(self, origin: str, cause: str, number: int, at_us: int, by: str, command: str = "") -> None:
        """A resume is carried out."""
        self.lifted[_key(origin, cause)] = Lifted(number, at_us, command)
        self.end(cause, at_us, by)

    def begin(self, pause: CallPause) -> None:
        """Another pause; its lease renews those of the same cause."""
        for earlier in self.open:
            if earlier.cause == pause.cause:
                earlier.lease_until_us, earlier.on_expiry = pause.lease_until_us, pause.on_expiry
        self.pauses.append(pause)

    def end(self, cause: str, at_us: int, by: str) -> None:
        """A cause is over."""
        for pause in self.open:
            if pause.cause == cause:
                pause.end(at_us, by)

    def pass_time(self, now_us: int) -> list[Lapse]:
        """Ends what ends by itself by now; returns the leases that ran out."""
        for pause in self.open:
            if pause.until_us is not None and pause.until_us <= now_us:
                pause.end(pause.until_us, BY_UNTIL)
        lapses: dict[str, Lapse] = {}
        for pause in self.open:
            lease_us = pause.lease_until_us
            if lease_us is not None and lease_us <= now_us:
                pause.lease_until_us, pause.lease_expired = None, True
                if pause.on_expiry == "resume":
                    pause.end(lease_us, BY_LEASE)
                lapses.setdefault(pause.cause, Lapse(pause.cause, pause.on_expiry, lease_us))
        return list(lapses.values())

    def close(self, at_us: int) -> None:
        """The call is over, and every pause with it."""
        for pause in self.open:
            pause.end(at_us if pause.until_us is None else min(at_us, pause.until_us), "")

    def window(self, from_us: int, *, before: Sequence[CallPause] = ()) -> tuple[int, int]:
        """Between which arrivals packets that are still to come are kept, both ends included.

        What arrived before a pause began, or before one ended, has been drained by then.

        Args:
            from_us: When the stream began to be heard.
            before: Pauses that have just ended, and of which that is not yet so.
        """
        ended = [pause for pause in self.pauses if pause.to_us is not None and pause.to_us > pause.from_us]
        keep_from_us = max([from_us, *(pause.to_us or 0 for pause in ended if pause not in before)])
        return keep_from_us, min((pause.from_us for pause in self.open), default=FOREVER + 1) - 1

    def covers(self, from_us: int, to_us: int) -> bool:
        """Whether a span, both ends included, is silent throughout already."""
        reached_us = from_us
        for begin_us, end_us in _merged(self._spans(from_us, to_us + 1)):
            if begin_us > reached_us:
                return False
            reached_us = end_us
        return reached_us > to_us

    def spans(self, begin_us: int, end_us: int) -> list[tuple[str, int, int]]:
        """The silent spans within another, by cause: where two pauses of one cause meet, one span."""
        return [
            (cause, from_us, to_us)
            for cause in sorted({pause.cause for pause in self.pauses})
            for from_us, to_us in _merged(self._spans(begin_us, end_us, cause))
        ]

    def silent_since(self, from_us: int) -> list[SilentEntry]:
        """Where the streams fell silent that are silent at a moment already; none if they are not."""
        return next((pause.silent_from for pause in self.open if pause.from_us <= from_us), [])

    def _spans(self, begin_us: int, end_us: int, cause: str | None = None) -> Iterator[tuple[int, int]]:
        for pause in self.pauses:
            from_us = max(pause.from_us, begin_us)
            to_us = end_us if pause.to_us is None else min(pause.to_us, end_us)
            if cause in (None, pause.cause) and from_us < to_us:
                yield from_us, to_us


def _key(origin: str, cause: str) -> str:
    return f"{origin} {cause}"


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for from_us, to_us in sorted(spans):
        if merged and from_us <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], to_us))
        else:
            merged.append((from_us, to_us))
    return merged
