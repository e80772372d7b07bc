"""How a recording sounds, in figures that need no listener: how much of each channel is silence, and one-sided calls.

Pure. A frame of 20 ms counts as silence when its level is below -50 dB of full scale, which is above the comfort noise
of telephones and below quiet speech.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.positions import TICKS_HZ

FRAMES_A_SECOND: Final = 50
SILENCE_RMS: Final = 104.0
"""-50 dB of the largest 16-bit sample."""

_ONE_SIDED_SILENCE: Final = 0.995
_SPEECH: Final = 0.05


class Loudness:
    """Measures the channels of a recording, window by window."""

    def __init__(self, channels: int, rate_hz: int = TICKS_HZ) -> None:
        """Begins to measure.

        Args:
            channels: How many there are.
            rate_hz: Samples a second of each.
        """
        self._frame = rate_hz // FRAMES_A_SECOND
        self._rest = np.zeros((channels, 0), np.int16)
        self._silent = np.zeros(channels, np.int64)
        self._frames = 0

    def add(self, window: npt.NDArray[np.int16]) -> None:
        """Takes samples int16[channels, n]; what is left of a frame waits for the next window."""
        samples = np.concatenate((self._rest, window), axis=1) if self._rest.shape[1] else window
        whole = samples.shape[1] // self._frame * self._frame
        self._rest = samples[:, whole:].copy()
        if not whole:
            return
        frames = samples[:, :whole].astype(np.float32).reshape(samples.shape[0], -1, self._frame)
        power = np.einsum("cfs,cfs->cf", frames, frames)
        self._silent += np.count_nonzero(power < SILENCE_RMS**2 * self._frame, axis=1)
        self._frames += power.shape[1]

    @property
    def silence_ratio(self) -> tuple[float, ...]:
        """For each channel, the part of its frames that is silence; 1 for a recording shorter than a frame."""
        return tuple((self._silent / self._frames).tolist()) if self._frames else (1.0,) * self._silent.size

    @property
    def one_sided(self) -> tuple[bool, ...]:
        """For each channel, whether it is silent throughout although somebody speaks on another."""
        ratios = self.silence_ratio
        spoken = any(1 - ratio >= _SPEECH for ratio in ratios)
        return tuple(spoken and ratio >= _ONE_SIDED_SILENCE for ratio in ratios)
