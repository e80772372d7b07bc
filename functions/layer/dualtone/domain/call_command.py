"""Commands from the cloud to an agent: pause and resume of a call that is being recorded. Pure.

A command is canonical JSON in a signed envelope of kind ``command``, in the agent's command queue. It names a call, or
a match token while the cloud knows no call that matches: then every agent of the tenant gets it and keeps it for 60 s.
Numbers order the commands of a call: an agent ignores a number that is not above the last one of its origin, so that
an old resume never reopens a newer pause.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import parse_agent_id, parse_call_id, parse_tenant_id
from dualtone.domain.signing import Envelope, Signer

KIND: Final = "command"
FORMAT: Final = 1
MARGIN_US: Final = 250_000
"""A gap starts so long before ``effective_at``, before the uncertainty of the agent's clock is added."""
WORST_UNCERTAINTY_US: Final = 2_000_000
"""What is added for an agent that could not measure its clock at all."""
PENDING_S: Final = 60
"""How long a pause waits for a call that nobody knows yet."""
DEFAULT_LEASE_S: Final = 900
LONGEST_LEASE_S: Final = 14_400

Action = Literal["pause", "resume"]
Cause = Literal["payment", "manual", "hold", "consent", "dtmf"]
OnExpiry = Literal["silent", "resume"]
Origin = Literal["cloud", "lan", "agent"]
Outcome = Literal["acknowledged", "too_late", "superseded", "unknown"]

Token = Annotated[str, Field(pattern=r"^[a-z2-7]{32}$")]
Ulid = Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
Actor = Annotated[str, Field(pattern=r"^[a-z]+:[A-Za-z0-9_.-]{1,100}$")]
Moment = Annotated[int, Field(ge=0, le=canonical.MAX_SAFE_INTEGER)]
LeaseSeconds = Annotated[int, Field(ge=1, le=LONGEST_LEASE_S)]


@checked(config=ConfigDict(strict=True, extra="forbid"), frozen=True, slots=True)
class Command:
    """A command as it is signed; times are true Unix time in milliseconds, not the agent's.

    Attributes:
        id: ULID of the command; every agent that gets a command by match gets the same.
        tenant: Owner of the call.
        agent: Who is told.
        issued_at_ms: When it was made.
        expires_at_ms: From when on an agent refuses it.
        action: What to do.
        call: The call, or None.
        match: The match token of calls to come, or None; exactly one of the two is given.
        number: Orders the commands of a call or token.
        cause: Which of the causes is set or lifted.
        effective_at_ms: When the span began that must not be kept; None: when it was issued. A resume has none.
        until_ms: When it is known to have ended, or None while it lasts.
        lease_s: How long a pause lasts without another word.
        on_expiry: What then: stay silent and alarm, or resume and flag.
        by: Who asked: ``person:<subject>``, ``endpoint:<payment endpoint>``.
    """

    id: Ulid
    tenant: str
    agent: str
    issued_at_ms: Moment
    expires_at_ms: Moment
    action: Action
    call: Ulid | None
    match: Token | None
    number: Annotated[int, Field(ge=1, le=canonical.MAX_SAFE_INTEGER)]
    cause: Cause
    effective_at_ms: Moment | None
    until_ms: Moment | None
    lease_s: LeaseSeconds
    on_expiry: OnExpiry
    by: Actor
    format: Literal[1] = FORMAT

    def __post_init__(self) -> None:
        """Refuses what no field's own form refuses."""
        if (self.call is None) == (self.match is None):
            raise ValueError("a command names a call or a match, and not both")
        if self.action == "resume" and (self.effective_at_ms, self.until_ms) != (None, None):
            raise ValueError("a resume is never back-dated")

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs the command."""
        return Envelope.sealed_by(signer, KIND, canonical.encode(asdict(self)))

    def has_expired(self, now_ms: int) -> bool:
        """Says whether the command is too old to be obeyed; ``now_ms`` is true time as far as the agent knows it."""
        return now_ms >= self.expires_at_ms


def verified(envelope: Envelope, public_key_der: bytes) -> Command:
    """Verifies a command against the cloud's pinned key.

    Raises:
        IntegrityError: If the signature is not the cloud's.
        MalformedInput: If it is not of the format.
    """
    return read(envelope.verified(public_key_der, KIND))


def read(payload: bytes) -> Command:
    """Reads the payload of a command whose signature was verified; raises MalformedInput."""
    canonical.decode(payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        command = _COMMAND.validate_json(payload)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not a well-formed command") from None
    parse_tenant_id(command.tenant)
    parse_agent_id(command.agent)
    if command.call is not None:
        parse_call_id(command.call)
    return command


def next_number(last: int, now_ms: int) -> int:
    """The number of a new command: above every earlier one of its call, and near the time.

    So numbers that were given without knowledge of each other, by call and by match, still follow the order of events.
    """
    return max(last + 1, now_ms)


_COMMAND: Final = TypeAdapter(Command)
