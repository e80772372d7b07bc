"""The codecs that are decoded: how they are named in SDP, and at which rates they tick and sound. Pure.

Clock rate is that of RTP timestamps, sample rate that of the decoded audio. The two differ where history wants it:
RFC 3551 section 4.5.2 gives G.722, sampled at 16 kHz, a clock of 8,000 a second.

Agent and cloud both ask here, so that what the agent answers is what the cloud decodes. No numpy: the agent's SIP
process has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

WIDEBAND_HZ: Final = 16_000

_QUIET: Final = frozenset({"CN", "TELEPHONE-EVENT"})
_LEAST_L16_HZ, _MOST_L16_HZ = 8_000, 96_000
_L16_GRAIN_HZ: Final = 25
_MOST_CHANNELS: Final = 8


class Coding(Enum):
    """How samples are coded."""

    PCMA = auto()
    PCMU = auto()
    L16 = auto()
    G722 = auto()
    G729 = auto()
    OPUS = auto()


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as it was negotiated.

    Attributes:
        coding: How samples are coded.
        clock_hz: Rate of RTP timestamps.
        rate_hz: Rate of the decoded samples.
        channels: Of the coded audio; what is decoded has one, the mean of all.
    """

    coding: Coding
    clock_hz: int
    rate_hz: int
    channels: int = 1

    @property
    def is_wideband(self) -> bool:
        """Whether it carries more than a telephone's 4 kHz."""
        return self.rate_hz >= WIDEBAND_HZ


# REQ: RFC 3551 section 4.5.2: "even though the actual sampling rate for G.722 audio is 16,000 Hz, the RTP clock rate
# for the G722 payload format is 8,000 Hz". REQ: RFC 7587 section 4.1: the clock rate of Opus is always 48000.
_NAMED: Final = {
    ("PCMA", 8_000, 1): Codec(Coding.PCMA, 8_000, 8_000),
    ("PCMU", 8_000, 1): Codec(Coding.PCMU, 8_000, 8_000),
    ("G722", 8_000, 1): Codec(Coding.G722, 8_000, 16_000),
    ("G729", 8_000, 1): Codec(Coding.G729, 8_000, 8_000),
    ("OPUS", 48_000, 1): Codec(Coding.OPUS, 48_000, 48_000),
    ("OPUS", 48_000, 2): Codec(Coding.OPUS, 48_000, 48_000),
}

STATIC: Final = {
    0: _NAMED["PCMU", 8_000, 1],
    8: _NAMED["PCMA", 8_000, 1],
    9: _NAMED["G722", 8_000, 1],
    10: Codec(Coding.L16, 44_100, 44_100, 2),
    11: Codec(Coding.L16, 44_100, 44_100, 1),
    18: _NAMED["G729", 8_000, 1],
}
"""Payload types that mean the same everywhere unless a session says otherwise (RFC 3551 section 6)."""


def codec_of(name: str, clock_hz: int, channels: int) -> Codec | None:
    """The codec with an encoding name, clock rate and channels as in an ``a=rtpmap`` line.

    Args:
        name: Encoding name, in any case.
        clock_hz: Clock rate.
        channels: Channels, 1 if the line has none. Opus is always said to have two (RFC 7587 section 7).

    Returns:
        The codec; None if it is kept but not decoded.
    """
    upper = name.upper()
    if upper == "L16":
        known = _LEAST_L16_HZ <= clock_hz <= _MOST_L16_HZ and clock_hz % _L16_GRAIN_HZ == 0
        return Codec(Coding.L16, clock_hz, clock_hz, channels) if known and 1 <= channels <= _MOST_CHANNELS else None
    return _NAMED.get((upper, clock_hz, channels))


def is_quiet(name: str) -> bool:
    """Whether a format is silence on the timeline: comfort noise (RFC 3389), telephone events (RFC 4733)."""
    return name.upper() in _QUIET
