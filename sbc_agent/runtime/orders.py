"""A pause or resume in the agent's own terms: whichever way it came, and with times of the agent's clock. Pure.

The cloud speaks of true time; the agent's clock is off by what was measured, give or take an uncertainty. A gap begins
at or before the moment that was meant, and ends at or after it: the margin and the uncertainty always go to the side
of silence (``domain.pause_ledger`` reckons the same way).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from dualtone.domain import pause_ledger
from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.call_command import DEFAULT_LEASE_S, Action, Cause, Command, OnExpiry, Origin
from sbc_agent.media.messages import Pause, Resume

BY_RESTART: Final = "agent:restart"
"""Who asks for silence that a call inherits."""


@dataclass(frozen=True, slots=True)
class Order:
    """A pause or resume; times in microseconds of the agent's clock.

    Attributes:
        action: What to do.
        cause: Which cause is set or lifted.
        origin: Who counts it.
        number: Its number among those of its origin.
        command: Its id.
        by: Who asked.
        received_us: When it reached the agent.
        effective_us: The moment that was meant.
        from_us: Where the gap begins, margin and uncertainty included; for a resume when it was received.
        until_us: When the gap is known to have ended, or None.
        lease_s: How long a pause holds without another word.
        on_expiry: What happens then.
        dated: Whether the moment was named; else it is that of receipt.
    """

    action: Action
    cause: Cause
    origin: Origin
    number: int
    command: str
    by: str
    received_us: int
    effective_us: int
    from_us: int
    until_us: int | None
    lease_s: int
    on_expiry: OnExpiry
    dated: bool

    def message(self, call: str) -> Pause | Resume:
        """What the media process is told of it."""
        if self.action == "resume":
            return Resume(
                call=call,
                at_us=self.received_us,
                cause=self.cause,
                origin=self.origin,
                number=self.number,
                command=self.command,
                by=self.by,
            )
        return Pause(
            call=call,
            at_us=self.received_us,
            from_us=self.from_us,
            cause=self.cause,
            origin=self.origin,
            number=self.number,
            command=self.command,
            by=self.by,
            effective_at_us=self.effective_us,
            until_us=self.until_us,
            lease_us=1_000_000 * self.lease_s,
            on_expiry=self.on_expiry,
        )


def inherited_pause(cause: Cause, *, command: str, began_us: int, received_us: int) -> Order:
    """The pause of a call that goes on with one that could not be adopted: silent from its beginning.

    It has the lowest number, so that any resume lifts it, and stays silent when its lease runs out.
    """
    return Order(
        action="pause",
        cause=cause,
        origin="lan",
        number=1,
        command=command,
        by=BY_RESTART,
        received_us=received_us,
        effective_us=began_us,
        from_us=began_us,
        until_us=None,
        lease_s=DEFAULT_LEASE_S,
        on_expiry="silent",
        dated=True,
    )


def taken_from(message: Pause | Resume) -> Order:
    """What the agent itself told the media process, as if somebody had asked for it."""
    if isinstance(message, Pause):
        return own_pause(message)
    return Order(
        action="resume",
        cause=message.cause,
        origin=message.origin,
        number=message.number,
        command=message.command,
        by=message.by,
        received_us=message.at_us,
        effective_us=message.at_us,
        from_us=message.at_us,
        until_us=None,
        lease_s=DEFAULT_LEASE_S,
        on_expiry="silent",
        dated=False,
    )


def own_pause(pause: Pause) -> Order:
    """The pause by which a call has stopped itself, as if somebody had asked for it."""
    return Order(
        action="pause",
        cause=pause.cause,
        origin=pause.origin,
        number=pause.number,
        command=pause.command,
        by=pause.by,
        received_us=pause.at_us,
        effective_us=pause.effective_at_us,
        from_us=pause.from_us,
        until_us=pause.until_us,
        lease_s=pause.lease_us // 1_000_000,
        on_expiry=pause.on_expiry,
        dated=True,
    )


def own_resume(payment: Order, *, command: str, received_us: int) -> Order:
    """The end of the pause by which a call has stopped itself: the payment system says that card entry is over.

    It is counted among the agent's own commands, and asked for by whoever asked for the payment's end.
    """
    return replace(
        payment,
        cause="dtmf",
        origin="agent",
        number=received_us // 1000,
        command=command,
        received_us=received_us,
        effective_us=received_us,
        from_us=received_us,
    )


def issued_at(command: Command, now_ms: int) -> Command:
    """A command with all of its times moved so that it is issued now: what a clock makes of it that may be wrong."""
    later_ms = now_ms - command.issued_at_ms
    return replace(
        command,
        issued_at_ms=now_ms,
        expires_at_ms=command.expires_at_ms + later_ms,
        effective_at_ms=None if command.effective_at_ms is None else max(0, command.effective_at_ms + later_ms),
        until_ms=None if command.until_ms is None else max(0, command.until_ms + later_ms),
    )


def of_command(command: Command, *, received_us: int, clock: ClockOffset, origin: Origin = "cloud") -> Order:
    """A command in the agent's terms.

    Args:
        command: What the cloud, or the LAN, asks; in true time.
        received_us: When it reached the agent.
        clock: How far the agent's clock is off.
        origin: By which way it came.
    """
    effective_ms = command.issued_at_ms if command.effective_at_ms is None else command.effective_at_ms
    is_pause = command.action == "pause"
    return Order(
        action=command.action,
        cause=command.cause,
        origin=origin,
        number=command.number,
        command=command.id,
        by=command.by,
        received_us=received_us,
        effective_us=max(0, 1000 * effective_ms - clock.offset_us) if is_pause else received_us,
        from_us=pause_ledger.from_us(effective_ms, clock) if is_pause else received_us,
        until_us=None if command.until_ms is None else pause_ledger.not_before_us(command.until_ms, clock),
        lease_s=command.lease_s,
        on_expiry=command.on_expiry,
        dated=command.effective_at_ms is not None,
    )
