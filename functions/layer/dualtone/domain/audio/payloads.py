"""What the RTP payload types of a stream mean over time: which law decodes them, or none. Pure.

Payload types 0, 8 and 13 have their static meaning (RFC 3551 section 6) until the manifest says otherwise. A type that
is neither static nor declared cannot be decoded by anyone; it is kept out of the audio and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.g711 import CLOCK_HZ, Law
from dualtone.domain.call_files import StreamFormat


class Kind(IntEnum):
    """What a packet carries, as far as the timeline is concerned."""

    UNDECLARED = 0
    A_LAW = Law.A
    MU_LAW = Law.MU
    QUIET = 3
    """Comfort noise (RFC 3389) or telephone events (RFC 4733): silence on the timeline."""
    RAW = 4
    """A codec that this version keeps but does not decode."""


Kinds = npt.NDArray[np.uint8]

_QUIET_CODECS: Final = frozenset({"CN", "TELEPHONE-EVENT"})
_LAWS: Final = {"PCMA": Kind.A_LAW, "PCMU": Kind.MU_LAW}
_PAYLOAD_TYPES: Final = 128


class PayloadTable:
    """The payload types of one stream."""

    def __init__(self, formats: Sequence[StreamFormat]) -> None:
        """Reads what the manifest declares.

        A type counts as declared from the beginning with its first meaning: packets overtake the signalling.

        Args:
            formats: The stream's formats in any order.
        """
        table = np.full(256, Kind.UNDECLARED, np.uint8)
        table[[0, 8, 13]] = Kind.MU_LAW, Kind.A_LAW, Kind.QUIET
        ordered = sorted(formats, key=lambda entry: entry.from_us)
        for entry in reversed(ordered):
            table[entry.payload_type % _PAYLOAD_TYPES] = _kind(entry)
        self._changes: list[tuple[int, Kinds]] = [(0, table)]
        for entry in ordered:
            latest = self._changes[-1][1]
            if latest[entry.payload_type % _PAYLOAD_TYPES] != _kind(entry):
                changed = latest.copy()
                changed[entry.payload_type % _PAYLOAD_TYPES] = _kind(entry)
                self._changes.append((entry.from_us, changed))

    def kinds(self, payload_type: npt.NDArray[np.uint8], arrival_us: npt.NDArray[np.int64]) -> Kinds:
        """Says what each packet carries.

        Args:
            payload_type: uint8[n].
            arrival_us: int64[n], Unix time in microseconds.

        Returns:
            uint8[n] of ``Kind``.
        """
        kinds: Kinds = self._changes[0][1][payload_type]
        for from_us, table in self._changes[1:]:
            later = arrival_us >= from_us
            kinds[later] = table[payload_type[later]]
        return kinds


def _kind(entry: StreamFormat) -> Kind:
    codec = entry.codec.upper()
    if codec in _QUIET_CODECS:
        return Kind.QUIET
    if entry.clock_hz == CLOCK_HZ and entry.channels == 1:
        return _LAWS.get(codec, Kind.RAW)
    return Kind.RAW
