"""An Ogg stream of Opus packets as they came by RTP, for a decoder to read (RFC 3533, RFC 7845). Pure.

The stream has no holes: granule positions count what was written. Where in a recording it is heard is not its matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from dualtone.domain.audio.ogg import Page

_FIRST: Final = 2
_SEGMENTS: Final = 255
_LACE: Final = 255
_SERIAL: Final = 1
_HEAD: Final = struct.Struct("<4sBBqII")
# REQ: RFC 7845 section 5.1: version 1, one channel, no pre-skip, input rate 48 kHz, no gain, mapping family 0.
_OPUS_HEAD: Final = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, 48_000, 0, 0)
# REQ: RFC 7845 section 5.2: an empty vendor string, and no comments.
_OPUS_TAGS: Final = b"OpusTags" + bytes(8)


class OggStream:
    """Writes one stream of one channel; packets of two are mixed down by the decoder."""

    def __init__(self) -> None:
        self._pages = 0
        self._granule = 0

    def write(self, packets: Iterable[tuple[bytes, int]]) -> bytes:
        """The pages of the next packets, the first time with the header pages before them.

        Args:
            packets: Well-formed packets, and how long each plays in samples of 48 kHz.

        Returns:
            Whole pages, each as full as may be; every packet ends in the page in which it begins.
        """
        written = bytearray()
        if not self._pages:
            written += self._page([_OPUS_HEAD]) + self._page([_OPUS_TAGS])
        gathered: list[bytes] = []
        segments = 0
        for packet, ticks in packets:
            needed = len(packet) // _LACE + 1
            if segments + needed > _SEGMENTS:
                written += self._page(gathered)
                gathered, segments = [], 0
            gathered.append(packet)
            segments += needed
            self._granule += ticks
        return bytes(written + self._page(gathered) if gathered else written)

    def _page(self, packets: Iterable[bytes]) -> bytes:
        lacing, body = bytearray(), bytearray()
        for packet in packets:
            lacing += b"\xff" * (len(packet) // _LACE) + bytes([len(packet) % _LACE])
            body += packet
        flags = 0 if self._pages else _FIRST
        head = _HEAD.pack(b"OggS", 0, flags, self._granule, _SERIAL, self._pages)
        self._pages += 1
        return Page(head, bytes(lacing), bytes(body)).encode()
