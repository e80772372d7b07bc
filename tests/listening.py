"""Judging audio: whether what is heard is what was said, and where."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

REACH: Final = 320
"""Samples of 8 kHz by which what is heard may be shifted: 40 ms."""

_FINER: Final = 8


def correlation(heard: npt.NDArray[np.int16], spoken: npt.NDArray[np.int16]) -> tuple[float, float]:
    """Best correlation over lags of at most 40 ms, and that lag in ms (positive: heard later than spoken)."""
    core = spoken[REACH:-REACH].astype(np.float64)
    best = (-1.0, 0.0)
    for lag in range(-REACH, REACH + 1):
        window = heard[REACH + lag : REACH + lag + core.size].astype(np.float64)
        reference = core[: window.size]
        value = float(reference @ window / (np.linalg.norm(reference) * np.linalg.norm(window) + 1e-9))
        best = max(best, (value, lag / 8))
    return best


def likeness(heard: npt.NDArray[np.int16], spoken: npt.NDArray[np.int16], rate_hz: int) -> tuple[float, float]:
    """The same to an eighth of a sample: a codec may delay by less than one, which high tones do not forgive."""
    size = max(heard.size, spoken.size)
    length = 1 << (size + rate_hz // 10).bit_length()
    spectrum = np.fft.rfft(heard, length) * np.conj(np.fft.rfft(spoken, length))
    finer = np.fft.irfft(spectrum, length * _FINER) * _FINER
    reach = _FINER * REACH * rate_hz // 8000
    lags = np.concatenate((finer[-reach:], finer[: reach + 1]))
    best = int(np.argmax(lags))
    norm = np.linalg.norm(heard.astype(np.float64)) * np.linalg.norm(spoken.astype(np.float64))
    return float(lags[best] / (norm + 1e-9)), (best - reach) * 1000 / rate_hz / _FINER
