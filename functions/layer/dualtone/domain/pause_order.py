"""An order to pause or resume, as a person or a payment system gave it: for the ledger, and for agents. Pure.

An order is the cloud's before it is any call's: one order can concern several calls, or one that nobody knows yet.
Times are true Unix time in milliseconds; what a caller says of them is bounded by when we heard it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dualtone.domain.call_command import (
    DEFAULT_LEASE_S,
    LONGEST_LEASE_S,
    PENDING_S,
    Action,
    Cause,
    Command,
    OnExpiry,
)
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import LedgerCommand

LATEST_REPORT_MS: Final = 72 * 3_600_000
"""How far back a span may begin: longer than an agent may be silent."""
MATCHES_KEPT_S: Final = 80 * 3600
"""How long after its end a call is found by its match tokens: until every late report has come."""
COMMANDS_KEPT_MS: Final = 14 * 86_400_000
"""How long a command to a known call is obeyed: as long as the agent's queue keeps it. Its numbers keep the order."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked.

    Attributes:
        command: ULID, the same for every call and agent that it concerns, and for every attempt to carry it out.
        action: ``pause`` or ``resume``.
        cause: Which cause is set or lifted.
        by: Who asked.
        received_at_ms: When we heard it first, at the API's edge.
        effective_at_ms: From when on the span is to be silent; for a resume when it was received.
        until_ms: When the span is known to have ended; None while it lasts.
        lease_s: How long a pause lasts without another word.
        on_expiry: What then.
    """

    command: str
    action: Action
    cause: Cause
    by: str
    received_at_ms: int
    effective_at_ms: int
    until_ms: int | None
    lease_s: int
    on_expiry: OnExpiry

    def for_ledger(self, number: int) -> LedgerCommand:
        """The order as the ledger of one call keeps it; what no agent has said yet is left at zero."""
        return LedgerCommand(
            command=self.command,
            origin="cloud",
            number=number,
            action=self.action,
            cause=self.cause,
            by=self.by,
            received_at_ms=self.received_at_ms,
            effective_at_ms=self.effective_at_ms,
            until_ms=self.until_ms,
            lease_s=self.lease_s,
            on_expiry=self.on_expiry,
            outcome=None,
            from_us=0,
            at_us=0,
            until_us=None,
        )

    def for_call(self, tenant: TenantId, agent: AgentId, call: CallId, number: int, now_ms: int) -> Command:
        """The command to the agent that has the call."""
        return self._command(tenant, agent, number, now_ms, now_ms + COMMANDS_KEPT_MS, call=call, match=None)

    def for_match(self, tenant: TenantId, agent: AgentId, match: str, number: int, now_ms: int) -> Command:
        """The command to an agent that may get a call that matches; it keeps it as long as we do."""
        return self._command(tenant, agent, number, now_ms, now_ms + 1000 * PENDING_S, call=None, match=match)

    def comes_after(self, commands: Sequence[LedgerCommand]) -> bool:
        """Whether the order still means something: a resume that a pause of its cause overtook lifts nothing."""
        return self.action == "pause" or not any(
            command.action == "pause" and command.cause == self.cause and command.received_at_ms > self.received_at_ms
            for command in commands
            if command.outcome != "superseded"
        )

    def _command(
        self,
        tenant: TenantId,
        agent: AgentId,
        number: int,
        now_ms: int,
        expires_at_ms: int,
        *,
        call: CallId | None,
        match: str | None,
    ) -> Command:
        pause = self.action == "pause"
        return Command(
            id=self.command,
            tenant=tenant,
            agent=agent,
            issued_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
            action=self.action,
            call=call,
            match=match,
            number=number,
            cause=self.cause,
            effective_at_ms=self.effective_at_ms if pause else None,
            until_ms=self.until_ms if pause else None,
            lease_s=self.lease_s,
            on_expiry=self.on_expiry,
            by=self.by,
        )


def pause(
    *,
    command: str,
    cause: Cause,
    by: str,
    received_at_ms: int,
    effective_at_ms: int | None = None,
    until_ms: int | None = None,
    lease_s: int = DEFAULT_LEASE_S,
    on_expiry: OnExpiry = "silent",
) -> Order:
    """An order to pause.

    Args:
        command: A new ULID.
        cause: Why.
        by: Who asks.
        received_at_ms: When we heard it.
        effective_at_ms: When the span began by the caller's word; a moment that is still to come by our clock counts
            as now, since silence that begins early is the lesser fault.
        until_ms: When it ended, if that is known.
        lease_s: How long it lasts without another word.
        on_expiry: What then.

    Raises:
        MalformedInput: If the span is empty, began more than 72 hours ago, or lasts longer than any lease.
    """
    begins_ms = received_at_ms if effective_at_ms is None else min(effective_at_ms, received_at_ms)
    if begins_ms < received_at_ms - LATEST_REPORT_MS:
        raise MalformedInput("`effective_at` lies more than 72 hours back", http_status=422)
    if until_ms is not None and not begins_ms < until_ms <= received_at_ms + 1000 * LONGEST_LEASE_S:
        raise MalformedInput("`until` must lie after `effective_at`, and at most four hours ahead", http_status=422)
    return Order(command, "pause", cause, by, received_at_ms, begins_ms, until_ms, lease_s, on_expiry)


def resume(*, command: str, cause: Cause, by: str, received_at_ms: int) -> Order:
    """An order to resume: it acts when it comes, whatever anybody says of earlier."""
    return Order(command, "resume", cause, by, received_at_ms, received_at_ms, None, DEFAULT_LEASE_S, "silent")
