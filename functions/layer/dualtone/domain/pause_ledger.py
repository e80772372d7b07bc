"""The cloud's ledger of a call: which pauses and resumes there were, and which spans they make silent. Pure.

The agent blanks what it is told in time; the ledger says what must be silent whatever became of a command: delivered
late, never, or without an answer. The finaliser applies the union of both. Times that end in ``_us`` are the agent's
clock, in which recordings are timed; times that end in ``_ms`` are true Unix time.

Four things end a pause, whichever comes first: a resume of its cause that follows it, its ``until``, its lease if the
line's policy is to resume, and the end of the call. Commands follow each other by the moment at which they act; those
of one origin by their numbers too, so that a replayed resume ends no newer pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dualtone.domain.agent_events import ClockOffset, SilentFrom
from dualtone.domain.call_command import MARGIN_US, WORST_UNCERTAINTY_US
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.recording_ruling import Kept

UNKNOWN_CLOCK: Final = ClockOffset(0, WORST_UNCERTAINTY_US)
"""What is assumed of an agent that could not measure its clock."""

_SUPERSEDED: Final = "superseded"
# What a second answer to the same command may change: a repeated delivery is answered `superseded`, and must not hide
# what the first one did.
_WEIGHT: Final = {None: 0, _SUPERSEDED: 1, "unknown": 2, "acknowledged": 3, "too_late": 4}


@dataclass(frozen=True, slots=True)
class LedgerCommand:
    """A command and what became of it.

    Attributes:
        command: Its id.
        origin: By which way it came: ``cloud``, ``lan``, or ``agent`` for one of the agent's own.
        number: Orders the commands of an origin.
        action: ``pause`` or ``resume``.
        cause: Which cause it sets or lifts.
        by: Who asked.
        received_at_ms: When the cloud, or for the LAN the agent, received it.
        effective_at_ms: When the span began; for a resume when it was received.
        until_ms: When the span is known to have ended; None while it lasts.
        lease_s: How long a pause lasts without another word.
        on_expiry: What then: ``silent`` or ``resume``.
        outcome: What the agent answered; None as long as it did not.
        from_us: Where the gap begins by the agent's clock: its own word, or reckoned while there is none.
        at_us: When the command acted, likewise.
        until_us: ``until_ms`` by the agent's clock.
        silent_from: The first silent packet of each stream, by the agent's word.
        causes: The call's causes afterwards, by the agent's word; None as long as there is none.
        agent_clean_at_ms: When the agent reported that its spool holds nothing of the span any more.
        gone_at_ms: When the last copy of the span was gone, after a command that came too late.
    """

    command: str
    origin: str
    number: int
    action: str
    cause: str
    by: str
    received_at_ms: int
    effective_at_ms: int
    until_ms: int | None
    lease_s: int
    on_expiry: str
    outcome: str | None
    from_us: int
    at_us: int
    until_us: int | None
    silent_from: tuple[SilentFrom, ...] = ()
    causes: tuple[str, ...] | None = None
    agent_clean_at_ms: int | None = None
    gone_at_ms: int | None = None

    @property
    def in_time(self) -> bool:
        """Whether the agent says that nothing of the span was kept."""
        return self.outcome == "acknowledged"

    @property
    def seconds_until_gone(self) -> float | None:
        """From receipt to the end of the last copy; None while there may be one, or if there never was."""
        return None if self.gone_at_ms is None else max(0, self.gone_at_ms - self.received_at_ms) / 1000


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call as its agent reports it.

    Attributes:
        tenant: Its owner.
        call_id: Its id.
        agent_id: Who records it.
        state: ``live``, ``ended`` while the ring drains, ``spooled``.
        started_at_ms: True time, as far as the agent's clock is known.
        ended_at_ms: None while it lasts.
        ended_at_us: The same by the agent's clock.
        revision: Of the last event that was taken.
        sealed: What officers see of it; empty once it is over.
        causes: Why nothing is kept at this moment.
        clock: The agent's clock.
        policy: By which rule it is kept; None if its agent has not said.
        links: Match tokens that every dialog of its call has.
    """

    tenant: TenantId
    call_id: CallId
    agent_id: AgentId
    state: str
    started_at_ms: int
    ended_at_ms: int | None
    ended_at_us: int | None
    revision: int
    sealed: bytes
    causes: tuple[str, ...]
    clock: ClockOffset
    policy: Kept | None = None
    links: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether packets are taken still."""
        return self.state == "live"

    def overlaps(self, from_ms: int, until_ms: int | None) -> bool:
        """Whether a span of time touches the call, give or take the margin of every pause and the clock's doubt."""
        slack_ms = (MARGIN_US + self.clock.uncertainty_us) // 1000
        begins_before_its_end = self.ended_at_ms is None or from_ms - slack_ms <= self.ended_at_ms
        return begins_before_its_end and (until_ms is None or until_ms + slack_ms >= self.started_at_ms)


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that the cloud knows of a call's pauses.

    Attributes:
        version: Changes with every command and every answer: what was made of another version is made again.
        commands: In the order of their numbers, origin by origin.
        live: The call as its agent reports it; None if it never did.
        last_number: The highest number of the cloud's commands; 0 if there is none.
    """

    version: int
    commands: tuple[LedgerCommand, ...]
    live: LiveCall | None
    last_number: int = 0


@dataclass(frozen=True, slots=True)
class PauseSpan:
    """A span that must be silent.

    Attributes:
        cause: Why.
        from_us: Its first microsecond, by the agent's clock.
        to_us: Its last; None while it lasts.
        origin: By which way the pause came.
        number: The pause's number.
        command: The pause's id.
        by: Who asked.
        effective_at_ms: When the span began by true time, before any margin.
        acknowledged: Whether the agent says that it kept nothing of it.
        silent_from: The first silent packet of each stream, by the agent's word.
        resumed_by: Id of the resume that ended it; empty if something else did.
    """

    cause: str
    from_us: int
    to_us: int | None
    origin: str
    number: int
    command: str
    by: str
    effective_at_ms: int
    acknowledged: bool
    silent_from: tuple[SilentFrom, ...]
    resumed_by: str


def spans(commands: Sequence[LedgerCommand], ended_at_us: int | None) -> list[PauseSpan]:
    """Says what must be silent.

    Args:
        commands: The ledger's, in any order.
        ended_at_us: When the call ended by the agent's clock; None while it lasts.

    Returns:
        One span for each pause that leaves any, ordered by their beginnings; spans may overlap.
    """
    ordered = _in_order(commands)
    found = []
    for place, (acts_at_us, pause) in enumerate(ordered):
        if pause.action != "pause":
            continue
        later = ((at_us, each) for at_us, each in ordered[place + 1 :] if each.action == "resume")
        resume = next(((at_us, each) for at_us, each in later if each.cause == pause.cause), None)
        lease_ends_us = acts_at_us + 1_000_000 * pause.lease_s if pause.on_expiry == "resume" else None
        ends = [
            (at_us, by)
            for at_us, by in (
                (pause.until_us, ""),
                (lease_ends_us, ""),
                (ended_at_us, ""),
                (resume[0], resume[1].command) if resume else (None, ""),
            )
            if at_us is not None
        ]
        to_us, resumed_by = min(ends, default=(None, ""))
        if to_us is None or to_us > pause.from_us:
            found.append(_span(pause, to_us, resumed_by))
    return sorted(found, key=lambda span: (span.from_us, span.origin, span.number))


def from_us(effective_at_ms: int, clock: ClockOffset) -> int:
    """Where a gap begins by the agent's clock: never after ``effective_at``, by the margin and the clock's doubt."""
    return max(0, 1000 * effective_at_ms - clock.offset_us - MARGIN_US - clock.uncertainty_us)


def not_before_us(at_ms: int, clock: ClockOffset) -> int:
    """A moment by the agent's clock that has certainly come at a true time: where a resume acts at the earliest."""
    return max(0, 1000 * at_ms - clock.offset_us + clock.uncertainty_us)


def true_ms(at_us: int, clock: ClockOffset) -> int:
    """True time of a moment by the agent's clock."""
    return max(0, at_us + clock.offset_us) // 1000


def outweighs(outcome: str, known: str | None) -> bool:
    """Whether an answer says more than the one that is known: answers come twice and in any order."""
    return _WEIGHT[outcome] > _WEIGHT[known]


def _in_order(commands: Sequence[LedgerCommand]) -> list[tuple[int, LedgerCommand]]:
    """Commands with the moments at which they act, in that order; what a newer one had superseded never acted."""
    latest: dict[str, int] = {}
    ordered = []
    for command in sorted(commands, key=lambda command: (command.origin, command.number)):
        if command.outcome != _SUPERSEDED:
            # A later number never acts before an earlier one, whatever reckoning of the clock says.
            latest[command.origin] = max(command.at_us, latest.get(command.origin, 0))
            ordered.append((latest[command.origin], command))
    return sorted(ordered, key=lambda entry: entry[0])


def _span(pause: LedgerCommand, to_us: int | None, resumed_by: str) -> PauseSpan:
    return PauseSpan(
        cause=pause.cause,
        from_us=pause.from_us,
        to_us=to_us,
        origin=pause.origin,
        number=pause.number,
        command=pause.command,
        by=pause.by,
        effective_at_ms=pause.effective_at_ms,
        acknowledged=pause.in_time,
        silent_from=pause.silent_from,
        resumed_by=resumed_by,
    )
