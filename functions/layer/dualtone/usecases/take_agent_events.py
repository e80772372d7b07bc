"""Take what an agent reports: who it is, then each event by itself, so that one that is wrong stops no other.

1. The signature is that of the agent whom the directory knows, and the agent is active.
2. Calls, answers, choices, cuts and health are written where they belong; each write may be done again. A call that
   lasts is watched from now on, so that its silence is noticed.
3. A call that has just become known gets the orders that waited for it.
4. A call of which a paused span was kept is named to what cuts it.

Reports come late, twice and in any order. What is damaged is said once, loudly, and never comes again. A report of
which something could not be taken now comes again as a whole, after the rest of it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain import agent_assertion, agent_events, canonical, pause_ledger
from dualtone.domain.agent_events import (
    AckEvent,
    CallEvent,
    ClockOffset,
    CutEvent,
    DecisionEvent,
    Event,
    HealthEvent,
    LeaseEvent,
    Report,
)
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.errors import IntegrityError, NotFound, PolicyViolation, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import UNKNOWN_CLOCK
from dualtone.domain.pause_order import Order
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Agent


class Agents(Protocol):
    """The directory of agents."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent; raises NotFound."""


class Calls(Protocol):
    """Calls while they last."""

    def take(
        self,
        tenant: TenantId,
        agent: AgentId,
        event: CallEvent,
        *,
        clock: ClockOffset | None,
        sent_at_us: int,
        now_ms: int,
    ) -> frozenset[str]:
        """Takes a report of a call; returns the tokens for which orders may wait."""

    def end_all_but(
        self, tenant: TenantId, agent: AgentId, live: Iterable[str], *, sent_at_us: int, now_ms: int
    ) -> list[CallId]:
        """Ends calls that are thought to be live and that their agent lists no more."""

    def waiting(self, tenant: TenantId, tokens: Iterable[str], now_ms: int) -> list[tuple[Order, int]]:
        """Orders that wait for a call with one of these tokens, with their numbers."""


class Ledgers(Protocol):
    """The ledgers."""

    def answered(
        self, tenant: TenantId, agent: AgentId, ack: AckEvent, *, clock: ClockOffset, event: AuditEvent
    ) -> bool:
        """Takes an answer; says whether it is news."""

    def clean_at_agent(self, tenant: TenantId, agent: AgentId, call: CallId, command: str, now_ms: int) -> None:
        """Notes that an agent keeps nothing of a command's span any more."""


class Choices(Protocol):
    """What people chose for calls."""

    def take(
        self, tenant: TenantId, agent: AgentId, told: DecisionEvent, *, clock: ClockOffset, event: AuditEvent
    ) -> bool:
        """Takes what an agent tells of a choice; says whether it is news."""


class Health(Protocol):
    """Agents' health."""

    def take(
        self,
        tenant: TenantId,
        agent: AgentId,
        event: HealthEvent,
        *,
        sequence: int,
        clock: ClockOffset | None,
        now_ms: int,
    ) -> None:
        """Takes an agent's word."""


class Orders(Protocol):
    """Gives orders to calls."""

    def to_new_call(self, tenant: TenantId, call: CallId, order: Order, number: int) -> None:
        """Gives an order that waited."""


class Cuts(Protocol):
    """Where calls are named of which a paused span may have been kept."""

    def order(self, tenant: TenantId, call: CallId) -> None:
        """Has what is kept of a call made to agree with its ledger."""


class Audit(Protocol):
    """The audit outbox."""

    def write_once(self, event: AuditEvent, identity: str) -> None:
        """Writes an event that may be told again."""


class Alarms(Protocol):
    """Tells the people on duty."""

    def event_refused(self, tenant: str, agent: str, kind: str, error: Exception) -> None:
        """An agent's event, or a whole report, was damaged and is dropped."""

    def lease_expired(self, tenant: TenantId, call: CallId, on_expiry: str) -> None:
        """Nobody renewed or ended a pause in time."""

    def payment_without_pause(self, tenant: TenantId, call: CallId) -> None:
        """Somebody typed a card's number, and nobody had paused the call."""

    def call_lost(self, tenant: TenantId, call: CallId, agent: AgentId) -> None:
        """An agent records a call no more of which it never reported the end."""


_LATE: Final = ("too_late", "unknown")


class ReportRefused(PolicyViolation):
    """Who signed a report is no agent, or none any more."""


@dataclass(frozen=True, slots=True)
class TakeAgentEvents:
    """Takes reports; its attributes are the ports that it uses."""

    agents: Agents
    watch: Callable[[TenantId, AgentId, CallId], None]
    calls: Calls
    ledgers: Ledgers
    choices: Choices
    health: Health
    orders: Orders
    cuts: Cuts
    audit: Audit
    alarms: Alarms

    def __call__(self, body: str, request_id: str, now_ms: int) -> int:
        """Takes one message of the queue.

        Args:
            body: The signed report, JSON.
            request_id: The queue's id of the message, for audit events.
            now_ms: True time.

        Returns:
            How many events were taken.

        Raises:
            MalformedInput: If it is no report.
            IntegrityError: If its signature is not right.
            ReportRefused: If the agent is not active, or is no agent.
            Unavailable: If a store or a queue did not answer for one of its events: take it again.
        """
        report, taken, missed = self._verified(body), 0, None
        for event in report.events:
            try:
                taken += self._taken(report, event, request_id, now_ms)
            except Unavailable as error:
                missed = missed or error
        if missed is not None:
            raise missed
        return taken

    def _verified(self, body: str) -> Report:
        envelope = Envelope.from_json(canonical.decode(body.encode("utf-8", "replace")))
        claimed = agent_events.read(envelope)
        try:
            agent = self.agents.agent(TenantId(claimed.tenant), AgentId(claimed.agent))
            keys = agent_assertion.verifying_keys(agent)
        except (NotFound, PolicyViolation) as error:
            raise ReportRefused("a report names no active agent") from error
        return agent_events.verified(envelope, keys)

    def _taken(self, report: Report, event: Event, request_id: str, now_ms: int) -> bool:
        tenant, agent = TenantId(report.tenant), AgentId(report.agent)
        try:
            match event:
                case CallEvent():
                    self._call(tenant, agent, event, report, now_ms)
                case AckEvent():
                    self._ack(tenant, agent, event, report.clock or UNKNOWN_CLOCK, request_id, now_ms)
                case CutEvent():
                    self.ledgers.clean_at_agent(tenant, agent, CallId(event.call), event.command, now_ms)
                    self.cuts.order(tenant, CallId(event.call))
                case DecisionEvent():
                    self._decision(tenant, agent, event, report.clock or UNKNOWN_CLOCK, request_id, now_ms)
                case LeaseEvent():
                    self._lease(tenant, agent, event, report.clock or UNKNOWN_CLOCK, request_id)
                case HealthEvent():
                    self._health(tenant, agent, event, report, now_ms)
        except IntegrityError as error:
            self.alarms.event_refused(tenant, agent, event.type, error)
            return False
        return True

    def _call(self, tenant: TenantId, agent: AgentId, event: CallEvent, report: Report, now_ms: int) -> None:
        tokens = self.calls.take(tenant, agent, event, clock=report.clock, sent_at_us=report.sent_at_us, now_ms=now_ms)
        if tokens and event.state == "live":
            for order, number in self.calls.waiting(tenant, tokens, now_ms):
                self.orders.to_new_call(tenant, CallId(event.call), order, number)

    def _ack(
        self, tenant: TenantId, agent: AgentId, event: AckEvent, clock: ClockOffset, request_id: str, now_ms: int
    ) -> None:
        details: dict[str, str | int | list[int]] = {
            "command": event.command,
            "number": event.number,
            "origin": event.origin,
            "action": event.action,
            "cause": event.cause,
            "by": event.by,
            "outcome": event.outcome,
        }
        told = _event(tenant, agent, Work.ANSWER_COMMAND, event.call, request_id, now_ms, details)
        is_news = self.ledgers.answered(tenant, agent, event, clock=clock, event=told)
        if is_news and event.origin == "agent" and event.action == "pause":
            self.alarms.payment_without_pause(tenant, CallId(event.call))
        # A cut may be ordered twice, but never not at all: so also when the answer is no news.
        if event.action == "pause" and event.outcome in _LATE:
            self.cuts.order(tenant, CallId(event.call))

    def _decision(
        self, tenant: TenantId, agent: AgentId, event: DecisionEvent, clock: ClockOffset, request_id: str, now_ms: int
    ) -> None:
        details: dict[str, str | int | list[int]] = {
            "choice": event.choice,
            "how": event.how,
            "by": event.by,
            "outcome": event.outcome,
        }
        if event.command is not None:
            details["command"] = event.command
        told = _event(tenant, agent, Work.TELL_CHOICE, event.call, request_id, now_ms, details)
        self.choices.take(tenant, agent, event, clock=clock, event=told)

    def _health(self, tenant: TenantId, agent: AgentId, event: HealthEvent, report: Report, now_ms: int) -> None:
        self.health.take(tenant, agent, event, sequence=report.sequence, clock=report.clock, now_ms=now_ms)
        lost = self.calls.end_all_but(tenant, agent, event.live, sent_at_us=report.sent_at_us, now_ms=now_ms)
        for call in lost:
            self.alarms.call_lost(tenant, call, agent)

    def _lease(self, tenant: TenantId, agent: AgentId, event: LeaseEvent, clock: ClockOffset, request_id: str) -> None:
        details: dict[str, str | int | list[int]] = {"cause": event.cause, "on_expiry": event.on_expiry}
        expired_at_ms = pause_ledger.true_ms(event.at_us, clock)
        told = _event(tenant, agent, Work.LEASE_EXPIRED, event.call, request_id, expired_at_ms, details)
        self.audit.write_once(told, f"{agent} {event.call} {event.cause} {event.at_us}")
        self.alarms.lease_expired(tenant, CallId(event.call), event.on_expiry)


def _event(
    tenant: TenantId,
    agent: AgentId,
    what: Work,
    call: str,
    request_id: str,
    now_ms: int,
    details: dict[str, str | int | list[int]],
) -> AuditEvent:
    return AuditEvent(tenant, f"agent:{agent}", what, now_ms, Outcome.GRANTED, "", call, request_id, details)
