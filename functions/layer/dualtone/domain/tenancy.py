"""Who asks, for which tenant, and what they may do.

Pure. The table of rights below is the whole policy: a verb that no role of the principal lists is refused, and a route
without a verb does not exist. Separation of duties: administrators manage agents, write the recording policy and see
that calls were recorded; officers release what was said and who said it, and decide of single calls what is not kept.
Nobody does both unless a tenant puts one person in both groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dualtone.domain.call_command import DEFAULT_LEASE_S, OnExpiry
from dualtone.domain.errors import DualtoneError, PolicyViolation
from dualtone.domain.ids import AgentId, EndpointId, TenantId

DEFAULT_RETENTION_DAYS: Final = 365


class Unauthenticated(DualtoneError):  # noqa: N818 - the word of HTTP 401
    """The caller has not proved who it is; the message tells it how to and never why exactly the proof failed."""


class Role(StrEnum):
    """Groups of a tenant's user pool that mean something here; any other group means nothing."""

    ADMINISTRATOR = "administrator"
    OFFICER = "officer"


class Verb(StrEnum):
    """What can be done through the API, as it appears in audit events."""

    LIST_RECORDINGS = "recordings:list"
    SEARCH_RECORDINGS = "recordings:search"
    READ_RECORDING = "recordings:read"
    PLAY_RECORDING = "recordings:play"
    READ_EVIDENCE = "recordings:evidence"
    SEE_PARTIES = "recordings:parties"
    LIST_CALLS = "calls:list"
    READ_CALL = "calls:read"
    PAUSE_CALL = "calls:pause"
    RESUME_CALL = "calls:resume"
    DECIDE_CALL = "calls:decide"
    READ_POLICY = "recording-policy:read"
    PREVIEW_POLICY = "recording-policy:preview"
    CHANGE_POLICY = "recording-policy:change"
    REPORT_PAYMENT = "payments:report"
    CREATE_PAYMENT_ENDPOINT = "payment-endpoints:create"
    LIST_AGENTS = "agents:list"
    INVITE_AGENT = "agents:invite"
    ENROL_AGENT = "agents:enrol"
    ROTATE_AGENT_KEY = "agents:rotate-key"
    REVOKE_AGENT = "agents:revoke"
    ISSUE_CREDENTIALS = "agents:credentials"
    READ_PUBLIC = "public:read"


RIGHTS: Final[Mapping[Role, frozenset[Verb]]] = {
    Role.ADMINISTRATOR: frozenset(
        {
            Verb.LIST_RECORDINGS,
            Verb.LIST_CALLS,
            Verb.READ_CALL,
            Verb.CREATE_PAYMENT_ENDPOINT,
            Verb.READ_POLICY,
            Verb.PREVIEW_POLICY,
            Verb.CHANGE_POLICY,
            Verb.LIST_AGENTS,
            Verb.INVITE_AGENT,
            Verb.REVOKE_AGENT,
        }
    ),
    Role.OFFICER: frozenset(
        {
            Verb.LIST_RECORDINGS,
            Verb.SEARCH_RECORDINGS,
            Verb.READ_RECORDING,
            Verb.PLAY_RECORDING,
            Verb.READ_EVIDENCE,
            Verb.SEE_PARTIES,
            Verb.LIST_CALLS,
            Verb.READ_CALL,
            Verb.PAUSE_CALL,
            Verb.RESUME_CALL,
            Verb.DECIDE_CALL,
            Verb.READ_POLICY,
            Verb.PREVIEW_POLICY,
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """A person whose token was verified and whose tenant was looked up, never claimed.

    Attributes:
        tenant: From the server-side binding of the app client.
        subject: The user pool's immutable id of the person.
        client_id: The app client through which the person signed in.
        roles: The known roles among the person's groups.
    """

    tenant: TenantId
    subject: str
    client_id: str
    roles: frozenset[Role]

    @property
    def actor(self) -> str:
        """How audit events name the person."""
        return f"person:{self.subject}"

    def may(self, verb: Verb) -> bool:
        """Says whether any of the roles lists the verb."""
        return any(verb in RIGHTS[role] for role in self.roles)

    def require(self, verb: Verb) -> None:
        """Passes silently, or raises PolicyViolation."""
        if not self.may(verb):
            raise PolicyViolation(f"this needs a role that grants {verb}")


class AgentState(StrEnum):
    """An agent's life: invited by an administrator, enrolled with its key, perhaps revoked for good."""

    PENDING = "pending"
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as the directory knows it.

    Attributes:
        tenant: Whose calls it records.
        agent_id: Its id.
        name: What the administrator called it.
        state: Only an active agent's signatures count for anything new.
        public_key_pem: SubjectPublicKeyInfo of its P-256 key; None until it enrols.
        command_queue_url: Where it listens; None until it enrols.
        retired_keys_pem: Keys that it had before, the newest first: what lies in its spool is signed with them.
    """

    tenant: TenantId
    agent_id: AgentId
    name: str
    state: AgentState
    public_key_pem: str | None
    command_queue_url: str | None
    retired_keys_pem: tuple[str, ...] = ()

    def last_key(self) -> str:
        """The key that it enrolled, whatever became of it; raises PolicyViolation if it never enrolled."""
        if self.public_key_pem is None:
            raise PolicyViolation(f"the agent is {self.state}")
        return self.public_key_pem

    def active_key(self) -> str:
        """The key with which it signs; raises PolicyViolation unless the agent is active."""
        if self.state is not AgentState.ACTIVE or self.public_key_pem is None:
            raise PolicyViolation(f"the agent is {self.state}")
        return self.public_key_pem


@dataclass(frozen=True, slots=True)
class TenantProfile:
    """What is configured for a tenant.

    Attributes:
        tenant: Its id.
        name: Its name.
        lines: Numbers and patterns of its lines (see ``direction.Lines``).
        retention_days: How long a recording is kept unless something stronger says otherwise.
        ingest_key_arn: The RSA key in KMS to which its agents wrap call keys; None for the deployment's own.
        pause_lease_s: How long a pause lasts without another word.
        pause_on_expiry: What then: ``silent`` and alarm (PCI first), or ``resume`` and flag (MiFID first).
    """

    tenant: TenantId
    name: str
    lines: tuple[str, ...]
    retention_days: int
    ingest_key_arn: str | None
    pause_lease_s: int = DEFAULT_LEASE_S
    pause_on_expiry: OnExpiry = "silent"


@dataclass(frozen=True, slots=True)
class PaymentEndpoint:
    """Where a payment system of a tenant reports, once its message has proved that it is one.

    Attributes:
        tenant: Whose calls it may pause and resume.
        endpoint_id: Its id.
        name: What the administrator called it.
    """

    tenant: TenantId
    endpoint_id: EndpointId
    name: str

    @property
    def actor(self) -> str:
        """How audit events and commands name it."""
        return f"endpoint:{self.endpoint_id}"
