"""Enrol an agent: a one-time code and a public key make a machine an agent of a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain import agent_assertion, enrolment_code
from dualtone.domain.audit_event import AuditEvent, Outcome, Refusal, RequestFacts
from dualtone.domain.errors import MalformedInput, NotFound
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import Verb
from dualtone.usecases.ingest_key import IngestKeys

_REFUSAL: Final = "this code is unknown, used or expired: ask an administrator for a new one"


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """What a code was issued for, when it ends, and whether it is spent."""

    tenant: TenantId
    agent_id: AgentId
    expires_at_ms: int
    used: bool


@dataclass(frozen=True, slots=True)
class NewAgent:
    """What becomes of a pending agent: its key, where it will listen, and what its machine calls itself."""

    tenant: TenantId
    agent_id: AgentId
    public_key_pem: str
    command_queue_url: str
    reported_name: str | None


class Register(Protocol):
    """Where invitations are kept and become agents."""

    def code(self, code_sha256: str) -> IssuedCode:
        """Reads what a code was issued for; raises NotFound."""

    def enrol(self, agent: NewAgent, *, code_sha256: str, now_ms: int, event: AuditEvent) -> None:
        """Spends the code, activates the agent and writes the event, all or none; raises NotFound if it is too late."""


class CommandQueues(Protocol):
    """Where agents listen."""

    def create(self, tenant: TenantId, agent: AgentId) -> str:
        """Makes an agent's queue, or finds it; returns its URL."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new agent is told.

    Attributes:
        agent: The agent, now active.
        prefix: The start of every object key that it may put.
        ingest_key: The signed key to which it wraps call keys.
    """

    agent: NewAgent
    prefix: str
    ingest_key: Envelope


class EnrolAgent:
    """Enrols agents."""

    def __init__(self, register: Register, queues: CommandQueues, ingest_keys: IngestKeys) -> None:
        """Takes the register of agents, what makes queues, and the tenants' signed ingest keys."""
        self._register = register
        self._queues = queues
        self._ingest_keys = ingest_keys

    def enrol(self, code: str, public_key_pem: str, reported_name: str | None, facts: RequestFacts) -> Enrolment:
        """Exchanges a code for an identity.

        The queue is made before the code is spent: a crash in between leaves an empty queue that the next try finds
        again, never an agent without one.

        Args:
            code: As typed.
            public_key_pem: SubjectPublicKeyInfo of the agent's new P-256 key.
            reported_name: What the machine calls itself, or None.
            facts: The request.

        Raises:
            MalformedInput: If that is no key.
            Refusal: If the code is not good, whatever the reason.
        """
        try:
            agent_assertion.public_key(public_key_pem)
        except MalformedInput as error:
            raise MalformedInput(str(error), http_status=422) from error
        issued, digest = self._usable(code, facts.now_ms)
        tenant, agent_id, who = issued.tenant, issued.agent_id, f"agent:{issued.agent_id}"
        queue_url = self._queues.create(tenant, agent_id)
        ingest_key = self._ingest_keys.envelope(tenant)
        agent = NewAgent(tenant, agent_id, public_key_pem, queue_url, reported_name)
        event = facts.event(Verb.ENROL_AGENT, Outcome.GRANTED, tenant=tenant, who=who, which=agent_id)
        try:
            self._register.enrol(agent, code_sha256=digest, now_ms=facts.now_ms, event=event)
        except NotFound as error:
            raise Refusal(_REFUSAL, reason="the code was spent meanwhile", tenant=tenant, who=who) from error
        return Enrolment(agent, f"{tenant}/{agent_id}/", ingest_key)

    def _usable(self, code: str, now_ms: int) -> tuple[IssuedCode, str]:
        try:
            digest = enrolment_code.digest(enrolment_code.parse(code))
            issued = self._register.code(digest)
        except (MalformedInput, NotFound) as error:
            raise Refusal(_REFUSAL, reason="no such code") from error
        if issued.used or issued.expires_at_ms <= now_ms:
            reason = "the code is used" if issued.used else "the code has expired"
            raise Refusal(_REFUSAL, reason=reason, tenant=issued.tenant, who=f"agent:{issued.agent_id}")
        return issued, digest
