"""Issue credentials to an agent: a signed assertion becomes a quarter of an hour below its own prefix (RFC 7523)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from dualtone.domain import agent_assertion
from dualtone.domain.audit_event import NO_TENANT, NOBODY, AuditEvent, Outcome, Refusal, RequestFacts
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound, PolicyViolation
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Agent, AgentState, Verb
from dualtone.usecases.ingest_key import IngestKeys

_REFUSAL: Final = "the assertion was not accepted"
_REVOKED: Final = "this agent was revoked: enrol the machine anew if it is to record"


class AgentRevoked(Refusal):
    """The agent has proved who it is, and is revoked: the one refusal that says so, to nobody else."""


class Agents(Protocol):
    """The directory of agents."""

    def tenant_of_agent(self, agent: AgentId) -> TenantId:
        """Tells whose agent that is; raises NotFound."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent; raises NotFound."""


class Assertions(Protocol):
    """Remembers which assertions were used."""

    def spend_assertion(self, agent: AgentId, jti: str, expires_at_s: int, *, event: AuditEvent) -> None:
        """Remembers an assertion and writes the event, both or none; raises PolicyViolation if it was used before."""


@dataclass(frozen=True, slots=True)
class AgentCredentials:
    """Temporary AWS credentials; ``expires_at`` is RFC 3339."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: str


@dataclass(frozen=True, slots=True)
class Issued:
    """What an agent is given: its credentials, and its tenant's current ingest key."""

    tenant: TenantId
    agent: AgentId
    credentials: AgentCredentials
    ingest_key: Envelope


class AgentSessions(Protocol):
    """Opens sessions for agents."""

    def open(self, tenant: TenantId, agent: AgentId) -> AgentCredentials:
        """Credentials that can put below the agent's prefix, read its queue and report, and nothing else."""


class IssueAgentCredentials:
    """Exchanges assertions for credentials. Fails closed: in doubt there are none."""

    def __init__(
        self, agents: Agents, assertions: Assertions, sessions: AgentSessions, ingest_keys: IngestKeys
    ) -> None:
        """Takes the directory, the memory of assertions, what opens sessions, and the tenants' signed ingest keys."""
        self._agents = agents
        self._assertions = assertions
        self._sessions = sessions
        self._ingest_keys = ingest_keys

    def issue(self, assertion: str, audience: str, facts: RequestFacts) -> Issued:
        """Verifies an assertion, spends it, and opens a session.

        Args:
            assertion: As sent.
            audience: The URL of the token endpoint.
            facts: The request.

        Raises:
            AgentRevoked: If a revoked agent signed it.
            Refusal: If anything else about the assertion or the agent is not right; the message never says what.
        """
        tenant = NO_TENANT
        try:
            agent_id = agent_assertion.claimed_agent(assertion)
            tenant = self._agents.tenant_of_agent(agent_id)
            agent = self._agents.agent(tenant, agent_id)
            key = agent.last_key() if agent.state is AgentState.REVOKED else agent.active_key()
            verified = agent_assertion.verify(
                assertion, key, agent=agent_id, audience=audience, now_s=facts.now_ms // 1000
            )
        except (MalformedInput, NotFound, PolicyViolation, IntegrityError) as error:
            raise Refusal(_REFUSAL, reason=str(error), tenant=tenant, who=NOBODY) from error
        # From here on the signer is known; before, it was only claimed.
        who = f"agent:{agent_id}"
        if agent.state is AgentState.REVOKED:
            raise AgentRevoked(_REVOKED, reason="the agent is revoked", tenant=tenant, who=who)
        event = facts.event(Verb.ISSUE_CREDENTIALS, Outcome.GRANTED, tenant=tenant, who=who, which=agent_id)
        try:
            self._assertions.spend_assertion(agent_id, verified.jti, verified.expires_at_s, event=event)
        except PolicyViolation as error:
            raise Refusal(_REFUSAL, reason=str(error), tenant=tenant, who=who) from error
        return Issued(tenant, agent_id, self._sessions.open(tenant, agent_id), self._ingest_keys.envelope(tenant))
