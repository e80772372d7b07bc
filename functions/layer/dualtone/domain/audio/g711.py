"""ITU-T G.711: A-law and mu-law to 16-bit linear samples by table. Pure.

A whole window of a stream is decoded at once; the table is indexed by two octets at a time, which halves the work.
Samples come at 8,000 a second, one octet each.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

CLOCK_HZ: Final = 8000

Octets = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]

_SIGN: Final = 0x80
_SEGMENT: Final = 0x70
_STEP: Final = 0x0F


class Law(IntEnum):
    """Which of the two companding laws."""

    A = 1
    MU = 2


def decode(law: Law, octets: Octets) -> Samples:
    """Expands octets to samples.

    Args:
        law: The companding law.
        octets: uint8[n], contiguous.

    Returns:
        int16[n]: A-law scaled from 13 to 16 bits, mu-law from 14 to 16 bits.
    """
    even = octets.size & ~1
    samples = np.empty(octets.size, np.int16)
    if even:
        pairs = octets[:even].view(np.uint16)
        np.take(_PAIRS[law], pairs, out=samples[:even].view(np.uint32), mode="clip")
    if even != octets.size:
        samples[-1] = _SINGLE[law][octets[-1]]
    return samples


def encode(law: Law, samples: Samples) -> Octets:
    """Compresses samples to octets.

    Args:
        law: The companding law.
        samples: int16[n].

    Returns:
        uint8[n]: for each sample the code in whose interval it lies, by the decision values of ITU-T G.711.
    """
    return _CODES[law][samples.view(np.uint16)]


def _a_law() -> Samples:
    """Table of ITU-T G.711 (11/88), table 1a/1b: even bits inverted, seven chords of 16 steps, symmetric about zero."""
    code = np.arange(256) ^ 0x55
    segment = (code & _SEGMENT) >> 4
    step = (code & _STEP) << 4
    magnitude = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & _SIGN, magnitude, -magnitude).astype(np.int16)


def _mu_law() -> Samples:
    """Table of ITU-T G.711 (11/88), table 2a/2b: all bits inverted, bias 33 (0x84 at 16 bits), eight chords."""
    code = np.arange(256) ^ 0xFF
    magnitude = ((((code & _STEP) << 3) + 0x84) << ((code & _SEGMENT) >> 4)) - 0x84
    return np.where(code & _SIGN, -magnitude, magnitude).astype(np.int16)


def _pairs(single: Samples) -> npt.NDArray[np.uint32]:
    """Two octets as one 16-bit index give two samples as one 32-bit value, in whatever order the machine keeps them."""
    return single[np.arange(1 << 16, dtype=np.uint16).view(np.uint8)].view(np.uint32)


def _codes(law: Law, single: Samples) -> Octets:
    """The code of every 16-bit sample, indexed by the sample's bits as an unsigned number.

    A code's interval reaches half its own step to either side of its value; where a chord ends that is not midway to
    the next value. A sample on a decision value belongs to the interval above it.
    """
    segment = ((np.arange(256) ^ (0x55 if law is Law.A else 0xFF)) & _SEGMENT) >> 4
    half_step = 8 << np.maximum(segment - 1, 0) if law is Law.A else 4 << segment
    order = np.argsort(single, kind="stable")
    levels = single[order].astype(np.int32)
    decisions = np.minimum(levels[:-1] + half_step[order][:-1], levels[1:])  # mu-law has two zeros: no interval between
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
    return order[np.searchsorted(decisions, samples, side="right")].astype(np.uint8)


_SINGLE: Final[dict[Law, Samples]] = {Law.A: _a_law(), Law.MU: _mu_law()}
_PAIRS: Final = {law: _pairs(table) for law, table in _SINGLE.items()}
_CODES: Final = {law: _codes(law, table) for law, table in _SINGLE.items()}
