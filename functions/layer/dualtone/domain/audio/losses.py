"""What was lost while an agent did not run: declared widely by the agent, tightened here by what came. Pure.

An agent that starts again knows when it sealed the last record before and when it received again. What of the span
between them was received after all, because it had reached the disk, is no loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dualtone.domain.call_files import GapEntry
from dualtone.domain.media_record import StreamBlock


class Losses:
    """Follows the packets of a call, to tell what of declared losses was really lost."""

    def __init__(self, declared: Sequence[GapEntry]) -> None:
        """Takes the losses as they were declared."""
        self._declared = declared
        self._received: list[list[npt.NDArray[np.int64]]] = [[] for _ in declared]

    def noting(self, blocks: Iterable[StreamBlock]) -> Iterator[StreamBlock]:
        """Takes notice of packets, and yields them as they are."""
        for block in blocks:
            if self._declared:
                self._note(block)
            yield block

    def _note(self, block: StreamBlock) -> None:
        for gap, received in zip(self._declared, self._received, strict=True):
            if gap.stream == block.stream and block.arrival_us.size:
                within = block.arrival_us[(block.arrival_us >= gap.from_us) & (block.arrival_us <= gap.to_us)]
                if within.size:
                    received.append(within)

    def tightened(self) -> list[GapEntry]:
        """The losses: of each, the longest time within it in which nothing came."""
        return [self._longest(gap, received) for gap, received in zip(self._declared, self._received, strict=True)]

    @staticmethod
    def _longest(gap: GapEntry, received: Sequence[npt.NDArray[np.int64]]) -> GapEntry:
        moments = np.sort(np.concatenate([np.array([gap.from_us, gap.to_us], np.int64), *received]))
        place = int(np.argmax(np.diff(moments)))
        return GapEntry(gap.stream, int(moments[place]), int(moments[place + 1]), gap.cause)
