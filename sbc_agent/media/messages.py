"""What SIP process and media process say to each other: one JSON object a datagram on a SOCK_SEQPACKET pair.

The first message is ``MediaSettings``; then commands go to the media process and events come back. Keys of calls never
pass; keys of SRTP come with the streams that they open, in memory only, and no representation shows them.
Times are microseconds of Unix time by the agent's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked

from dualtone.domain.errors import MalformedInput

MAX_MESSAGE_BYTES: Final = 1 << 20
# RFC 4568 section 6.2, RFC 6188 section 7, RFC 7714 section 12: master key and master salt.
KEY_BYTES: Final[Mapping[str, int]] = {
    "AES_CM_128_HMAC_SHA1_80": 16 + 14,
    "AES_CM_128_HMAC_SHA1_32": 16 + 14,
    "AES_256_CM_HMAC_SHA1_80": 32 + 14,
    "AES_256_CM_HMAC_SHA1_32": 32 + 14,
    "AEAD_AES_128_GCM": 16 + 12,
    "AEAD_AES_256_GCM": 32 + 12,
}

Call = Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
CommandId = Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
Cause = Literal["payment", "manual", "hold", "consent", "dtmf"]
Origin = Literal["cloud", "lan", "agent"]
OnExpiry = Literal["silent", "resume"]
CryptoSuite = Literal[
    "AES_CM_128_HMAC_SHA1_80",
    "AES_CM_128_HMAC_SHA1_32",
    "AES_256_CM_HMAC_SHA1_80",
    "AES_256_CM_HMAC_SHA1_32",
    "AEAD_AES_128_GCM",
    "AEAD_AES_256_GCM",
]
Who = Annotated[str, Field(max_length=256)]
Port = Annotated[int, Field(ge=1, le=65_535)]
TimeUs = Annotated[int, Field(ge=0, lt=1 << 53)]
ConsentKeys = Annotated[str, Field(pattern=r"^[0-9*#A-D]{0,16}$")]


class _Message(BaseModel):
    # Each process needs half of the messages: what is not used is not built.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        defer_build=True,
        hide_input_in_errors=True,
    )

    def encode(self) -> bytes:
        """The datagram."""
        return self.model_dump_json().encode()


class IngestKeySettings(_Message):
    """The tenant's ingest key: its ARN in KMS and its public half (SubjectPublicKeyInfo, RSA-4096)."""

    key_arn: str
    public_key_der: bytes


class MediaSettings(_Message):
    """Everything the media process must know.

    Attributes:
        tenant: Owner of the calls.
        agent: This agent.
        agent_key_path: PEM file of the agent's P-256 key.
        spool_dir: Where sealed calls lie.
        address: IPv4 address on which RTP is received.
        port_first: Lowest port of the pool's range; RTP takes even ports, RTCP the odd one above each.
        port_last: Highest port of the range.
        pool_size: How many streams can be received at once.
        wanted_ports: RTP ports that calls of an earlier run have: they are in the pool if they are free at all.
        hold_back_ms: How long audio stays in memory.
        tick_ms: How often sockets are drained.
        part_seconds: The longest time that one part covers.
        ingest_key: What call keys are wrapped to.
        version: Of the agent's software.
        clock_offset_us: Unix time minus CLOCK_MONOTONIC, by the process that started the agent.
        log_level: The lowest level that is logged.
    """

    tenant: str
    agent: str
    agent_key_path: Path
    spool_dir: Path
    address: str
    port_first: Port
    port_last: Port
    pool_size: Annotated[int, Field(ge=1, le=32_000)]
    wanted_ports: tuple[Port, ...] = ()
    hold_back_ms: Annotated[int, Field(ge=0, le=60_000)] = 5_000
    tick_ms: Annotated[int, Field(ge=5, le=1_000)] = 100
    part_seconds: Annotated[int, Field(ge=1, le=3_600)] = 60
    ingest_key: IngestKeySettings
    version: str
    clock_offset_us: int | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class FormatSpec(_Message):
    """What an RTP payload type means in a stream; ``codec`` is the SDP encoding name (compared without case)."""

    payload_type: Annotated[int, Field(ge=0, le=127)]
    codec: str
    clock_hz: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1, le=255)] = 1


class CryptoSpec(_Message):
    """A key under which the sender of a stream protects it, as negotiated by SDES (RFC 4568, RFC 7714).

    Attributes:
        tag: Of the crypto attribute that was accepted.
        suite: Its crypto suite.
        key: Master key and master salt; their length must be the suite's.
        mki: Master key identifier that every packet under this key carries; empty: none does.
        unencrypted_rtcp: Whether RTCP is authenticated only.
    """

    tag: Annotated[int, Field(ge=0, le=999_999_999)]
    suite: CryptoSuite
    key: Annotated[bytes, Field(repr=False, max_length=46)]
    mki: Annotated[bytes, Field(max_length=128)] = b""
    unencrypted_rtcp: bool = False

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if len(self.key) != KEY_BYTES[self.suite]:
            raise ValueError("a master key and salt of another length than the suite's")
        return self


class StreamSpec(_Message):
    """A stream as negotiated: index within the call, SDP label, local port, whether anything is kept, formats.

    ``crypto`` names the keys of SRTP, which differ by their MKI if there are several; empty: plain RTP. A key that is
    not named any more still opens packets that were on their way.
    """

    stream: Annotated[int, Field(ge=0, le=0xFFFF)]
    label: str
    port: Port
    active: bool = True
    formats: tuple[FormatSpec, ...] = ()
    crypto: Annotated[tuple[CryptoSpec, ...], Field(repr=False, max_length=16)] = ()


@checked(config=ConfigDict(extra="forbid"), frozen=True, slots=True)
class CallPolicy:
    """What a call's profile asks of keys that are pressed in it.

    Attributes:
        tones: Whether in-band tones are blanked before anything is stored, or kept as any audio.
        card: Whether digits that are a card's number pause the call.
        accept_keys: Each of these keys says yes to the recording.
        decline_keys: Each of these says no.
        lease_s: How long a pause for a card lasts without another word.
        on_expiry: What happens then.
    """

    tones: Literal["blank", "keep"] = "keep"
    card: Literal["pause", "off"] = "pause"
    accept_keys: ConsentKeys = ""
    decline_keys: ConsentKeys = ""
    lease_s: Annotated[int, Field(ge=1, le=14_400)] = 900
    on_expiry: OnExpiry = "silent"


class Begin(_Message):
    """A call is answered: packets that arrive from ``at_us`` on are kept. Send it before the answer leaves.

    Attributes:
        call: The call.
        at_us: From when on.
        streams: Its streams, the full list.
        waits: Whether it is not known yet if the call may be kept. Until ``Decide`` says so nothing of it can be opened
            by anybody: its wrapped key stays in memory, and no part or manifest is told.
        silent: Of a call that waits: nothing is gathered until it is kept, and it is kept from then on only.
    """

    cmd: Literal["begin"] = "begin"
    call: Call
    at_us: TimeUs
    streams: tuple[StreamSpec, ...]
    waits: bool = False
    silent: bool = False
    policy: CallPolicy = CallPolicy()


class Streams(_Message):
    """The call's streams as they are from ``at_us`` on, the full list; what is inactive keeps nothing."""

    cmd: Literal["streams"] = "streams"
    call: Call
    at_us: TimeUs
    streams: tuple[StreamSpec, ...]


class Signalling(_Message):
    """A SIP message of the call, as it was on the wire."""

    cmd: Literal["signalling"] = "signalling"
    call: Call
    at_us: TimeUs
    direction: Literal[0, 1]
    raw: bytes


class Session(_Message):
    """What the metadata says of the call by now; the last one wins."""

    cmd: Literal["session"] = "session"
    call: Call
    session: dict[str, Any]


class End(_Message):
    """The dialog is over: packets that arrive after ``at_us`` are dropped, the rest leaves the ring in its time."""

    cmd: Literal["end"] = "end"
    call: Call
    at_us: TimeUs
    reason: Literal["bye", "shutdown", "error"]
    flags: tuple[str, ...] = ()


class Adopt(_Message):
    """Goes on with a call of an earlier run: its dialog lives, its streams are the full list as they are now.

    The next key epoch begins; causes for silence, numbers of commands and leases are those that the earlier run noted,
    and so is the profile, unless another is given.
    """

    cmd: Literal["adopt"] = "adopt"
    call: Call
    at_us: TimeUs
    streams: tuple[StreamSpec, ...]
    policy: CallPolicy | None = None


class Recover(_Message):
    """Closes every call of earlier runs that was not adopted; before this, none is touched."""

    cmd: Literal["recover"] = "recover"


class Pause(_Message):
    """Nothing that arrived from ``from_us`` on is kept, until the cause ends.

    Attributes:
        call: The call.
        at_us: When the command was received.
        from_us: Where the silence begins, margin for clocks included; it may lie before ``at_us``, or after it.
        cause: Why; a call is silent while the set of its causes is not empty.
        origin: Who counts the command.
        number: Its number among the origin's commands for this call. One that is not above the last of its cause is
            superseded, except for its silence up to the resume that overtook it.
        command: Its id.
        by: Who asked for it; an opaque id.
        effective_at_us: The moment that was asked for, without margin.
        until_us: The end, where it is known already.
        lease_us: How long it holds without being renewed.
        on_expiry: What a lease that runs out does: the call stays silent and an alarm is raised, or it is heard again.
    """

    cmd: Literal["pause"] = "pause"
    call: Call
    at_us: TimeUs
    from_us: TimeUs
    cause: Cause
    origin: Origin
    number: Annotated[int, Field(ge=0)]
    command: CommandId
    by: Who
    effective_at_us: TimeUs
    until_us: TimeUs | None = None
    lease_us: Annotated[int, Field(ge=0, lt=1 << 53)]
    on_expiry: OnExpiry = "silent"


class Resume(_Message):
    """A cause for silence is over, from the moment in which this is carried out; it is never back-dated."""

    cmd: Literal["resume"] = "resume"
    call: Call
    at_us: TimeUs
    cause: Cause
    origin: Origin
    number: Annotated[int, Field(ge=0)]
    command: CommandId
    by: Who


class Policy(_Message):
    """Another profile is the call's from ``at_us`` on."""

    cmd: Literal["policy"] = "policy"
    call: Call
    at_us: TimeUs
    policy: CallPolicy


class Digit(_Message):
    """A key was pressed, as signalling tells it (SIP INFO); what was pressed is in no text made of this.

    Attributes:
        call: The call.
        at_us: When the signalling came.
        stream: Whose side pressed it, where that is known.
        digit: The key.
    """

    cmd: Literal["digit"] = "digit"
    call: Call
    at_us: TimeUs
    stream: Annotated[int, Field(ge=0, le=0xFFFF)] | None = None
    digit: Annotated[str, Field(pattern=r"^[0-9*#A-D]$", repr=False)]


class Decide(_Message):
    """Whether a call that waits is kept; ``Decided`` answers.

    Kept: from now on it is a call like others. Not kept: what was gathered of it is destroyed, its key first; its ports
    stay its own and what comes there is dropped until ``End``. Should it be kept after all, it is from that moment on.
    A waiting call that has ended waits for this; ``Drain`` discards it.
    """

    cmd: Literal["decide"] = "decide"
    call: Call
    at_us: TimeUs
    keep: bool


class UseIngestKey(_Message):
    """What call keys are wrapped to in calls and key epochs that begin from now on."""

    cmd: Literal["ingest_key"] = "ingest_key"
    key_arn: str
    public_key_der: bytes


class AskStats(_Message):
    """Asks for one ``Stats`` event."""

    cmd: Literal["stats"] = "stats"


class Drain(_Message):
    """Ends all calls, lets the rings run empty in their time (``flush``: at once), writes manifests, exits."""

    cmd: Literal["drain"] = "drain"
    flush: bool = False


class Ready(_Message):
    """The sockets are open: the RTP ports that may be handed out."""

    event: Literal["ready"] = "ready"
    ports: tuple[Port, ...]


class PartClosed(_Message):
    """A part is whole, signed and on disk."""

    event: Literal["part"] = "part"
    call: Call
    path: str
    digest: str
    size_bytes: int


class Finished(_Message):
    """A call's manifest is on disk; ``path`` names it."""

    event: Literal["finished"] = "finished"
    call: Call
    path: str


class PortFree(_Message):
    """The media process no longer listens to a call's packets on a port: it may be handed out after the quarantine."""

    event: Literal["port_free"] = "port_free"
    port: Port


class Adopted(_Message):
    """A call of an earlier run goes on under a new key."""

    event: Literal["adopted"] = "adopted"
    call: Call
    epoch: int


class Decided(_Message):
    """A decision was carried out.

    ``outcome`` is how it is now: ``kept``, also where the call was kept before (a call that is kept is not discarded
    again), ``discarded``, or ``unknown``: there is no such call in the rings.
    """

    event: Literal["decided"] = "decided"
    call: Call
    keep: bool
    outcome: Literal["kept", "discarded", "unknown"]


class SilentFrom(_Message):
    """Where a stream falls silent: RTP timestamp of the first packet that is not kept, and its (expected) arrival.

    ``rtp_timestamp`` is null where no packet has told it.
    """

    stream: Annotated[int, Field(ge=0, le=0xFFFF)]
    rtp_timestamp: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] | None
    at_us: TimeUs


class PauseApplied(_Message):
    """A pause or resume was carried out, and would survive the end of the process.

    Attributes:
        call: The call.
        command: The command's id.
        origin: Who counts it.
        number: Its number.
        action: What was asked for.
        cause: Of the command.
        outcome: ``acknowledged``: nothing of the span had left the ring. ``too_late``: something had; ``CutDone``
            follows. ``superseded``: newer commands of its cause have left nothing of it to do. ``unknown``: the
            call is neither in the rings nor in the spool.
        from_us: Where the silence begins (pause), or where the call is heard again if no cause is left (resume).
        at_us: When it was carried out.
        left_until_us: Latest arrival that had left the ring by then; 0 for none.
        silent_from: The beginning of the silence in each stream.
        causes: The call's causes afterwards, sorted.
    """

    event: Literal["pause_applied"] = "pause_applied"
    call: Call
    command: CommandId
    origin: Origin
    number: int
    action: Literal["pause", "resume"]
    cause: Cause
    outcome: Literal["acknowledged", "too_late", "superseded", "unknown"]
    from_us: TimeUs
    at_us: TimeUs
    left_until_us: TimeUs = 0
    silent_from: tuple[SilentFrom, ...] = ()
    causes: tuple[Cause, ...] = ()


class CutDone(_Message):
    """What had left the ring of a span is gone from the spool.

    ``parts`` names the files that were rewritten, or may hold the span in copies that were sent before. Every later run
    that finds the call in the spool tells it again.
    """

    event: Literal["cut_done"] = "cut_done"
    call: Call
    command: CommandId
    from_us: TimeUs
    to_us: TimeUs
    parts: tuple[str, ...]


class LeaseExpired(_Message):
    """A cause was not renewed in time: the call stays silent (``silent``), or the cause has ended (``resume``)."""

    event: Literal["lease_expired"] = "lease_expired"
    call: Call
    cause: Cause
    on_expiry: OnExpiry
    at_us: TimeUs


class Choice(_Message):
    """A key was pressed that says yes or no to the recording; which one, nobody is told."""

    event: Literal["choice"] = "choice"
    call: Call
    choice: Literal["accept", "decline"]
    at_us: TimeUs
    how: Literal["dtmf"] = "dtmf"


class SelfPaused(_Message):
    """Somebody typed a card's number, and nobody had paused the call: it was paused as if this had come.

    ``PauseApplied`` follows as for any pause.
    """

    event: Literal["self_paused"] = "self_paused"
    pause: Pause


class SpoolRecovered(_Message):
    """The spool takes a call's data again, after an alarm ``spool_write``; nothing of the call waits in memory."""

    event: Literal["spool_recovered"] = "spool_recovered"
    call: Call


class Alarm(_Message):
    """Something needs a person.

    ``kind`` is ``no_media`` (no RTP came), ``srtp_unopened`` (of a stream came only SRTP that its keys do not open),
    ``spool_write`` (records wait in memory, sealed), ``records_lost`` (more of them waited than memory has room for),
    ``ring_overflow`` (packets lost), ``command`` (a command that does not fit
    the call's state), ``memory_unlocked`` (rings may be swapped out), ``core_dumps`` (the system does not forbid them),
    ``lease_expired`` (a call stays silent), ``payment_without_pause`` (somebody typed a card's
    number, and the call has paused itself), ``recovered`` (a call of an earlier run was closed), ``unrecoverable`` (a
    leftover that no key opens), ``spool_read`` (leftovers could not be looked for), ``spool_gone`` (a call was given up
    at the end: its directory is not there any more).
    """

    event: Literal["alarm"] = "alarm"
    kind: str
    call: Call | None = None


class Stats(_Message):
    """Counters since the start, gauges of now; packets unless named otherwise.

    ``tick_ms_lately`` is the longest of the last ten ticks: an engine that is late for long loses packets.
    """

    event: Literal["stats"] = "stats"
    calls: int
    streams: int
    received: int
    stored: int
    duplicates: int
    reordered: int
    late: int
    foreign_source: int
    events_suppressed: int
    malformed: int
    rtcp: int
    unauthentic: int
    replayed: int
    dropped: int
    overflowed: int
    left_ring: int
    records: int
    bytes_sealed: int
    ticks: int
    tick_ms_max: int
    tick_ms_lately: int = 0
    cpu_ms: int
    clock_steps: int


Command = (
    Begin
    | Streams
    | Signalling
    | Session
    | End
    | Adopt
    | Recover
    | Pause
    | Resume
    | Policy
    | Digit
    | Decide
    | UseIngestKey
    | AskStats
    | Drain
)
Event = (
    Ready
    | PartClosed
    | Finished
    | PortFree
    | Adopted
    | Decided
    | PauseApplied
    | CutDone
    | LeaseExpired
    | Choice
    | SelfPaused
    | SpoolRecovered
    | Alarm
    | Stats
)


@cache
def _command() -> TypeAdapter[Command]:
    return TypeAdapter(Annotated[Command, Field(discriminator="cmd")])


@cache
def _event() -> TypeAdapter[Event]:
    return TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse_command(data: bytes) -> Command:
    """Reads a command; raises MalformedInput."""
    try:
        return _command().validate_json(data)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not a command of the media process") from None


def parse_event(data: bytes) -> Event:
    """Reads an event; raises MalformedInput."""
    try:
        return _event().validate_json(data)
    except ValidationError:
        raise MalformedInput("not an event of the media process") from None


def parse_settings(data: bytes) -> MediaSettings:
    """Reads the settings; raises MalformedInput."""
    try:
        return MediaSettings.model_validate_json(data)
    except ValidationError:
        raise MalformedInput("not the settings of the media process") from None
