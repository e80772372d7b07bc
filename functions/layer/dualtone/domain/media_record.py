"""The plaintext of a media record: the packets of about one call-second, column by column.

Columns let both ends work on whole arrays: the agent gathers them from its rings, the finaliser decodes them with a
table. Version 1 (``infra/formats/part.md``)::

    u8 version = 1 | u8 0 | u16 blocks | u64 base, microseconds of Unix time          big-endian
    block: u16 stream | u16 n | u32 ssrc                                              big-endian
           u16 sequence[n] | u32 timestamp[n] | u32 arrival[n], us after base         little-endian columns
           u8 payload type[n] | u16 size[n] | payload bytes, one packet after another

Pure; the only module of the domain that needs numpy, and only the agent and the finaliser import it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.errors import MalformedInput

_LATEST_US: Final = 1 << 62  # arrivals are 63-bit numbers, offsets to them 32-bit ones
VERSION: Final = 1
PACKET_OVERHEAD: Final = 13

_HEAD: Final = struct.Struct(">BBHQ")
_BLOCK: Final = struct.Struct(">HHI")


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """Packets of one stream and one SSRC, in the order in which they left the ring.

    Attributes:
        stream: Index of the stream in the call's manifest.
        ssrc: RTP synchronisation source.
        sequence: RTP sequence numbers, uint16[n].
        timestamp: RTP timestamps, uint32[n].
        arrival_us: Arrival in microseconds of Unix time by the agent's clock, int64[n].
        payload_type: RTP payload types, uint8[n].
        size: Payload bytes of each packet, uint16[n].
        payload: All payloads, one after another, uint8[sum(size)].
    """

    stream: int
    ssrc: int
    sequence: npt.NDArray[np.uint16]
    timestamp: npt.NDArray[np.uint32]
    arrival_us: npt.NDArray[np.int64]
    payload_type: npt.NDArray[np.uint8]
    size: npt.NDArray[np.uint16]
    payload: npt.NDArray[np.uint8]


def encode(blocks: Sequence[StreamBlock]) -> bytes:
    """Lays blocks out as the plaintext of one record.

    Raises:
        ValueError: If a record would span more than 2**32 microseconds or 65,535 blocks or packets of a block.
    """
    arrivals = [block.arrival_us for block in blocks if block.arrival_us.size]
    base = min((int(column.min()) for column in arrivals), default=0)
    chunks = [_HEAD.pack(VERSION, 0, _u16(len(blocks)), base)]
    for block in blocks:
        offsets = block.arrival_us - base
        if offsets.size and int(offsets.max()) > np.iinfo(np.uint32).max:
            raise ValueError("a media record spans at most 71 minutes")
        chunks += (
            _BLOCK.pack(block.stream, _u16(block.sequence.size), block.ssrc),
            block.sequence.astype("<u2", copy=False).tobytes(),
            block.timestamp.astype("<u4", copy=False).tobytes(),
            offsets.astype("<u4").tobytes(),
            block.payload_type.astype("u1", copy=False).tobytes(),
            block.size.astype("<u2", copy=False).tobytes(),
            block.payload.astype("u1", copy=False).tobytes(),
        )
    return b"".join(chunks)


def decode(data: bytes) -> list[StreamBlock]:
    """Reads a record's plaintext.

    Returns:
        The blocks; their small columns are views of ``data``.

    Raises:
        MalformedInput: If it is not exactly of the format.
    """
    if len(data) < _HEAD.size:
        raise MalformedInput("too short to be a media record")
    version, zero, count, base = _HEAD.unpack_from(data)
    if version != VERSION or zero != 0:
        raise MalformedInput("a media record of an unknown version")
    if base > _LATEST_US:
        raise MalformedInput("a media record of no time that there is")
    position, blocks = _HEAD.size, []
    for _ in range(count):
        block, position = _decode_block(data, position, base)
        blocks.append(block)
    if position != len(data):
        raise MalformedInput("bytes after the last block of a media record")
    return blocks


def _decode_block(data: bytes, position: int, base: int) -> tuple[StreamBlock, int]:
    if position + _BLOCK.size > len(data):
        raise MalformedInput("a media record ends inside a block")
    stream, n, ssrc = _BLOCK.unpack_from(data, position)
    position += _BLOCK.size
    if position + n * PACKET_OVERHEAD > len(data):
        raise MalformedInput("a media record ends inside its columns")
    columns: list[npt.NDArray[np.generic]] = []
    for kind in ("<u2", "<u4", "<u4", "u1", "<u2"):
        column = np.frombuffer(data, kind, n, position)
        columns.append(column)
        position += column.nbytes
    sequence, timestamp, offset, payload_type, size = columns
    total = int(size.sum(dtype=np.int64))
    if position + total > len(data):
        raise MalformedInput("a media record ends inside its payload")
    payload = np.frombuffer(data, np.uint8, total, position)
    block = StreamBlock(
        stream,
        ssrc,
        sequence.astype(np.uint16, copy=False),
        timestamp.astype(np.uint32, copy=False),
        offset.astype(np.int64) + base,
        payload_type.astype(np.uint8, copy=False),
        size.astype(np.uint16, copy=False),
        payload,
    )
    return block, position + total


def _u16(value: int) -> int:
    if value > np.iinfo(np.uint16).max:
        raise ValueError("a media record counts in 16 bits")
    return value
