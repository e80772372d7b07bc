"""How a stream arrived: packets received and lost (RFC 3550 appendix A), interarrival jitter (section 6.4.1). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.g711 import CLOCK_HZ

Positions = npt.NDArray[np.int64]

# REQ: RFC 3550 appendix A.1: a jump of more than MAX_DROPOUT ahead or MAX_MISORDER back is a restart, not a loss.
_MAX_DROPOUT: Final = 3000
_MAX_MISORDER: Final = 100
_GAIN: Final = 1 / 16
_BLOCK: Final = 256


_DECAY: Final = (1 - _GAIN) ** np.arange(1, _BLOCK + 1)
"""What is left of an estimate after so many packets. 256 packets leave a ten-millionth: doubles bear that easily."""


class Reception:
    """Counts one stream, window by window.

    Attributes:
        packets: Packets received, duplicates left out.
        lost: Packets that sequence numbers promise and that never came, those inside declared gaps left out.
        duplicates: Packets that came more than once in what was kept.
    """

    def __init__(self, gaps: Sequence[tuple[int, int]] = ()) -> None:
        """Begins to count.

        Args:
            gaps: The stream's declared gaps, positions from and to: what is missing there is not lost.
        """
        self._gaps = gaps
        self._last: dict[int, tuple[int, int]] = {}
        self._delay: dict[int, int] = {}
        self._jitter: dict[int, float] = {}
        self._jitter_sum = 0.0
        self._jitter_terms = 0
        self.packets = 0
        self.lost = 0
        self.duplicates = 0

    @property
    def jitter_ms(self) -> float:
        """Mean of the interarrival jitter estimate over all packets, milliseconds."""
        return 1000 / CLOCK_HZ * self._jitter_sum / self._jitter_terms if self._jitter_terms else 0.0

    def sequence(self, ssrc: int, sequence: npt.NDArray[np.uint16], position: Positions) -> None:
        """Counts packets by their sequence numbers.

        Args:
            ssrc: Their source; sources number independently.
            sequence: uint16[n], in the order of sending.
            position: int64[n], each packet's place on the timeline.
        """
        before = self._last.get(ssrc)
        numbers = sequence.astype(np.int64)
        places = position
        if before is not None:
            numbers = np.concatenate(([before[0]], numbers))
            places = np.concatenate(([before[1]], places))
        self._last[ssrc] = int(numbers[-1]), int(places[-1])
        # RFC 3550 appendix A.1: the step modulo 2**16 that is nearest to zero.
        steps = (np.diff(numbers) + 0x8000) % 0x10000 - 0x8000
        duplicates = int(np.count_nonzero(steps == 0))
        self.duplicates += duplicates
        self.packets += int(sequence.size) - duplicates
        late = int(np.count_nonzero((steps < 0) & (steps >= -_MAX_MISORDER)))
        missing = 0
        for jump in np.flatnonzero((steps > 1) & (steps <= _MAX_DROPOUT)).tolist():
            if not self._declared(int(places[jump]), int(places[jump + 1])):
                missing += int(steps[jump]) - 1
        # A packet that comes late was counted as missing when its successor came.
        self.lost = max(0, self.lost + missing - late)

    def jitter(self, ssrc: int, delay: Positions) -> None:
        """Follows the jitter estimate of a source.

        Args:
            ssrc: The source.
            delay: int64[n], arrival minus place on the timeline, samples: RFC 3550's R - S but for a constant.
        """
        if not delay.size:
            return
        previous = self._delay.get(ssrc, int(delay[0]))
        self._delay[ssrc] = int(delay[-1])
        deviation = np.abs(np.diff(delay, prepend=previous)).astype(np.float64)
        # J += (|D| - J) / 16 unrolled: each |D| enters with the gain and decays from then on.
        padded = np.pad(deviation, (0, -deviation.size % _BLOCK)).reshape(-1, _BLOCK)
        blocks = np.cumsum(padded * (_GAIN / _DECAY), axis=1) * _DECAY
        estimate = self._jitter.get(ssrc, 0.0)
        for number, block in enumerate(blocks):
            whole = min(_BLOCK, deviation.size - number * _BLOCK)
            block += estimate * _DECAY  # noqa: PLW2901 - in place, the row belongs to this function
            self._jitter_sum += float(block[:whole].sum())
            estimate = float(block[whole - 1])
        self._jitter[ssrc] = estimate
        self._jitter_terms += deviation.size

    def _declared(self, from_position: int, to_position: int) -> bool:
        """Says whether most of a span lies in one declared gap."""
        length = max(1, to_position - from_position)
        return any(2 * (min(to, to_position) - max(frm, from_position)) > length for frm, to in self._gaps)
