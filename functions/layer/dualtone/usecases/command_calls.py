"""Pause and resume calls: find them, write the command into each ledger, then tell the agents.

The order of the steps is what makes a crash harmless: what is in the ledger is silent in every recording made from then
on, whether or not its agent ever hears of it.

A call that nobody knows yet is waited for: the order is kept for 60 seconds and sent to all of the tenant's agents. It
is written before the calls are looked for a second time, and a call's tokens are written before its agent's report
looks for orders: whichever of the two comes first, the other one finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain import call_command
from dualtone.domain.audit_event import AuditEvent, Outcome, RequestFacts
from dualtone.domain.errors import MalformedInput, NotFound, PolicyViolation, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import Ledger, LedgerCommand, LiveCall
from dualtone.domain.pause_order import Order
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import Agent, AgentState, Verb

_TRIES: Final = 8
_MOST_CALLS: Final = 100
_MOST_TWINS: Final = 4
_MOST_LOOKED_AT: Final = 20  # the latest of those that share a link
VERBS: Final = {"pause": Verb.PAUSE_CALL, "resume": Verb.RESUME_CALL}


class Finding(Protocol):
    """Calls by their match tokens."""

    def matching(self, tenant: TenantId, token: str, from_ms: int) -> list[CallId]:
        """Calls that have a token and had not ended before a moment, the newest first."""


class Matches(Finding, Protocol):
    """Calls by their match tokens, and orders that wait for one."""

    def keep(self, tenant: TenantId, token: str, order: Order, number: int, event: AuditEvent | None) -> None:
        """Keeps an order for calls to come, and writes the event, both or none; a newer one of its cause stays."""


class Reading(Protocol):
    """The ledgers, for reading."""

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads a call's ledger."""


class Ledgers(Reading, Protocol):
    """The ledgers."""

    def issue(self, tenant: TenantId, call: CallId, command: LedgerCommand, event: AuditEvent | None) -> bool:
        """Writes a command and the event, both or none; False if its number is not above the last one."""


class Agents(Protocol):
    """The directory of agents."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent; raises NotFound."""

    def agents(self, tenant: TenantId) -> list[Agent]:
        """Reads all agents of a tenant."""


class CommandQueues(Protocol):
    """Where agents listen."""

    def send(self, queue_url: str, envelope: Envelope) -> None:
        """Sends a signed message."""


class Cuts(Protocol):
    """Where calls are named of which a paused span may have been kept."""

    def order(self, tenant: TenantId, call: CallId) -> None:
        """Has what is kept of a call made to agree with its ledger."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A command to one call.

    Attributes:
        call: The call.
        number: The command's number; None if a newer pause had overtaken the order, so that there is no command.
        state: The call's state when it was given.
    """

    call: CallId
    number: int | None
    state: str


class CommandCalls:
    """Gives orders."""

    def __init__(
        self,
        *,
        matches: Matches,
        ledgers: Ledgers,
        agents: Agents,
        queues: CommandQueues,
        cuts: Cuts,
        signer: Signer,
        now_ms: Callable[[], int],
    ) -> None:
        """Takes the stores, the queues, the cloud's signer, and the time."""
        self._matches = matches
        self._ledgers = ledgers
        self._agents = agents
        self._queues = queues
        self._cuts = cuts
        self._signer = signer
        self._now_ms = now_ms

    def by_call(self, tenant: TenantId, call: CallId, order: Order, facts: RequestFacts) -> list[Issued]:
        """Gives an order to one call, and to the same call where other agents of the tenant record it.

        Raises:
            NotFound: If no agent of the tenant ever reported that call.
            MalformedInput: If it had ended, or not begun, when the span was.
            Unavailable: If a store or a queue does not answer.
        """
        issued = self._command(tenant, call, order, facts)
        if issued is None:
            raise MalformedInput("the call was over before the span, or began after it", http_status=422)
        live = self._ledgers.read(tenant, call).live
        if live is None:
            return [issued]
        elsewhere = [twin.call_id for twin in twins(live, self._matches, self._ledgers, order.effective_at_ms)]
        return [issued, *self._to_each(tenant, elsewhere, order, facts)]

    def by_match(self, tenant: TenantId, token: str, order: Order, facts: RequestFacts) -> list[Issued]:
        """Gives an order to every call that has a match token at the time of the order's span.

        It is kept for a call to come unless one of these is live: what ended a moment ago need not be the call that is
        meant. Only the report of a span that is over is content with a call that is over.

        Returns:
            The commands; none if no call is known.

        Raises:
            MalformedInput: If a hundred calls have that token: it names no call, and some would be left out.
            Unavailable: If a store or a queue does not answer.
        """
        found = self._to_matching(tenant, token, order, facts)
        if _are_meant(order, found):
            return found
        number = call_command.next_number(0, self._now_ms())
        event = self._event(tenant, order, facts, "", number)
        self._matches.keep(tenant, token, order, number, event)
        found += self._to_matching(tenant, token, order, facts, but=[one.call for one in found])
        if not _are_meant(order, found):
            self._send_to_all(tenant, token, order, number)
        return found

    def to_new_call(self, tenant: TenantId, call: CallId, order: Order, number: int) -> None:
        """Gives an order that was kept for it to a call that has just become known; its event was written before.

        Raises:
            Unavailable: If a store or a queue does not answer.
        """
        ledger = self._ledgers.read(tenant, call)
        known = any(command.command == order.command for command in ledger.commands)
        if ledger.live is None or not (known or order.comes_after(ledger.commands)):
            return
        if known or self._ledgers.issue(tenant, call, order.for_ledger(number), None):
            self._send(tenant, ledger.live.agent_id, order, call, number)

    def _to_matching(
        self, tenant: TenantId, token: str, order: Order, facts: RequestFacts, *, but: Sequence[CallId] = ()
    ) -> list[Issued]:
        calls = self._matches.matching(tenant, token, order.effective_at_ms)
        if len(calls) > _MOST_CALLS:
            raise MalformedInput(f"more than {_MOST_CALLS} calls go by that name: use one of a call", http_status=422)
        return self._to_each(tenant, [call for call in calls if call not in but], order, facts)

    def _to_each(self, tenant: TenantId, calls: Sequence[CallId], order: Order, facts: RequestFacts) -> list[Issued]:
        issued, missed = [], None
        for call in calls:
            try:
                issued.append(self._command(tenant, call, order, facts))
            except NotFound:  # its tokens are written a moment before the call itself
                continue
            except Unavailable as error:  # one call's agent keeps the order from no other call
                missed = missed or error
        if missed is not None:
            raise missed
        return [one for one in issued if one is not None]

    def _command(self, tenant: TenantId, call: CallId, order: Order, facts: RequestFacts) -> Issued | None:
        """Writes and sends one command; None if the call and the span do not touch."""
        for _try in range(_TRIES):
            ledger = self._ledgers.read(tenant, call)
            live = ledger.live
            if live is None:
                raise NotFound("no such call")
            if not live.overlaps(order.effective_at_ms, order.until_ms):
                return None
            number = _given(order, ledger.commands)
            if number is None:
                if not order.comes_after(ledger.commands):
                    return Issued(call, None, live.state)
                number = call_command.next_number(ledger.last_number, self._now_ms())
                event = self._event(tenant, order, facts, call, number)
                if not self._ledgers.issue(tenant, call, order.for_ledger(number), event):
                    continue  # another command was first
            self._send(tenant, live.agent_id, order, call, number)
            if not live.is_live:
                self._cuts.order(tenant, call)
            return Issued(call, number, live.state)
        raise Unavailable("commands to one call outran each other")

    def _send(self, tenant: TenantId, agent_id: AgentId, order: Order, call: CallId, number: int) -> None:
        agent = self._agents.agent(tenant, agent_id)
        if agent.state is AgentState.ACTIVE and agent.command_queue_url is not None:
            command = order.for_call(tenant, agent_id, call, number, self._now_ms())
            try:
                self._queues.send(agent.command_queue_url, command.sealed_by(self._signer))
            except PolicyViolation as error:  # a fault of the deployment, and no answer to whoever asked
                raise Unavailable("an agent's queue refuses its commands") from error

    def _send_to_all(self, tenant: TenantId, token: str, order: Order, number: int) -> None:
        for agent in self._agents.agents(tenant):
            if agent.state is AgentState.ACTIVE and agent.command_queue_url is not None:
                command = order.for_match(tenant, agent.agent_id, token, number, self._now_ms())
                try:
                    self._queues.send(agent.command_queue_url, command.sealed_by(self._signer))
                except PolicyViolation:  # one agent's queue keeps the order from no other
                    continue

    @staticmethod
    def _event(tenant: TenantId, order: Order, facts: RequestFacts, which: str, number: int) -> AuditEvent:
        details: dict[str, str | int | list[int]] = {
            "command": order.command,
            "number": number,
            "cause": order.cause,
            "effective_at_ms": order.effective_at_ms,
            "outcome": "requested" if which else "pending",
        }
        if order.until_ms is not None:
            details["until_ms"] = order.until_ms
        verb = VERBS[order.action]
        return facts.event(verb, Outcome.GRANTED, tenant=tenant, who=order.by, which=which, details=details)


def twins(live: LiveCall, matches: Finding, ledgers: Reading, from_ms: int) -> list[LiveCall]:
    """The same call where other agents record it: a pair of recorders.

    One link in common is not enough, for an SBC may give all calls one group: most of them must be.

    Args:
        live: A call as its agent reports it.
        matches: Calls by their match tokens.
        ledgers: What is known of calls.
        from_ms: Only those that had not ended before.
    """
    found = {call for token in live.links for call in matches.matching(live.tenant, token, from_ms)} - {live.call_id}
    others = [ledgers.read(live.tenant, call).live for call in sorted(found, reverse=True)[:_MOST_LOOKED_AT]]
    return [other for other in others if other is not None and _are_twins(live, other)][:_MOST_TWINS]


def _are_twins(one: LiveCall, other: LiveCall) -> bool:
    if one.agent_id == other.agent_id:
        return False
    shared = set(one.links) & set(other.links)
    return 2 * len(shared) > min(len(one.links), len(other.links))


def _are_meant(order: Order, found: Sequence[Issued]) -> bool:
    """Whether the calls that were found are all that an order can mean."""
    return any(one.state == "live" for one in found) or bool(found and order.until_ms is not None)


def _given(order: Order, commands: Sequence[LedgerCommand]) -> int | None:
    """The number under which a call has the order already, from an attempt that came to nothing; None if it has not."""
    return next((command.number for command in commands if command.command == order.command), None)
