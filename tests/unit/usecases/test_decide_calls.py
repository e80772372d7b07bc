"""Decisions: on record before they leave, to whom they concern, and waited for only while an answer can come."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dualtone.domain import call_decision
from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.audit_event import AuditEvent, RequestFacts
from dualtone.domain.call_decision import Decision
from dualtone.domain.errors import DualtoneError, PolicyViolation, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import Ledger, LiveCall
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Agent, AgentState
from dualtone.usecases.decide_calls import ANSWER_WITHIN_MS, DecideCalls, Decided, DecisionOutcome, Wanted
from tests.call_samples import CALL, TENANT, AgentKey

NOW_MS = 1_800_000_000_000
FACTS = RequestFacts(NOW_MS, "origin", "id")
FIRST, SECOND = AgentId("agt_01JD0000000000000000000000"), AgentId("agt_01JD0000000000000000000001")
TOKEN = "a" * 32
OTHER = CallId("01JD0000000000000000000TH3"[:26])
KEEP = Wanted(TENANT, "person:b0b", "keep", "on_demand", "api")
REFUSE = Wanted(TENANT, "endpoint:pay_1", "discard", "consent", "webhook", command="01JD0000000000000000C0MMAN")


def agent(agent_id: AgentId) -> Agent:
    return Agent(TENANT, agent_id, "SBC", AgentState.ACTIVE, "PEM", f"https://q/{agent_id[-1]}")


@dataclass
class World:
    """Every port of the use case, kept in memory; an agent's answers come after a while."""

    known: list[Agent] = field(default_factory=lambda: [agent(FIRST), agent(SECOND)])
    live_at: AgentId | None = None
    matching_calls: list[CallId] = field(default_factory=list)
    answers: dict[CallId, DecisionOutcome] = field(default_factory=dict)
    answered_after_ms: int = 0
    refuses: dict[str, DualtoneError] = field(default_factory=dict)
    key: AgentKey = field(default_factory=AgentKey)
    happened: list[str] = field(default_factory=list)
    sent: dict[str, Decision] = field(default_factory=dict)
    events: list[AuditEvent] = field(default_factory=list)
    waited_ms: int = 0

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        live = None
        if self.live_at is not None:
            clock = ClockOffset(0, 0)
            live = LiveCall(tenant, call, self.live_at, "live", NOW_MS, None, None, 1, b"", (), clock)
        return Ledger(0, (), live)

    def matching(self, _tenant: TenantId, token: str, from_ms: int) -> list[CallId]:
        assert (token, from_ms) == (TOKEN, NOW_MS)
        return self.matching_calls

    def outcome(self, _tenant: TenantId, call: CallId, command: str) -> DecisionOutcome | None:
        assert command == next(iter(self.sent.values())).id
        return self.answers.get(call) if self.waited_ms >= self.answered_after_ms else None

    def agents(self, _tenant: TenantId) -> list[Agent]:
        return self.known

    def send(self, queue_url: str, envelope: Envelope) -> None:
        if queue_url in self.refuses:
            raise self.refuses[queue_url]
        self.happened.append(queue_url)
        self.sent[queue_url] = call_decision.verified(envelope, self.key.public_der)

    def write(self, event: AuditEvent) -> None:
        self.happened.append("event")
        self.events.append(event)

    def now_ms(self) -> int:
        return NOW_MS + self.waited_ms

    def wait_ms(self, duration_ms: int) -> None:
        self.waited_ms += duration_ms

    @property
    def decides(self) -> DecideCalls:
        return DecideCalls(
            ledgers=self,
            matches=self,
            choices=self,
            agents=self,
            queues=self,
            audit=self,
            signer=self.key,
            patience=self,
            random_bytes=bytes,
        )


def test_a_call_that_is_known_concerns_its_agent_alone() -> None:
    """The event is written first, then the agent is told, and its answer is the answer."""
    world = World(live_at=SECOND, answers={CALL: "stopped"}, answered_after_ms=500)
    decided = world.decides.by_call(REFUSE, CALL, FACTS)
    assert (decided.command, decided.outcome, decided.calls) == (REFUSE.command, "stopped", ((CALL, "stopped"),))
    assert world.happened == ["event", "https://q/1"]
    (told,) = world.sent.values()
    assert (told.agent, told.call, told.match, told.how) == (SECOND, CALL, None, "webhook")
    assert 500 <= world.waited_ms < 600
    assert (world.events[0].who, world.events[0].which) == ("endpoint:pay_1", CALL)
    assert world.events[0].details == {
        "command": REFUSE.command,
        "decision": "discard",
        "cause": "consent",
        "how": "webhook",
    }


def test_a_call_that_is_not_known_may_wait_at_any_agent() -> None:
    """All are told the same; whoever keeps it answers, and if nobody does that is said after three seconds."""
    world = World(answers={CALL: "kept"}, answered_after_ms=1_000)
    assert world.decides.by_call(KEEP, CALL, FACTS).outcome == "kept"
    assert [told.agent for told in world.sent.values()] == [FIRST, SECOND]
    assert len({told.id for told in world.sent.values()}) == 1
    silent = World()
    assert silent.decides.by_call(KEEP, CALL, FACTS).outcome == "requested"
    assert ANSWER_WITHIN_MS <= silent.waited_ms < ANSWER_WITHIN_MS + 100


@pytest.mark.parametrize("known", [[], [CALL]], ids=["no call", "a call that is kept"])
def test_of_what_is_discarded_no_answer_is_waited_for(known: list[CallId]) -> None:
    """Unless a call of that name is being kept: then its agent says that it stopped."""
    world = World(matching_calls=known, answers={CALL: "stopped"}, answered_after_ms=300)
    decided = world.decides.by_match(REFUSE, TOKEN, FACTS)
    assert decided.outcome == ("stopped" if known else "requested")
    assert (world.waited_ms > 0) is bool(known)
    assert {told.match for told in world.sent.values()} == {TOKEN}


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((), "requested"),
        (("kept", "noted"), "kept"),
        (("kept", "stopped"), "stopped"),
        (("stopped", "ignored", "kept"), "ignored"),
    ],
)
def test_the_gravest_outcome_is_the_answers(outcomes: tuple[DecisionOutcome, ...], expected: str) -> None:
    """Whoever decided must know first of all that somewhere it was not heeded."""
    assert Decided("c", tuple((CALL, outcome) for outcome in outcomes)).outcome == expected


def test_all_calls_of_a_name_are_answered_for() -> None:
    """Those whose agents have said what became of them."""
    world = World(matching_calls=[CALL, OTHER], answers={CALL: "kept"})
    assert world.decides.by_match(KEEP, TOKEN, FACTS).calls == ((CALL, "kept"),)


def test_one_agent_that_cannot_be_told_keeps_it_from_no_other() -> None:
    """If nobody can be told, that is an error; where there is no agent at all, there is nobody to tell."""
    world = World(refuses={"https://q/0": Unavailable("no answer")}, answers={CALL: "kept"})
    assert world.decides.by_call(KEEP, CALL, FACTS).outcome == "kept"
    assert list(world.sent) == ["https://q/1"]
    world.refuses["https://q/1"] = PolicyViolation("refused")
    with pytest.raises(Unavailable):
        world.decides.by_call(KEEP, CALL, FACTS)
    gone = [replace(one, state=AgentState.REVOKED) for one in world.known]
    alone = World(known=gone)
    assert alone.decides.by_match(replace(REFUSE, command=None), TOKEN, FACTS).outcome == "requested"
    assert alone.happened == ["event"]
