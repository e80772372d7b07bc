"""The recording's timeline: packets of all streams in, samples of all streams out, window by window. Pure.

The timeline runs from the first to the last packet of any stream, declared gaps included. Whatever no packet covers is
silence of exactly that length: loss, discontinuous transmission, comfort noise, telephone events, hold, pause.
Duplicates lie on each other. Memory does not grow with the call: packets are gathered for a minute, decoded at once,
and given out as soon as nothing can come that belongs before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import CLOCK_HZ, Law
from dualtone.domain.audio.payloads import Kind, Kinds, PayloadTable
from dualtone.domain.audio.placement import LONGEST_BURST, LOOK_AHEAD, Anchor, Positions
from dualtone.domain.audio.reception import Reception
from dualtone.domain.media_record import StreamBlock

Window = npt.NDArray[np.int16]

US_PER_SAMPLE: Final = 1_000_000 // CLOCK_HZ
FRAME: Final = CLOCK_HZ // 50
"""The shortest timeline, and the packet time of Opus as we use it: 20 ms."""

_BATCH_US: Final = 60_000_000
_LONGEST_WINDOW: Final = 60 * CLOCK_HZ
_EARLY_US: Final = 10_000_000
_TRAILING_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Within which time a call's packets can have arrived, microseconds of Unix time.

    Attributes:
        answered_us: When the agent answered; position 0 of the call.
        ended_us: When the dialog ended.
    """

    answered_us: int
    ended_us: int

    def position(self, at_us: int) -> int:
        """A moment as a position: samples since the answer."""
        return (at_us - self.answered_us) // US_PER_SAMPLE

    def admit(self, block: StreamBlock) -> bool:
        """Says whether a block can be of this call; a clock that ran wild must not make a recording of decades.

        Its ends tell: no block of the format spans more than 71 minutes.
        """
        low, high = self.answered_us - _EARLY_US, self.ended_us + _TRAILING_US
        return low <= int(block.arrival_us[0]) <= high and low <= int(block.arrival_us[-1]) <= high

    def span(self, from_us: int, to_us: int) -> tuple[int, int]:
        """A declared gap as positions within the call."""
        low, high = self.answered_us - _EARLY_US, self.ended_us
        first, last = sorted((min(max(from_us, low), high), min(max(to_us, low), high)))
        return self.position(first), self.position(last)


@dataclass(slots=True)
class _Source:
    """One stream's packets of one SSRC: its anchor, and packets whose second of look-ahead has not come yet."""

    anchor: Anchor = field(default_factory=Anchor)
    waiting: list[StreamBlock] = field(default_factory=list)

    def due(self, until_us: int) -> list[StreamBlock]:
        """Takes out the packets that arrived before a moment."""
        due = list(takewhile(lambda block: int(block.arrival_us[-1]) < until_us, self.waiting))
        del self.waiting[: len(due)]
        return due


@dataclass(frozen=True, slots=True)
class _Run:
    """Decoded packets with their places.

    Attributes:
        row: Their stream's row.
        position: int64[n], of each packet's first sample.
        size: int64[n], samples of each packet.
        samples: int16[sum(size)].
        hull: The positions that the timeline must reach for them; None if none of the packets is of a declared type.
    """

    row: int
    position: Positions
    size: npt.NDArray[np.int64]
    samples: Window
    hull: tuple[int, int] | None


class Timeline:
    """Assembles a call.

    Attributes:
        reception: What was received on each stream, by stream index.
        flags: What a reader of the recording should know.
    """

    def __init__(
        self,
        tables: Mapping[int, PayloadTable],
        bounds: Bounds,
        gaps: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    ) -> None:
        """Begins a timeline.

        Args:
            tables: The payload types of each stream; their order is the order of the rows.
            bounds: When the call was.
            gaps: Declared gaps of each stream, positions from and to.
        """
        declared = gaps or {}
        self._tables = tables
        self._rows = {stream: row for row, stream in enumerate(tables)}
        self._bounds = bounds
        self._sources: dict[tuple[int, int], _Source] = {}
        self._batch_us: int | None = None
        self._latest_us = 0
        self._heard = False
        self._buffer: Window = np.zeros((len(tables), 0), np.int16)
        self._start: int | None = None
        self._first: int | None = None
        self._end: int | None = None
        self.reception = {stream: Reception(declared.get(stream, ())) for stream in tables}
        self.flags: set[str] = set()
        for spans in declared.values():
            for first, last in spans:
                self.cover(first, last)

    @property
    def span(self) -> tuple[int, int]:
        """Where the timeline begins and ends, as positions; equal while nothing is on it."""
        return self._first or 0, self._end or self._first or 0

    def cover(self, first: int, last: int) -> None:
        """Makes the timeline reach over a span; its beginning cannot move any more once samples were given out."""
        if self._start is None:
            self._first = first if self._first is None else min(self._first, first)
        self._end = last if self._end is None else max(self._end, last)

    def add(self, blocks: Iterable[StreamBlock]) -> Iterator[Window]:
        """Takes packets, in the order of the call.

        Yields:
            Windows int16[rows, n] that are complete, each at most a minute, one following the other without a hole.
        """
        for block in blocks:
            if not block.arrival_us.size:
                continue
            if block.stream not in self._rows:
                self.flags.add("undeclared_stream")
                continue
            if not self._bounds.admit(block):
                self.flags.add("packets_outside_call")
                continue
            arrived_us = int(block.arrival_us[0])
            if self._batch_us is None:
                self._batch_us = arrived_us
            elif arrived_us - self._batch_us >= _BATCH_US:
                yield from self._settle(self._latest_us - LOOK_AHEAD * US_PER_SAMPLE)
                self._batch_us = arrived_us
            self._latest_us = max(self._latest_us, int(block.arrival_us[-1]))
            self._sources.setdefault((block.stream, block.ssrc), _Source()).waiting.append(block)

    def finish(self) -> Iterator[Window]:
        """Gives out the rest, up to the last packet or the end of the last declared gap.

        A call without any packet becomes silence from answer to end, at least one frame.
        """
        yield from self._settle(self._bounds.ended_us + 2 * _TRAILING_US)
        if not self._heard:
            self.flags.add("no_media")
            self.cover(0, self._bounds.position(self._bounds.ended_us))
        first, last = self.span
        self.cover(first, max(last, first + FRAME))
        yield from self._emit(self.span[1])

    def _settle(self, until_us: int) -> Iterator[Window]:
        """Decodes and places what arrived before a moment, and gives out what is complete."""
        runs = [
            self._decode(stream, ssrc, source.anchor, due)
            for (stream, ssrc), source in self._sources.items()
            if (due := source.due(until_us))
        ]
        hulls = [run.hull for run in runs if run.hull is not None]
        if not hulls:
            return
        self._heard = True
        first, last = min(hull[0] for hull in hulls), max(hull[1] for hull in hulls)
        self.cover(first, last)
        yield from self._emit(first - LONGEST_BURST)
        self._grow(last)
        for run in runs:
            self._lay(run)
        yield from self._emit(min(self.span[1], self._bounds.position(until_us)) - LONGEST_BURST)

    def _decode(self, stream: int, ssrc: int, anchor: Anchor, blocks: Sequence[StreamBlock]) -> _Run:
        arrival_us = np.concatenate([block.arrival_us for block in blocks])
        payload_type = np.concatenate([block.payload_type for block in blocks])
        timestamp = np.concatenate([block.timestamp for block in blocks])
        size = np.concatenate([block.size for block in blocks]).astype(np.int64)
        payload = np.concatenate([block.payload for block in blocks])
        kinds = self._tables[stream].kinds(payload_type, arrival_us)
        arrival = (arrival_us - self._bounds.answered_us) // US_PER_SAMPLE
        position = arrival.copy()
        audible = ((kinds == Kind.A_LAW) | (kinds == Kind.MU_LAW)) & (size > 0)
        if not audible.all():
            self._note(kinds)
            payload = payload[np.repeat(audible, size)]
            size = np.where(audible, size, 0)
        position[audible] = anchor.place(timestamp[audible], arrival[audible])
        reception = self.reception[stream]
        reception.sequence(ssrc, np.concatenate([block.sequence for block in blocks]), position)
        late = (arrival - position)[audible]
        reception.jitter(ssrc, late)
        samples = _samples(kinds[audible], size[audible], payload)
        if slip := anchor.drift(late):
            position[np.flatnonzero(audible)[_quietest(samples, size[audible]) + 1 :]] += slip
            anchor.slip(slip)
        ends = (position + size)[kinds != Kind.UNDECLARED]
        return _Run(
            row=self._rows[stream],
            position=position[audible],
            size=size[audible],
            samples=samples,
            hull=(int(position[kinds != Kind.UNDECLARED].min()), int(ends.max())) if ends.size else None,
        )

    def _note(self, kinds: Kinds) -> None:
        if (kinds == Kind.RAW).any():
            self.flags.add("codec_raw")
        if (kinds == Kind.UNDECLARED).any():
            self.flags.add("payload_undeclared")

    def _lay(self, run: _Run) -> None:
        """Copies samples to their places; packets that follow each other are one copy."""
        if not run.position.size:
            return
        assert self._start is not None
        broken = (np.flatnonzero(run.position[1:] != run.position[:-1] + run.size[:-1]) + 1).tolist()
        offsets = np.concatenate(([0], np.cumsum(run.size))).tolist()
        row = self._buffer[run.row]
        for first, after in zip([0, *broken], [*broken, run.size.size], strict=True):
            samples = run.samples[offsets[first] : offsets[after]]
            at = int(run.position[first]) - self._start
            if at < 0:
                self.flags.add("late_audio")
                samples, at = samples[-at:], 0
            row[at : at + samples.size] = samples

    def _grow(self, last: int) -> None:
        if self._start is None:
            self._start = self.span[0]
        missing = last - self._start - self._buffer.shape[1]
        if missing > 0:
            filled = self._buffer.shape[1]
            longer = np.zeros((len(self._rows), filled + missing), np.int16)
            longer[:, :filled] = self._buffer
            self._buffer = longer

    def _emit(self, until: int) -> Iterator[Window]:
        """Gives out everything before a position; what was never laid there is silence."""
        if self._start is None:
            if self.span[0] >= until:
                return
            self._start = self.span[0]
        while self._start < until:
            length = min(until - self._start, _LONGEST_WINDOW)
            self._grow(self._start + length)
            window, self._buffer = self._buffer[:, :length], self._buffer[:, length:].copy()
            self._start += length
            yield window


def _quietest(samples: Window, size: npt.NDArray[np.int64]) -> int:
    """Which of the packets is the quietest one."""
    starts = np.concatenate(([0], np.cumsum(size)[:-1]))
    return int(np.argmin(np.add.reduceat(np.abs(samples.astype(np.int32)), starts) / size))


def _samples(kinds: Kinds, size: npt.NDArray[np.int64], payload: npt.NDArray[np.uint8]) -> Window:
    """Decodes the packets of a window, whatever mixture of laws they are."""
    laws = [law for law in Law if (kinds == law).any()]
    if len(laws) == 1:
        return g711.decode(laws[0], payload)
    of_octet = np.repeat(kinds, size)
    samples = np.zeros(payload.size, np.int16)
    for law in laws:
        chosen = of_octet == law
        samples[chosen] = g711.decode(law, payload[chosen])
    return samples
