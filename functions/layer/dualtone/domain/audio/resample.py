"""From one sample rate to another: a windowed sinc as one matrix product. Pure.

The filter is symmetric and its delay is taken out: what was said at a moment is heard at that moment. It reaches 32
periods of the slower rate to either side: 87 % of the narrower band pass, and what would alias is 60 dB down.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

_PERIODS: Final = 32
_CUT: Final = 0.94
_KAISER_BETA: Final = 7.0
_FINE, _COARSE = 200, 25


def reach(from_hz: int, to_hz: int) -> int:
    """How many samples at ``from_hz`` before and after it a sample depends on; 0 between equal rates."""
    return 0 if from_hz == to_hz else _PERIODS * -(-from_hz // min(from_hz, to_hz))


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Changes the rate.

    Args:
        samples: int16[reach + n + reach]: n samples, a whole number of 40 ms, with what is before and after them.
        from_hz: Their rate, a multiple of 25.
        to_hz: The rate wanted, a multiple of 25.

    Returns:
        int16[n * to_hz / from_hz].
    """
    if from_hz == to_hz:
        return samples
    matrix = _matrix(from_hz, to_hz)
    block = from_hz // _blocks(from_hz, to_hz)
    windows = np.lib.stride_tricks.sliding_window_view(samples, matrix.shape[0])[::block]
    limits = np.iinfo(np.int16)
    resampled: Samples = np.clip(np.rint(windows.astype(np.float32) @ matrix), limits.min, limits.max).astype(np.int16)
    return resampled.reshape(-1)


def _blocks(from_hz: int, to_hz: int) -> int:
    """Into how many blocks a second is cut: short ones make the matrix small, but must be whole at both rates."""
    return _COARSE if from_hz % _FINE or to_hz % _FINE else _FINE


@cache
def _matrix(from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
    """float32[reach + block + reach, block at the other rate]: the weight of each sample in each that it becomes."""
    blocks, around = _blocks(from_hz, to_hz), reach(from_hz, to_hz)
    given = np.arange(-around, from_hz // blocks + around) / from_hz
    wanted = np.arange(to_hz // blocks) / to_hz
    slower = min(from_hz, to_hz)
    periods = (wanted[np.newaxis, :] - given[:, np.newaxis]) * slower
    inside = np.clip(1 - (periods / _PERIODS) ** 2, 0, None)
    weights = np.sinc(periods * _CUT) * np.i0(_KAISER_BETA * np.sqrt(inside)) * (inside > 0)
    matrix: npt.NDArray[np.float32] = (weights / weights.sum(axis=0)).astype(np.float32)
    return matrix
