"""The ring: hold-back, reordering and duplicate removal in one place, for all streams at once.

Each stream has a row. A packet's extended sequence number e (which grows over wraps and SSRC changes) gives its slot,
``e % width``; columns keep what is known of it, its payload lies in the row's bytes. A slot is taken if the e written
in it has not left yet, so leaving is nothing but moving ``next_out`` forward: a second copy finds its own e, a packet
out of order falls into its place, and what comes after its turn is late.

A row has bytes for the hold-back at 64 kbit/s and at any packet time: its slots are as large as the stream's largest
packet, and so many. A stream that needs more moves to one of a few wide rows. No clock, no I/O; times are microseconds
of the agent's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np
import numpy.typing as npt

from sbc_agent.media import memory
from sbc_agent.media.rtp import Unsigned, windows

MARGIN: Final = 64  # numbers left free below a stream's first packet, for those that were overtaken by it
SLACK_MS: Final = 2_000  # beyond the hold-back: leaving once a second, draining, and packets that come in bursts
LEAST_PACKET_TIME_MS: Final = 10
BYTES_PER_MS: Final = 8  # 64 kbit/s
USUAL_PACKET: Final = 160  # 20 ms of them
WIDEST_PACKET: Final = 1_536
_FIRST_EXTENDED: Final = 1 << 20  # zero is what an unwritten slot holds
_USUAL_PACKETS_PER_S: Final = 50
_SCAN: Final = 64  # slots looked at per stream and pass: a second of 20 ms packets and some

Int64s = npt.NDArray[np.int64]

# What is known of a packet, half a line of the processor's cache.
SLOT: Final = np.dtype(
    {
        "names": ["extended", "arrival_us", "timestamp", "ssrc", "sequence", "size", "payload_type"],
        "formats": ["i8", "i8", "u4", "u4", "u2", "u2", "u1"],
        "itemsize": 32,
    }
)
_NAMES: Final = SLOT.names or ()
_WHOLE_SLOT: Final = np.dtype(f"V{SLOT.itemsize}")


class Outcome(Enum):
    """What became of a packet that was offered to the ring."""

    STORED = auto()
    DUPLICATE = auto()
    LATE = auto()
    OVERFLOW = auto()


@dataclass(frozen=True, slots=True)
class Packets:
    """Columns of n packets on their way into the ring.

    Attributes:
        row: The stream's row, int64[n].
        extended: Extended sequence number, int64[n].
        arrival_us: int64[n].
        timestamp: RTP timestamp, uint32[n].
        ssrc: uint32[n].
        sequence: RTP sequence number, uint32[n].
        payload_type: uint32[n].
        payload: Offset of the payload in ``buffer``, int64[n].
        size: Bytes of payload, int64[n].
    """

    row: Int64s
    extended: Int64s
    arrival_us: Int64s
    timestamp: Unsigned
    ssrc: Unsigned
    sequence: Unsigned
    payload_type: Unsigned
    payload: Int64s
    size: Int64s


class Ring:
    """Rings of all streams.

    Args:
        rows: How many streams at once.
        hold_back_ms: How long packets stay.
    """

    def __init__(self, rows: int, hold_back_ms: int) -> None:
        depth_ms = hold_back_ms + SLACK_MS
        self.hold_back_us = hold_back_ms * 1000
        self._slots = -(-depth_ms // LEAST_PACKET_TIME_MS)
        self._row_bytes = depth_ms * BYTES_PER_MS
        self._wide_bytes = self._slots * WIDEST_PACKET
        wide = max(rows // 4, 2)
        self._free_wide = [rows * self._row_bytes + index * self._wide_bytes for index in range(wide)]
        self.bytes = memory.array(rows * self._row_bytes + (wide + 1) * self._wide_bytes, np.uint8, is_dense=True)
        # In ordinary pages: a row of 20 ms packets uses the first half of its slots, and the other half costs nothing.
        self.table: npt.NDArray[np.void] = memory.array(rows * self._slots, SLOT)
        self._whole = self.table.view(_WHOLE_SLOT)
        self.extended: Int64s = self.table["extended"]
        self.arrival_us: Int64s = self.table["arrival_us"]
        self.timestamp: npt.NDArray[np.uint32] = self.table["timestamp"]
        self.ssrc: npt.NDArray[np.uint32] = self.table["ssrc"]
        self.sequence: npt.NDArray[np.uint16] = self.table["sequence"]
        self.size: npt.NDArray[np.uint16] = self.table["size"]
        self.payload_type: npt.NDArray[np.uint8] = self.table["payload_type"]
        self.next_out = np.full(rows, _FIRST_EXTENDED, np.int64)
        self.highest = np.full(rows, _FIRST_EXTENDED, np.int64)
        self._base = np.arange(rows, dtype=np.int64) * self._row_bytes
        self._width = np.full(rows, min(self._slots, self._row_bytes // USUAL_PACKET), np.int64)
        self._slot_bytes = np.full(rows, USUAL_PACKET, np.int64)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """What holds speech or tells of it, for locking into memory; the wide rows, seldom used, last."""
        narrow = self._base.size * self._row_bytes
        return (self.bytes[:narrow], self.table, self.bytes[narrow:])

    def clear_row(self, row: int) -> None:
        """Forgets a stream: nothing of it is left in memory, and another may have its row."""
        if self._is_wide(row):
            base = int(self._base[row])
            self.bytes[base : base + self._wide_bytes] = 0
            self._free_wide.append(base)
        self._base[row] = row * self._row_bytes
        self.bytes[row * self._row_bytes : (row + 1) * self._row_bytes] = 0
        first = row * self._slots
        self.extended[first : first + self._slots] = 0
        self.next_out[row] = self.highest[row] = _FIRST_EXTENDED
        self._set_slot_bytes(row, USUAL_PACKET)

    def rebase(self, rows: Int64s) -> Int64s:
        """Where new SSRCs of streams start: above all that came before, with room for what their first overtook."""
        start = self.highest[rows] + 1 + MARGIN
        self.highest[rows] = start - 1
        return start

    def slots(self, row: Int64s, extended: Int64s) -> Int64s:
        """Index into the columns for packets of streams, int64[n]."""
        slots: Int64s = row * self._slots + extended % self._width[row]
        return slots

    def fitting(self, row: Int64s, extended: Int64s, size: Int64s, slot: Int64s) -> npt.NDArray[np.bool_]:
        """Which packets ``store`` takes as they are: neither late nor copies, with a free and large enough slot."""
        next_out = self.next_out[row]
        fit: npt.NDArray[np.bool_] = (
            (extended >= next_out) & (self.extended[slot] < next_out) & (size <= self._slot_bytes[row])
        )
        return fit

    def store(self, packets: Packets, slot: Int64s, source: npt.NDArray[np.uint8]) -> None:
        """Writes packets into slots that ``fitting`` found free; no slot may occur twice.

        Args:
            packets: The packets, ordered by row.
            slot: Their slots, from ``slots``.
            source: The buffer in which their payloads lie.
        """
        known = np.zeros(packets.row.size, SLOT)
        for name in _NAMES:
            known[name] = getattr(packets, name)
        self._whole[slot] = known.view(_WHOLE_SLOT)  # one write a packet, to one line of the processor's cache
        each = self._slot_bytes[packets.row]
        target = self._base[packets.row] + packets.extended % self._width[packets.row] * each
        for slot_bytes in np.unique(each) if each.size and (each != each[0]).any() else each[:1]:
            chosen = slice(None) if (each == slot_bytes).all() else each == slot_bytes
            windows(self.bytes, int(slot_bytes))[target[chosen]] = windows(source, int(slot_bytes))[
                packets.payload[chosen]
            ]

    def offer(self, packet: Packets, source: npt.NDArray[np.uint8]) -> Outcome:
        """Takes one packet (columns of length one) that is out of the ordinary, making room where that is needed."""
        row, extended, size = int(packet.row[0]), int(packet.extended[0]), int(packet.size[0])
        while True:
            slot = self.slots(packet.row, packet.extended)
            held = int(self.extended[slot[0]])
            if held == extended:
                return Outcome.DUPLICATE
            if extended < self.next_out[row]:
                return Outcome.LATE
            if held < self.next_out[row] and size <= self._slot_bytes[row]:
                self.store(packet, slot, source)
                self.highest[row] = max(int(self.highest[row]), extended)
                return Outcome.STORED
            if not self._make_room(row, extended, size):
                return Outcome.OVERFLOW

    def known(self, slots: Int64s) -> npt.NDArray[np.void]:
        """What is known of the packets in slots, ``SLOT``[n]; a copy."""
        return self._whole[slots].view(SLOT)

    def held(self, row: int) -> Int64s:
        """Slots of the packets that a row holds, in order, int64[n]."""
        first = row * self._slots
        extended = self.extended[first : first + int(self._width[row])]
        mine = np.flatnonzero(extended >= self.next_out[row])
        slots: Int64s = first + mine[np.argsort(extended[mine])]
        return slots

    def blank(self, row: int, from_us: int, to_us: int) -> int:
        """Removes the packets that arrived within a span, both ends included; returns how many had still to leave.

        The bytes of those that have left already are zeroed too.
        """
        slots = self._remembered(row)
        slots = slots[(self.arrival_us[slots] >= from_us) & (self.arrival_us[slots] <= to_us)]
        each = int(self._slot_bytes[row])
        for offset in self.offsets(np.full(slots.size, row), slots).tolist():
            self.bytes[offset : offset + each] = 0
        gone = slots[self.extended[slots] >= self.next_out[row]]
        self.extended[gone] = 0
        return int(gone.size)

    def ahead(self, rows: Int64s, until_us: int) -> tuple[Int64s, Int64s]:
        """The packets that streams will let go next, as far as they arrived by a moment; none of them goes.

        Returns:
            Position in ``rows`` of each, int64[n], ascending, and its slot, int64[n]; each stream's in order.
        """
        span = _SCAN
        while True:
            first = self.next_out[rows]
            extended = first[:, None] + np.arange(span)
            slots = (rows * self._slots)[:, None] + extended % self._width[rows][:, None]
            here = self.extended[slots] == extended
            stays = here & (self.arrival_us[slots] > until_us)
            more = ~stays.any(axis=1) & (self.highest[rows] >= first + span)
            if span >= self._slots or not more.any():
                break
            span *= 2
        position, column = np.nonzero(here & ~stays)
        slot = slots[position, column]
        for index in np.flatnonzero(more).tolist():  # a loss that is longer than the ring: what follows it may go too
            held = self.held(int(rows[index]))
            held = held[self.arrival_us[held] <= until_us]
            before, after = position < index, position > index
            position = np.concatenate([position[before], np.full(held.size, index), position[after]])
            slot = np.concatenate([slot[before], held, slot[after]])
        return position, slot

    def remove(self, rows: Int64s, slots: Int64s) -> None:
        """Takes packets back that have still to leave, their bytes included; ``rows`` names the stream of each."""
        for offset, each in zip(self.offsets(rows, slots).tolist(), self._slot_bytes[rows].tolist(), strict=True):
            self.bytes[offset : offset + each] = 0
        self.extended[slots] = 0

    def first(self, row: int, from_us: int, to_us: int) -> tuple[int, int] | None:
        """Arrival and RTP timestamp of the first packet that came within a span, of those that the row remembers."""
        slots = self._remembered(row)
        slots = slots[(self.arrival_us[slots] >= from_us) & (self.arrival_us[slots] <= to_us)]
        if not slots.size:
            return None
        slot = slots[np.argmin(self.arrival_us[slots])]
        return int(self.arrival_us[slot]), int(self.timestamp[slot])

    def remembers_before(self, row: int, at_us: int) -> bool:
        """Whether the row still knows of a packet that came before a moment, left or not."""
        slots = self._remembered(row)
        return bool((self.arrival_us[slots] < at_us).any())

    def expected(self, row: int, at_us: int, clock_hz: int) -> tuple[int, int] | None:
        """Arrival and RTP timestamp of the next packet from a moment on, if the stream goes on as it did.

        Args:
            row: The stream's row.
            at_us: The moment; what the row remembers came before it.
            clock_hz: RTP clock rate.

        Returns:
            None if the row remembers no packet.
        """
        slots = self._remembered(row)
        if not slots.size:
            return None
        order = slots[np.argsort(self.extended[slots])]
        last, step = order[-1], clock_hz // _USUAL_PACKETS_PER_S
        if order.size > 1 and self.extended[order[-2]] + 1 == self.extended[last]:
            passed = int(self.timestamp[last]) - int(self.timestamp[order[-2]]) & 0xFFFFFFFF
            step = passed if 0 < passed < clock_hz else step
        step_us = step * 1_000_000 // clock_hz
        steps = max(-(-(at_us - int(self.arrival_us[last])) // step_us), 1)
        return int(self.arrival_us[last]) + steps * step_us, int(self.timestamp[last]) + steps * step & 0xFFFFFFFF

    def _remembered(self, row: int) -> Int64s:
        """Slots of the packets that a row holds or that have left and were not overwritten since, int64[n]."""
        first = row * self._slots
        slots: Int64s = first + np.flatnonzero(self.extended[first : first + int(self._width[row])])
        return slots

    def leaving(self, rows: Int64s, cutoff_us: int) -> tuple[Int64s, Int64s]:
        """Lets packets go that arrived by the cutoff, each stream's in order; none overtakes one that must stay.

        Args:
            rows: Streams whose turn it is, int64[m].
            cutoff_us: The latest arrival that may leave.

        Returns:
            Slots of the leaving packets ordered by position in ``rows`` and sequence, int64[n]; and how many of each
            stream, int64[m]. The slots stay readable until packets are stored again.
        """
        everyone = np.arange(rows.size)
        found, where, todo = [], [], everyone
        while todo.size:
            slots, goes, more = self._scan(rows[todo], cutoff_us)
            found.append(slots[goes])
            where.append(np.repeat(todo, goes.sum(axis=1)))
            todo = todo[more]
        position = np.concatenate(where) if where else everyone
        order = np.argsort(position, kind="stable") if len(where) > 1 else slice(None)
        leaving = np.concatenate(found)[order] if found else everyone
        return leaving, np.bincount(position, minlength=rows.size)

    def _scan(self, rows: Int64s, cutoff_us: int) -> tuple[Int64s, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Looks at the next numbers of streams and moves ``next_out`` past those that leave.

        Returns:
            Slots int64[m, scan], which of them leave, and which streams may have more to give, bool[m].
        """
        first = self.next_out[rows]
        extended = first[:, None] + np.arange(_SCAN)
        slots = (rows * self._slots)[:, None] + extended % self._width[rows][:, None]
        here = self.extended[slots] == extended
        stays = here & (self.arrival_us[slots] > cutoff_us)
        goes = here & ~np.logical_or.accumulate(stays, axis=1)
        some = goes.any(axis=1)
        self.next_out[rows] = np.where(some, first + _SCAN - goes[:, ::-1].argmax(axis=1), first)
        more = ~stays.any(axis=1) & (self.highest[rows] >= first + _SCAN)
        for index in np.flatnonzero(more & ~some):  # one long loss: is what follows it due?
            row = int(rows[index])
            held = self.held(row)[:1]
            more[index] = bool(held.size and self.arrival_us[held[0]] <= cutoff_us)
            if more[index]:
                self.next_out[row] = self.extended[held[0]]
        return slots, goes, more

    def offsets(self, rows: Int64s, slots: Int64s) -> Int64s:
        """Where the payloads of slots lie in ``bytes``; ``rows`` names the stream of each, int64[n]."""
        offsets: Int64s = self._base[rows] + (slots - rows * self._slots) * self._slot_bytes[rows]
        return offsets

    def _is_wide(self, row: int) -> bool:
        return int(self._base[row]) != row * self._row_bytes

    def _room(self, row: int) -> int:
        return self._wide_bytes if self._is_wide(row) else self._row_bytes

    def _set_slot_bytes(self, row: int, slot_bytes: int) -> None:
        self._slot_bytes[row] = slot_bytes
        self._width[row] = min(self._slots, self._room(row) // slot_bytes)

    def _make_room(self, row: int, extended: int, size: int) -> bool:
        """Lays a row out anew so that a packet fits; False if no layout lets it in beside what must stay."""
        slots = self.held(row)
        numbers = np.append(self.extended[slots], extended)
        span = int(numbers.max() - numbers.min()) + 1
        largest = max(int(self.size[slots].max(initial=1)), size)
        slot_bytes = -(-largest // BYTES_PER_MS) * BYTES_PER_MS
        if size > WIDEST_PACKET or span > self._slots:
            return False
        if span <= self._room(row) // slot_bytes:
            self._move(row, slots, int(self._base[row]), slot_bytes)
        elif not self._is_wide(row) and self._free_wide and span <= self._wide_bytes // slot_bytes:
            self._move(row, slots, self._free_wide.pop(), slot_bytes)
        else:
            return False
        return True

    def _move(self, row: int, slots: Int64s, base: int, slot_bytes: int) -> None:
        rows = np.full(slots.size, row, np.int64)
        packets = Packets(
            rows,
            self.extended[slots],
            self.arrival_us[slots],
            self.timestamp[slots],
            self.ssrc[slots],
            self.sequence[slots].astype(np.uint32),
            self.payload_type[slots].astype(np.uint32),
            np.arange(slots.size, dtype=np.int64) * WIDEST_PACKET,
            self.size[slots].astype(np.int64),
        )
        copies = np.zeros((slots.size + 1) * WIDEST_PACKET, np.uint8)
        for index, offset in enumerate(self.offsets(rows, slots)):
            size = int(packets.size[index])
            copies[index * WIDEST_PACKET : index * WIDEST_PACKET + size] = self.bytes[offset : offset + size]
        self.extended[row * self._slots : (row + 1) * self._slots] = 0
        before = int(self._base[row])
        self.bytes[before : before + self._room(row)] = 0  # a pause would not find what stayed behind
        self._base[row] = base
        self._set_slot_bytes(row, slot_bytes)
        self.store(packets, self.slots(rows, packets.extended), copies)
        copies[:] = 0
