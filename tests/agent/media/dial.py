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

    It takes what a tenth of a second of silence on either side would not hide: two peaks, one of each group, within
    2.5 % of their frequencies and 12 dB of each other, that hold most of the energy for 15 ms.
    """
    size, step, fine = 160, 20, 2_048
    count = max((samples.size - size) // step + 1, 0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::step][:count] * np.hanning(size)
    found, last, run, silent = "", "", 0, 0
    for begin in range(0, count, 4_096):
        spectrum = np.abs(np.fft.rfft(frames[begin : begin + 4_096], fine, axis=1)) ** 2
        for powers in spectrum:
            key = _key(powers, CLOCK_HZ / fine)
            if key and key == last:
                run += 1
            elif key:
                last, run = key, 1
            if key:
                silent = 0
                found += key if run == 6 else ""
            else:
                silent += 1
                if silent >= 8:
                    last, run = "", 0
    return found


def _key(powers: Samples, hz: float) -> str:
    total = powers.sum()
    if total < 1e5:
        return ""
    share, peaks = 0.0, []
    for group in (_ROWS, _COLUMNS):
        begin, end = round(group[0] * 0.96 / hz), round(group[-1] * 1.04 / hz)
        peak = begin + int(np.argmax(powers[begin:end]))
        nearest = int(np.argmin([abs(peak * hz - one) for one in group]))
        if abs(peak * hz - group[nearest]) > 0.025 * group[nearest]:
            return ""
        around = powers[max(peak - round(100 / hz), 0) : peak + round(100 / hz)].sum()
        share += around / total
        peaks.append((nearest, around))
    if share < 0.5 or not 1 / 16 < peaks[0][1] / peaks[1][1] < 16:
        return ""
    return _PAD[peaks[0][0]][peaks[1][0]]
