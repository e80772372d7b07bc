"""Wait until agents have answered commands, and after a late one until the last copy of its span is gone; not for long.

The caller is a payment page that must know whether it may ask for a card number: an answer in time is worth waiting
for, and after three seconds `requested` is the honest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from dualtone.domain import pause_ledger
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.pause_ledger import Ledger, LedgerCommand
from dualtone.domain.pause_order import Order
from dualtone.usecases.command_calls import Issued

ANSWER_WITHIN_MS: Final = 3_000
GONE_WITHIN_MS: Final = 10_000
STEP_MS: Final = 75

CallOutcome = Literal["acknowledged", "requested", "too_late", "superseded"]
OverallOutcome = Literal["acknowledged", "requested", "pending", "too_late", "superseded"]
# Which of several calls' outcomes a payment page must heed.
_GRAVEST_FIRST: Final[tuple[CallOutcome, ...]] = ("requested", "too_late", "superseded", "acknowledged")


class Ledgers(Protocol):
    """The ledgers."""

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads a call's ledger."""

    def command(self, tenant: TenantId, call: CallId, origin: str, number: int) -> LedgerCommand | None:
        """Reads one command."""


class Patience(Protocol):
    """A clock that can be waited by."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""

    def wait_ms(self, duration_ms: int) -> None:
        """Lets that much time pass."""


@dataclass(frozen=True, slots=True)
class SilentStream:
    """The first silent packet of a stream: RTP timestamp, None if none came yet, and true time."""

    stream: int
    rtp_timestamp: int | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What became of a command to one call.

    Attributes:
        call: The call.
        state: Its state when the command was given.
        command: The command's id.
        outcome: ``acknowledged``: nothing of the span is kept. ``requested``: no answer yet. ``too_late``: something
            had been kept and is being removed. ``superseded``: a newer command was there first.
        causes: Why nothing is kept now, by the agent's last word.
        paused: Whether nothing is kept now; None while the agent has not answered.
        effective_at_ms: From when on the span was to be silent.
        gap_started_at_ms: Where the gap begins, by the agent's word: true time.
        silent_from: The first silent packet of each stream.
        seconds_until_gone: How long after receipt the last copy of a late span was gone; None while it may not be.
    """

    call: CallId
    state: str
    command: str
    outcome: CallOutcome
    causes: tuple[str, ...]
    paused: bool | None
    effective_at_ms: int
    gap_started_at_ms: int | None = None
    silent_from: tuple[SilentStream, ...] = ()
    seconds_until_gone: float | None = None


class AwaitAnswers:
    """Waits for answers."""

    def __init__(self, ledgers: Ledgers, patience: Patience) -> None:
        """Takes the ledgers, and what waits."""
        self._ledgers = ledgers
        self._patience = patience

    def wait(
        self,
        tenant: TenantId,
        order: Order,
        issued: Sequence[Issued],
        *,
        answer_within_ms: int = ANSWER_WITHIN_MS,
        gone_within_ms: int = GONE_WITHIN_MS,
    ) -> list[CallAnswer]:
        """Waits for all commands of an order.

        Args:
            tenant: Whose calls.
            order: The order.
            issued: Its commands, one a call.
            answer_within_ms: How long to wait for answers.
            gone_within_ms: How much longer to wait for the last copies of late spans.

        Returns:
            What became of each, in their order.
        """
        numbered = [one for one in issued if one.number is not None]
        self._until(tenant, numbered, answer_within_ms, lambda entry: entry.outcome is not None)
        late = [one for one in numbered if _outcome(self._entry(tenant, one), one.state) == "too_late"]
        self._until(tenant, late, gone_within_ms, lambda entry: entry.gone_at_ms is not None)
        return [self._answer(tenant, order, one) for one in issued]

    def _until(
        self, tenant: TenantId, waiting: Sequence[Issued], within_ms: int, done: Callable[[LedgerCommand], bool]
    ) -> None:
        deadline_ms = self._patience.now_ms() + within_ms
        while waiting := [
            one for one in waiting if (entry := self._entry(tenant, one)) is not None and not done(entry)
        ]:
            left_ms = deadline_ms - self._patience.now_ms()
            if left_ms <= 0:
                return
            self._patience.wait_ms(min(STEP_MS, left_ms))

    def _entry(self, tenant: TenantId, issued: Issued) -> LedgerCommand | None:
        return None if issued.number is None else self._ledgers.command(tenant, issued.call, "cloud", issued.number)

    def _answer(self, tenant: TenantId, order: Order, issued: Issued) -> CallAnswer:
        ledger = self._ledgers.read(tenant, issued.call)
        numbers = {(command.origin, command.number): command for command in ledger.commands}
        entry = numbers.get(("cloud", issued.number)) if issued.number is not None else None
        reported = ledger.live.causes if ledger.live is not None else ()
        answered = entry is not None and entry.outcome is not None
        causes = entry.causes if entry is not None and entry.causes is not None else reported
        answer = CallAnswer(
            call=issued.call,
            state=issued.state,
            command=order.command,
            outcome=_outcome(entry, issued.state),
            causes=causes,
            paused=bool(causes) if answered or issued.number is None else None,
            effective_at_ms=order.effective_at_ms,
        )
        if entry is None or entry.outcome in (None, "superseded", "unknown"):
            return replace(answer, seconds_until_gone=entry.seconds_until_gone if entry is not None else None)
        clock = ledger.live.clock if ledger.live is not None else pause_ledger.UNKNOWN_CLOCK
        return replace(
            answer,
            gap_started_at_ms=pause_ledger.true_ms(entry.from_us, clock) if order.action == "pause" else None,
            silent_from=tuple(
                SilentStream(each.stream, each.rtp_timestamp, pause_ledger.true_ms(each.at_us, clock))
                for each in entry.silent_from
            ),
            seconds_until_gone=entry.seconds_until_gone,
        )


def overall(answers: Sequence[CallAnswer]) -> OverallOutcome:
    """The one outcome of an order: that of the calls that are live, or if none is of all; the gravest of them.

    A payment page asks for a card number on ``acknowledged`` alone, so that any doubt about any call shows here.
    """
    if not answers:
        return "pending"
    heeded = [answer for answer in answers if answer.state == "live"] or list(answers)
    outcomes = {answer.outcome for answer in heeded}
    return next(outcome for outcome in _GRAVEST_FIRST if outcome in outcomes)


def _outcome(entry: LedgerCommand | None, state: str) -> CallOutcome:
    """The outcome as callers know it: a call that lies in the spool, or is gone from it, was kept already."""
    if entry is None or entry.outcome == "superseded":
        return "superseded"
    if entry.outcome == "acknowledged":
        return "acknowledged"
    if entry.outcome in ("too_late", "unknown") or (state == "spooled" and entry.action == "pause"):
        return "too_late"
    return "requested"
