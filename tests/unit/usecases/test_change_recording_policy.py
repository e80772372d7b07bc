"""A new version of the policy: signed, bounded, and told to the agents that are active."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dualtone.domain import call_decision, recording_policy
from dualtone.domain.audit_event import AuditEvent, RequestFacts
from dualtone.domain.errors import DualtoneError, MalformedInput, PolicyViolation, Unavailable
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.recording_policy import RecordingPolicy, Rule
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Agent, AgentState, Principal, Role, TenantProfile
from dualtone.usecases.change_recording_policy import Changed, ChangeRecordingPolicy
from tests.call_samples import TENANT, AgentKey

NOW_MS = 1_800_000_000_000
RULE = Rule(id="board", record="never", basis="legitimate_interests")
ADMINISTRATOR = Principal(TENANT, "alice", "client", frozenset({Role.ADMINISTRATOR}))
AGENT = Agent(TENANT, AgentId("agt_01JD0000000000000000000000"), "SBC", AgentState.ACTIVE, "PEM", "https://q/0")


@dataclass
class World:
    """Every port of the use case, kept in memory."""

    version: int = 0
    lines: tuple[str, ...] = ("2*",)
    known: list[Agent] = field(default_factory=lambda: [AGENT])
    refuses: dict[str, DualtoneError] = field(default_factory=dict)
    key: AgentKey = field(default_factory=AgentKey)
    kept: list[tuple[Envelope, AuditEvent]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def replace(
        self, policy: RecordingPolicy, envelope: Envelope, *, by: str, instead_of: int, event: AuditEvent
    ) -> bool:
        assert by == "person:alice"
        if instead_of != self.version:
            return False
        self.version = policy.version
        self.kept.append((envelope, event))
        return True

    def profile(self, tenant: TenantId) -> TenantProfile:
        return TenantProfile(tenant, "Acme", self.lines, 365, None)

    def agents(self, _tenant: TenantId) -> list[Agent]:
        return self.known

    def send(self, queue_url: str, envelope: Envelope) -> None:
        if queue_url in self.refuses:
            raise self.refuses[queue_url]
        refresh = call_decision.verified_refresh(envelope, self.key.public_der)
        assert refresh.agent in {agent.agent_id for agent in self.known}
        assert not refresh.has_expired(NOW_MS)
        self.sent.append(queue_url)

    def change(self, instead_of: int = 0) -> Changed:
        changes = ChangeRecordingPolicy(policies=self, directory=self, queues=self, signer=self.key, random_bytes=bytes)
        return changes.change(ADMINISTRATOR, [RULE], {"g": ["21??"]}, instead_of, RequestFacts(NOW_MS, "origin", "id"))


def test_what_agents_get_is_what_was_written() -> None:
    """The next version, signed, with the tenant's lines, by which the way of a call is told."""
    world = World(version=6)
    assert world.change(6).policy.version == 7
    ((envelope, event),) = world.kept
    policy = recording_policy.verified(envelope, world.key.public_der)
    assert (policy.version, policy.rules, policy.groups, policy.lines) == (7, (RULE,), {"g": ("21??",)}, ("2*",))
    assert (event.who, event.which, event.details) == (
        "person:alice",
        "recording-policy#7",
        {"version": 7, "rules": 1},
    )


def test_whoever_was_first_wins() -> None:
    """A change that was made to another version is refused, and nobody is told."""
    world = World(version=6)
    with pytest.raises(MalformedInput, match="version 5 is not the one in force") as refused:
        world.change(5)
    assert refused.value.http_status == 412
    assert (world.kept, world.sent) == ([], [])


def test_a_policy_that_no_agent_could_take_is_refused() -> None:
    """A tenant with very many lines is asked for patterns before anything is kept."""
    world = World(lines=tuple(f"+4420794{number:06d}" for number in range(10_000)), known=[])
    assert world.change().policy.version == 1
    world = World(lines=tuple(f"user-{number:060d}" for number in range(10_000)))
    with pytest.raises(MalformedInput, match="use patterns of numbers") as refused:
        world.change()
    assert refused.value.http_status == 422
    assert world.kept == []


def test_only_agents_that_can_be_told_are_counted() -> None:
    """One that is invited or revoked, and one whose queue does not answer, keep no other from being told."""
    others = [
        replace(
            AGENT, command_queue_url=f"https://q/{number}", agent_id=AgentId(f"agt_01JD000000000000000000000{number}")
        )
        for number in range(1, 5)
    ]
    others[0] = replace(others[0], state=AgentState.REVOKED)
    others[1] = replace(others[1], state=AgentState.PENDING, command_queue_url=None)
    world = World(known=[*others, AGENT])
    world.refuses = {"https://q/3": Unavailable("no answer"), "https://q/4": PolicyViolation("refused")}
    assert world.change().agents_told == 1
    assert world.sent == ["https://q/0"]
