"""How a stream arrived: packets received and lost (RFC 3550 appendix A), interarrival jitter (section 6.4.1). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.positions import TICKS_HZ

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
        damaged: Packets that are not well-formed for their codec: silence in their place.
    """

    def __init__(self, gaps: Sequence[tuple[int, int]] = ()) -> None:
        """Begins to count.

        Args:
            gaps: The stream's declared gaps, positions from and to: what is missing there is not lost.
        """
        self._gaps = gaps
        self._highest: dict[int, tuple[int, int]] = {}
        self._delay: dict[int, int] = {}
        self._jitter: dict[int, float] = {}
        self._jitter_sum = 0.0
        self._jitter_terms = 0
        self.packets = 0
        self.lost = 0
        self.duplicates = 0
        self.damaged = 0

    @property
    def jitter_ms(self) -> float:
        """Mean of the interarrival jitter estimate over all packets, milliseconds."""
        return 1000 / TICKS_HZ * self._jitter_sum / self._jitter_terms if self._jitter_terms else 0.0

    def sequence(self, ssrc: int, sequence: npt.NDArray[np.uint16], position: Positions) -> None:
        """Counts packets by their sequence numbers.

        Args:
            ssrc: Their source; sources number independently.
            sequence: uint16[n], in the order of sending.
            position: int64[n], each packet's place on the timeline.
        """
        numbers, places = sequence.astype(np.int64), position
        if (highest := self._highest.get(ssrc)) is not None:
            numbers, places = np.concatenate(([highest[0]], numbers)), np.concatenate(([highest[1]], places))
        # RFC 3550 appendix A.1: the step modulo 2**16 that is nearest to zero.
        steps = (np.diff(numbers) + 0x8000) % 0x10000 - 0x8000
        steps[(steps > _MAX_DROPOUT) | (steps < -_MAX_MISORDER)] = 1
        extended = np.concatenate(([0], np.cumsum(steps)))
        leading = np.maximum.accumulate(extended)
        ahead = np.diff(leading)
        duplicates = int(np.count_nonzero(extended[1:] == leading[:-1]))
        late = int(np.count_nonzero(extended[1:] < leading[:-1]))
        # A packet that comes late was counted as missing when its successor came.
        missing = sum(
            int(ahead[jump]) - 1
            for jump in np.flatnonzero(ahead > 1).tolist()
            if not self._declared(int(places[jump]), int(places[jump + 1]))
        )
        self.duplicates += duplicates
        self.packets += int(sequence.size) - duplicates
        self.lost = max(0, self.lost + missing - late)
        last = int(np.flatnonzero(extended == leading[-1])[0])
        self._highest[ssrc] = int(numbers[last]), int(places[last])

    def jitter(self, ssrc: int, delay: Positions) -> None:
        """Follows the jitter estimate of a source.

        Args:
            ssrc: The source.
            delay: int64[n], arrival minus place on the timeline, ticks: RFC 3550's R - S but for a constant.
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
