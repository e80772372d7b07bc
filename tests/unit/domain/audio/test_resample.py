"""From one rate to another: pitch, level and place stay, and nothing folds back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dualtone.domain.audio.resample import reach, resample

RATES = [8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]


def tone(hz: float, rate_hz: int, seconds: float = 0.4, around: int = 0) -> npt.NDArray[np.int16]:
    """A sine that begins ``around`` samples before time 0."""
    time = np.arange(-around, round(seconds * rate_hz) + around) / rate_hz
    sine: npt.NDArray[np.int16] = np.rint(10_000 * np.sin(2 * np.pi * hz * time)).astype(np.int16)
    return sine


@pytest.mark.parametrize("to_hz", [8000, 16_000])
@pytest.mark.parametrize("from_hz", RATES)
def test_a_tone_stays_what_and_where_it_was(from_hz: int, to_hz: int) -> None:
    """300 to 3,300 Hz, sample for sample within 0.5 % of full scale."""
    around = reach(from_hz, to_hz)
    for hz in (300.0, 1000.0, 3300.0):
        changed = resample(tone(hz, from_hz, around=around), from_hz, to_hz)
        assert np.abs(changed.astype(np.int64) - tone(hz, to_hz)).max() <= 164


@pytest.mark.parametrize("from_hz", [16_000, 44_100, 48_000])
def test_what_is_too_high_is_gone(from_hz: int) -> None:
    """A tone above what 8 kHz can hold does not come back as another: 60 dB down."""
    around = reach(from_hz, 8000)
    folded = resample(tone(5000.0, from_hz, around=around), from_hz, 8000)
    assert np.abs(folded.astype(np.int64)).max() <= 10


def test_windows_are_as_one() -> None:
    """What is before and after a window goes with it, so that no border is heard."""
    around = reach(48_000, 16_000)
    noise = np.random.default_rng(3).integers(-8000, 8000, 48_000 + 2 * around).astype(np.int16)
    half = 24_000
    parts = [noise[: half + 2 * around], noise[half:]]
    together = np.concatenate([resample(part, 48_000, 16_000) for part in parts])
    assert np.array_equal(together, resample(noise, 48_000, 16_000))


def test_loud_samples_do_not_turn_over() -> None:
    """Full scale stays within 16 bits."""
    around = reach(8000, 16_000)
    square = np.where(np.arange(1600 + 2 * around) // 40 % 2, 32_767, -32_768).astype(np.int16)
    changed = resample(square, 8000, 16_000).astype(np.int64)
    assert np.abs(np.diff(changed)).max() < 60_000
    assert changed.max() == 32_767
