"""The part: up to a minute of a call as sealed records, one file from the agent's spool to the ingest bucket.

Byte format, version 1 (all integers big-endian; ``infra/formats/part.md`` is the specification)::

    "DTP1" | u32 n | header, n bytes of canonical JSON
    record*: u32 n | u8 type | u16 stream set | u64 sequence | u64 from | u32 span | sealed, n - 23 bytes
    trailer: the same frame, type 255; sequence = records in the part; sealed = DER signature

A record's plaintext is sealed by AES-256-GCM under the call's key. The nonce is the record's sequence number, which
counts all records of a call and key epoch, so that it never repeats. When its content arrived stands in the clear, and
is authenticated: records are found by time without any key.

A part's digest is SHA-256 over one hash for its head and one for each record, in order; a record's is SHA-256 of what
it says of itself and the SHA-256 of its sealed bytes. The trailer signs the digest, the next part and the manifest name
it. So a media record can be cut out (``cut``) by anyone who holds the file: its sealed bytes give way to their hash;
digest, signature and chain stay, and everybody sees what was cut. Pure.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import canonical, signing
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, CallId, TenantId, parse_agent_id, parse_call_id, parse_tenant_id

MAGIC: Final = b"DTP1"
FORMAT: Final = 1
NO_PREVIOUS: Final = "0" * 64
MAX_HEADER_BYTES: Final = 4096
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
MAX_EPOCH: Final = 0xFFFF
TAG_BYTES: Final = 16
HASH_BYTES: Final = 32
MAX_SPAN_US: Final = 0xFFFF_FFFF

_PREFIX: Final = struct.Struct(">4sI")
_FRAME: Final = struct.Struct(">IBHQQI")
FRAME_HEAD_BYTES: Final = _FRAME.size
_FRAME_OVERHEAD: Final = _FRAME.size - 4
_AAD: Final = struct.Struct(">4s26sHBHQQI")


class RecordType(IntEnum):
    """What a record's plaintext is."""

    MEDIA = 1
    SIGNALLING = 2
    SESSION = 3
    REMOVED = 254
    TRAILER = 255


@dataclass(frozen=True, slots=True)
class PartHeader:
    """What a part says of itself in the clear; it holds no personal data.

    Attributes:
        tenant: Owner of the call.
        agent: The agent that recorded it.
        call: The agent's id of the recording session.
        epoch: Which key of the call seals the records; a restart begins another.
        index: Counts the call's parts from 0, over all epochs.
        previous: Digest in hex of the preceding part, ``NO_PREVIOUS`` for the first: the chain.
    """

    tenant: TenantId
    agent: AgentId
    call: CallId
    epoch: int
    index: int
    previous: str


class RecordHead(NamedTuple):
    """What a record says of itself in the clear.

    Attributes:
        type: What its plaintext is.
        stream_set: Which set of streams the call had at that moment.
        sequence: Counts the records of call and epoch, from 0.
        from_us: When the first of its content arrived, microseconds of Unix time by the agent's clock.
        span_us: How much later the last of it arrived, microseconds; 0 for a moment.
    """

    type: RecordType
    stream_set: int
    sequence: int
    from_us: int
    span_us: int

    def overlaps(self, from_us: int, to_us: int) -> bool:
        """Whether something of it may have arrived within a span, both ends included."""
        return self.from_us <= to_us and self.from_us + self.span_us >= from_us


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A record as it lies in a part: still sealed, or, of the type REMOVED, SHA-256 of the bytes that were cut."""

    head: RecordHead
    sealed: memoryview


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was read, not yet verified.

    Attributes:
        header: What it says of itself.
        records: Its whole records, in the order of the file.
        signature: The trailer's DER signature, None if the file ends before one.
        signed_length: Bytes that precede the trailer.
        digest: What the signature covers, 32 bytes; in hex it is what manifest and successor name.
    """

    header: PartHeader
    records: tuple[SealedRecord, ...]
    signature: bytes | None
    signed_length: int
    digest: bytes

    def verify(self, public_key_der: signing.VerifyingKeys) -> None:
        """Checks the agent's signature over the part; raises IntegrityError, also when there is none."""
        if self.signature is None:
            raise IntegrityError("the part has no trailer")
        signing.verify(public_key_der, "part", self.digest, self.signature)


class PartDigest:
    """The digest of a part that is being written.

    Args:
        head: The part's first bytes, from ``encode_header``.
    """

    def __init__(self, head: bytes | memoryview) -> None:
        self._digest = hashlib.sha256(hashlib.sha256(head).digest())

    def add(self, frame: bytes | memoryview) -> None:
        """Takes the next record's frame, that of a removed one included."""
        view = memoryview(frame)
        kind, sealed = view[4], view[FRAME_HEAD_BYTES:]
        content = sealed if kind == RecordType.REMOVED else hashlib.sha256(sealed).digest()
        was = RecordType.MEDIA if kind == RecordType.REMOVED else kind
        leaf = hashlib.sha256(bytes([was]) + view[5:FRAME_HEAD_BYTES])
        leaf.update(content)
        self._digest.update(leaf.digest())

    @property
    def value(self) -> bytes:
        """The digest so far, 32 bytes."""
        return self._digest.digest()


def nonce(sequence: int) -> bytes:
    """The 12-byte GCM nonce of a record: four zero bytes and the sequence number."""
    return bytes(4) + sequence.to_bytes(8, "big")


def aad(call: CallId, epoch: int, head: RecordHead) -> bytes:
    """What a record's tag also covers, 55 bytes: call, key epoch, and all that the record says of itself."""
    return _AAD.pack(b"DTR1", call.encode("ascii"), epoch, *head)


def encode_header(header: PartHeader) -> bytes:
    """The first bytes of a part."""
    body = canonical.encode(
        {
            "agent": header.agent,
            "call": header.call,
            "epoch": header.epoch,
            "format": FORMAT,
            "index": header.index,
            "previous": header.previous,
            "tenant": header.tenant,
        }
    )
    return _PREFIX.pack(MAGIC, len(body)) + body


def seal(aead: AESGCM, call: CallId, epoch: int, head: RecordHead, plaintext: bytes | memoryview) -> bytes:
    """Seals one record.

    Args:
        aead: AES-256-GCM under the call's key of this epoch.
        call: The call.
        epoch: The key epoch.
        head: Type MEDIA, SIGNALLING or SESSION; the sequence number is never used twice with one key.
        plaintext: What is sealed.

    Returns:
        The frame to append to the part.
    """
    return _frame(head, aead.encrypt(nonce(head.sequence), plaintext, aad(call, epoch, head)))


def unseal(aead: AESGCM, header: PartHeader, record: SealedRecord) -> bytes:
    """Opens one record; raises IntegrityError if it is not what was sealed in this place of this call."""
    head = record.head
    try:
        return aead.decrypt(nonce(head.sequence), record.sealed, aad(header.call, header.epoch, head))
    except InvalidTag as error:
        raise IntegrityError("a record of the part does not authenticate") from error


def encode_trailer(signature: bytes, records: int) -> bytes:
    """The last frame of a part.

    Args:
        signature: DER signature over ``signing.message("part", digest)``.
        records: How many records precede it, removed ones included.
    """
    return _frame(RecordHead(RecordType.TRAILER, 0, records, 0, 0), signature)


def cut(data: bytes | memoryview, spans: Sequence[tuple[int, int]]) -> bytes:
    """Cuts out every media record of which something may have arrived within given spans.

    Args:
        data: A part, whole or torn.
        spans: From and to, both included, microseconds of the agent's clock.

    Returns:
        The part without them, of the same digest; the same bytes if there were none. A torn tail goes.

    Raises:
        MalformedInput: If it is no part.
    """
    view, found = memoryview(data), read(data)
    position = found.signed_length - sum(FRAME_HEAD_BYTES + len(record.sealed) for record in found.records)
    kept: list[bytes | memoryview] = [view[:position]]
    for record in found.records:
        frame = view[position : position + FRAME_HEAD_BYTES + len(record.sealed)]
        position += len(frame)
        is_hit = record.head.type is RecordType.MEDIA and any(record.head.overlaps(*span) for span in spans)
        stub = record.head._replace(type=RecordType.REMOVED)
        kept.append(_frame(stub, hashlib.sha256(record.sealed).digest()) if is_hit else frame)
    if found.signature is not None:
        kept.append(view[found.signed_length :])
    return b"".join(kept)


def read(data: bytes | memoryview) -> Part:
    """Reads a part, whole or torn.

    A file that ends inside a frame, or between two, is torn: the whole records before the tear are returned, with no
    signature. Anything else that is not of the format is malformed, bytes after the trailer included.

    Raises:
        MalformedInput: If it is no part.
    """
    view = memoryview(data)
    header, position = _read_header(view)
    digest = PartDigest(view[:position])
    records: list[SealedRecord] = []
    while position + _FRAME.size <= len(view):
        length, kind, stream_set, sequence, from_us, span_us = _FRAME.unpack_from(view, position)
        if not _FRAME_OVERHEAD < length <= MAX_RECORD_BYTES:
            raise MalformedInput("a record of the part has an impossible length")
        end = position + 4 + length
        if end > len(view):
            break
        try:
            head = RecordHead(RecordType(kind), stream_set, sequence, from_us, span_us)
        except ValueError as error:
            raise MalformedInput("a record of the part is of no known type") from error
        sealed = view[position + _FRAME.size : end]
        if head.type is RecordType.TRAILER:
            if end != len(view) or head != (RecordType.TRAILER, 0, len(records), 0, 0):
                raise MalformedInput("the trailer of the part does not fit it")
            return Part(header, tuple(records), bytes(sealed), position, digest.value)
        if head.type is RecordType.REMOVED:
            if len(sealed) != HASH_BYTES:
                raise MalformedInput("a removed record of the part is not the hash of one")
        elif len(sealed) < TAG_BYTES:
            raise MalformedInput("a record of the part is shorter than its tag")
        digest.add(view[position:end])
        records.append(SealedRecord(head, sealed))
        position = end
    return Part(header, tuple(records), None, position, digest.value)


def valid_length(data: bytes | memoryview) -> int:
    """How many bytes of a file without trailer are header and whole records: where a torn tail is cut.

    Raises:
        MalformedInput: If not even the header is whole.
    """
    return read(data).signed_length


def _frame(head: RecordHead, sealed: bytes) -> bytes:
    return _FRAME.pack(len(sealed) + _FRAME_OVERHEAD, *head) + sealed


def _read_header(view: memoryview) -> tuple[PartHeader, int]:
    if len(view) < _PREFIX.size:
        raise MalformedInput("too short to be a part")
    magic, length = _PREFIX.unpack_from(view)
    if magic != MAGIC or length > MAX_HEADER_BYTES or _PREFIX.size + length > len(view):
        raise MalformedInput("not the head of a part")
    value = canonical.decode(view[_PREFIX.size : _PREFIX.size + length])
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise MalformedInput("a part of an unknown format")
    epoch, index, previous = value.get("epoch"), value.get("index"), value.get("previous")
    if not (isinstance(epoch, int) and 0 <= epoch <= MAX_EPOCH and isinstance(index, int) and index >= 0):
        raise MalformedInput("the head of the part counts wrongly")
    if not isinstance(previous, str) or len(previous) != len(NO_PREVIOUS):
        raise MalformedInput("the head of the part names no predecessor")
    header = PartHeader(
        parse_tenant_id(value.get("tenant", "")),
        parse_agent_id(value.get("agent", "")),
        parse_call_id(value.get("call", "")),
        epoch,
        index,
        previous,
    )
    return header, _PREFIX.size + length
