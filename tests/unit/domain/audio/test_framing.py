"""What decoders are fed: in order, once, with something for what is lost, and no more than that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dualtone.domain import ogg_page
from dualtone.domain.audio import framing
from dualtone.domain.audio.codecs import codec_of
from dualtone.domain.audio.framing import Framer, Packets
from dualtone.domain.audio.ogg import Page

VOICE = bytes(range(1, 11))
SILK = b"\x08" + VOICE


def framer(name: str) -> Framer:
    codec = codec_of(name, 48_000 if name == "OPUS" else 8000, 2 if name == "OPUS" else 1)
    assert codec is not None
    found = framing.framer(codec)
    assert found is not None
    return found


def packets(*columns: tuple[int, int, bytes]) -> Packets:
    """Packets from sequence number, position and payload."""
    return Packets(
        np.array([number for number, _, _ in columns], np.uint16),
        np.array([position for _, position, _ in columns], np.int64),
        np.array([len(payload) for _, _, payload in columns], np.int64),
        np.frombuffer(b"".join(payload for _, _, payload in columns), np.uint8),
    )


def ogg_packets(data: bytes) -> Sequence[bytes]:
    """What an Ogg stream holds, header packets included."""
    return [packet for page in ogg_page.split_pages(data) for packet in Page.parse(page).packets()]


@pytest.mark.parametrize("name", ["PCMA", "L16"])
def test_what_needs_no_memory_has_no_framer(name: str) -> None:
    """Its packets are decoded one by one."""
    codec = codec_of(name, 8000, 1)
    assert codec is not None
    assert framing.framer(codec) is None


def test_order_and_doubles() -> None:
    """Out of order and twice: fed in order, once; what came again in the next batch is not fed again."""
    one, two, three = (bytes([letter]) * 80 for letter in b"abc")
    fed = framer("G722")
    framed = fed.frame(packets((7, 160, two), (6, 0, one), (7, 160, two)))
    assert framed.data == one + two
    assert framed.position.tolist() == [0, 160]
    assert framed.size.tolist() == [160, 160]
    again = fed.frame(packets((6, 0, one), (8, 320, three)))
    assert (again.data, again.position.tolist(), again.end) == (three, [320], 480)


def test_g722_does_not_begin_with_a_splinter() -> None:
    """Of less than 4 ms a decoder would make nothing: damaged, and never fed."""
    fed = framer("G722")
    assert (fed.frame(packets((1, 0, bytes(31)))).data, fed.frame(packets((1, 0, bytes(31)))).damaged) == (b"", 1)
    assert fed.frame(packets((2, 62, bytes(80)))).data == bytes(80)
    assert fed.frame(packets((3, 222, bytes(1)))).data == bytes(1)


@pytest.mark.parametrize(("lost", "concealed"), [(0, 0), (1, 2), (3, 6), (4, 6), (100, 6)], ids=str)
def test_lost_frames_of_g729_are_zeros(lost: int, concealed: int) -> None:
    """Frames of 10 ms, as many as were lost and at most 60 ms of them, right behind what came."""
    framed = framer("G729").frame(packets((5, 0, VOICE * 2), (6 + lost, 160 + 160 * lost, VOICE)))
    assert framed.data == VOICE * 2 + bytes(10 * concealed) + VOICE
    assert framed.size.tolist() == [160, *([80 * concealed] * bool(concealed)), 80]
    assert framed.position.tolist() == [0, *([160] * bool(concealed)), 160 + 160 * lost]


def test_silence_of_g729_is_not_lost() -> None:
    """A descriptor ends a packet or is one; what is not sent after it has no sequence numbers."""
    framed = framer("G729").frame(packets((1, 0, VOICE + b"xx"), (2, 800, b"yy"), (3, 1600, VOICE), (4, 1680, b"zzz")))
    assert framed.data == VOICE * 2
    assert (framed.position.tolist(), framed.end, framed.damaged) == ([0, 1600], 1680, 1)


def test_opus_goes_into_ogg() -> None:
    """Header pages first and once, then each packet; granules count what was fed."""
    fed = framer("OPUS")
    first = fed.frame(packets((1, 0, SILK), (2, 960, SILK)))
    assert ogg_packets(first.data)[2:] == [SILK, SILK]
    assert [packet[:8] for packet in ogg_packets(first.data)[:2]] == [b"OpusHead", b"OpusTags"]
    second = fed.frame(packets((3, 1920, SILK)))
    (page,) = ogg_page.split_pages(second.data)
    assert (Page.parse(page).packets(), Page.parse(page).granule) == ([SILK], 2880)


def test_lost_opus_becomes_empty_frames() -> None:
    """20 ms lost: one empty frame of the kind before; what is malformed is damaged; DTX is neither fed nor lost."""
    fed = framer("OPUS")
    framed = fed.frame(
        packets((1, 0, SILK), (3, 1920, SILK), (4, 2880, b"\x08"), (5, 9600, SILK), (6, 10_560, b"\x0b"))
    )
    assert ogg_packets(framed.data)[2:] == [SILK, b"\x0b\x01", SILK, SILK]
    assert framed.position.tolist() == [0, 960, 1920, 9600]
    assert framed.size.tolist() == [960] * 4
    assert (framed.end, framed.damaged) == (10_560, 1)


def test_many_and_long_packets_fit_their_pages() -> None:
    """Every page ends with a packet, and no page has more than 255 segments."""
    payloads = [b"\x80" + bytes(size) for size in [1275, 254, 255, 509, 510] * 60]
    framed = framer("OPUS").frame(packets(*((number, number * 120, one) for number, one in enumerate(payloads))))
    assert list(ogg_packets(framed.data)[2:]) == payloads
    assert framed.size.sum() == 120 * len(payloads)


@pytest.mark.parametrize(
    ("name", "payload", "samples", "rate_hz"),
    [
        ("OPUS", b"\x1b\x02" + bytes(2), 5760, 48_000),
        ("G729", VOICE * 100, 8000, 8_000),
        ("G722", bytes(1000), 2000, 16_000),
    ],
    ids=["OPUS", "G729", "G722"],
)
def test_small_packets_that_play_for_long_do_not_fill_the_memory(
    name: str, payload: bytes, samples: int, rate_hz: int
) -> None:
    """A thousand packets a second for ten seconds: what is decoded is bounded by the time that passed."""
    fed, step = framer(name), rate_hz // 1000
    columns = [(number % 65_536, number * step, payload) for number in range(10_000)]
    framed = fed.frame(packets(*columns))
    assert 10 * rate_hz <= framed.size.sum() <= 21 * rate_hz
    assert framed.damaged == 10_000 - framed.size.sum() // samples
    (size,) = fed.frame(packets((10_000, 10_000 * step + 60 * rate_hz, payload))).size[-1:].tolist()
    assert size == samples, "what is sent at its pace later is decoded again"
