"""Leaving packets laid out as media records, for many calls at once.

The bytes are those of ``dualtone.domain.media_record``; here all blocks of a second of a hundred calls are written
together, column by column, each packet's values to the place where they belong. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.media_record import PACKET_OVERHEAD, VERSION
from sbc_agent.media import memory
from sbc_agent.media.ring import Int64s, Ring
from sbc_agent.media.rtp import windows

_HEAD_BYTES: Final = 12
_BLOCK_HEAD_BYTES: Final = 8
_SPARE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Turn:
    """The streams of calls whose turn it is to leave.

    Attributes:
        row: Rows of the streams, ordered by call, int64[m].
        stream: Index of each stream within its call, int64[m].
        call: Position of each stream's call among the calls, int64[m], ascending.
    """

    row: Int64s
    stream: Int64s
    call: Int64s


@dataclass(frozen=True, slots=True)
class Record:
    """A record's plaintext, valid until the next records are laid out.

    Attributes:
        call: Position of the call in the turn.
        packets: How many packets it holds.
        from_us: Arrival of the first of them.
        span_us: How much later the last arrived.
        plaintext: The bytes.
    """

    call: int
    packets: int
    from_us: int
    span_us: int
    plaintext: memoryview


class RecordLayout:
    """Writes records into one buffer, which is used again and again."""

    def __init__(self) -> None:
        self.buffer: npt.NDArray[np.uint8] = memory.array(1 << 20, np.uint8)

    def leave(self, ring: Ring, turn: Turn, cutoff_us: int) -> list[Record]:
        """Lets packets leave the ring and lays them out, one record for each call that has any.

        Args:
            ring: The rings.
            turn: Whose turn it is.
            cutoff_us: The latest arrival that may leave.
        """
        slots, counts = ring.leaving(turn.row, cutoff_us)
        if not slots.size:
            return []
        position = np.repeat(np.arange(turn.row.size), counts)
        known = ring.known(slots)
        ssrc, size = known["ssrc"], known["size"].astype(np.int64)
        arrival_us = known["arrival_us"]

        # 1. Blocks: runs of one stream and one SSRC. Records: runs of blocks of one call.
        first = np.flatnonzero(_starts(position) | _starts(ssrc))
        packets = np.diff(first, append=slots.size)
        call = turn.call[position[first]]
        opens = np.flatnonzero(_starts(call))
        record = np.cumsum(_starts(call)) - 1
        of_record = np.repeat(record, packets)

        # 2. Where everything lies.
        behind = np.cumsum(size) - size
        length = _BLOCK_HEAD_BYTES + PACKET_OVERHEAD * packets + np.add.reduceat(size, first)
        start = _HEAD_BYTES * (record + 1) + np.cumsum(length) - length
        begins = start[opens] - _HEAD_BYTES
        ends = np.append(begins[1:], start[-1] + length[-1])
        column = np.repeat(start + _BLOCK_HEAD_BYTES, packets)
        n = np.repeat(packets, packets)
        k = np.arange(slots.size) - np.repeat(first, packets)
        base_us = np.minimum.reduceat(arrival_us, first[opens])
        span_us = np.maximum.reduceat(arrival_us, first[opens]) - base_us

        # 3. Payloads, one pass for each size that occurs; then the columns; then the heads.
        out = self._room(int(ends[-1]))
        target = column + PACKET_OVERHEAD * n + behind - np.repeat(behind[first], packets)
        source = ring.offsets(turn.row[position], slots)
        for each in np.unique(size) if (size != size[0]).any() else size[:1]:
            if each:
                chosen = slice(None) if (size == each).all() else size == each
                windows(out, int(each))[target[chosen]] = windows(ring.bytes, int(each))[source[chosen]]
        _typed(out, "<u2")[column + 2 * k] = known["sequence"]
        _typed(out, "<u4")[column + 2 * n + 4 * k] = known["timestamp"]
        _typed(out, "<u4")[column + 6 * n + 4 * k] = (arrival_us - base_us[of_record]).astype(np.uint32)
        out[column + 10 * n + k] = known["payload_type"]
        _typed(out, "<u2")[column + 11 * n + 2 * k] = size.astype(np.uint16)
        _typed(out, ">u2")[start] = turn.stream[position[first]].astype(np.uint16)
        _typed(out, ">u2")[start + 2] = packets.astype(np.uint16)
        _typed(out, ">u4")[start + 4] = ssrc[first]
        _typed(out, ">u2")[begins] = VERSION << 8
        _typed(out, ">u2")[begins + 2] = np.diff(opens, append=first.size).astype(np.uint16)
        _typed(out, ">u8")[begins + 4] = base_us.astype(np.uint64)

        view = out.data
        totals = np.add.reduceat(packets, opens)
        columns = (call[opens], totals, base_us, span_us, begins, ends)
        return [
            Record(one, total, from_us, span, view[begin:end])
            for one, total, from_us, span, begin, end in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def wipe(self) -> None:
        """Leaves nothing in the buffer of the records that were laid out last."""
        self.buffer[:] = 0

    def _room(self, count: int) -> npt.NDArray[np.uint8]:
        if self.buffer.size < count + _SPARE_BYTES:
            self.buffer[:] = 0
            self.buffer = memory.array(2 * (count + _SPARE_BYTES), np.uint8)
            memory.lock(self.buffer)  # where the system does not allow it, the start has told
        return self.buffer


def _starts(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where another value begins, bool[n]; the first always does."""
    starts = np.ones(values.size, np.bool_)
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts


def _typed(buffer: npt.NDArray[np.uint8], kind: str) -> npt.NDArray[Any]:
    """A flat buffer as numbers of a kind at every byte offset."""
    count = buffer.size - np.dtype(kind).itemsize + 1
    return np.ndarray((count,), kind, buffer, 0, (1,))
