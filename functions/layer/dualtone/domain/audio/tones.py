"""DTMF tones in speech: where they sound, and which keys they are (ITU-T Q.23, receivers as in Q.24). Pure.

Samples are looked at in hops of 10 ms. One matrix product gives every hop's amplitude at the eight frequencies (what
the Goertzel algorithm gives, for all hops at once), three hops in a row decide:

1. the two strongest frequencies, one of each group, hold most of the energy (``_LEAST_SHARE``),
2. neither is much stronger than the other (Q.24 asks for 4 to 10 dB of twist, ``_MOST_TWIST`` allows more),
3. each stands out of its group,
4. each is near its nominal frequency: its phase tells the offset (Q.24: up to 1.5 % is a key; speech is anywhere),
5. both hold still: speech glides.

Two hops, or one, decide where the first rule is kept much better: that is what losses left of a tone. A tone of 40 ms
fills three hops however they lie. Only hops that pass rule 1 by themselves are looked at further, and no tone is missed
by that: a share that three hops have together, one of them has alone.

Tones are to be blanked rather too often than too seldom, so the rules are wider than those of a receiver that dials;
what counts as a key pressed is narrower (``Tone.is_key``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

HOP_MS: Final = 10
_HOP_S: Final = HOP_MS / 1000
KEYS: Final = "123A456B789C*0#D"
"""Keys by row of the low group (697, 770, 852, 941 Hz) and column of the high one."""
FREQUENCIES_HZ: Final = (697, 770, 852, 941, 1209, 1336, 1477, 1633)
MARGIN_HOPS: Final = 2
"""So much before and after a tone is blanked with it: its edges lie within hops."""

_LOW: Final = slice(0, 4)
_HIGH: Final = slice(4, 8)
_LEAST_LEVEL: Final = 30.0  # root mean square of 16-bit samples: -55 dBm0, far below Q.24's -29 dBm0
_LEAST_SHARE: Final = {3: 0.5, 2: 0.68, 1: 0.85}
_KEY_SHARE: Final = 0.6
_KEY_HOPS: Final = 3
_MOST_TWIST: Final = 16.0  # 12 dB, as a ratio of powers
_LEAST_PROMINENCE: Final = 2.5  # as a ratio of powers; hops of 10 ms tell 697 from 770 Hz no better
_CLEAR_SHARE: Final = 0.7  # of energy: what holds so much stands out by that
_MOST_OFFSET: Final = 0.023
_LEAST_COHERENCE: Final = 0.9
_LEAST_STEADINESS: Final = 0.45  # as a ratio of amplitudes
_GOES_ON: Final = 0.1  # of a tone's power: what a hop beside it must have to be of it
_GOES_ON_SHARE: Final = 0.2
_PAUSE_HOPS: Final = 3  # Q.24: interruptions up to 10 ms are of a tone, pauses from 40 ms on part two

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tone:
    """A tone.

    Attributes:
        first: Its first hop.
        end: The hop behind its last.
        key: The key's place in ``KEYS``; no text made of this shows it.
        power: Of its weaker frequency, as ``Spectrum.power`` has it.
        is_key: Whether it is clear enough to say that the key was pressed.
    """

    first: int
    end: int
    key: int = field(repr=False)
    power: float = field(repr=False)
    is_key: bool = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What is known of hops.

    Attributes:
        amplitude: Real parts, then imaginary parts, of eight amplitudes, float32[16, n].
        power: Energy that a tone of each frequency would explain, float32[8, n].
        energy: float32[n].
        hop: Samples of a hop.
    """

    amplitude: Floats
    power: Floats
    energy: Floats
    hop: int


def spectrum(samples: Floats, clock_hz: int) -> Spectrum:
    """Looks at hops.

    Args:
        samples: On the scale of 16 bits, float32[n, clock_hz // 100].
        clock_hz: Samples per second.
    """
    amplitude = _matrix(clock_hz) @ samples.T
    squares = np.square(amplitude)
    hop = samples.shape[1]
    power = np.add(squares[:8], squares[8:], out=squares[:8])
    power *= np.float32(2 / hop)
    return Spectrum(amplitude, power, np.einsum("ij,ij->i", samples, samples), hop)


def tones(seen: Spectrum) -> list[Tone]:
    """The tones of hops, in order.

    Hops of several streams may be looked at together if at least three silent ones part them.
    """
    found: list[Tone] = []
    for first, hops, key, power, share in _windows(seen):
        before = found[-1] if found else None
        is_key = share >= _KEY_SHARE and hops >= _KEY_HOPS
        if before is not None and before.key == key and first < before.end + _PAUSE_HOPS:
            end = max(before.end, first + hops)
            found[-1] = replace(before, end=end, power=max(before.power, power), is_key=before.is_key or is_key)
        else:
            found.append(Tone(first, first + hops, key, power, is_key))
    return [_whole(tone, seen) for tone in found]


def going_on(tone: Tone, seen: Spectrum, at: int) -> int:
    """How many hops from one on still belong to a tone that sounded before it."""
    return _reach(tone, seen, range(at, seen.energy.size))


def _windows(seen: Spectrum) -> Iterable[tuple[int, int, int, float, float]]:
    """Runs of one to three hops that are a tone's: first hop, number, key, power of the weaker frequency, share."""
    power, energy = seen.power, seen.energy
    least = np.float32(_LEAST_LEVEL**2 * seen.hop / 4)
    held = _strongest(power[_LOW]) + _strongest(power[_HIGH])
    suspicious = np.flatnonzero((held >= np.float32(min(_LEAST_SHARE.values())) * energy) & (energy >= least))
    share = held[suspicious] / energy[suspicious]
    found: list[tuple[int, int, int, float, float]] = []
    for hops, needed in _LEAST_SHARE.items():
        found += _judged(seen, _starts(suspicious[share >= needed], hops, energy.size), hops)
    return sorted(found)


def _strongest(group: Floats) -> Floats:
    strongest: Floats = np.maximum(np.maximum(group[0], group[1]), np.maximum(group[2], group[3]))
    return strongest


def _starts(suspicious: Indices, hops: int, count: int) -> Indices:
    starts = np.unique(suspicious[:, None] - np.arange(hops))
    within: Indices = starts[(starts >= 0) & (starts <= count - hops)]
    return within


def _judged(seen: Spectrum, starts: Indices, hops: int) -> list[tuple[int, int, int, float, float]]:
    """Those of windows that follow the rules above."""
    at = starts[:, None] + np.arange(hops)
    power, energy = seen.power[:, at].sum(axis=2), seen.energy[at].sum(axis=1)
    each = np.arange(starts.size)
    low, high = power[_LOW].argmax(axis=0), power[_HIGH].argmax(axis=0) + 4
    lower, higher = power[low, each], power[high, each]
    good = (energy >= _LEAST_LEVEL**2 * seen.hop * hops) & (lower + higher >= _LEAST_SHARE[hops] * energy)
    good &= np.maximum(lower, higher) <= _MOST_TWIST * np.minimum(lower, higher)
    power[low, each] = power[high, each] = 0
    stands_out = (lower >= _LEAST_PROMINENCE * _strongest(power[_LOW])) & (
        higher >= _LEAST_PROMINENCE * _strongest(power[_HIGH])
    )
    left = np.flatnonzero(good)
    together = np.zeros(starts.size)
    for tone in (low, high):
        is_steady, held = _steadiness(seen, at[left], tone[left])
        good[left] &= is_steady
        together[left] += held
    share = together / np.maximum(energy, 1)
    good &= (share >= _LEAST_SHARE[hops]) & (stands_out | (share >= _CLEAR_SHARE))
    return [
        (int(starts[one]), hops, int(low[one]) * 4 + int(high[one]) - 4, float(min(lower[one], higher[one]) / hops),
         float(share[one]))
        for one in np.flatnonzero(good)
    ]  # fmt: skip


def _steadiness(seen: Spectrum, at: Indices, tone: Indices) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Follows a frequency of each window through its hops.

    Returns:
        Whether it is near its nominal value and keeps phase and strength, bool[windows]; and the energy that one
        sinusoid of its true frequency explains, float64[windows].
    """
    amplitude = seen.amplitude[tone[:, None], at] + 1j * seen.amplitude[tone[:, None] + 8, at]
    nominal = np.asarray(FREQUENCIES_HZ)[tone]
    steps = amplitude[:, 1:] * amplitude[:, :-1].conj()
    turned = steps.sum(axis=1) * np.exp(-2j * np.pi * nominal * _HOP_S)
    offset = np.angle(turned) / (2 * np.pi * _HOP_S)
    strength = np.abs(amplitude)
    steady: npt.NDArray[np.bool_] = np.abs(offset) <= _MOST_OFFSET * nominal
    steady &= np.abs(turned) >= _LEAST_COHERENCE * np.abs(steps).sum(axis=1)
    steady &= strength.min(axis=1) >= _LEAST_STEADINESS * strength.max(axis=1)
    back = np.exp(-2j * np.pi * (nominal + offset)[:, None] * _HOP_S * np.arange(at.shape[1]))
    return steady, np.square(np.abs((amplitude * back).sum(axis=1))) * (2 / seen.hop / at.shape[1])


def _whole(tone: Tone, seen: Spectrum) -> Tone:
    """A tone with those hops beside it in which it still sounds, loud speech or not."""
    before = _reach(tone, seen, range(tone.first - 1, -1, -1))
    after = _reach(tone, seen, range(tone.end, seen.energy.size))
    return replace(tone, first=tone.first - before, end=tone.end + after)


def _reach(tone: Tone, seen: Spectrum, hops: Sequence[int]) -> int:
    pair = [tone.key // 4, tone.key % 4 + 4]
    for count, hop in enumerate(hops):
        power = seen.power[pair, hop]
        if power.min() < _GOES_ON * tone.power or power.sum() < _GOES_ON_SHARE * seen.energy[hop]:
            return count
    return len(hops)


@cache
def _matrix(clock_hz: int) -> Floats:
    """Cosines, then negative sines, of the eight frequencies over a hop, float32[16, hop]."""
    time = np.arange(clock_hz * HOP_MS // 1000) / clock_hz
    turns = np.exp(-2j * np.pi * np.asarray(FREQUENCIES_HZ)[:, None] * time)
    return np.concatenate([turns.real, turns.imag]).astype(np.float32)
