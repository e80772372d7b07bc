"""From sockets to rings: every packet of a drain is judged, counted, and stored or dropped.

Packets that continue their stream, nearly all, are handled as columns over all streams. What is out of the ordinary
(the first of a source, another SSRC, a jump, a packet too large for its slot) is handled one by one, after the ordinary
ones of the same drain. No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from sbc_agent.media import digits, rtp, srtp
from sbc_agent.media.clock import FOREVER
from sbc_agent.media.digits import Presses
from sbc_agent.media.receive import Received
from sbc_agent.media.ring import MARGIN, WIDEST_PACKET, Int64s, Outcome, Packets, Ring
from sbc_agent.media.sources import SourceLock
from sbc_agent.media.srtp import Unprotector

_PAYLOAD_TYPES: Final = 128
_KEEP, _UNKNOWN, _EVENT, _RTCP, _REDUNDANT = 0, 1, 2, 3, 4
_FIRST_DYNAMIC: Final = 96  # RFC 3551 section 6: below, the type alone says the codec
_RTCP_TYPES: Final = slice(64, 96)  # RFC 5761 section 4: RTCP multiplexed onto the RTP port looks like these
_DROPOUT: Final = 3_000  # RFC 3550 appendix A.1: a larger jump is a restart of the sender
COPY_US: Final = 1_000_000  # a network's copies follow within a second; later the sender began anew with old numbers
_ROUNDS: Final = 2
_ROW_LIFT_BITS: Final = 44
_EVENT_BYTES: Final = 16
_AUTHENTIC_SOURCE: Final = 1  # who has the key may send from anywhere: the address says nothing more
EVENT_CODECS: Final = frozenset({"TELEPHONE-EVENT", "TONE"})
REDUNDANT_CODEC: Final = "RED"  # RFC 2198: what it holds decides


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened to each row's packets, int64[rows] each.

    Attributes:
        stored: Kept in the ring, each once.
        duplicates: Copies of packets that were kept.
        reordered: Kept although a later one had come before.
        late: Came after their turn to leave.
        foreign_source: Of another sender than the locked one.
        events_suppressed: Telephone events: never stored.
        malformed: No RTP, or of a payload type that nothing explains.
        rtcp: RTCP on the RTP port (RFC 5761); what it says is not used.
        unauthentic: SRTP that no key of the stream opens.
        replayed: SRTP that was opened before, or that is too old to know.
        dropped: Came while nothing is to be kept: silent, before the answer, after the end; also what was taken back.
        overflowed: Found no room in the ring.
    """

    stored: Int64s
    duplicates: Int64s
    reordered: Int64s
    late: Int64s
    foreign_source: Int64s
    events_suppressed: Int64s
    malformed: Int64s
    rtcp: Int64s
    unauthentic: Int64s
    replayed: Int64s
    dropped: Int64s
    overflowed: Int64s

    @classmethod
    def zeros(cls, rows: int) -> Counters:
        """No packets yet."""
        return cls(*(np.zeros(rows, np.int64) for _ in fields(cls)))

    def of(self, row: int) -> dict[str, int]:
        """One row's counters by name."""
        return {one.name: int(getattr(self, one.name)[row]) for one in fields(self)}

    def clear(self, row: int) -> None:
        """Starts a row again from zero."""
        for one in fields(self):
            getattr(self, one.name)[row] = 0


@dataclass(frozen=True, slots=True)
class _Numbering:
    """How sequence numbers become extended ones: ``bias`` is their difference modulo 2**16, 0 for none yet."""

    ssrc: int
    highest: int
    bias: int

    def extended(self, sequence: int) -> int:
        """The number nearest to the highest one."""
        return self.highest + (sequence - (self.highest - self.bias) + 0x8000 & 0xFFFF) - 0x8000

    def overtaken(self, sequence: int) -> bool:
        """Whether a packet may be one of the last before another SSRC took over: there are numbers left for those."""
        return -_DROPOUT < self.extended(sequence) - self.highest <= MARGIN // 2


class Intake:
    """Judges packets for all rows.

    Args:
        rows: How many streams at once.
        ring: Where packets go.
    """

    def __init__(self, rows: int, ring: Ring) -> None:
        self.ring = ring
        self.srtp = Unprotector(rows)
        self.counters = Counters.zeros(rows)
        self.presses = Presses(rows)
        self.last_us = np.zeros(rows, np.int64)
        self.keep_from_us = np.full(rows, FOREVER, np.int64)
        self.keep_until_us = np.full(rows, -1, np.int64)
        self._source = np.zeros(rows, np.uint64)
        self._ssrc = np.zeros(rows, np.uint32)
        self._bias = np.zeros(rows, np.int64)
        self._first = np.zeros(rows, np.int64)
        self._first_us = np.zeros(rows, np.int64)
        self._kinds = np.full((rows, _PAYLOAD_TYPES), _UNKNOWN, np.uint8)
        self._locks: list[SourceLock[tuple[Packets, npt.NDArray[np.uint8]]]] = [SourceLock() for _ in range(rows)]
        self._previous: dict[int, _Numbering] = {}
        self._astray: dict[int, tuple[Packets, npt.NDArray[np.uint8]]] = {}

    def open_row(self, row: int) -> None:
        """Prepares a row for a new stream; it keeps nothing yet."""
        self.counters.clear(row)
        self.srtp.close_row(row)
        self.last_us[row], self.keep_from_us[row], self.keep_until_us[row] = 0, FOREVER, -1
        self._source[row] = self._ssrc[row] = self._bias[row] = 0
        self._locks[row] = SourceLock()
        self._previous.pop(row, None)
        self._astray.pop(row, None)
        self.explain(row, ())

    def explain(self, row: int, formats: Iterable[tuple[int, str]]) -> None:
        """Says what a row's payload types mean: pairs of payload type and codec, as negotiated."""
        kinds = self._kinds[row]
        kinds[:] = _UNKNOWN
        kinds[:_FIRST_DYNAMIC] = _KEEP
        kinds[_RTCP_TYPES] = _RTCP
        for payload_type, codec in formats:
            name = codec.upper()
            kinds[payload_type] = _EVENT if name in EVENT_CODECS else _REDUNDANT if name == REDUNDANT_CODEC else _KEEP

    def expect_change(self, row: int, now_us: int) -> None:
        """A re-INVITE was answered: the row's source may be another from now on."""
        self._locks[row].expect_change(now_us)

    def forget(self, row: int, from_us: int, to_us: int) -> None:
        """Takes back what arrived within a span, both ends included: from the ring, and what waits for its source."""
        held = self.ring.blank(row, from_us, to_us)
        waiting = self._locks[row].forget(from_us, to_us)
        astray = self._astray.get(row)
        if astray is not None and from_us <= int(astray[0].arrival_us[0]) <= to_us:
            waiting.append(self._astray.pop(row))
        for _, copy in waiting:
            copy[:] = 0
        self.counters.stored[row] -= held
        self.counters.dropped[row] += held + len(waiting)

    def close_row(self, row: int) -> None:
        """No packets will come any more: those that still wait for their source to be believed are foreign."""
        self.presses.close_row(row)
        self.srtp.close_row(row)
        self.counters.foreign_source[row] += len(self._locks[row].give_up())
        self._give_up_astray(row)

    def take(self, row: Int64s, received: Received, arrival_us: Int64s, buffer: npt.NDArray[np.uint8]) -> None:
        """Takes the packets of a drain.

        Args:
            row: Each packet's stream, int64[n], ordered.
            received: The packets.
            arrival_us: Their arrival by the agent's clock, int64[n].
            buffer: Where they lie.
        """
        if self.srtp.is_used:
            row, received, arrival_us = self._unprotect(row, received, arrival_us, buffer)
        headers = rtp.parse(buffer, received.offset, received.length)
        kind = self._kinds[row, headers.payload_type]
        if (kind == _REDUNDANT).any():
            self._look_inside(row, headers, kind, buffer)
        inside = (arrival_us >= self.keep_from_us[row]) & (arrival_us <= self.keep_until_us[row])
        wanted = headers.valid & inside & (kind == _KEEP)
        source = received.source
        packets = Packets(
            row, row, arrival_us, headers.timestamp, headers.ssrc, headers.sequence, headers.payload_type,
            headers.payload, headers.size,
        )  # fmt: skip
        if not wanted.all():
            self._hear_presses(row, received, arrival_us, headers, kind, inside, buffer)
            self._count_unwanted(row, headers, kind, inside)
            _zero(buffer, received.offset[~inside], received.length[~inside])
            packets, source = _select(packets, wanted), source[wanted]
        self._learn(packets, source)
        rounds = 0
        while packets.row.size:
            rest = self._take_ordinary(packets, source, buffer)
            self._drop_foreign(packets, source, rest)
            packets, source = _select(packets, rest), source[rest]
            single = np.ones(packets.row.size, np.bool_)
            if rounds < _ROUNDS:
                single[1:] = packets.row[1:] != packets.row[:-1]
            for index in np.flatnonzero(single):
                self._take_one(_select(packets, slice(index, index + 1)), int(source[index]), buffer)
            packets, source = _select(packets, ~single), source[~single]
            rounds += 1

    def _unprotect(
        self, row: Int64s, received: Received, arrival_us: Int64s, buffer: npt.NDArray[np.uint8]
    ) -> tuple[Int64s, Received, Int64s]:
        """Opens what came as SRTP; what is not authentic is counted and goes no further."""
        protected = np.flatnonzero(self.srtp.is_protected[row])
        if not protected.size:
            return row, received, arrival_us
        offset, length, source = received.offset[protected], received.length.copy(), received.source.copy()
        verdict, length[protected] = self.srtp.open(
            row[protected], offset, length[protected], arrival_us[protected], buffer
        )
        source[protected] = _AUTHENTIC_SOURCE
        counters = self.counters
        for found, counter in (
            (srtp.FORGED, counters.unauthentic),
            (srtp.REPLAY, counters.replayed),
            (srtp.MALFORMED, counters.malformed),
            (srtp.RTCP, counters.rtcp),
        ):
            np.add.at(counter, row[protected[verdict == found]], 1)
        good = np.ones(row.size, np.bool_)
        good[protected] = verdict == srtp.AUTHENTIC
        _zero(buffer, received.offset[~good], received.length[~good])  # AEAD decrypts before it finds that it may not
        received = replace(
            received,
            member=received.member[good],
            offset=received.offset[good],
            length=length[good],
            source=source[good],
            stamp_us=received.stamp_us[good],
        )
        return row[good], received, arrival_us[good]

    def _learn(self, packets: Packets, source: npt.NDArray[np.uint64]) -> None:
        """Locks streams that had no packet yet on the source of their first one."""
        fresh = np.flatnonzero(self._bias[packets.row] == 0)
        if not fresh.size:
            return
        rows, first = np.unique(packets.row[fresh], return_index=True)
        first = fresh[first]
        for row, one in zip(rows.tolist(), source[first].tolist(), strict=True):
            self._locks[row].adopt(one)
        self._source[rows], self._ssrc[rows] = source[first], packets.ssrc[first]
        self._first[rows] = self.ring.rebase(rows)
        self._first_us[rows] = packets.arrival_us[first]
        self._bias[rows] = self._first[rows] - packets.sequence[first]

    def _take_ordinary(
        self, packets: Packets, source: npt.NDArray[np.uint64], buffer: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.bool_]:
        """Stores or counts the packets that continue their stream; tells which ones are left."""
        row, ring = packets.row, self.ring
        highest = ring.highest[row]
        distance = (packets.sequence - (highest - self._bias[row]) + 0x8000 & 0xFFFF) - 0x8000
        extended = highest + distance
        slot = ring.slots(row, extended)
        known = (source == self._source[row]) & (packets.ssrc == self._ssrc[row]) & (np.abs(distance) < _DROPOUT)
        ordinary = known & ring.fitting(row, extended, packets.size, slot)
        copies = known & (ring.extended[slot] == extended)
        if copies.any():
            copies &= self._alike(packets, slot)
            np.add.at(self.counters.duplicates, row[copies], 1)
        if (distance < 0).any():
            ordinary &= ~self._misplaced(packets, extended)
        packets = _numbered(packets, extended)
        if not ordinary.all():
            packets, slot = _select(packets, ordinary), slot[ordinary]
        if not _increasing(packets, ring.highest):
            _, first = np.unique(slot, return_index=True)
            first.sort()
            ordinary[np.delete(np.flatnonzero(ordinary), first)] = False
            packets, slot = _select(packets, first), slot[first]
            np.add.at(self.counters.reordered, packets.row[_overtaken(packets, ring.highest)], 1)
        ring.store(packets, slot, buffer)
        np.maximum.at(ring.highest, packets.row, packets.extended)
        np.maximum.at(self.last_us, packets.row, packets.arrival_us)
        np.add.at(self.counters.stored, packets.row, 1)
        rest: npt.NDArray[np.bool_] = ~(ordinary | copies)
        return rest

    def _drop_foreign(self, packets: Packets, source: npt.NDArray[np.uint64], rest: npt.NDArray[np.bool_]) -> None:
        """Takes out of the rest what came from elsewhere before the locked source was heard again: a flood, mostly."""
        row, last_us = packets.row, self.last_us[packets.row]
        early = np.flatnonzero(rest & (source != self._source[row]) & (packets.arrival_us <= last_us))
        for index in early.tolist():
            one = int(row[index])
            if self._locks[one].is_foreign(int(packets.arrival_us[index]), int(last_us[index])):
                self.counters.foreign_source[one] += 1
                rest[index] = False

    def _alike(self, packets: Packets, slot: Int64s) -> npt.NDArray[np.bool_]:
        """Which packets are copies of those in their slots: alike, and not much later."""
        ring = self.ring
        alike: npt.NDArray[np.bool_] = (
            (ring.timestamp[slot] == packets.timestamp)
            & (ring.payload_type[slot] == packets.payload_type)
            & (ring.size[slot] == packets.size)
            & (packets.arrival_us - ring.arrival_us[slot] < COPY_US)
        )
        return alike

    def _misplaced(self, packets: Packets, extended: Int64s) -> npt.NDArray[np.bool_]:
        """Which packets have a number below their sender's first, but came too long after it to have been overtaken."""
        row = packets.row
        misplaced: npt.NDArray[np.bool_] = (extended < self._first[row]) & (
            packets.arrival_us - self._first_us[row] >= COPY_US
        )
        return misplaced

    def _take_one(self, packet: Packets, source: int, buffer: npt.NDArray[np.uint8]) -> None:
        """Judges one packet (columns of length one) that does not simply continue its stream."""
        row, arrival_us = int(packet.row[0]), int(packet.arrival_us[0])
        lock, last_us = self._locks[row], int(self.last_us[row])
        self.counters.foreign_source[row] += lock.expire(last_us)
        if source != lock.source:
            if not lock.believes(source, arrival_us, last_us):
                self.counters.foreign_source[row] += lock.wait(source, arrival_us, _copied(packet, buffer))
                return
            waited = lock.adopt(source)
            self._source[row] = source
            for earlier, copy in waited:
                self._continue(row, earlier, copy)
                copy[:] = 0
        self._continue(row, packet, buffer)

    def _continue(self, row: int, packet: Packets, buffer: npt.NDArray[np.uint8]) -> None:
        """Stores a packet of the locked source, under new numbers where its sender began anew."""
        ssrc, sequence = int(packet.ssrc[0]), int(packet.sequence[0])
        now = _Numbering(int(self._ssrc[row]), int(self.ring.highest[row]), int(self._bias[row]))
        before = self._previous.get(row)
        self.last_us[row] = max(int(self.last_us[row]), int(packet.arrival_us[0]))
        if ssrc == now.ssrc and abs(now.extended(sequence) - now.highest) < _DROPOUT:
            extended = now.extended(sequence)
        elif ssrc != now.ssrc and before is not None and ssrc == before.ssrc and before.overtaken(sequence):
            extended = before.extended(sequence)
        else:
            if ssrc != now.ssrc:
                self._previous[row] = now
            self._begin_anew(row, packet, buffer)
            return
        outcome = self._offer(packet, extended, buffer)
        if outcome is not Outcome.LATE:
            self._count(row, outcome, is_reordered=extended < now.highest)
        elif self._is_restart(row, sequence):
            earlier, copy = self._astray.pop(row)
            self._begin_anew(row, earlier, copy)
            copy[:] = 0
            self._continue(row, packet, buffer)
        else:
            self._give_up_astray(row)
            self._astray[row] = _copied(packet, buffer)

    def _begin_anew(self, row: int, packet: Packets, buffer: npt.NDArray[np.uint8]) -> None:
        """Numbers a sender's packets from this one on, above all that came before."""
        extended = int(self.ring.rebase(packet.row)[0])
        self._first[row], self._first_us[row] = extended, packet.arrival_us[0]
        self._ssrc[row], self._bias[row] = packet.ssrc[0], extended - int(packet.sequence[0])
        self._count(row, self._offer(packet, extended, buffer), is_reordered=False)

    def _offer(self, packet: Packets, extended: int, buffer: npt.NDArray[np.uint8]) -> Outcome:
        """Offers a packet to the ring; one that does not belong where its number says counts as late."""
        numbered = _numbered(packet, np.array([extended]))
        slot = self.ring.slots(numbered.row, numbered.extended)
        is_taken = bool(self.ring.extended[slot[0]] == extended)
        if self._misplaced(numbered, numbered.extended)[0] or (is_taken and not self._alike(numbered, slot)[0]):
            return Outcome.LATE
        return self.ring.offer(numbered, buffer)

    def _is_restart(self, row: int, sequence: int) -> bool:
        """RFC 3550 appendix A.1: two packets in sequence that do not belong where they say are a new beginning."""
        return row in self._astray and int(self._astray[row][0].sequence[0]) + 1 & 0xFFFF == sequence

    def _give_up_astray(self, row: int) -> None:
        """A packet that did not belong where it said, and was not followed by another, is late."""
        if self._astray.pop(row, None) is not None:
            self.counters.late[row] += 1

    def _count(self, row: int, outcome: Outcome, *, is_reordered: bool) -> None:
        counters = self.counters
        if outcome is Outcome.STORED:
            counters.stored[row] += 1
            counters.reordered[row] += is_reordered
        elif outcome is Outcome.DUPLICATE:
            counters.duplicates[row] += 1
        elif outcome is Outcome.LATE:
            counters.late[row] += 1
        else:
            counters.overflowed[row] += 1

    def _look_inside(
        self, row: Int64s, headers: rtp.Headers, kind: npt.NDArray[np.uint8], buffer: npt.NDArray[np.uint8]
    ) -> None:
        """A redundant packet with an event in it, or with nothing that can be read, is not kept."""
        for one in np.flatnonzero(headers.valid & (kind == _REDUNDANT)).tolist():
            blocks = [block[0] for block in digits.redundant(_payload(headers, one, buffer), 0)]
            is_plain = bool(blocks) and not (self._kinds[row[one], blocks] == _EVENT).any()
            kind[one] = _KEEP if is_plain else _REDUNDANT

    def _hear_presses(
        self,
        row: Int64s,
        received: Received,
        arrival_us: Int64s,
        headers: rtp.Headers,
        kind: npt.NDArray[np.uint8],
        inside: npt.NDArray[np.bool_],
        buffer: npt.NDArray[np.uint8],
    ) -> None:
        """Hears the events of streams' own senders, kept or not."""
        known = (received.source == self._source[row]) | (self._source[row] == 0)
        events = np.flatnonzero(known & headers.valid & _are_events(headers, kind))
        if not events.size:
            return
        is_new = self.presses.news(row[events], headers.ssrc[events], headers.timestamp[events])
        for one in events[is_new | (kind[events] == _REDUNDANT)].tolist():
            payload, timestamp = _payload(headers, one, buffer), int(headers.timestamp[one])
            blocks = [(timestamp, payload)]
            if kind[one] == _REDUNDANT:
                found = digits.redundant(payload, timestamp)
                blocks = [block[1:] for block in found if self._kinds[row[one], block[0]] == _EVENT]
            for told in (digits.event(octets, at) for at, octets in blocks):
                if told is not None:
                    self.presses.hear(
                        int(row[one]), int(arrival_us[one]), int(headers.ssrc[one]), told, is_kept=bool(inside[one])
                    )

    def _count_unwanted(
        self, row: Int64s, headers: rtp.Headers, kind: npt.NDArray[np.uint8], inside: npt.NDArray[np.bool_]
    ) -> None:
        well_formed = headers.valid & inside
        event = _are_events(headers, kind)
        np.add.at(self.counters.dropped, row[~inside], 1)
        np.add.at(self.counters.events_suppressed, row[well_formed & event], 1)
        report = inside & (kind == _RTCP)
        np.add.at(self.counters.rtcp, row[report], 1)
        np.add.at(self.counters.malformed, row[inside & ~report & ~(well_formed & ((kind == _KEEP) | event))], 1)


def _are_events(headers: rtp.Headers, kind: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which packets hold events: one that was not negotiated still looks like one (RFC 4733 section 2.3: 4 octets)."""
    unknown = (kind == _UNKNOWN) & (headers.size > 0) & (headers.size % 4 == 0) & (headers.size <= _EVENT_BYTES)
    events: npt.NDArray[np.bool_] = (kind == _EVENT) | (kind == _REDUNDANT) | unknown
    return events


def _payload(headers: rtp.Headers, one: int, buffer: npt.NDArray[np.uint8]) -> bytes:
    begin = int(headers.payload[one])
    return bytes(buffer[begin : begin + int(headers.size[one])])


def _zero(buffer: npt.NDArray[np.uint8], offset: Int64s, length: Int64s) -> None:
    """Leaves nothing in the receiver's buffer of packets that are not to be kept."""
    for each in np.unique(length).tolist():
        if each:
            rtp.windows(buffer, each)[offset[length == each]] = np.zeros((), f"V{each}")


def _select(packets: Packets, which: npt.NDArray[np.bool_] | Int64s | slice) -> Packets:
    return Packets(*(getattr(packets, column.name)[which] for column in fields(Packets)))


def _numbered(packets: Packets, extended: Int64s) -> Packets:
    return Packets(
        packets.row, extended, packets.arrival_us, packets.timestamp, packets.ssrc, packets.sequence,
        packets.payload_type, packets.payload, packets.size,
    )  # fmt: skip


def _copied(packet: Packets, buffer: npt.NDArray[np.uint8]) -> tuple[Packets, npt.NDArray[np.uint8]]:
    """A packet that outlives the receiver's buffer."""
    offset, size = int(packet.payload[0]), min(int(packet.size[0]), WIDEST_PACKET)
    copy = np.zeros(WIDEST_PACKET, np.uint8)
    copy[:size] = buffer[offset : offset + size]
    return replace(packet, payload=np.zeros(1, np.int64)), copy


def _before(packets: Packets, highest: Int64s) -> Int64s:
    """For packets ordered by row: the number that came before each in its stream, int64[n]."""
    before = np.empty_like(packets.extended)
    before[1:] = packets.extended[:-1]
    first = np.ones(before.size, np.bool_)
    first[1:] = packets.row[1:] != packets.row[:-1]
    before[first] = highest[packets.row[first]]
    return before


def _increasing(packets: Packets, highest: Int64s) -> bool:
    return bool((packets.extended > _before(packets, highest)).all())


def _overtaken(packets: Packets, highest: Int64s) -> npt.NDArray[np.bool_]:
    """Which packets came after one with a higher number (RFC 4737 section 3.3), bool[n]."""
    lift = packets.row << _ROW_LIFT_BITS
    reached = np.maximum.accumulate(np.maximum(packets.extended, highest[packets.row]) + lift) - lift
    reached[1:] = np.where(packets.row[1:] == packets.row[:-1], reached[:-1], highest[packets.row[1:]])
    reached[:1] = highest[packets.row[:1]]
    overtaken: npt.NDArray[np.bool_] = packets.extended < reached
    return overtaken
