"""Keys as a telephone sends them, and a receiver of tones that shares nothing with the one under test."""

from __future__ import annotations

import struct
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]
CLOCK_HZ = 8_000
_SPEECH = Path(__file__).parents[2] / "vectors" / "speech"
_PAD = ("123A", "456B", "789C", "*0#D")
_ROWS = (697.0, 770.0, 852.0, 941.0)
_COLUMNS = (1209.0, 1336.0, 1477.0, 1633.0)
_FINE = 2_048
_LASTS, _APART = 2, 8  # frames of 2.5 ms
_FULL = 32_768 / 10 ** (3.14 / 20)  # peak of a sine of 0 dBm0
CARD = "4111111111111111"
"""A number that networks publish for tests; it passes Luhn's formula."""


@dataclass(frozen=True)
class Key:
    """A press: level of the low tone in dBm0, twist (high over low) in dB, offset of both frequencies."""

    key: str
    ms: float = 80.0
    level: float = -9.0
    twist: float = 0.0
    offset: float = 0.0
    phase: float = 0.0

    @property
    def samples(self) -> Samples:
        row = next(index for index, keys in enumerate(_PAD) if self.key in keys)
        column = _PAD[row].index(self.key)
        time = np.arange(round(self.ms * CLOCK_HZ / 1000)) / CLOCK_HZ
        low = _FULL * 10 ** (self.level / 20)
        turns = 2 * np.pi * (1 + self.offset) * time
        return low * np.sin(turns * _ROWS[row] + self.phase) + low * 10 ** (self.twist / 20) * np.sin(
            turns * _COLUMNS[column] + 2 * self.phase
        )


def placed(keys: list[tuple[float, Key]], seconds: float, under: Samples | None = None) -> Samples:
    """Keys at their moments in seconds, over silence or over speech."""
    signal = np.zeros(round(seconds * CLOCK_HZ)) if under is None else under.copy()
    for at_s, key in keys:
        begin = round(at_s * CLOCK_HZ)
        signal[begin : begin + key.samples.size] += key.samples
    return np.clip(signal, -32_768, 32_767)


@cache
def spoken(name: str) -> Samples:
    """Speech: ``alice`` or ``bob``, twelve seconds."""
    with wave.open(str(_SPEECH / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


def event(code: int, duration: int, *, is_end: bool = False, volume: int = 10) -> bytes:
    """A telephone event's payload (RFC 4733 section 2.3)."""
    return struct.pack(">BBH", code, (0x80 if is_end else 0) | volume, duration)


def heard(samples: Samples) -> str:
    """The keys that a receiver hears: windows of 20 ms under a Hann window, peaks of a fine spectrum.

    It is keener than those of exchanges, which need 40 ms and ignore what is shorter than 20: a tone that fills one
    window is a key, if its two peaks, one of each group, are within 2.5 % of their frequencies and 12 dB of each other
    and hold half of the energy.
    """
    size, step = 160, 20
    count = max((samples.size - size) // step + 1, 0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::step][:count]
    found, last, run, silent = "", -1, 0, 0
    for begin in range(0, count, 4_096):
        for key in _keys(frames[begin : begin + 4_096]).tolist():
            silent = 0 if key >= 0 else silent + 1
            run = run if key < 0 else run + 1 if key == last else 1
            last = key if key >= 0 else last if silent < _APART else -1
            if key >= 0 and run == _LASTS:
                found += _PAD[key // 4][key % 4]
    return found


def _keys(frames: Samples) -> npt.NDArray[np.int64]:
    """The key of each frame, -1 for none."""
    powers = np.square(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), _FINE, axis=1)))
    eighths = np.square(frames).reshape(len(frames), 8, -1).sum(axis=2)
    is_filled = eighths.min(axis=1) > 0.1 * eighths.mean(axis=1)
    hz, total, each = CLOCK_HZ / _FINE, powers.sum(axis=1), np.arange(len(frames))
    sums = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(powers, axis=1)], axis=1)
    good, share, key, sides = is_filled & (total > 1e5), np.zeros(len(frames)), np.zeros(len(frames), np.int64), []
    for group in (_ROWS, _COLUMNS):
        begin, end = round(group[0] * 0.96 / hz), round(group[-1] * 1.04 / hz)
        peak = begin + powers[:, begin:end].argmax(axis=1)
        off = np.abs(peak[:, None] * hz - np.asarray(group)) / np.asarray(group)
        nearest, width = off.argmin(axis=1), round(100 / hz)
        good &= off[each, nearest] <= 0.025
        around = sums[each, peak + width] - sums[each, np.maximum(peak - width, 0)]
        share += around / np.maximum(total, 1)
        key = 4 * key + nearest
        sides.append(around)
    twist = sides[0] / np.maximum(sides[1], 1e-9)
    good &= (share >= 0.5) & (twist > 1 / 16) & (twist < 16)
    return np.where(good, key, -1)
