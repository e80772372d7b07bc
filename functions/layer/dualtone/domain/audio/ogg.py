"""Ogg pages that hold Opus (RFC 3533, RFC 7845): read one by one as an encoder writes them, and padded to one size.

The encoder runs at a variable rate, because that is both better and faster than a constant one at 24 kbit/s. What is
stored must not vary: sizes would show who spoke when. So the last packet of every page is padded, as RFC 6716 section
3.2.5 provides for, until all pages of a recording are equally long. Decoders ignore the padding. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

from dualtone.domain.errors import MalformedInput
from dualtone.domain.ogg_page import page_size

LEAST_PAGE_BYTES: Final = {8_000: 3328, 16_000: 4352}
"""By sample rate: 26.6 and 34.8 kbit/s. Hardly any second of speech needs more where the average is 24 or 32 kbit/s, so
hardly any recording differs."""

PAGE_QUANTUM: Final = 256
"""A recording that does need more is padded to a multiple of this."""

_FIXED: Final = 27
_FLAGS: Final = 5
_CONTINUED: Final = 1
_GRANULE: Final = slice(6, 14)
_CRC: Final = slice(22, 26)
_REVERSED: Final = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))
_ALL_ONES: Final = 0xFFFFFFFF
_SERIAL: Final = slice(14, 18)
_END_OF_STREAM: Final = 4
_LACE: Final = 255
_LONGEST_PAD: Final = 254
_MAX_SEGMENTS: Final = 255

# REQ: RFC 6716 section 3.1: the two low bits of the TOC octet are the code: 0 is one frame, 3 any number of frames.
_CODE: Final = 0x03
# REQ: RFC 6716 section 3.2.5: the frame count octet: bit 6 says that padding follows, the low six bits count frames.
_ONE_FRAME: Final = 0x01
_ONE_FRAME_PADDED: Final = 0x41

# REQ: RFC 6716 section 3.1, table 2: configuration 19 is CELT, narrowband, 20 ms; stereo; one frame.
# REQ: RFC 6716 section 4.3, table 56: the first symbol of a CELT frame says silence.
SILENT_PACKET: Final = b"\x9c\xff\xfe"
"""20 ms of digital silence on two channels, whatever was played before; whatever follows begins afresh."""

PACKET_TICKS: Final = 960
"""How long a packet of 20 ms is in ticks of the granule position, 48,000 a second (RFC 7845 section 4)."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page taken apart; one that ends every packet it begins, as all pages of ours do.

    Attributes:
        head: The 22 octets before the checksum.
        lacing: The segment table.
        body: The packets, one after the other.
    """

    head: bytes
    lacing: bytes
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Page:
        """Takes a page apart.

        Raises:
            MalformedInput: If it is not exactly one page, its checksum is wrong, or a packet goes on elsewhere.
        """
        if page_size(data) != len(data):
            raise MalformedInput("more than one Ogg page")
        if checksum(data[: _CRC.start], data[_CRC.stop :]) != data[_CRC]:
            raise MalformedInput("the checksum of an Ogg page is wrong")
        start = _FIXED + data[_FIXED - 1]
        page = cls(data[: _CRC.start], data[_FIXED:start], data[start:])
        if page.head[_FLAGS] & _CONTINUED or not page.lacing or page.lacing[-1] == _LACE:
            raise MalformedInput("a packet goes over the edge of an Ogg page")
        return page

    def encode(self) -> bytes:
        """Puts the page together, with its checksum.

        Raises:
            MalformedInput: If the packets do not fit one page.
        """
        if len(self.lacing) > _MAX_SEGMENTS:
            raise MalformedInput("too much for one Ogg page")
        rest = bytes([len(self.lacing)]) + self.lacing + self.body
        return self.head + checksum(self.head, rest) + rest

    @property
    def granule(self) -> int:
        """RFC 7845 section 4: samples of 48 kHz that are decodable with this page, pre-skip included."""
        return int.from_bytes(self.head[_GRANULE], "little", signed=True)

    @property
    def size_bytes(self) -> int:
        """How long the page is."""
        return _FIXED + len(self.lacing) + len(self.body)

    def packets(self) -> list[bytes]:
        """The packets of the page."""
        packets, position, length = [], 0, 0
        for lace in self.lacing:
            length += lace
            if lace != _LACE:
                packets.append(self.body[position : position + length])
                position, length = position + length, 0
        return packets

    def without_last(self) -> tuple[Page, bytes]:
        """The page without its last packet, which may leave it empty, and that packet."""
        segments = len(self.lacing) - 1
        while segments and self.lacing[segments - 1] == _LACE:
            segments -= 1
        cut = len(self.body) - sum(self.lacing[segments:])
        return Page(self.head, self.lacing[:segments], self.body[:cut]), self.body[cut:]

    def with_packet(self, packet: bytes) -> Page:
        """The page with one packet more."""
        lacing = b"\xff" * (len(packet) // _LACE) + bytes([len(packet) % _LACE])
        return Page(self.head, self.lacing + lacing, self.body + packet)


class PageReader:
    """Cuts what an encoder writes into pages, whatever the pieces in which it arrives."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes the next bytes; yields each page that is now whole. Raises MalformedInput if they are no pages."""
        self._rest += data
        while len(self._rest) >= _FIXED:
            segments = self._rest[_FIXED - 1]
            size = _FIXED + segments + sum(self._rest[_FIXED : _FIXED + segments])
            if self._rest[:4] != b"OggS":
                raise MalformedInput("not an Ogg page")
            if len(self._rest) < _FIXED + segments or len(self._rest) < size:
                return
            page, self._rest = self._rest[:size], self._rest[size:]
            yield page

    def close(self) -> None:
        """Says that nothing follows; raises MalformedInput if a page is cut off."""
        if self._rest:
            raise MalformedInput("an Ogg page that is not whole")


def checksum(head: bytes, rest: bytes) -> bytes:
    """The four octets between the first 22 of a page and the rest of it (RFC 3533 section 6, field 7).

    The polynomial is zlib's, but bits run the other way and nothing is inverted: so the octets are mirrored.
    """
    mirrored = b"".join((head, bytes(4), rest)).translate(_REVERSED)
    return (zlib.crc32(mirrored, _ALL_ONES) ^ _ALL_ONES).to_bytes(4, "big").translate(_REVERSED)


def is_header(page: bytes) -> bool:
    """Says whether a page holds OpusHead or OpusTags (RFC 7845 section 5)."""
    body = _FIXED + page[_FIXED - 1]
    return page[body : body + 8] in (b"OpusHead", b"OpusTags")


def silent_page(
    header_pages: bytes, *, number: int, granule: int, packets: int, is_last: bool, size_bytes: int
) -> bytes:
    """A page of silence that takes the place of one which can no longer be opened, so that the others play on.

    Args:
        header_pages: The stream's header pages, which name its serial number.
        number: The page's sequence number.
        granule: Its granule position.
        packets: How many packets of 20 ms it holds.
        is_last: Whether the stream ends with it.
        size_bytes: How long it must be.

    Raises:
        MalformedInput: If so many packets do not fit.
    """
    flags = bytes([_END_OF_STREAM if is_last else 0])
    head = b"OggS\0" + flags + granule.to_bytes(8, "little") + header_pages[_SERIAL] + number.to_bytes(4, "little")
    page = Page(head, b"", b"")
    for _ in range(packets):
        page = page.with_packet(SILENT_PACKET)
    if page.size_bytes > size_bytes:
        raise MalformedInput("a page of silence does not fit")
    return _padded(page, size_bytes).encode()


def pre_skip(header_pages: bytes) -> int:
    """How many ticks of the granule position precede the audio (RFC 7845 section 5.1); 0 if there is no OpusHead."""
    if len(header_pages) < _FIXED or not is_header(header_pages):
        return 0
    body = _FIXED + header_pages[_FIXED - 1]
    return int.from_bytes(header_pages[body + 10 : body + 12], "little")


class EqualPages(Sequence[bytes]):
    """The audio pages of a recording, all of one size, one behind the other in one piece of memory.

    The size is ``least_bytes``, or what the longest page needs. Each page holds the same packets for any decoder as the
    page that was added.
    """

    def __init__(self, pages: Iterable[bytes] = (), *, least_bytes: int = LEAST_PAGE_BYTES[8_000]) -> None:
        self._size = least_bytes
        self._data = bytearray()
        for page in pages:
            self.append(page)

    def append(self, page: bytes) -> None:
        """Adds a page, every packet of which holds one Opus frame; raises MalformedInput for any other."""
        if len(page) > self._size:
            before = list(self)
            self._size = len(page) + -len(page) % PAGE_QUANTUM
            self._data = bytearray()
            for earlier in before:
                self._data += _padded(Page.parse(earlier), self._size).encode()
        self._data += _padded(Page.parse(page), self._size).encode()

    def __len__(self) -> int:
        return len(self._data) // self._size

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self._size
        return bytes(self._data[start : start + self._size])


def _padded(page: Page, size: int) -> Page:
    rest, last = page.without_last()
    growth = _growth(len(last), size - page.size_bytes)
    if growth is not None:
        return rest.with_packet(pad_packet(last, growth))
    # Lacing adds an octet at each 255: the size just there cannot be reached with one packet, so another gives one.
    if not rest.lacing:
        raise MalformedInput("an Opus page that cannot be padded to the size of the others")
    others, last_but_one = rest.without_last()
    return _padded(others.with_packet(pad_packet(last_but_one, 1)).with_packet(last), size)


def _growth(length: int, missing: int) -> int | None:
    """By how much a packet must grow so that it and its lacing take ``missing`` octets more; None if it cannot."""
    total = length + length // _LACE + missing
    grown = total - total // (_LACE + 1)
    return grown - length if grown + grown // _LACE == total else None


def pad_packet(packet: bytes, octets: int) -> bytes:
    """Makes an Opus packet of one frame longer without changing what it decodes to (RFC 6716 section 3.2.5).

    Args:
        packet: Code 0, or code 3 with one frame, perhaps padded already.
        octets: By how many.

    Raises:
        MalformedInput: If it is not a packet of one frame.
    """
    if not octets:
        return packet
    toc, frame = _frame(packet)
    octets += len(packet) - 1 - len(frame)
    toc = bytes([toc[0] | _CODE])
    if octets == 1:
        return toc + bytes([_ONE_FRAME]) + frame
    counts = -(-(octets - 1) // (_LONGEST_PAD + 1))
    padding = octets - 1 - counts
    length = b"\xff" * (counts - 1) + bytes([padding - _LONGEST_PAD * (counts - 1)])
    return toc + bytes([_ONE_FRAME_PADDED]) + length + frame + bytes(padding)


def _frame(packet: bytes) -> tuple[bytes, bytes]:
    """The TOC octet and the one frame of a packet, without padding."""
    if packet and not packet[0] & _CODE:
        return packet[:1], packet[1:]
    match packet[1:2]:
        case b"\x01" if packet[0] & _CODE == _CODE:
            return packet[:1], packet[2:]
        case b"\x41" if packet[0] & _CODE == _CODE:
            start, padding = 2, 0
            while packet[start] == _LACE:
                start, padding = start + 1, padding + _LONGEST_PAD
            return packet[:1], packet[start + 1 : len(packet) - padding - packet[start]]
        case _:
            raise MalformedInput("not an Opus packet of one frame")
