"""DTMF tones that reached the finaliser, since the agent could not look into their codec: made silent here. Pure.

Windows go through with a delay of ``HELD_MS``, or twice that, so that a tone which crosses the border of two is seen
whole. What is silent is what ``tones`` finds, with a margin, to the hop of 10 ms. It is told in spans that are one
where they lie within two seconds of each other, as the agent tells them: nobody can count the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.positions import TICKS_HZ
from dualtone.domain.audio.timeline import Window
from dualtone.domain.audio.tones import HOP_MS, MARGIN_HOPS, spectrum, tones

HELD_MS: Final = 200
CAUSE: Final = "tones"
_NEAR: Final = 2 * TICKS_HZ
_HOP: Final = TICKS_HZ * HOP_MS // 1000
_HELD_HOPS: Final = HELD_MS // HOP_MS

Span = tuple[int, int]


class ToneSilence:
    """Silences the tones of streams as their windows go by.

    Attributes:
        found: Of each row the spans that were made silent, ticks, the latter end not included.
    """

    def __init__(self, rows: Sequence[int], rate_hz: int, spans: Sequence[Span]) -> None:
        """Begins before the first window.

        Args:
            rows: The rows of the windows in which tones are looked for.
            rate_hz: Samples a second of the windows: a multiple of the ticks.
            spans: Where on the timeline they are to be silent, ticks.
        """
        self._rows, self._rate_hz, self._spans = rows, rate_hz, spans
        self._hop = rate_hz * HOP_MS // 1000
        self._held: Window | None = None
        self._silent: npt.NDArray[np.bool_] = np.zeros((0, 0), np.bool_)
        self._position = 0
        self.found: dict[int, list[Span]] = {row: [] for row in rows}

    def add(self, window: Window, position: int) -> tuple[Window, int]:
        """Takes a window and gives what is complete.

        Args:
            window: int16[rows, n]; it follows the one before without a hole.
            position: Place of its first sample, ticks.

        Returns:
            A window, perhaps an empty one, and its place.
        """
        if self._held is None:
            self._held, self._position = window[:, :0], position
            self._silent = np.zeros((len(self._rows), 0), np.bool_)
        self._held = np.concatenate([self._held, window], axis=1)
        hops = self._held.shape[1] // self._hop - _HELD_HOPS
        return self._leave(hops * self._hop if hops >= _HELD_HOPS else 0)

    def finish(self) -> tuple[Window, int]:
        """Gives the rest, and its place."""
        if self._held is None:
            self._held = np.zeros((0, 0), np.int16)
        return self._leave(self._held.shape[1])

    def _leave(self, count: int) -> tuple[Window, int]:
        """Gives so many samples of what is held."""
        assert self._held is not None
        if not count:
            return self._held[:, :0], self._position
        hops = -(-self._held.shape[1] // self._hop)
        silent = np.zeros((len(self._rows), hops), np.bool_)
        silent[:, : self._silent.shape[1]] = self._silent
        silent |= self._heard(hops)
        given, leaving = self._held[:, :count].copy(), -(-count // self._hop)
        for place, row in enumerate(self._rows):
            mask = np.repeat(silent[place, :leaving], self._hop)[:count]
            given[row, mask] = 0
            self._note(row, silent[place, :leaving])
        position = self._position
        self._held, self._silent = self._held[:, count:], silent[:, leaving:]
        self._position += count * TICKS_HZ // self._rate_hz
        return given, position

    def _heard(self, hops: int) -> npt.NDArray[np.bool_]:
        """Which hops of each row hold anything of a tone, or lie beside one, within the spans; bool[rows, hops]."""
        assert self._held is not None
        silent = np.zeros((len(self._rows), hops), np.bool_)
        samples = np.zeros((hops, self._hop), np.float32)
        for place, row in enumerate(self._rows):
            samples.ravel()[: self._held.shape[1]] = self._held[row]
            for tone in tones(spectrum(samples, self._rate_hz)):
                silent[place, max(tone.first - MARGIN_HOPS, 0) : tone.end + MARGIN_HOPS] = True
        begins = self._position + _HOP * np.arange(hops)
        wanted = np.zeros(hops, np.bool_)
        for first, last in self._spans:
            wanted |= (begins + _HOP > first) & (begins < last)
        return silent & wanted

    def _note(self, row: int, silent: npt.NDArray[np.bool_]) -> None:
        found = self.found[row]
        edges = np.diff(silent.astype(np.int8), prepend=0, append=0)
        runs = zip(np.flatnonzero(edges > 0).tolist(), np.flatnonzero(edges < 0).tolist(), strict=True)
        for begin, end in runs:
            first, last = self._position + _HOP * begin, self._position + _HOP * end
            if found and first - found[-1][1] < _NEAR:
                found[-1] = found[-1][0], last
            else:
                found.append((first, last))
