"""What an agent tells the cloud while calls last: live calls, acknowledgements, leases, health. Pure.

A report is canonical JSON in a signed envelope of kind ``agent-events``, in the agents' events queue. The queue is a
standard one: reports come late, twice and in any order, so every event says enough to be taken in any order. Times
that end in ``_us`` are microseconds of Unix time by the agent's own clock; ``clock`` says how far that is off.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.call_command import Action, Actor, Cause, Moment, OnExpiry, Origin, Outcome, Token, Ulid
from dualtone.domain.call_match import MOST_TOKENS
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import parse_agent_id, parse_tenant_id
from dualtone.domain.recording_policy import RuleId
from dualtone.domain.recording_ruling import ChoiceName, Kept, Means
from dualtone.domain.signing import Envelope, Signer, VerifyingKeys

KIND: Final = "agent-events"
FORMAT: Final = 1
MOST_EVENTS: Final = 256
LONGEST_REPORT: Final = 256 * 1024
MOST_COUNTED: Final = 256

_STRICT: Final = ConfigDict(strict=True, extra="forbid")
_MOST: Final = 256
_MOST_LIVE: Final = 10_000
Number = Annotated[int, Field(ge=0, le=canonical.MAX_SAFE_INTEGER)]
SignedUs = Annotated[int, Field(ge=-canonical.MAX_SAFE_INTEGER, le=canonical.MAX_SAFE_INTEGER)]
PauseCause = Annotated[str, Field(pattern=r"^[a-z_]{1,20}$")]
Causes = Annotated[list[PauseCause], Field(max_length=16)]


@checked(config=_STRICT, frozen=True, slots=True)
class ClockOffset:
    """The agent's clock: true time is its time plus ``offset_us``, give or take ``uncertainty_us``."""

    offset_us: SignedUs
    uncertainty_us: Number


@checked(config=_STRICT, frozen=True, slots=True)
class SilentFrom:
    """The first silent packet of a stream: RTP timestamp (None if none came yet) and moment by the agent's clock."""

    stream: Annotated[int, Field(ge=0, le=65535)]
    rtp_timestamp: Annotated[int, Field(ge=0, le=2**32 - 1)] | None
    at_us: Moment


@checked(config=_STRICT, frozen=True, slots=True)
class CallEvent:
    """A call began, changed, or ended.

    Attributes:
        call: Its id.
        revision: Grows with every event of the call; an older one is ignored.
        state: ``live`` while packets are taken, ``ended`` while the ring drains, ``spooled`` once its manifest is kept.
        started_at_us: When the agent answered.
        ended_at_us: When the dialog ended; None while it lasts.
        matches: Its match tokens.
        sealed: What officers see of it, sealed, in base64.
        causes: Why nothing is kept at this moment; empty while audio is kept.
        policy: By which rule it is kept; None while that is not known.
        links: Those of its match tokens that every dialog of its call has (``call_match.links``).
    """

    call: Ulid
    revision: Number
    state: Literal["live", "ended", "spooled"]
    started_at_us: Moment
    ended_at_us: Moment | None
    matches: Annotated[list[Token], Field(max_length=MOST_TOKENS)]
    sealed: Annotated[str, Field(max_length=16_384)]
    causes: Causes
    policy: Kept | None = None
    links: Annotated[list[Token], Field(max_length=MOST_TOKENS)] = Field(default_factory=list)
    type: Literal["call"] = "call"

    def __post_init__(self) -> None:
        """Refuses what is no base64."""
        try:
            base64.b64decode(self.sealed, validate=True)
        except binascii.Error as error:
            raise ValueError("sealed parties are coded in base64") from error

    @property
    def sealed_bytes(self) -> bytes:
        """The sealed parties."""
        return base64.b64decode(self.sealed)


@checked(config=_STRICT, frozen=True, slots=True)
class AckEvent:
    """The agent carried a command out, or says why not; commands that came by the LAN are told the same way.

    Attributes:
        call: The call on which it acted.
        command: Id of the command.
        number: The command's number.
        origin: By which way it came; numbers are compared within an origin.
        action: What was asked.
        cause: Which cause was set or lifted.
        outcome: ``acknowledged``: nothing of the span was kept. ``too_late``: something had left the ring.
            ``superseded``: a newer command of the origin was there first, nothing changed. ``unknown``: neither ring
            nor spool holds the call.
        from_us: Where the gap begins, or for a resume where it ends.
        at_us: When the command acted.
        received_at_us: When the command reached the agent.
        silent_from: The first silent packet of each stream.
        causes: The call's causes afterwards.
        by: Who asked.
        effective_at_us: From when on the span was to be silent; None if the command did not say.
        until_us: When the span is known to have ended; None while it lasts.
        lease_s: How long the pause lasts without another word; None for a resume.
        on_expiry: What happens then.
    """

    call: Ulid
    command: Ulid
    number: Annotated[int, Field(ge=1, le=canonical.MAX_SAFE_INTEGER)]
    origin: Origin
    action: Action
    cause: Cause
    outcome: Outcome
    from_us: Moment
    at_us: Moment
    received_at_us: Moment
    silent_from: Annotated[list[SilentFrom], Field(max_length=_MOST)]
    causes: Causes
    by: Actor
    effective_at_us: Moment | None
    until_us: Moment | None = None
    lease_s: Number | None = None
    on_expiry: OnExpiry = "silent"
    type: Literal["ack"] = "ack"


@checked(config=_STRICT, frozen=True, slots=True)
class CutEvent:
    """After a command that came too late, the agent's spool is clean and no older copy of these parts is in flight.

    Attributes:
        call: The call.
        command: Id of the command.
        from_us: Where the span begins.
        to_us: Where it ends.
        parts: Names of the part files that were rewritten or may hold the span.
    """

    call: Ulid
    command: Ulid
    from_us: Moment
    to_us: Moment
    parts: Annotated[list[Annotated[str, Field(pattern=r"^part-[0-9]{2,6}-[0-9]{6}\.dtp$")]], Field(max_length=10_000)]
    type: Literal["cut"] = "cut"


@checked(config=_STRICT, frozen=True, slots=True)
class LeaseEvent:
    """Nobody renewed or ended a pause in time: what was done about it."""

    call: Ulid
    cause: PauseCause
    on_expiry: OnExpiry
    at_us: Moment
    type: Literal["lease"] = "lease"


@checked(config=_STRICT, frozen=True, slots=True)
class DecisionEvent:
    """Somebody chose for a call that is kept; of one that is not kept nothing is told.

    Attributes:
        call: The call.
        command: Id of the cloud's decision, if it came from there.
        choice: What was chosen.
        how: By which way.
        at_us: When.
        by: Opaque id of who chose; empty if nobody knows.
        outcome: ``kept``: it waited, and is kept from its start. ``stopped``: it was being kept, and nothing more is.
            ``noted``: it changes nothing. ``ignored``: the rule does not leave the choice, as on a regulated line.
    """

    call: Ulid
    command: Ulid | None
    choice: ChoiceName
    how: Means
    at_us: Moment
    by: Actor | Literal[""]
    outcome: Literal["kept", "stopped", "noted", "ignored"]
    type: Literal["decision"] = "decision"


@checked(config=_STRICT, frozen=True, slots=True)
class SpoolState:
    """What the agent still keeps: calls, their bytes, and bytes free on its disk."""

    calls: Number
    bytes: Number
    free_bytes: Number


@checked(config=_STRICT, frozen=True, slots=True)
class HealthEvent:
    """How the agent is, every 30 seconds.

    Attributes:
        live: Ids of the calls that it records now.
        spool: What waits on its disk.
        alarms: How often each kind of alarm was raised since it started.
        version: Of its software.
        uplink_waiting_s: Age of the oldest thing that waits to be sent.
        not_recorded: How many calls each rule of the policy has left unrecorded, over all runs: all that is told
            of them.
    """

    live: Annotated[list[Ulid], Field(max_length=_MOST_LIVE)]
    spool: SpoolState
    alarms: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], Number], Field(max_length=64)]
    version: Annotated[str, Field(max_length=64)]
    uplink_waiting_s: Number
    not_recorded: Annotated[dict[RuleId, Number], Field(max_length=MOST_COUNTED)] = Field(default_factory=dict)
    type: Literal["health"] = "health"


Event = CallEvent | AckEvent | CutEvent | LeaseEvent | DecisionEvent | HealthEvent


@checked(config=_STRICT, frozen=True, slots=True)
class Report:
    """A batch of events.

    Attributes:
        tenant: The agent's tenant.
        agent: Who reports.
        sequence: Counts the agent's reports; it grows even over a restart, since it begins at the time then.
        sent_at_us: When it was sent.
        clock: How far the agent's clock is off; None if it could not be measured.
        events: What happened, in order.
    """

    tenant: str
    agent: str
    sequence: Number
    sent_at_us: Moment
    clock: ClockOffset | None
    events: Annotated[list[Annotated[Event, Field(discriminator="type")]], Field(max_length=MOST_EVENTS)]
    format: Literal[1] = FORMAT

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs the report."""
        return Envelope.sealed_by(signer, KIND, canonical.encode(asdict(self)))


def read(envelope: Envelope) -> Report:
    """Reads a report *without* verifying it, so that its sender's key can be looked up; raises MalformedInput."""
    if len(envelope.payload) > LONGEST_REPORT:
        raise MalformedInput("a report is too long")
    canonical.decode(envelope.payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        report = _REPORT.validate_json(envelope.payload)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not a well-formed report") from None
    parse_tenant_id(report.tenant)
    parse_agent_id(report.agent)
    return report


def verified(envelope: Envelope, public_key_der: VerifyingKeys) -> Report:
    """Verifies a report with the key that its agent enrolled.

    Raises:
        IntegrityError: If the signature is not that key's.
        MalformedInput: If it is not of the format.
    """
    envelope.verified(public_key_der, KIND)
    return read(envelope)


def batches(events: Sequence[Event]) -> list[Sequence[Event]]:
    """Parts events into runs that fit a report's number of events."""
    return [events[start : start + MOST_EVENTS] for start in range(0, len(events), MOST_EVENTS)]


_REPORT: Final = TypeAdapter(Report)
