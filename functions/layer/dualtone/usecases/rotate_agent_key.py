"""Rotate an agent's key: the present key announces the next one, and the next one proves that it is there.

1. The assertion (RFC 7523) is signed by the present key, for this endpoint alone, and names the hash of the next key.
2. The proof is signed by the next key and names agent and assertion: nobody registers a key that they do not hold.
3. Key, retired keys, spent assertion and audit event change in one transaction, on the condition that the present key
   is still the one that signed. Two rotations at once leave one key.

Revoked agents rotate nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualtone.domain import agent_assertion, canonical
from dualtone.domain.agent_assertion import Assertion
from dualtone.domain.audit_event import NO_TENANT, AuditEvent, Outcome, Refusal, RequestFacts
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound, PolicyViolation
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Agent, Verb

PROOF_KIND: Final = "agent-key"
_REFUSAL: Final = "the next key was not accepted"


class Agents(Protocol):
    """The directory of agents."""

    def tenant_of_agent(self, agent: AgentId) -> TenantId:
        """Tells whose agent that is; raises NotFound."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent; raises NotFound."""


class Register(Protocol):
    """Where agents are changed."""

    def rotate(self, agent: Agent, new_key_pem: str, spent: Assertion, *, now_ms: int, event: AuditEvent) -> None:
        """Changes the key, spends the assertion and writes the event, all or none; raises PolicyViolation."""


class RotateAgentKey:
    """Rotates keys."""

    def __init__(self, agents: Agents, register: Register) -> None:
        """Takes the directory and its register."""
        self._agents = agents
        self._register = register

    def rotate(self, assertion: str, public_key_pem: str, proof: object, audience: str, facts: RequestFacts) -> AgentId:
        """Gives an agent its next key.

        Args:
            assertion: Signed by the present key, with ``next_key_sha256``.
            public_key_pem: The next key, SubjectPublicKeyInfo in PEM.
            proof: Envelope of kind ``agent-key``, signed by the next key, as JSON.
            audience: The URL of this endpoint.
            facts: The request.

        Returns:
            Whose key it is now.

        Raises:
            MalformedInput: If that is no key.
            Refusal: If anything else is not right; the message never says what.
        """
        try:
            next_key = agent_assertion.public_key(public_key_pem)
        except MalformedInput as error:
            raise MalformedInput(str(error), http_status=422) from error
        next_der = next_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        tenant = NO_TENANT
        try:
            agent_id = agent_assertion.claimed_agent(assertion)
            tenant = self._agents.tenant_of_agent(agent_id)
            agent = self._agents.agent(tenant, agent_id)
            verified = agent_assertion.verify(
                assertion, agent.active_key(), agent=agent_id, audience=audience, now_s=facts.now_ms // 1000
            )
            _require_announced(verified, next_der)
            _require_held(agent_id, verified, next_der, proof)
            who = f"agent:{agent_id}"
            event = facts.event(Verb.ROTATE_AGENT_KEY, Outcome.GRANTED, tenant=tenant, who=who, which=agent_id)
            self._register.rotate(agent, public_key_pem, verified, now_ms=facts.now_ms, event=event)
        except (MalformedInput, NotFound, PolicyViolation, IntegrityError) as error:
            raise Refusal(_REFUSAL, reason=str(error), tenant=tenant) from error
        return agent_id


def _require_announced(verified: Assertion, next_der: bytes) -> None:
    digest = hashlib.sha256(next_der).hexdigest()
    if not hmac.compare_digest(verified.next_key_sha256.encode("utf-8", "surrogatepass"), digest.encode()):
        raise IntegrityError("the assertion announces another key")


def _require_held(agent: AgentId, verified: Assertion, next_der: bytes, proof: object) -> None:
    if Envelope.from_json(proof).verified(next_der, PROOF_KIND) != proved(agent, verified.jti):
        raise IntegrityError("the proof is about something else")


def proved(agent: AgentId, jti: str) -> bytes:
    """What the next key signs: whose it will be, and by which assertion."""
    return canonical.encode({"agent": agent, "jti": jti})
