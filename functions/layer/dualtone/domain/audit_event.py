"""What happened: the six fields that PCI DSS 10.2.2 asks of every audit event, and what the request adds to them.

Pure. An event names people by the user pool's opaque id and objects by ours; it never holds a number, a name, a token
that opens anything, or text that a caller chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dualtone.domain.errors import PolicyViolation
from dualtone.domain.ids import TenantId
from dualtone.domain.tenancy import Verb

NOBODY: Final = "nobody"
NO_TENANT: Final = TenantId("-")
"""Where events go that belong to no tenant, such as a forged token: no tenant's id has this form."""

Details = Mapping[str, str | int | list[int]]


class Work(StrEnum):
    """What the cloud does of itself, without a person's or an agent's request."""

    FINALIZE_RECORDING = "recordings:finalize"
    INTERRUPT_CALL = "calls:interrupt"
    HEAR_CALL_AGAIN = "calls:hear-again"
    CUT_PAUSED_SPAN = "calls:cut"
    PUNCTURE_RECORDING = "recordings:puncture"
    ANSWER_COMMAND = "calls:answer-command"
    TELL_CHOICE = "calls:tell-choice"
    LEASE_EXPIRED = "calls:lease-expired"


class Outcome(StrEnum):
    """How a verb ended, as far as the writer of the event knows."""

    GRANTED = "granted"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event.

    Attributes:
        tenant: In whose log it belongs; ``NO_TENANT`` if nobody was recognised.
        who: ``person:<subject>``, ``agent:<agent id>``, ``function:<name>`` or ``nobody``.
        what: The verb, or the cloud's own work.
        when_ms: Unix time.
        outcome: How it ended.
        origin: The address from which the request came, as the API's edge saw it.
        which: The id of the object, or empty.
        request_id: The edge's id of the request, shared by all events of it.
        details: Further facts without personal data, for example which seconds were released.
    """

    tenant: TenantId
    who: str
    what: Verb | Work
    when_ms: int
    outcome: Outcome
    origin: str
    which: str
    request_id: str
    details: Details = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What every event of a request has in common: when, from where, and the edge's id of the request."""

    now_ms: int
    origin: str
    request_id: str

    def event(
        self,
        what: Verb,
        outcome: Outcome,
        *,
        tenant: TenantId = NO_TENANT,
        who: str = NOBODY,
        which: str = "",
        details: Details | None = None,
    ) -> AuditEvent:
        """Makes an event of this request."""
        return AuditEvent(
            tenant, who, what, self.now_ms, outcome, self.origin, which, self.request_id, dict(details or {})
        )


class Refusal(PolicyViolation):
    """A credential other than a person's token was refused: an enrolment code, an agent's assertion.

    The message is the same for every reason, so that nobody learns what to try next; the audit event says more.

    Attributes:
        tenant: In whose log the refusal belongs, if that much was recognised.
        who: Who tried, if that much was recognised.
        reason: What was wrong, for the event alone.
    """

    def __init__(self, message: str, *, reason: str, tenant: TenantId = NO_TENANT, who: str = NOBODY) -> None:
        super().__init__(message)
        self.tenant = tenant
        self.who = who
        self.reason = reason
