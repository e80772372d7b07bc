"""Invite an agent: an administrator gets a one-time code to type into the machine that is to record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dualtone.domain import enrolment_code
from dualtone.domain.audit_event import AuditEvent, Outcome, RequestFacts
from dualtone.domain.ids import ULID_RANDOM_BYTES, AgentId, TenantId, ulid
from dualtone.domain.tenancy import Principal, Verb


class Invitations(Protocol):
    """Where invitations are kept."""

    def invite(
        self, tenant: TenantId, agent: AgentId, *, name: str, code_sha256: str, expires_at_ms: int, event: AuditEvent
    ) -> None:
        """Writes a pending agent, its code's hash and the audit event, all or none."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the administrator is shown, once."""

    agent_id: AgentId
    code: str = field(repr=False)
    expires_at_ms: int


class InviteAgent:
    """Invites agents of a tenant."""

    def __init__(
        self, invitations: Invitations, signing_public_key: Callable[[], bytes], random_bytes: Callable[[int], bytes]
    ) -> None:
        """Takes where invitations go, the key (DER) that agents will recognise us by, and a source of secrets."""
        self._invitations = invitations
        self._signing_public_key = signing_public_key
        self._random_bytes = random_bytes

    def invite(self, principal: Principal, name: str, facts: RequestFacts) -> Invitation:
        """Makes an agent id and a code that is good for one enrolment within a day; only its hash is kept."""
        agent = AgentId("agt_" + ulid(facts.now_ms, self._random_bytes(ULID_RANDOM_BYTES)))
        secret = self._random_bytes(enrolment_code.SECRET_BYTES)
        code = enrolment_code.make(secret, self._signing_public_key())
        expires_at_ms = facts.now_ms + enrolment_code.LIFETIME_MS
        self._invitations.invite(
            principal.tenant,
            agent,
            name=name,
            code_sha256=enrolment_code.digest(code),
            expires_at_ms=expires_at_ms,
            event=facts.event(
                Verb.INVITE_AGENT, Outcome.GRANTED, tenant=principal.tenant, who=principal.actor, which=agent
            ),
        )
        return Invitation(agent, code, expires_at_ms)
