"""The part: up to a minute of a call as sealed records, one file from the agent's spool to the ingest bucket.

Byte format, version 1 (all integers big-endian; ``infra/formats/part.md`` is the specification)::

    "DTP1" | u32 n | header, n bytes of canonical JSON
    record*: u32 n | u8 type | u16 stream set | u64 sequence | sealed, n - 11 bytes
    trailer: the same frame, type 255; sequence = records in the part; sealed = DER signature

A record's plaintext is sealed by AES-256-GCM under the call's key. The nonce is the record's sequence number, which
counts all records of a call and key epoch, so that it never repeats. The trailer signs SHA-256 of all that precedes it.
Pure.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

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

_PREFIX: Final = struct.Struct(">4sI")
_FRAME: Final = struct.Struct(">IBHQ")
_FRAME_OVERHEAD: Final = _FRAME.size - 4
_AAD: Final = struct.Struct(">4s26sHBHQ")


class RecordType(IntEnum):
    """What a record's plaintext is."""

    MEDIA = 1
    SIGNALLING = 2
    SESSION = 3
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
        previous: SHA-256 in hex of the whole preceding part file, ``NO_PREVIOUS`` for the first: the chain.
    """

    tenant: TenantId
    agent: AgentId
    call: CallId
    epoch: int
    index: int
    previous: str


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A record as it lies in a part: still sealed."""

    type: RecordType
    stream_set: int
    sequence: int
    sealed: memoryview


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was read, not yet verified.

    Attributes:
        header: What it says of itself.
        records: Its whole records, in the order of the file.
        signature: The trailer's DER signature, None if the file ends before one.
        signed_length: Bytes that the signature covers.
        sha256_signed: SHA-256 of those bytes.
        sha256: SHA-256 of the whole file in hex, as manifest and successor name it.
    """

    header: PartHeader
    records: tuple[SealedRecord, ...]
    signature: bytes | None
    signed_length: int
    sha256_signed: bytes
    sha256: str

    def verify(self, public_key_der: bytes) -> None:
        """Checks the agent's signature over the part; raises IntegrityError, also when there is none."""
        if self.signature is None:
            raise IntegrityError("the part has no trailer")
        signing.verify(public_key_der, "part", self.sha256_signed, self.signature)


def nonce(sequence: int) -> bytes:
    """The 12-byte GCM nonce of a record: four zero bytes and the sequence number."""
    return bytes(4) + sequence.to_bytes(8, "big")


def aad(call: CallId, epoch: int, record_type: int, stream_set: int, sequence: int) -> bytes:
    """What a record's tag also covers, 43 bytes: call, key epoch, type, stream set and sequence number."""
    return _AAD.pack(b"DTR1", call.encode("ascii"), epoch, record_type, stream_set, sequence)


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


def seal(
    aead: AESGCM,
    call: CallId,
    epoch: int,
    record_type: RecordType,
    stream_set: int,
    sequence: int,
    plaintext: bytes | memoryview,
) -> bytes:
    """Seals one record.

    Args:
        aead: AES-256-GCM under the call's key of this epoch.
        call: The call.
        epoch: The key epoch.
        record_type: MEDIA, SIGNALLING or SESSION.
        stream_set: Which set of streams the call had at that moment.
        sequence: The record's number within call and epoch. Never used twice with one key.
        plaintext: What is sealed.

    Returns:
        The frame to append to the part.
    """
    sealed = aead.encrypt(nonce(sequence), plaintext, aad(call, epoch, record_type, stream_set, sequence))
    return _FRAME.pack(len(sealed) + _FRAME_OVERHEAD, record_type, stream_set, sequence) + sealed


def unseal(aead: AESGCM, header: PartHeader, record: SealedRecord) -> bytes:
    """Opens one record; raises IntegrityError if it is not what was sealed in this place of this call."""
    try:
        return aead.decrypt(
            nonce(record.sequence),
            record.sealed,
            aad(header.call, header.epoch, record.type, record.stream_set, record.sequence),
        )
    except InvalidTag as error:
        raise IntegrityError("a record of the part does not authenticate") from error


def encode_trailer(signature: bytes, records: int) -> bytes:
    """The last frame of a part.

    Args:
        signature: DER signature over ``signing.message("part", SHA-256 of all preceding bytes)``.
        records: How many records precede it.
    """
    return _FRAME.pack(len(signature) + _FRAME_OVERHEAD, RecordType.TRAILER, 0, records) + signature


def read(data: bytes | memoryview) -> Part:
    """Reads a part, whole or torn.

    A file that ends inside a frame, or between two, is torn: the whole records before the tear are returned, with no
    signature. Anything else that is not of the format is malformed, bytes after the trailer included.

    Raises:
        MalformedInput: If it is no part.
    """
    view = memoryview(data)
    header, position = _read_header(view)
    records: list[SealedRecord] = []
    while position + _FRAME.size <= len(view):
        length, kind, stream_set, sequence = _FRAME.unpack_from(view, position)
        if not _FRAME_OVERHEAD < length <= MAX_RECORD_BYTES:
            raise MalformedInput("a record of the part has an impossible length")
        end = position + 4 + length
        if end > len(view):
            break
        sealed = view[position + _FRAME.size : end]
        if kind == RecordType.TRAILER:
            if end != len(view) or sequence != len(records) or stream_set != 0:
                raise MalformedInput("the trailer of the part does not fit it")
            return _part(header, records, view, position, bytes(sealed))
        try:
            record_type = RecordType(kind)
        except ValueError as error:
            raise MalformedInput("a record of the part is of no known type") from error
        if len(sealed) < TAG_BYTES:
            raise MalformedInput("a record of the part is shorter than its tag")
        records.append(SealedRecord(record_type, stream_set, sequence, sealed))
        position = end
    return _part(header, records, view, position, None)


def valid_length(data: bytes | memoryview) -> int:
    """How many bytes of a file without trailer are header and whole records: where a torn tail is cut.

    Raises:
        MalformedInput: If not even the header is whole.
    """
    return read(data).signed_length


def _part(
    header: PartHeader, records: list[SealedRecord], view: memoryview, signed_length: int, signature: bytes | None
) -> Part:
    """Puts a part together; the file is hashed once for both of its hashes."""
    digest = hashlib.sha256(view[:signed_length])
    sha256_signed = digest.digest()
    digest.update(view[signed_length:])
    return Part(header, tuple(records), signature, signed_length, sha256_signed, digest.hexdigest())


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
