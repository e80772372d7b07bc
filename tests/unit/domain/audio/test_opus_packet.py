"""The outside of Opus packets: how long they play, and which are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio import opus_packet

FRAME = bytes(10)


@pytest.mark.parametrize(
    ("packet", "ticks"),
    [
        (b"\x08" + FRAME, 960),  # SILK, 20 ms
        (b"\x18" + FRAME, 2880),  # SILK, 60 ms
        (b"\x68" + FRAME, 960),  # hybrid, 20 ms
        (b"\x80" + FRAME, 120),  # CELT, 2.5 ms
        (b"\xf9" + FRAME, 1920),  # two CELT frames of one size
        (b"\x0a\x03" + FRAME, 1920),  # two SILK frames, the first of three octets
        (b"\x0a\xfc\x01" + bytes(260), 1920),  # a length in two octets: 252 + 4
        (b"\x0b\x02" + FRAME, 1920),  # two of one size by their number
        (b"\x0b\x83\x01\x02" + FRAME, 2880),  # three of different sizes
        (b"\x0b\x41\x02" + FRAME + bytes(2), 960),  # padded by two octets
        (b"\x0b\x41\xff\x00" + FRAME + bytes(254), 960),  # padded by 254
        (b"\x08", 960),  # nothing is transmitted
        (b"\x80" + bytes(1275), 120),
        (b"", None),
        (b"\x09" + bytes(3), None),  # two frames of one size in three octets
        (b"\x0a", None),
        (b"\x0a\xfc", None),
        (b"\x0a\x09" + bytes(5), None),
        (b"\x0b", None),
        (b"\x0b\x00", None),  # no frames
        (b"\x0b\x07" + bytes(7), None),  # 140 ms
        (b"\x0b\x41\xff", None),
        (b"\x0b\x41\x20" + FRAME, None),  # more padding than there is
        (b"\x0b\x83\x01", None),
        (b"\x80" + bytes(1276), None),
    ],
)
def test_packets(packet: bytes, ticks: int | None) -> None:
    """REQ: RFC 6716 section 3.4: each rule [R1] to [R7] that a packet must keep."""
    assert opus_packet.ticks(packet) == ticks


@pytest.mark.parametrize(
    ("packet", "empty"),
    [(b"\x08", True), (b"\x09", True), (b"\x0b\x03", True), (b"\x0a\x00", True), (b"\x08\x00", False)],
)
def test_what_transmits_nothing(packet: bytes, *, empty: bool) -> None:
    """All frames are empty."""
    assert opus_packet.is_discontinuous(packet) is empty


@given(packet=st.binary(max_size=300))
def test_any_octets_have_a_length_or_none(packet: bytes) -> None:
    """Nothing is raised, and nothing plays longer than 120 ms."""
    ticks = opus_packet.ticks(packet)
    assert ticks is None or 0 < ticks <= opus_packet.MOST_TICKS


@given(toc=st.integers(0, 255), lost=st.integers(1, 10_000))
def test_what_conceals_is_a_packet_of_its_length(toc: int, lost: int) -> None:
    """Never longer than what is lost, and well-formed."""
    packet, ticks = opus_packet.concealing(bytes([toc]) + FRAME, lost)
    assert ticks <= lost
    assert (opus_packet.ticks(packet) if packet else 0) == ticks
    assert lost - ticks < opus_packet.FRAME_TICKS[toc] or ticks > opus_packet.MOST_TICKS - opus_packet.FRAME_TICKS[toc]
