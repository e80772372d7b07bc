"""DTMF tones in G.711 are blanked before they leave the ring, where a call's profile asks for it.

What leaves a stream next is looked at just before it does, with ``LOOK_AHEAD_US`` of what follows, so that a tone which
crosses the border is seen whole; one that goes on beyond all that is remembered until the next turn. Packets that hold
anything of a tone or of a margin around it are taken back, whole: what is stored can be decoded by nobody. Packets that
did not come are passed over, as are those of other codecs: a tone is looked for in what lies before and after.

All streams of a turn are one row of hops for ``dualtone.domain.audio.tones``. No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import CLOCK_HZ, Law
from dualtone.domain.audio.tones import HOP_MS, KEYS, MARGIN_HOPS, Spectrum, Tone, going_on, spectrum, tones
from sbc_agent.media import memory
from sbc_agent.media.ring import Int64s, Ring
from sbc_agent.media.rtp import windows

LOOK_AHEAD_US: Final = 150_000
CODECS: Final = {"PCMA": Law.A, "PCMU": Law.MU}
"""In which codecs tones are found here; others cannot be decoded cheaply enough."""

_STATIC: Final = (("PCMU", 0), ("PCMA", 8))  # RFC 3551 section 6
_PAYLOAD_TYPES: Final = 128
_HOP: Final = CLOCK_HZ * HOP_MS // 1000
_APART: Final = 3  # silent hops between streams
_SILENT: Final = {Law.A: 0xD5, Law.MU: 0xFF}
_ROWS_AT_ONCE: Final = 128  # their samples take 5 MB for a second
_US_PER_OCTET: Final = 1_000_000 // CLOCK_HZ
_AGAIN_HOPS: Final = 3


@dataclass(frozen=True, slots=True)
class Blanked:
    """What was found in a stream.

    Attributes:
        row: Its row.
        packets: How many were taken back.
        spans: From and to of what is silent now, microseconds of the agent's clock.
        presses: Moments and keys.
    """

    row: int
    packets: int
    spans: list[tuple[int, int]]
    presses: list[tuple[int, str]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Look:
    """Packets of one law-by-packet table on their way to samples; columns of n packets, m streams.

    Attributes:
        position: Stream of each packet, int64[n].
        slot: Int64s[n].
        start: First octet of each in the row of samples, int64[n].
        size: Octets, int64[n].
        hops: First hop of each stream, int64[m].
        ends: The hop behind the last that holds octets of each stream, int64[m].
    """

    position: Int64s
    slot: Int64s
    start: Int64s
    size: Int64s
    hops: Int64s
    ends: Int64s


class Tones:
    """Blanks tones.

    Args:
        rows: How many streams at once.
        ring: Where packets wait.
    """

    def __init__(self, rows: int, ring: Ring) -> None:
        self._ring = ring
        self._wanted = np.zeros(rows, np.bool_)
        self._laws = np.zeros((rows, _PAYLOAD_TYPES), np.uint8)
        self._going: dict[int, Tone] = {}
        self._octets: npt.NDArray[np.uint8] = memory.array(0, np.uint8)
        self._samples: npt.NDArray[np.float32] = memory.array(0, np.float32)
        self._looked_at = 0  # octets that may lie there
        self._tables = {law: _table(law) for law in Law}

    def open_row(self, row: int) -> None:
        """Prepares a row for a new stream, in which tones are kept."""
        self.close_row(row)
        self.explain(row, ())

    def close_row(self, row: int) -> None:
        """A stream has left for good, and the tone that sounded last in it."""
        self._wanted[row] = False
        self.forget(row)

    def forget(self, row: int) -> None:
        """Nothing is known any more of the tone that sounded last in a stream."""
        self._going.pop(row, None)

    def explain(self, row: int, formats: Iterable[tuple[int, str]]) -> None:
        """Says what a row's payload types mean: pairs of payload type and codec, as negotiated."""
        laws = self._laws[row]
        laws[:] = 0
        for codec, payload_type in _STATIC:
            laws[payload_type] = CODECS[codec]
        for payload_type, codec in formats:
            laws[payload_type] = CODECS.get(codec.upper(), 0)

    def want(self, row: int, *, blank: bool) -> None:
        """Whether tones of a stream are to be blanked."""
        self._wanted[row] = blank
        if not blank:
            self.forget(row)

    def are_wanted(self, rows: Int64s) -> bool:
        """Whether tones of any of these streams are to be blanked."""
        return bool(self._wanted[rows].any())

    def blank(self, rows: Int64s, cutoff_us: int) -> list[Blanked]:
        """Blanks the tones of what leaves.

        Args:
            rows: Streams whose turn it is, int64[m].
            cutoff_us: The latest arrival that leaves.
        """
        wanted: Int64s = rows[self._wanted[rows]]
        found: list[Blanked] = []
        for begin in range(0, wanted.size, _ROWS_AT_ONCE):
            found += self._blank(wanted[begin : begin + _ROWS_AT_ONCE], cutoff_us)
        if found:
            self.wipe()
        return found

    def wipe(self) -> None:
        """Leaves nothing in memory of what was looked at last."""
        self._octets[: self._looked_at], self._samples[: self._looked_at] = 0, 0
        self._looked_at = 0

    def _blank(self, rows: Int64s, cutoff_us: int) -> list[Blanked]:
        ring = self._ring
        position, slot = ring.ahead(rows, cutoff_us + LOOK_AHEAD_US)
        law = self._laws[rows[position], ring.payload_type[slot]]
        if not law.all():
            position, slot, law = position[law > 0], slot[law > 0], law[law > 0]
        if not slot.size:
            return []
        look = _laid_out(rows.size, position, slot, ring.size[slot].astype(np.int64))
        seen = spectrum(self._decoded(rows, look, law), CLOCK_HZ)
        sounding: dict[int, list[Tone]] = {}
        for tone in tones(seen):
            at = int(np.searchsorted(look.hops, tone.first, side="right")) - 1
            sounding.setdefault(at, []).append(tone)
        busy = sounding.keys() | {at for at, row in enumerate(rows.tolist()) if row in self._going}
        found = [self._blank_stream(int(rows[at]), at, look, seen, sounding.get(at, []), cutoff_us) for at in busy]
        return [one for one in found if one.packets]

    def _decoded(self, rows: Int64s, look: _Look, law: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The samples of packets, float32[hops, 80]; what lies between is silent."""
        ring, count = self._ring, (int(look.ends[-1]) + _APART) * _HOP
        if self._octets.size < count + 1:
            self.wipe()
            self._octets, self._samples = memory.array(2 * count, np.uint8), memory.array(2 * count, np.float32)
            memory.lock(self._octets, self._samples)  # where the system does not allow it, the start has told
        self._looked_at = max(self._looked_at, count)
        octets, samples = self._octets[:count], self._samples[:count]
        usual = Law(int(law[0]))
        octets[:] = _SILENT[usual]
        source = ring.offsets(rows[look.position], look.slot)
        for each in np.unique(look.size) if (look.size != look.size[0]).any() else look.size[:1]:
            chosen = slice(None) if (look.size == each).all() else look.size == each
            if each:
                windows(octets, int(each))[look.start[chosen]] = windows(ring.bytes, int(each))[source[chosen]]
        np.take(self._tables[usual], octets.view(np.uint16), out=samples.view(np.complex64), mode="clip")
        for one in np.flatnonzero(law != usual):  # a stream that changed its law, or streams of both
            begin, end = int(look.start[one]), int(look.start[one] + look.size[one])
            samples[begin:end] = g711.decode(Law(int(law[one])), octets[begin:end])
        return samples.reshape(-1, _HOP)

    def _blank_stream(
        self, row: int, at: int, look: _Look, seen: Spectrum, sounding: list[Tone], cutoff_us: int
    ) -> Blanked:
        """Takes back what holds tones of one stream."""
        mine = np.flatnonzero(look.position == at)
        if not mine.size:  # nothing came since
            return Blanked(row, 0, [], [])
        first, end = int(look.hops[at]), int(look.ends[at])
        arrival_us = self._ring.arrival_us[look.slot[mine]]
        stays = np.flatnonzero(arrival_us > cutoff_us)
        border = int(look.start[mine[stays[0]]]) // _HOP if stays.size else end
        gone = np.zeros(mine.size, np.bool_)
        presses: list[tuple[int, str]] = []

        before = self._going.pop(row, None)
        reached = first
        if before is not None:
            reached = first + going_on(before, seen, first)
            gone |= _touched(look, mine, first, min(reached, end) + MARGIN_HOPS)
            if reached >= end:
                self._going[row] = before
        for tone in sounding:
            if tone.first - MARGIN_HOPS > border:
                break  # nothing of it leaves yet: it is seen again, and whole
            gone |= _touched(look, mine, tone.first - MARGIN_HOPS, tone.end + MARGIN_HOPS)
            goes_on = before is not None and before.key == tone.key and tone.first < reached + _AGAIN_HOPS
            if tone.is_key and not (goes_on and before is not None and before.is_key):
                begins = int(np.searchsorted(look.start[mine], tone.first * _HOP, side="right")) - 1
                presses.append((int(arrival_us[max(begins, 0)]), KEYS[tone.key]))
            if tone.end + 1 >= end:
                self._going[row] = tone
        taken = mine[gone]
        spans = _spans(gone, arrival_us, look.size[mine])
        self._ring.remove(np.full(taken.size, row, np.int64), look.slot[taken])
        return Blanked(row, int(taken.size), spans, presses)


def _laid_out(streams: int, position: Int64s, slot: Int64s, size: Int64s) -> _Look:
    """Where packets lie in the row of samples: each stream from a hop's beginning on, silence between streams."""
    octets = np.bincount(position, weights=size, minlength=streams).astype(np.int64)
    filled = -(-octets // _HOP)
    hops = np.cumsum(filled + _APART) - filled - _APART
    behind = np.cumsum(size) - size
    first = np.zeros(streams, np.int64)
    starts = np.flatnonzero(np.diff(position, prepend=-1))
    first[position[starts]] = behind[starts]
    start = behind - first[position] + _HOP * hops[position]
    return _Look(position, slot, start, size, hops, hops + filled)


def _touched(look: _Look, mine: Int64s, first_hop: int, end_hop: int) -> npt.NDArray[np.bool_]:
    """Which packets hold anything of a run of hops, bool[mine]."""
    start = look.start[mine]
    touched: npt.NDArray[np.bool_] = (start < end_hop * _HOP) & (start + look.size[mine] > first_hop * _HOP)
    return touched


def _spans(gone: npt.NDArray[np.bool_], arrival_us: Int64s, size: Int64s) -> list[tuple[int, int]]:
    """From and to of each run of packets that are gone."""
    edges = np.diff(gone.astype(np.int8), prepend=0, append=0)
    runs = zip(np.flatnonzero(edges > 0).tolist(), np.flatnonzero(edges < 0).tolist(), strict=True)
    lasts_us = arrival_us + size * _US_PER_OCTET
    return [(int(arrival_us[begin:end].min()), int(lasts_us[begin:end].max())) for begin, end in runs]


def _table(law: Law) -> npt.NDArray[np.complex64]:
    """Samples of every two octets, as the two halves of one number: half as many are looked up."""
    pairs = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return g711.decode(law, pairs).astype(np.float32).view(np.complex64)
