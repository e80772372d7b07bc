"""Judging audio: whether what is heard is what was said, and where."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

REACH: Final = 320
"""Samples of 8 kHz by which what is heard may be shifted: 40 ms."""


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
