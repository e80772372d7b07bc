"""The recording's timeline: packets of all streams in, samples of all streams out, window by window. Pure.

The timeline runs from the first to the last packet of any stream, declared gaps included. Whatever no packet covers is
silence of exactly that length: loss, discontinuous transmission, comfort noise, telephone events, hold, pause.
Duplicates lie on each other. Memory does not grow with the call: packets are gathered for a minute, decoded at once,
and given out as soon as nothing can come that belongs before them.

Each stream has a track for every rate at which it sounds; they become one rate when they are given out: 8 kHz, or
16 kHz if any stream has more than a telephone's bandwidth. Positions of the timeline are ticks (``positions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.codecs import WIDEBAND_HZ
from dualtone.domain.audio.decoding import Decoders
from dualtone.domain.audio.payloads import PayloadTable
from dualtone.domain.audio.placement import LONGEST_BURST, LOOK_AHEAD
from dualtone.domain.audio.positions import GRAIN, TICKS_HZ, US_PER_TICK
from dualtone.domain.audio.reception import Reception
from dualtone.domain.audio.resample import reach, resample
from dualtone.domain.audio.sources import Heard, Source
from dualtone.domain.audio.track import Span, Track
from dualtone.domain.media_record import StreamBlock

Window = npt.NDArray[np.int16]

NARROWBAND_HZ: Final = 8000
FRAME: Final = TICKS_HZ // 50
"""The shortest timeline, and the packet time of Opus as we use it: 20 ms."""

_BATCH_US: Final = 60_000_000
_LONGEST_WINDOW: Final = 60 * TICKS_HZ
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
        """A moment as a position: ticks since the answer."""
        return (at_us - self.answered_us) // US_PER_TICK

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


class Timeline:
    """Assembles a call.

    Attributes:
        reception: What was received on each stream, by stream index.
        codings: How each stream is coded, as declared or decoded so far.
        flags: What a reader of the recording should know.
    """

    def __init__(
        self,
        tables: Mapping[int, PayloadTable],
        bounds: Bounds,
        gaps: Mapping[int, Sequence[Span]] | None = None,
        *,
        decoders: Decoders | None = None,
        rate_hz: int | None = None,
        silent: Mapping[int, Sequence[Span]] | None = None,
        fades: bool = True,
    ) -> None:
        """Begins a timeline.

        Args:
            tables: The payload types of each stream; their order is the order of the rows.
            bounds: When the call was.
            gaps: Declared gaps of each stream, positions from and to.
            decoders: Decode what does not decode by a table; without them it is kept raw.
            rate_hz: Rate of the windows; None: as wide as what is heard before the first one.
            silent: Spans of each stream that will be silenced, positions from and to.
            fades: Whether audio is faded where it breaks off.
        """
        declared = gaps or {}
        self._tables = tables
        self._bounds = bounds
        self._decoders = decoders or Decoders(None)
        self._silent = silent or {}
        self._fades = fades
        self._sources: dict[tuple[int, int], Source] = {}
        self._batch_us: int | None = None
        self._latest_us = 0
        self._heard = False
        self._tracks: dict[tuple[int, int], Track] = {}
        self._next: int | None = None
        self._first: int | None = None
        self._end: int | None = None
        self._rate_hz = rate_hz
        self._widest_hz = NARROWBAND_HZ
        self.reception = {stream: Reception(declared.get(stream, ())) for stream in tables}
        self.codings = {stream: set(table.codings) for stream, table in tables.items()}
        self.flags: set[str] = set()
        for spans in declared.values():
            for first, last in spans:
                self.cover(first, last)

    @property
    def span(self) -> Span:
        """Where the timeline begins and ends, as positions; equal while nothing is on it."""
        return self._first or 0, self._end or self._first or 0

    @property
    def rate_hz(self) -> int:
        """Samples a second of the windows; settled when the first one is given out."""
        return self._rate_hz or self._widest_hz

    @property
    def is_narrowed(self) -> bool:
        """Whether something had more bandwidth than the windows, which had begun before it came."""
        return self._widest_hz > self.rate_hz

    def cover(self, first: int, last: int) -> None:
        """Makes the timeline reach over a span; its beginning cannot move any more once samples were given out."""
        if self._next is None:
            self._first = first if self._first is None else min(self._first, first)
        self._end = last if self._end is None else max(self._end, last)

    def add(self, blocks: Iterable[StreamBlock]) -> Iterator[Window]:
        """Takes packets, in the order of the call.

        Yields:
            Windows int16[rows, n] that are complete, each at most a minute, one following the other without a hole.

        Raises:
            Unavailable: If a decoder fails.
        """
        for block in blocks:
            if not block.arrival_us.size:
                continue
            if block.stream not in self._tables:
                self.flags.add("undeclared_stream")
                continue
            if not self._bounds.admit(block):
                self.flags.add("packets_outside_call")
                continue
            arrived_us = int(block.arrival_us[0])
            if self._batch_us is None:
                self._batch_us = arrived_us
            elif arrived_us - self._batch_us >= _BATCH_US:
                yield from self._settle(self._latest_us - LOOK_AHEAD * US_PER_TICK)
                self._batch_us = arrived_us
            self._latest_us = max(self._latest_us, int(block.arrival_us[-1]))
            self._source(block.stream, block.ssrc).add(block)

    def finish(self) -> Iterator[Window]:
        """Gives out the rest, up to the last packet or the end of the last declared gap.

        A call without any packet becomes silence from answer to end, at least one frame.

        Raises:
            Unavailable: If a decoder fails.
        """
        yield from self._settle(self._bounds.ended_us + 2 * _TRAILING_US)
        if not self._heard:
            self.flags.add("no_media")
            self.cover(0, self._bounds.position(self._bounds.ended_us))
        first, last = self.span
        self.cover(first, max(last, first + FRAME))
        yield from self._emit(self.span[1], to_the_end=True)

    def _source(self, stream: int, ssrc: int) -> Source:
        found = self._sources.get((stream, ssrc))
        if found is None:
            origin_us, table, reception = self._bounds.answered_us, self._tables[stream], self.reception[stream]
            found = self._sources[stream, ssrc] = Source((stream, ssrc), origin_us, table, reception, self._decoders)
        return found

    def _settle(self, until_us: int) -> Iterator[Window]:
        """Decodes and places what arrived before a moment, and gives out what is complete."""
        heard: list[tuple[int, Heard]] = []
        for (stream, _), source in self._sources.items():
            if (one := source.settle(until_us)) is not None:
                heard.append((stream, one))
                self.flags |= one.flags
        spans = [one.span for _, one in heard if one.span is not None]
        if not spans:
            return
        self._heard = True
        first, last = min(span[0] for span in spans), max(span[1] for span in spans)
        self.cover(first, last)
        runs = [(stream, run) for stream, one in heard for run in one.runs]
        if any(run.codec.is_wideband for _, run in runs):
            self._widest_hz = WIDEBAND_HZ
        yield from self._emit(first - LONGEST_BURST)
        self._begin()
        for stream, run in runs:
            self.codings[stream].add(run.codec.coding)
            if not self._track(stream, run.codec.rate_hz).lay(run.decoded):
                self.flags.add("late_audio")
        yield from self._emit(min(self.span[1], self._bounds.position(until_us)) - LONGEST_BURST)

    def _begin(self) -> None:
        """From now on rate and beginning are settled."""
        if self._next is None:
            self._rate_hz = self.rate_hz
            self._next = self.span[0] // GRAIN * GRAIN

    def _track(self, stream: int, rate_hz: int) -> Track:
        assert self._next is not None
        found = self._tracks.get((stream, rate_hz))
        if found is None:
            around = reach(rate_hz, self.rate_hz)
            found = Track(rate_hz, self._next, around, self._silent.get(stream, ()), fades=self._fades)
            self._tracks[stream, rate_hz] = found
        return found

    def _emit(self, until: int, *, to_the_end: bool = False) -> Iterator[Window]:
        """Gives out everything before a position; what was never laid there is silence."""
        if self._next is None:
            if self.span[0] >= until:
                return
            self._begin()
        assert self._next is not None
        end = -(-until // GRAIN) * GRAIN if to_the_end else until // GRAIN * GRAIN
        per_tick = self.rate_hz // TICKS_HZ
        while self._next < end:
            start, length = self._next, min(end - self._next, _LONGEST_WINDOW)
            window = self._window(length)
            self._next += length
            yield window[:, max(self.span[0] - start, 0) * per_tick : (min(until, self._next) - start) * per_tick]

    def _window(self, ticks: int) -> Window:
        window = np.zeros((len(self._tables), ticks * self.rate_hz // TICKS_HZ), np.int16)
        limits = np.iinfo(np.int16)
        laid: set[int] = set()
        for row, stream in enumerate(self._tables):
            for (of_stream, rate_hz), track in self._tracks.items():
                if of_stream != stream:
                    continue
                samples = resample(track.take(ticks), rate_hz, self.rate_hz)
                if row in laid:
                    window[row] = np.clip(window[row].astype(np.int32) + samples, limits.min, limits.max)
                else:
                    window[row] = samples
                laid.add(row)
        return window
