"""Giving orders: the ledger first, then agents; and nobody falls between two looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from dualtone.domain import call_command, pause_order
from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.audit_event import AuditEvent, RequestFacts
from dualtone.domain.call_command import Command
from dualtone.domain.errors import MalformedInput, NotFound, PolicyViolation, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import Ledger, LedgerCommand, LiveCall
from dualtone.domain.pause_order import Order
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Agent, AgentState
from dualtone.usecases.command_calls import CommandCalls, Issued
from tests.call_samples import AGENT, CALL, TENANT, AgentKey

NOW = 2_000_000_000_000
FACTS = RequestFacts(NOW, "192.0.2.7", "request")
TOKEN = "a" * 32
OTHER_AGENT = AgentId("agt_01JD0000000000000000000THE"[:30])
PAUSE = pause_order.pause(
    command="01JD0000000000000000000000", cause="payment", by="endpoint:e", received_at_ms=NOW - 5
)
RESUME = pause_order.resume(command="01JD0000000000000000000001", cause="payment", by="person:p", received_at_ms=NOW)


@dataclass
class World:
    """All that giving orders touches, in memory; `trace` is the order in which it was touched."""

    ledgers: dict[CallId, Ledger] = field(default_factory=dict)
    found: list[list[CallId]] = field(default_factory=list)
    states: dict[AgentId, AgentState] = field(default_factory=lambda: {AGENT: AgentState.ACTIVE})
    sent: list[tuple[str, Command]] = field(default_factory=list)
    cut: list[CallId] = field(default_factory=list)
    kept: list[tuple[str, Order, int]] = field(default_factory=list)
    events: list[AuditEvent] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    down: Exception | None = None
    before_issue: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.key = AgentKey()
        self.commands = CommandCalls(
            matches=self,
            ledgers=self,
            agents=self,
            queues=self,
            cuts=self,
            signer=self.key,
            now_ms=lambda: NOW,
        )

    def live(self, call: CallId = CALL, **changes: object) -> None:
        live = LiveCall(TENANT, call, AGENT, "live", NOW - 60_000, None, None, 1, b"", (), ClockOffset(0, 10_000))
        self.ledgers[call] = Ledger(0, (), replace(live, **changes))  # type: ignore[arg-type]

    def matching(self, tenant: TenantId, token: str, from_ms: int) -> list[CallId]:
        self.trace.append("look")
        return self.found.pop(0)

    def keep(self, tenant: TenantId, token: str, order: Order, number: int, event: AuditEvent | None) -> None:
        self.trace.append("keep")
        self.kept.append((token, order, number))
        if event is not None:
            self.events.append(event)

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        return self.ledgers.get(call, Ledger(0, (), None))

    def issue(self, tenant: TenantId, call: CallId, command: LedgerCommand, event: AuditEvent | None) -> bool:
        self.trace.append("issue")
        if self.before_issue is not None:
            self.before_issue()
        ledger = self.ledgers[call]
        if command.number <= ledger.last_number:
            return False
        self.ledgers[call] = Ledger(ledger.version + 1, (*ledger.commands, command), ledger.live, command.number)
        if event is not None:
            self.events.append(event)
        return True

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        return Agent(tenant, agent, "SBC", self.states[agent], "pem", f"https://sqs/{agent}")

    def agents(self, tenant: TenantId) -> list[Agent]:
        return [self.agent(tenant, agent) for agent in self.states]

    def send(self, queue_url: str, envelope: Envelope) -> None:
        self.trace.append("send")
        if self.down is not None:
            raise self.down
        self.sent.append((queue_url, call_command.verified(envelope, self.key.public_der)))

    def order(self, tenant: TenantId, call: CallId) -> None:
        self.trace.append("cut")
        self.cut.append(call)


@pytest.fixture
def world() -> World:
    return World()


def test_the_ledger_knows_before_the_agent(world: World) -> None:
    """A crash between the two leaves a call that will be silent, never one that only an agent knows to be."""
    world.live()
    assert world.commands.by_call(TENANT, CALL, PAUSE, FACTS) == [Issued(CALL, NOW, "live")]
    assert world.trace == ["issue", "send"]
    ((queue, command),) = world.sent
    assert (queue, command.call, command.number) == (f"https://sqs/{AGENT}", CALL, NOW)
    (event,) = world.events
    assert (event.what, event.who, event.which) == ("calls:pause", "endpoint:e", CALL)


def test_another_command_that_was_first_costs_a_second_try(world: World) -> None:
    """With a number above it."""
    world.live()

    def somebody_else() -> None:
        world.before_issue = None
        ledger = world.ledgers[CALL]
        world.ledgers[CALL] = replace(ledger, last_number=NOW + 7)

    world.before_issue = somebody_else
    assert world.commands.by_call(TENANT, CALL, PAUSE, FACTS) == [Issued(CALL, NOW + 8, "live")]


def test_it_gives_up_when_others_are_always_first(world: World) -> None:
    """503: ask again."""
    world.live()

    def always() -> None:
        world.ledgers[CALL] = replace(world.ledgers[CALL], last_number=world.ledgers[CALL].last_number + 2 * NOW)

    world.before_issue = always
    with pytest.raises(Unavailable):
        world.commands.by_call(TENANT, CALL, PAUSE, FACTS)
    assert world.sent == []


def test_a_call_that_is_over_is_cut_too(world: World) -> None:
    """Agent and cloud both may have kept some of it."""
    world.live(state="spooled", ended_at_ms=NOW - 1)
    world.commands.by_call(TENANT, CALL, PAUSE, FACTS)
    assert world.trace == ["issue", "send", "cut"]


def test_a_call_found_at_the_second_look_is_commanded(world: World) -> None:
    """It was reported between the first look and the keeping; its agent need not have heard by match."""
    world.live()
    world.found = [[], [CALL]]
    assert world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS) == [Issued(CALL, NOW, "live")]
    assert world.trace == ["look", "keep", "look", "issue", "send"]


def test_a_call_whose_tokens_are_there_before_it_is_waited_for(world: World) -> None:
    """Its agent's report looks for orders afterwards."""
    world.found = [[CALL], [CALL]]
    assert world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS) == []
    assert [(token, order) for token, order, _number in world.kept] == [(TOKEN, PAUSE)]
    ((_queue, command),) = world.sent
    assert (command.match, command.call) == (TOKEN, None)


def test_a_call_that_ended_a_moment_ago_need_not_be_the_one_that_is_meant(world: World) -> None:
    """It is paused, and so is the one to come: a transfer begins a dialog of its own under the same name."""
    world.live(state="ended", ended_at_ms=NOW - 100)
    world.found = [[CALL], [CALL]]
    assert world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS) == [Issued(CALL, NOW, "ended")]
    assert [(token, order) for token, order, _number in world.kept] == [(TOKEN, PAUSE)]
    assert [command.match for _queue, command in world.sent if command.call is None] == [TOKEN]
    assert len(world.ledgers[CALL].commands) == 1


def test_the_late_report_of_a_span_that_is_over_waits_for_no_call(world: World) -> None:
    """The call that is over is the one that is meant."""
    world.live(state="ended", ended_at_ms=NOW - 100)
    world.found = [[CALL]]
    over = replace(PAUSE, effective_at_ms=NOW - 9000, until_ms=NOW - 5000)
    assert world.commands.by_match(TENANT, TOKEN, over, FACTS) == [Issued(CALL, NOW, "ended")]
    assert world.kept == []


def test_one_calls_agent_keeps_an_order_from_no_other_call(world: World) -> None:
    """All of them are paused that can be; then 503, so that the sender comes again for the rest."""
    other = CallId("01JD00000000000000000CA111")
    world.live()
    world.live(other, agent_id=OTHER_AGENT)
    world.states[OTHER_AGENT] = AgentState.ACTIVE
    world.found = [[CALL, other]]
    send = world.send

    def refuses_the_first(queue_url: str, envelope: Envelope) -> None:
        if queue_url.endswith(AGENT):
            raise Unavailable("sending: ServiceUnavailable")
        send(queue_url, envelope)

    world.send = refuses_the_first  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS)
    assert [command.call for _queue, command in world.sent] == [other]


def test_a_name_of_too_many_calls_is_refused(world: World) -> None:
    """Rather than that some are left out."""
    world.found = [[CALL] * 101]
    with pytest.raises(MalformedInput, match="more than 100"):
        world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS)
    assert world.trace == ["look"]


@pytest.mark.parametrize("state", [AgentState.REVOKED, AgentState.PENDING])
def test_an_agent_that_is_not_active_is_sent_nothing(world: World, state: AgentState) -> None:
    """What it recorded is silent all the same: the ledger has it."""
    world.live()
    world.states[AGENT] = state
    assert world.commands.by_call(TENANT, CALL, PAUSE, FACTS) == [Issued(CALL, NOW, "live")]
    world.found = [[], []]
    assert world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS) == []
    assert (world.sent, len(world.ledgers[CALL].commands)) == ([], 1)


def test_a_queue_that_refuses_is_a_fault_of_ours(world: World) -> None:
    """503, and what was written is sent by the next attempt under the same number."""
    world.live()
    world.down = PolicyViolation("sending: AccessDenied")
    with pytest.raises(Unavailable):
        world.commands.by_call(TENANT, CALL, PAUSE, FACTS)
    world.down = None
    assert world.commands.by_call(TENANT, CALL, PAUSE, FACTS) == [Issued(CALL, NOW, "live")]
    assert (len(world.ledgers[CALL].commands), len(world.sent), len(world.events)) == (1, 1, 1)


def test_one_agents_queue_keeps_an_order_from_no_other(world: World) -> None:
    """By match it goes to all that can be reached."""
    world.states[OTHER_AGENT] = AgentState.ACTIVE
    world.found = [[], []]
    send = world.send

    def refuses_the_first(queue_url: str, envelope: Envelope) -> None:
        if queue_url.endswith(AGENT):
            raise PolicyViolation("sending: AccessDenied")
        send(queue_url, envelope)

    world.send = refuses_the_first  # type: ignore[method-assign]
    world.commands.by_match(TENANT, TOKEN, PAUSE, FACTS)
    assert [command.agent for _queue, command in world.sent] == [OTHER_AGENT]


def test_a_resume_that_a_newer_pause_overtook_is_not_sent(world: World) -> None:
    """Not by its call, and not to one that has just become known."""
    world.live()
    newer = replace(PAUSE, received_at_ms=RESUME.received_at_ms + 1)
    world.commands.by_call(TENANT, CALL, newer, FACTS)
    world.sent.clear()
    assert world.commands.by_call(TENANT, CALL, RESUME, FACTS) == [Issued(CALL, None, "live")]
    world.commands.to_new_call(TENANT, CALL, RESUME, NOW + 5)
    assert world.sent == []


def test_an_order_that_waited_is_given_once_and_sent_as_often_as_asked(world: World) -> None:
    """Its event was written when it was kept."""
    world.live()
    for _ in range(2):
        world.commands.to_new_call(TENANT, CALL, PAUSE, NOW - 3)
    assert [entry.number for entry in world.ledgers[CALL].commands] == [NOW - 3]
    assert [command.number for _queue, command in world.sent] == [NOW - 3, NOW - 3]
    assert world.events == []
    world.commands.to_new_call(TENANT, CallId("01JD00000000000000000CA111"), PAUSE, NOW)


def test_an_unknown_call_is_not_found(world: World) -> None:
    """And a span outside of a known one is refused."""
    with pytest.raises(NotFound):
        world.commands.by_call(TENANT, CALL, PAUSE, FACTS)
    world.live(started_at_ms=NOW - 1000, ended_at_ms=NOW - 500)
    late = replace(PAUSE, effective_at_ms=NOW + 60_000)
    with pytest.raises(MalformedInput):
        world.commands.by_call(TENANT, CALL, late, FACTS)


TWIN = CallId(CALL[:-1] + "Z")


def pair(world: World, **twin: object) -> None:
    """The same call at two agents; the first look for its link finds both."""
    world.states[OTHER_AGENT] = AgentState.ACTIVE
    world.live(links=(TOKEN,))
    world.live(TWIN, **({"agent_id": OTHER_AGENT, "links": (TOKEN,)} | twin))
    world.found = [[CALL, TWIN]]


def test_one_of_a_pair_is_paused_where_the_other_records_it_too(world: World) -> None:
    """Whoever pauses a call by its id means the call, and not one agent's copy of it."""
    pair(world)
    issued = world.commands.by_call(TENANT, CALL, PAUSE, FACTS)
    assert [one.call for one in issued] == [CALL, TWIN]
    assert [(queue, command.call) for queue, command in world.sent] == [
        (f"https://sqs/{AGENT}", CALL),
        (f"https://sqs/{OTHER_AGENT}", TWIN),
    ]
    assert {event.which for event in world.events} == {CALL, TWIN}


def test_calls_that_share_a_group_alone_are_not_one(world: World) -> None:
    """An SBC may give every call the same group: nobody else's call is paused for that."""
    pair(world, links=(TOKEN, "b" * 32, "c" * 32))
    world.live(links=(TOKEN, "d" * 32, "e" * 32))
    world.found = [[CALL, TWIN], [CALL], [CALL]]
    assert [one.call for one in world.commands.by_call(TENANT, CALL, PAUSE, FACTS)] == [CALL]


def test_another_dialog_at_the_same_agent_is_not_meant(world: World) -> None:
    """Another time of the call, or its other end, has an id of its own."""
    pair(world, agent_id=AGENT)
    assert [one.call for one in world.commands.by_call(TENANT, CALL, PAUSE, FACTS)] == [CALL]


def test_a_twin_that_was_over_is_left_alone(world: World) -> None:
    """The span and the other agent's copy do not touch."""
    pair(world, state="spooled", ended_at_ms=NOW - 30_000)
    assert [one.call for one in world.commands.by_call(TENANT, CALL, PAUSE, FACTS)] == [CALL]


def test_a_twin_that_cannot_be_told_is_said(world: World) -> None:
    """The order stands for the first call; whoever asked hears that it is not everywhere, and asks again."""
    pair(world)
    sent = world.send

    def send(queue_url: str, envelope: Envelope) -> None:
        if queue_url.endswith(OTHER_AGENT):
            raise Unavailable("the queue does not answer")
        sent(queue_url, envelope)

    world.send = send  # type: ignore[method-assign]  # one queue of two
    with pytest.raises(Unavailable):
        world.commands.by_call(TENANT, CALL, PAUSE, FACTS)
    assert [command.call for _, command in world.sent] == [CALL]
