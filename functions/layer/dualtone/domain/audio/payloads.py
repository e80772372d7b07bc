"""What the RTP payload types of a stream mean over time: which codec decodes them, or none. Pure.

Payload types of RFC 3551 section 6 have their static meaning until the manifest says otherwise. A type that is neither
static nor declared cannot be decoded by anyone; it is kept out of the audio and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import codecs
from dualtone.domain.audio.codecs import Codec
from dualtone.domain.call_files import StreamFormat

Kinds = npt.NDArray[np.uint8]
"""What packets carry: one of the three below, or from ``FIRST_CODEC`` on a codec's place in the table."""

UNDECLARED: Final = 0
QUIET: Final = 1
"""Comfort noise or telephone events: silence on the timeline."""
RAW: Final = 2
"""A codec that this version keeps but does not decode."""
FIRST_CODEC: Final = 3

_COMFORT_NOISE: Final = 13
_PAYLOAD_TYPES: Final = 128


class PayloadTable:
    """The payload types of one stream.

    Attributes:
        codings: Those that were declared and can be decoded.
    """

    def __init__(self, formats: Sequence[StreamFormat]) -> None:
        """Reads what the manifest declares.

        A type counts as declared from the beginning with its first meaning: packets overtake the signalling.

        Args:
            formats: The stream's formats in any order.
        """
        self._codecs: list[Codec] = []
        table = np.full(256, UNDECLARED, np.uint8)
        table[_COMFORT_NOISE] = QUIET
        for payload_type, codec in codecs.STATIC.items():
            table[payload_type] = self._place(codec)
        ordered = sorted(formats, key=lambda entry: entry.from_us)
        for entry in reversed(ordered):
            table[entry.payload_type % _PAYLOAD_TYPES] = self._kind(entry)
        kinds = {self._kind(entry) for entry in ordered}
        self.codings = frozenset(self.codec(kind).coding for kind in kinds if kind >= FIRST_CODEC)
        self._changes: list[tuple[int, Kinds]] = [(0, table)]
        for entry in ordered:
            latest = self._changes[-1][1]
            if latest[entry.payload_type % _PAYLOAD_TYPES] != self._kind(entry):
                changed = latest.copy()
                changed[entry.payload_type % _PAYLOAD_TYPES] = self._kind(entry)
                self._changes.append((entry.from_us, changed))

    def kinds(self, payload_type: npt.NDArray[np.uint8], arrival_us: npt.NDArray[np.int64]) -> Kinds:
        """Says what each packet carries.

        Args:
            payload_type: uint8[n].
            arrival_us: int64[n], Unix time in microseconds.

        Returns:
            uint8[n].
        """
        kinds: Kinds = self._changes[0][1][payload_type]
        for from_us, table in self._changes[1:]:
            later = arrival_us >= from_us
            kinds[later] = table[payload_type[later]]
        return kinds

    def codec(self, kind: int) -> Codec:
        """The codec that a kind from ``FIRST_CODEC`` on stands for."""
        return self._codecs[kind - FIRST_CODEC]

    def _kind(self, entry: StreamFormat) -> int:
        if codecs.is_quiet(entry.codec):
            return QUIET
        codec = codecs.codec_of(entry.codec, entry.clock_hz, entry.channels)
        return RAW if codec is None else self._place(codec)

    def _place(self, codec: Codec) -> int:
        if codec not in self._codecs:
            self._codecs.append(codec)
        return FIRST_CODEC + self._codecs.index(codec)
