"""Decisions from the cloud to an agent, and the word that there is a newer policy. Pure.

A decision is canonical JSON in a signed envelope of kind ``decision``, in the agent's command queue. It keeps or
discards a call that waits, or stops one that is kept. It names a call, or a match token: then an agent keeps it for an
hour for calls to come, since a choice is often made in a queue, before the call is answered. Decisions bear no number:
what becomes of a call does not depend on their order (`recording_ruling.decide`).

A ``refresh`` asks the agent to fetch its credentials anew, with which the newest policy comes.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Final, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.call_command import Actor, Moment, Token, Ulid
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import AgentId, parse_agent_id, parse_tenant_id
from dualtone.domain.recording_policy import Fate
from dualtone.domain.recording_ruling import Cause, Choice
from dualtone.domain.signing import Envelope, Signer

KIND: Final = "decision"
REFRESH_KIND: Final = "refresh"
FORMAT: Final = 1
PENDING_S: Final = 3_600
"""How long a decision by match is kept for calls to come."""
OBEYED_S: Final = 86_400
"""How long a decision for a call is obeyed: longer than any call."""
REFRESH_S: Final = 900
"""How long a refresh means anything: an agent fetches new credentials as often by itself."""

_STRICT: Final = ConfigDict(strict=True, extra="forbid")
_T = TypeVar("_T", "Decision", "Refresh")


@checked(config=_STRICT, frozen=True, slots=True)
class Decision:
    """A decision as it is signed; times are true Unix time in milliseconds.

    Attributes:
        id: ULID; every agent that gets the decision gets the same, and an agent that gets it twice takes it once.
        tenant: Owner of the call.
        agent: Who is told.
        issued_at_ms: When it was made.
        expires_at_ms: From when on an agent refuses it.
        call: The call, or None.
        match: The match token of calls, or None; exactly one of the two is given.
        decision: To keep it, or to discard it.
        cause: Why.
        how: By which way it reached the cloud.
        by: Who made it: ``person:<subject>``, ``endpoint:<payment endpoint>``.
    """

    id: Ulid
    tenant: str
    agent: str
    issued_at_ms: Moment
    expires_at_ms: Moment
    call: Ulid | None
    match: Token | None
    decision: Fate
    cause: Cause
    how: Literal["api", "webhook"]
    by: Actor
    format: Literal[1] = FORMAT

    def __post_init__(self) -> None:
        """Refuses what no field's own form refuses."""
        if (self.call is None) == (self.match is None):
            raise ValueError("a decision names a call or a match, and not both")

    def addressed_to(self, agent: AgentId) -> Decision:
        """The same decision for an agent."""
        return replace(self, agent=agent)

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs the decision."""
        return Envelope.sealed_by(signer, KIND, canonical.encode(asdict(self)))

    def has_expired(self, now_ms: int) -> bool:
        """Says whether it is too old to be obeyed; ``now_ms`` is true time as far as the agent knows it."""
        return now_ms >= self.expires_at_ms

    def choice(self, at_us: int) -> Choice:
        """The choice that it stands for, made at a time by the agent's clock."""
        return Choice(self.decision, self.cause, self.how, at_us, self.by)


@checked(config=_STRICT, frozen=True, slots=True)
class Refresh:
    """The word that there is a newer policy; times are true Unix time in milliseconds."""

    id: Ulid
    tenant: str
    agent: str
    issued_at_ms: Moment
    expires_at_ms: Moment
    format: Literal[1] = FORMAT

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs it."""
        return Envelope.sealed_by(signer, REFRESH_KIND, canonical.encode(asdict(self)))

    def has_expired(self, now_ms: int) -> bool:
        """Says whether the agent has fetched the newest since."""
        return now_ms >= self.expires_at_ms


def verified(envelope: Envelope, public_key_der: bytes) -> Decision:
    """Verifies a decision against the cloud's pinned key.

    Raises:
        IntegrityError: If the signature is not the cloud's.
        MalformedInput: If it is not of the format.
    """
    return read(envelope.verified(public_key_der, KIND))


def read(payload: bytes) -> Decision:
    """Reads the payload of a decision whose signature was verified; raises MalformedInput."""
    return _addressed(_read(_DECISION, payload))


def verified_refresh(envelope: Envelope, public_key_der: bytes) -> Refresh:
    """Verifies a refresh; raises as ``verified``."""
    return _addressed(_read(_REFRESH, envelope.verified(public_key_der, REFRESH_KIND)))


def _read(form: TypeAdapter[_T], payload: bytes) -> _T:
    canonical.decode(payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        return form.validate_json(payload)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not a well-formed decision or refresh") from None


def _addressed(message: _T) -> _T:
    parse_tenant_id(message.tenant)
    parse_agent_id(message.agent)
    return message


_DECISION: Final = TypeAdapter(Decision)
_REFRESH: Final = TypeAdapter(Refresh)
