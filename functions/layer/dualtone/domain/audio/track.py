"""The samples of one stream at one rate, each in its place; silence wherever nothing was laid. Pure.

Where audio breaks off or begins after something that is not there (a loss, a hold, a pause, the sender's own silence)
its last or first 2.5 ms are faded: a step from speech to nothing is heard as a click. The silence itself is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.decoding import Decoded
from dualtone.domain.audio.positions import TICKS_HZ

Samples = npt.NDArray[np.int16]
Span = tuple[int, int]

FADES_A_SECOND: Final = 400
"""2.5 ms: short enough to take no sound away, long enough that none is added."""


class Track:
    """Samples that are gathered and given out, window by window."""

    def __init__(self, rate_hz: int, start_ticks: int, reach: int, silent: Sequence[Span], *, fades: bool) -> None:
        """Begins a track.

        Args:
            rate_hz: Its rate.
            start_ticks: Where the first window begins; a whole number of 40 ms.
            reach: How many samples before and after it go with every window.
            silent: Spans that will be silenced, ticks: audio is faded there too.
            fades: Whether audio is faded at all.
        """
        self.rate_hz = rate_hz
        self._reach = reach
        self._start = self._samples(start_ticks)
        self._buffer: Samples = np.zeros(2 * reach, np.int16)
        self._silent = [(self._samples(first), -self._samples(-last)) for first, last in silent]
        self._laid: list[Span] = []
        self._fade = rate_hz // FADES_A_SECOND if fades else 0
        self._faded = self._start

    def lay(self, decoded: Decoded) -> bool:
        """Copies samples to their places; pieces that follow each other are one copy.

        Returns:
            Whether all of it came in time: what belongs before the next window is left out.
        """
        position, size = decoded.position, decoded.size
        if not size.sum():
            return True
        in_time = True
        broken = (np.flatnonzero(position[1:] != position[:-1] + size[:-1]) + 1).tolist()
        offsets = np.concatenate(([0], np.cumsum(size))).tolist()
        self._grow(int((position + size).max()) + self._reach)
        for first, after in pairwise([0, *broken, size.size]):
            samples = decoded.samples[offsets[first] : offsets[after]]
            at = int(position[first])
            if at < self._start:
                in_time = False
                samples, at = samples[self._start - at :], self._start
            if samples.size:
                place = at - self._start + self._reach
                self._buffer[place : place + samples.size] = samples
                self._laid.append((at, at + samples.size))
        return in_time

    def take(self, ticks: int) -> Samples:
        """Gives out the next window: int16[reach + n + reach], n the samples of so many ticks."""
        length = self._samples(ticks)
        end = self._start + length
        self._grow(end + self._reach)
        self._soften(end + self._reach)
        window = self._buffer[: length + 2 * self._reach]
        self._buffer = self._buffer[length:].copy()
        self._start = end
        return window

    def _soften(self, until: int) -> None:
        """Fades what begins or ends before a place, once."""
        fade = self._fade
        if not fade:
            return
        ramp = _ramp(fade)
        self._laid = _merged(self._laid)
        for first, last in _without(self._laid, self._silent):
            if self._faded <= first < until:
                self._scale(first, ramp)
            if self._faded <= last - fade < until:
                self._scale(last - fade, ramp[::-1])
        self._faded = until
        self._laid = [span for span in self._laid if span[1] >= until]
        self._silent = [span for span in self._silent if span[1] >= until]

    def _scale(self, at: int, ramp: npt.NDArray[np.float32]) -> None:
        place = at - self._start + self._reach
        piece = self._buffer[max(place, 0) : place + ramp.size]
        piece[:] = np.rint(piece * ramp[ramp.size - piece.size :] if place < 0 else piece * ramp[: piece.size])

    def _grow(self, end: int) -> None:
        missing = end - self._start + self._reach - self._buffer.size
        if missing > 0:
            self._buffer = np.concatenate((self._buffer, np.zeros(missing, np.int16)))

    def _samples(self, ticks: int) -> int:
        return ticks * self.rate_hz // TICKS_HZ


def _ramp(length: int) -> npt.NDArray[np.float32]:
    """From nearly 0 to nearly 1 along half a period of a cosine, float32[length]."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Spans that overlap or touch are one; in ascending order."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


def _without(spans: Sequence[Span], cut: Sequence[Span]) -> Iterator[Span]:
    """What of spans lies outside others; both in ascending order and apart from each other."""
    for first, last in spans:
        at = first
        for cut_first, cut_last in cut:
            if cut_first >= last:
                break
            if cut_last > at:
                if cut_first > at:
                    yield at, cut_first
                at = cut_last
        if at < last:
            yield at, last
