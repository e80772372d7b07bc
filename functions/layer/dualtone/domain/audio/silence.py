"""What must not be heard, whatever was uploaded: declared spans are silenced once more, to the sample.

A packet that arrived within a span is left out before it is placed; the span's samples are zero after everything was
placed, so that neither the tail of a packet from before nor one that came late reaches into it. What lies beside a
span is untouched, and stays in its place. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.positions import TICKS_HZ, US_PER_TICK
from dualtone.domain.audio.timeline import Window
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.pause import FOREVER_US

Span = tuple[int, int]
"""From and to, the latter not included, microseconds of Unix time."""


class Silence:
    """Silences the streams of a call.

    Attributes:
        removed: Places, in ``everywhere``, of the spans of which packets were there.
    """

    def __init__(
        self,
        everywhere: Sequence[Span],
        of_stream: Mapping[int, Sequence[Span]],
        streams: Sequence[int],
        origin_us: int,
    ) -> None:
        """Takes what is to be silent.

        Args:
            everywhere: Spans in which the whole call is.
            of_stream: Further spans by stream.
            streams: The streams in the order of the windows' rows.
            origin_us: Position 0 of the timeline.
        """
        self._everywhere = everywhere
        self._spans = [_merged([*everywhere, *of_stream.get(stream, ())]) for stream in streams]
        self._rows = {stream: row for row, stream in enumerate(streams)}
        self._origin_us = origin_us
        self.removed: set[int] = set()

    def keep(self, blocks: Iterable[StreamBlock]) -> Iterator[StreamBlock]:
        """Yields what may be heard of packets."""
        for block in blocks:
            row = self._rows.get(block.stream)
            if row is None or not self._spans[row]:
                yield block
                continue
            inside = _inside(self._spans[row], block.arrival_us)
            if not inside.any():
                yield block
                continue
            self._note(block.arrival_us[inside])
            if not inside.all():
                yield _chosen(block, ~inside)

    def positions(self) -> dict[int, list[Span]]:
        """The spans of each stream in ticks, extended outward to whole ones."""
        return {
            stream: [
                ((from_us - self._origin_us) // US_PER_TICK, -((self._origin_us - to_us) // US_PER_TICK))
                for from_us, to_us in self._spans[row]
            ]
            for stream, row in self._rows.items()
        }

    def erase(self, window: Window, position: int, rate_hz: int = TICKS_HZ) -> None:
        """Sets to zero, in place, what of a window lies in a span.

        Args:
            window: int16[streams, n].
            position: Place of its first sample, ticks.
            rate_hz: Its samples a second: a multiple of the ticks.
        """
        per_tick = rate_hz // TICKS_HZ
        end = position + window.shape[1] // per_tick
        for row, spans in enumerate(self.positions().values()):
            for first, last in spans:
                if first < end and last > position:
                    window[row, max(first - position, 0) * per_tick : (min(last, end) - position) * per_tick] = 0

    def _note(self, arrival_us: npt.NDArray[np.int64]) -> None:
        for place, (from_us, to_us) in enumerate(self._everywhere):
            if place not in self.removed and ((arrival_us >= from_us) & (arrival_us < to_us)).any():
                self.removed.add(place)


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap or touch are one; in ascending order."""
    merged: list[Span] = []
    for from_us, to_us in sorted(span for span in spans if span[0] < span[1]):
        if merged and from_us <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], to_us)
        else:
            merged.append((from_us, to_us))
    return merged


def _inside(spans: Sequence[Span], arrival_us: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which packets arrived within one of the spans, which do not overlap."""
    low, high = int(arrival_us.min()), int(arrival_us.max())
    inside = np.zeros(arrival_us.size, np.bool_)
    for from_us, to_us in spans[max(bisect_right(spans, (low, FOREVER_US)) - 1, 0) :]:
        if from_us > high:
            break
        inside |= (arrival_us >= from_us) & (arrival_us < to_us)
    return inside


def _chosen(block: StreamBlock, chosen: npt.NDArray[np.bool_]) -> StreamBlock:
    return StreamBlock(
        stream=block.stream,
        ssrc=block.ssrc,
        sequence=block.sequence[chosen],
        timestamp=block.timestamp[chosen],
        arrival_us=block.arrival_us[chosen],
        payload_type=block.payload_type[chosen],
        size=block.size[chosen],
        payload=block.payload[np.repeat(chosen, block.size)],
    )
