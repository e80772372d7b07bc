"""Revoke an agent: nothing that it signs is taken any more, its sessions end, and it is told to stop.

1. The directory, in one transaction with the audit event: from then on no credentials are issued, no report is taken,
   and the finaliser refuses its signature.
2. An explicit deny on its sessions' tag: credentials that it still holds do nothing.
3. The word in its command queue, for an agent that is honest and connected: it refuses new calls, so that the SBC takes
   another recorder at once.

Asked again, all of it happens again and changes nothing: a step that failed is made good by repeating the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dualtone.domain.agent_revocation import Revoked
from dualtone.domain.audit_event import AuditEvent, Outcome, RequestFacts
from dualtone.domain.ids import ULID_RANDOM_BYTES, AgentId, TenantId, ulid
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import Agent, Principal, Verb


class Agents(Protocol):
    """The directory of agents."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent; raises NotFound."""


class Register(Protocol):
    """Where agents are changed."""

    def revoke(self, tenant: TenantId, agent: AgentId, *, now_ms: int, event: AuditEvent) -> None:
        """Revokes an agent and writes the event, both or none; one that is revoked already stays so."""


class Sessions(Protocol):
    """Agents' sessions."""

    def deny(self, agent: AgentId, now_ms: int) -> None:
        """Denies everything to the sessions that an agent has."""


class CommandQueues(Protocol):
    """Where agents listen."""

    def send(self, queue_url: str, envelope: Envelope) -> None:
        """Sends a signed message; one to a queue that is gone is dropped."""


class RevokeAgent:
    """Revokes agents."""

    def __init__(
        self,
        *,
        agents: Agents,
        register: Register,
        sessions: Sessions,
        queues: CommandQueues,
        signer: Signer,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Takes the directory and its register, the agents' sessions and queues, our signature, and randomness."""
        self._agents = agents
        self._register = register
        self._sessions = sessions
        self._queues = queues
        self._signer = signer
        self._random_bytes = random_bytes

    def revoke(self, principal: Principal, agent_id: AgentId, facts: RequestFacts) -> Agent:
        """Revokes an agent of the caller's tenant.

        Args:
            principal: Who asks.
            agent_id: Which.
            facts: The request.

        Returns:
            The agent as it is now.

        Raises:
            NotFound: If the tenant has no such agent.
            Unavailable: If a step did not succeed: to be asked again.
        """
        tenant = principal.tenant
        agent = self._agents.agent(tenant, agent_id)
        event = facts.event(Verb.REVOKE_AGENT, Outcome.GRANTED, tenant=tenant, who=principal.actor, which=agent_id)
        self._register.revoke(tenant, agent_id, now_ms=facts.now_ms, event=event)
        self._sessions.deny(agent_id, facts.now_ms)
        if agent.command_queue_url is not None:
            word = Revoked(
                id=ulid(facts.now_ms, self._random_bytes(ULID_RANDOM_BYTES)),
                tenant=tenant,
                agent=agent_id,
                issued_at_ms=facts.now_ms,
            )
            self._queues.send(agent.command_queue_url, word.sealed_by(self._signer))
        return self._agents.agent(tenant, agent_id)
