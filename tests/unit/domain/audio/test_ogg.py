"""Ogg pages and Opus padding: read in any pieces, equally long, and the same for any decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio import ogg
from dualtone.domain.audio.ogg import LEAST_PAGE_BYTES, EqualPages, Page, PageReader
from dualtone.domain.errors import MalformedInput

HEAD = b"OggS\x00\x00" + (48_000).to_bytes(8, "little") + bytes(8)
packet_strategy = st.binary(min_size=1, max_size=600).map(lambda data: bytes([data[0] & 0xFC]) + data[1:])


def page_of(packets: list[bytes]) -> bytes:
    page = Page(HEAD, b"", b"")
    for packet in packets:
        page = page.with_packet(packet)
    return page.encode()


def frame(packet: bytes) -> bytes:
    """A decoder's view of a packet: RFC 6716 sections 3.1 and 3.2.5, written down a second time."""
    toc, code = packet[0], packet[0] & 3
    if code == 0:
        return bytes([toc]) + packet[1:]
    assert code == 3
    count = packet[1]
    assert count & 0x3F == 1
    at, padding = 2, 0
    if count & 0x40:
        while True:
            value, at = packet[at], at + 1
            padding += 254 if value == 255 else value
            if value != 255:
                break
    assert not any(packet[len(packet) - padding :])
    return bytes([toc & 0xFC]) + packet[at : len(packet) - padding]


def test_a_checksum_of_the_real_world() -> None:
    """The OpusHead page that ffmpeg writes."""
    page = bytes.fromhex("4f67675300020000000000000000000000000000000 07a44b4ef0113".replace(" ", "")) + bytes.fromhex(
        "4f707573486561640102380140 1f0000000000".replace(" ", "")
    )
    assert Page.parse(page).encode() == page
    assert ogg.is_header(page)
    with pytest.raises(MalformedInput):
        Page.parse(page[:-1] + b"\x01")


@given(packets=st.lists(packet_strategy, min_size=1, max_size=40), piece=st.integers(1, 5000))
def test_pages_are_found_in_any_pieces(packets: list[bytes], piece: int) -> None:
    """And packets in pages."""
    pages = [page_of([packet]) for packet in packets]
    stream, reader = b"".join(pages), PageReader()
    found: list[bytes] = []
    for at in range(0, len(stream), piece):
        found += reader.feed(stream[at : at + piece])
    reader.close()
    assert found == pages
    assert [Page.parse(page).packets() for page in found] == [[packet] for packet in packets]


@given(packet=packet_strategy, octets=st.integers(0, 2000), more=st.integers(0, 600))
def test_padding_is_exact_and_invisible(packet: bytes, octets: int, more: int) -> None:
    """To any length, also a second time."""
    padded = ogg.pad_packet(ogg.pad_packet(packet, octets), more)
    assert len(padded) == len(packet) + octets + more
    assert frame(padded) == frame(packet)


@given(
    st.lists(st.lists(packet_strategy, min_size=2, max_size=50).filter(lambda p: sum(map(len, p)) < 9000), max_size=8)
)
def test_pages_become_equally_long(recording: list[list[bytes]]) -> None:
    """The same frames, the same granule positions, one size; a longer page makes the earlier ones longer too."""
    pages = [page_of(packets) for packets in recording]
    equal = EqualPages(pages)
    assert len(equal) == len(pages)
    assert len({len(page) for page in equal}) <= 1
    assert all(len(page) >= LEAST_PAGE_BYTES[8000] for page in equal)
    for page, packets in zip(equal, recording, strict=True):
        parsed = Page.parse(page)
        assert [frame(packet) for packet in parsed.packets()] == [frame(packet) for packet in packets]
        assert parsed.granule == 48_000


@pytest.mark.parametrize("length", range(200, 900))
def test_a_page_of_one_packet_reaches_the_size_too(length: int) -> None:
    """The last page of a recording may hold a single packet."""
    (page,) = EqualPages([page_of([b"\x08" + bytes(length)])])
    assert len(page) == LEAST_PAGE_BYTES[8000]


@pytest.mark.parametrize(
    "data",
    [b"", b"OggX" + bytes(40), page_of([b"\x08ab"])[:-1], page_of([b"\x08ab"]) * 2, page_of([b"\x09ab"])],
    ids=["empty", "no page", "cut", "two", "two frames in a packet"],
)
def test_other_things_are_malformed(data: bytes) -> None:
    """Nothing else is ever padded."""
    with pytest.raises(MalformedInput):
        EqualPages([data])


def test_a_stream_that_is_cut_or_no_stream_is_noticed() -> None:
    """An encoder that died leaves half a page."""
    reader = PageReader()
    list(reader.feed(page_of([b"\x08ab"])[:-1]))
    with pytest.raises(MalformedInput):
        reader.close()
    with pytest.raises(MalformedInput):
        list(PageReader().feed(b"not ogg" * 10))


HEADERS = page_of([b"OpusHead\x01\x02\x38\x01" + bytes(7)]) + page_of([b"OpusTags"])


@pytest.mark.parametrize(("packets", "is_last"), [(50, False), (50, True), (26, True), (1, True)])
@pytest.mark.parametrize("size_bytes", [LEAST_PAGE_BYTES[8000], 3584, 6144])
def test_a_silent_page_takes_the_place_of_any(packets: int, *, is_last: bool, size_bytes: int) -> None:
    """Size, number, granule position, serial number and checksum are as asked for, and every packet says silence."""
    page = ogg.silent_page(
        HEADERS, number=9, granule=960 * packets, packets=packets, is_last=is_last, size_bytes=size_bytes
    )
    parsed = Page.parse(page)
    assert (len(page), parsed.granule, parsed.encode()) == (size_bytes, 960 * packets, page)
    assert (parsed.head[5], int.from_bytes(parsed.head[18:22], "little")) == (4 if is_last else 0, 9)
    assert parsed.head[14:18] == HEADERS[14:18]
    assert [frame(packet) for packet in parsed.packets()] == [frame(ogg.SILENT_PACKET)] * packets


def test_silence_that_does_not_fit_is_refused() -> None:
    """No page of ours is that short."""
    with pytest.raises(MalformedInput):
        ogg.silent_page(HEADERS, number=2, granule=48_000, packets=50, is_last=False, size_bytes=100)


def test_the_pre_skip_is_read_from_the_header() -> None:
    """REQ: RFC 7845 section 5.1: octets 10 and 11 of OpusHead, little-endian."""
    assert ogg.pre_skip(HEADERS) == 312
    assert ogg.pre_skip(page_of([b"\x08ab"])) == ogg.pre_skip(b"") == 0
