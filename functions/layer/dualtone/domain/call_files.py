"""The signed files of a call beside its parts: opening, manifest, receipt; and where each lies. Pure.

Opening and manifest are written by the agent and signed with its key; the receipt is written by the cloud and signed
with the recording signing key. All are canonical JSON inside a signed envelope (``infra/formats/manifest.md``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId, parse_agent_id, parse_call_id, parse_tenant_id
from dualtone.domain.signing import Envelope, Signer, VerifyingKeys

FORMAT: Final = 1
MANIFEST_NAME: Final = "manifest.json"
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
CALL_KEY_BYTES: Final = 32

_STRICT: Final = ConfigDict(strict=True, extra="forbid", defer_build=True)  # built when first used
Sha256Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_INGEST_KEY: Final = re.compile(r"([^/]+)/([^/]+)/([^/]+)/([^/]+)")


def opening_name(epoch: int) -> str:
    """File name of the opening record of a key epoch."""
    return f"opening-{epoch:02d}.json"


def part_name(epoch: int, index: int) -> str:
    """File name of a part."""
    return f"part-{epoch:02d}-{index:06d}.dtp"


def ingest_prefix(tenant: TenantId, agent: AgentId, call: CallId) -> str:
    """Where a call's files lie in the ingest bucket, with the closing slash."""
    return f"{tenant}/{agent}/{call}/"


@dataclass(frozen=True, slots=True)
class IngestKey:
    """An object key of the ingest bucket, taken apart."""

    tenant: TenantId
    agent: AgentId
    call: CallId
    name: str

    @classmethod
    def parse(cls, key: str) -> IngestKey:
        """Takes an object key apart; raises MalformedInput when it is not of the layout."""
        match = _INGEST_KEY.fullmatch(key)
        if not match:
            raise MalformedInput("an object outside the ingest layout")
        return cls(parse_tenant_id(match[1]), parse_agent_id(match[2]), parse_call_id(match[3]), match[4])


def key_binding(tenant: TenantId, call: CallId) -> bytes:
    """The 32 bytes that are wrapped behind a call key: a wrapped key moved to another call or tenant shows itself."""
    return hashlib.sha256(canonical.encode([tenant, call])).digest()


def bound_call_key(tenant: TenantId, call: CallId, call_key: bytes) -> bytes:
    """What is wrapped for the cloud by RSAES_OAEP_SHA_256: the call key and its binding, 64 bytes."""
    if len(call_key) != CALL_KEY_BYTES:
        raise ValueError("a call key has 32 bytes")
    return call_key + key_binding(tenant, call)


def unbound_call_key(tenant: TenantId, call: CallId, unwrapped: bytes) -> bytes:
    """The call key out of what was unwrapped; raises IntegrityError if it was wrapped for another call or tenant."""
    if len(unwrapped) != 2 * CALL_KEY_BYTES or unwrapped[CALL_KEY_BYTES:] != key_binding(tenant, call):
        raise IntegrityError("the wrapped key belongs to another call")
    return unwrapped[:CALL_KEY_BYTES]


@checked(config=_STRICT, frozen=True, slots=True)
class Opening:
    """What an agent signs when it begins a call, or goes on with one under a new key.

    Attributes:
        tenant: Owner of the call.
        agent: The agent.
        call: The agent's id of the recording session.
        epoch: Which key of the call, from 0.
        key_arn: The KMS key to whose public half the call key is wrapped.
        wrapped_key_sha256: SHA-256 in hex of the wrapped key.
        sequence: Counts the agent's openings, so that a missing call shows.
        started_at_us: Microseconds of Unix time by the agent's clock.
    """

    tenant: str
    agent: str
    call: str
    epoch: int
    key_arn: str
    wrapped_key_sha256: Sha256Hex
    sequence: int
    started_at_us: int


@dataclass(frozen=True, slots=True)
class OpeningFile:
    """The opening record's file: the signed opening and the wrapped call key."""

    envelope: Envelope
    wrapped_key: bytes

    @classmethod
    def sealed_by(cls, signer: Signer, opening: Opening, wrapped_key: bytes) -> OpeningFile:
        """Signs an opening; raises ValueError if it names the hash of another wrapped key."""
        if hashlib.sha256(wrapped_key).hexdigest() != opening.wrapped_key_sha256:
            raise ValueError("the opening names another wrapped key")
        return cls(Envelope.sealed_by(signer, "opening", _payload(opening)), wrapped_key)

    def encode(self) -> bytes:
        """The file's bytes."""
        wrapped = base64.b64encode(self.wrapped_key).decode("ascii")
        return canonical.encode({"opening": self.envelope.to_json(), "wrapped_key": wrapped})

    @classmethod
    def decode(cls, data: bytes) -> OpeningFile:
        """Reads the file without verifying it; raises MalformedInput."""
        value = _object(data)
        try:
            wrapped = base64.b64decode(value.get("wrapped_key", ""), validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise MalformedInput("the wrapped key is not base64") from error
        return cls(Envelope.from_json(value.get("opening")), wrapped)

    def verified(self, public_key_der: VerifyingKeys) -> Opening:
        """Returns the opening after checking signature and wrapped key; raises IntegrityError or MalformedInput."""
        opening = _parse(Opening, self.envelope.verified(public_key_der, "opening"))
        if hashlib.sha256(self.wrapped_key).hexdigest() != opening.wrapped_key_sha256:
            raise IntegrityError("the opening was signed over another wrapped key")
        return opening


@checked(config=_STRICT, frozen=True, slots=True)
class EpochEntry:
    """A key epoch of a call and SHA-256 in hex of its opening file."""

    epoch: int
    opening_sha256: Sha256Hex


@checked(config=_STRICT, frozen=True, slots=True)
class PartEntry:
    """A part of a call: its place, its digest in hex (see ``part``), its first size in bytes, number of records."""

    epoch: int
    index: int
    digest: Sha256Hex
    size_bytes: int
    records: int


@checked(config=_STRICT, frozen=True, slots=True)
class StreamFormat:
    """What an RTP payload type means in a stream from a moment on.

    Attributes:
        payload_type: RTP payload type.
        codec: Encoding name as in SDP, upper case: ``PCMA``, ``PCMU``, ``telephone-event`` excepted from storage.
        clock_hz: RTP clock rate.
        channels: Audio channels.
        from_us: From when on, microseconds of Unix time by the agent's clock.
    """

    payload_type: int
    codec: str
    clock_hz: int
    channels: int
    from_us: int


@checked(config=_STRICT, frozen=True, slots=True)
class StreamEntry:
    """A stream of a call: its index in the records, its SDP label (empty if it had none), its formats over time."""

    stream: int
    label: str
    formats: list[StreamFormat]


@checked(config=_STRICT, frozen=True, slots=True)
class GapEntry:
    """A span of a stream that was not kept, from and to in microseconds of Unix time, and why.

    ``inactive`` and the causes of pauses were left out on purpose, and so was ``tones``: keys were pressed, and spans
    that lie near each other are one. ``restart`` is a loss while the agent did not run.
    """

    stream: int
    from_us: int
    to_us: int
    cause: str


@checked(config=_STRICT, frozen=True, slots=True)
class TonesEntry:
    """A span of the whole call in which DTMF tones were to be blanked, and the codecs in which the agent did so.

    From and to in microseconds of Unix time by the agent's clock. In other codecs the agent cannot hear a tone: who
    decodes them blanks it.
    """

    from_us: int
    to_us: int
    codecs: list[str]


@checked(config=_STRICT, frozen=True, slots=True)
class SilentEntry:
    """Where a stream fell silent: RTP timestamp of its first packet that was not kept, and its (expected) arrival.

    The timestamp is None where no packet had told it.
    """

    stream: int
    rtp_timestamp: int | None
    at_us: int


@checked(config=_STRICT, frozen=True, slots=True)
class PauseEntry:
    """A pause as it was carried out: who silenced the whole call, when, and why.

    Times are microseconds of Unix time by the agent's clock.

    Attributes:
        cause: ``payment``, ``manual``, ``hold``, ``consent`` or ``dtmf``.
        from_us: From when on nothing was kept, margin for clocks included.
        to_us: From when on this pause silenced nothing any more.
        origin: Who counted the command: ``cloud``, ``lan`` or ``agent``.
        command: Its id.
        number: Its number among the origin's commands for this call.
        by: Who asked for it; an opaque id.
        effective_at_us: The moment that was asked for.
        received_at_us: When the agent received it.
        silent_from: The beginning of the silence in each stream.
        resumed_by: Who ended it; ``until`` if its end was given with it, ``lease`` if its lease ran out, empty if the
            call ended first.
        lease_expired: Whether its lease ran out, whatever followed from that.
    """

    cause: str
    from_us: int
    to_us: int
    origin: str
    command: str
    number: int
    by: str
    effective_at_us: int
    received_at_us: int
    silent_from: list[SilentEntry]
    resumed_by: str
    lease_expired: bool


@checked(config=_STRICT, frozen=True, slots=True)
class StreamStatistics:
    """What the ring counted on a stream, in packets."""

    stream: int
    received: int
    duplicates: int
    reordered: int
    late: int
    foreign_source: int
    events_suppressed: int


@checked(config=_STRICT, frozen=True, slots=True)
class Manifest:
    """What an agent says of a finished call; its arrival starts the finaliser. No personal data.

    Attributes:
        tenant: Owner of the call.
        agent: The agent.
        call: The agent's id of the recording session.
        generation: 1, or more when the same call is declared again.
        epochs: Key epochs with their opening records.
        parts: All parts, in the order of their chain.
        streams: All streams that the call ever had.
        answered_at_us: When the agent answered, microseconds of Unix time by its clock.
        ended_at_us: When the dialog ended, by the same clock.
        end_reason: ``bye``, ``shutdown``, or ``error``.
        gaps: Spans that were not kept, by stream.
        statistics: The ring's counters.
        flags: What a reader should know, for example ``metadata_malformed``.
        version: Of the agent's software.
        pauses: Pauses in the order in which they were carried out.
        tones: Spans in which tones were to be blanked.
    """

    tenant: str
    agent: str
    call: str
    generation: int
    epochs: list[EpochEntry]
    parts: list[PartEntry]
    streams: list[StreamEntry]
    answered_at_us: int
    ended_at_us: int
    end_reason: str
    gaps: list[GapEntry]
    statistics: list[StreamStatistics]
    flags: list[str]
    version: str
    pauses: list[PauseEntry] = field(default_factory=list)
    tones: list[TonesEntry] = field(default_factory=list)
    format: int = field(default=FORMAT)

    def sealed_by(self, signer: Signer) -> bytes:
        """The manifest file's bytes: the signed envelope."""
        return canonical.encode(Envelope.sealed_by(signer, "manifest", _payload(self)).to_json())


def verified_manifest(data: bytes, public_key_der: VerifyingKeys) -> Manifest:
    """Reads and verifies a manifest file.

    Raises:
        MalformedInput: If it is not of the format.
        IntegrityError: If the signature is not the agent's.
    """
    envelope = Envelope.from_json(_object(data))
    manifest = _parse(Manifest, envelope.verified(public_key_der, "manifest"))
    if manifest.format != FORMAT:
        raise MalformedInput("a manifest of an unknown format")
    return manifest


@checked(config=_STRICT, frozen=True, slots=True)
class Receipt:
    """The cloud's word that a call is committed and locked: the agent may free exactly these parts.

    Attributes:
        tenant: Owner of the call.
        agent: The agent that is told.
        call: The call.
        generation: Which generation was committed.
        recording: The recording it became.
        parts: Digest in hex of every part that was taken over.
    """

    tenant: str
    agent: str
    call: str
    generation: int
    recording: str
    parts: list[str]

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs the receipt."""
        return Envelope.sealed_by(signer, "receipt", _payload(self))


def verified_receipt(envelope: Envelope, public_key_der: bytes) -> Receipt:
    """Verifies a receipt against the cloud's pinned key; raises IntegrityError or MalformedInput."""
    return _parse(Receipt, envelope.verified(public_key_der, "receipt"))


def receipt_for(manifest: Manifest, recording: RecordingId) -> Receipt:
    """The receipt of a manifest whose every part was taken over."""
    return Receipt(
        manifest.tenant,
        manifest.agent,
        manifest.call,
        manifest.generation,
        recording,
        [entry.digest for entry in manifest.parts],
    )


_T = TypeVar("_T")


def _payload(value: Any) -> bytes:  # noqa: ANN401 - any of the dataclasses above
    return canonical.encode(asdict(value))


def _parse(kind: type[_T], payload: bytes) -> _T:
    canonical.decode(payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        return TypeAdapter(kind).validate_json(payload)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput(f"not a well-formed {kind.__name__.lower()}") from None


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise MalformedInput("a call's file is too large")
    value = canonical.decode(data)
    if not isinstance(value, dict):
        raise MalformedInput("a call's file is a JSON object")
    return value
