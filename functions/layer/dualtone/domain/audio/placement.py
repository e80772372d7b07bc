"""Where the packets of one RTP source belong on the recording's timeline. Pure.

Two clocks tell when a packet's first sample was spoken: the RTP timestamp, exact but counted from an arbitrary origin,
and the arrival time, late by a varying delay but common to all streams. A source is *anchored*: an offset turns its
timestamps into time of arrival. The anchor is the first packet, or, if packets of the first second came with less
delay, the fastest of them, since nothing arrives before it was spoken. Everything after follows the timestamps, sample
for sample, whatever the jitter (RFC 3550 section 5.1: the timestamp reflects the sampling instant).

A source is anchored again when timestamps and arrival disagree by more than 200 ms and go on disagreeing for a second:
a restarted encoder, a hold during which the timestamps stood still. Packets that a stalled network delivers late in a
burst agree again within that second, and are placed by their timestamps.

No two clocks run alike: at 50 ppm two telephones are 20 ms apart after seven minutes. So the fastest packet of every
minute is compared with that of the first; once they differ by 10 ms the source slips by 10 ms, where it is quietest.
Two legs whose clocks are 100 ppm off, one fast and one slow, so stay within 32 ms of each other.

All positions of a source are in units of its own clock since the call's origin: 8,000 a second for telephones, 48,000
for Opus. Timestamps wrap at 2**32 and are only ever compared modulo that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.positions import TICKS_HZ

Positions = npt.NDArray[np.int64]

TOLERANCE: Final = TICKS_HZ // 5
"""By how much the two clocks may disagree, in ticks like all that follows: 200 ms."""

LOOK_AHEAD: Final = TICKS_HZ
"""How long a disagreement must last to be believed, and from how long a beginning the anchor is taken: one second."""

SLIP: Final = TICKS_HZ // 100
"""By how much a source is moved at once when its clock has drifted so far: 10 ms."""

_STEADY: Final = 50
_JITTER_WORTH_CORRECTING: Final = TICKS_HZ // 100
LONGEST_BURST: Final = 10 * TICKS_HZ
"""How late a packet may be and still be placed by its timestamp: ten seconds."""
_WRAP: Final = 1 << 32
_HALF: Final = 1 << 31


@dataclass(slots=True)
class Anchor:
    """How a source's timestamps become positions, and what became of it so far.

    Attributes:
        clock_hz: Rate of the source's timestamps, and of its positions.
        offset: Arrival position minus timestamp, modulo 2**32; None before the first packet.
        anchored: How many times the source was anchored.
    """

    clock_hz: int = TICKS_HZ
    offset: int | None = None
    anchored: int = 0
    _fastest: int | None = None

    def place(self, timestamp: npt.NDArray[np.uint32], arrival: Positions) -> Positions:
        """Places packets, anchoring the source first and again where needed.

        Args:
            timestamp: uint32[n], in the order of sending.
            arrival: int64[n], arrival as a position.

        Returns:
            int64[n], the position of each packet's first sample.
        """
        delay = (arrival - timestamp) % _WRAP
        position = np.empty_like(arrival)
        start = 0
        while start < delay.size:
            if self.offset is None:
                self.offset = self._offset(delay[start:], arrival[start:])
                self.anchored += 1
                self._fastest = None
            late = _signed(delay[start:] - self.offset)
            position[start:] = arrival[start:] - late
            astray = np.flatnonzero(np.abs(late) > self._own(TOLERANCE))
            if not astray.size:
                break
            first = int(astray[0])
            following = arrival[start + first :] <= arrival[start + first] + self._own(LOOK_AHEAD)
            agrees = following & (np.abs(late[first:]) <= self._own(TOLERANCE))
            if not agrees.any():
                self.offset = None
                start += first
                continue
            strays = slice(start + first, start + first + int(np.argmax(agrees)))
            position[strays] = self._stray(position[strays], arrival[strays])
            start = strays.stop
        return position

    def drift(self, late: Positions) -> int:
        """Compares a window with the first one since the source was anchored.

        Args:
            late: int64[n], arrival minus place of the window's packets.

        Returns:
            By how much the source should slip from somewhere in this window on: 0, or 10 ms to either side.
        """
        if late.size < _STEADY:
            return 0
        fastest = int(late.min())
        if self._fastest is None:
            self._fastest = fastest
        drifted, step = fastest - self._fastest, self._own(SLIP)
        return 0 if abs(drifted) < step else step if drifted > 0 else -step

    def slip(self, units: int) -> None:
        """Moves what follows by so many units of the clock."""
        if self.offset is not None:
            self.offset += units

    def _own(self, ticks: int) -> int:
        return ticks * self.clock_hz // TICKS_HZ

    def _offset(self, delay: npt.NDArray[np.int64], arrival: Positions) -> int:
        look_ahead = self._own(LOOK_AHEAD)
        relative = _signed(delay[arrival <= arrival[0] + look_ahead] - delay[0])
        plausible = relative[np.abs(relative) <= look_ahead]
        fastest = int(plausible.min())
        return int(delay[0]) + (fastest if fastest < -self._own(_JITTER_WORTH_CORRECTING) else 0)

    def _stray(self, position: Positions, arrival: Positions) -> Positions:
        """A packet can be late by as long as a network may stall, not early: without that excuse arrival decides."""
        late = arrival - position
        return np.where((late >= 0) & (late <= self._own(LONGEST_BURST)), position, arrival)


def _signed(difference: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The difference modulo 2**32 that is nearest to zero."""
    return (difference + _HALF) % _WRAP - _HALF
