"""RTP of a real SBC's SIPREC leg (tests/vectors/SOURCES.md): every audio packet is kept once, in the order it came."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.media.feed import Arrival, Line

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"
START_US = 10_000_000
HOLD_BACK_US = 5_000_000
EVENT_TYPE = 101


def plain_streams() -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Name and RTP of every stream without SRTP."""
    for path in sorted(CAPTURES.glob("*.json.gz")):
        capture = json.loads(gzip.decompress(path.read_bytes()))
        for dialog in capture["dialogs"]:
            for stream in dialog["streams"]:
                if not stream["suite"]:
                    yield f"{capture['name']}-{stream['label']}", stream["rtp"]


STREAMS = dict(plain_streams())


@pytest.mark.parametrize("name", list(STREAMS))
def test_every_audio_packet_is_kept_once_and_in_order(name: str) -> None:
    line, second = Line(), 0
    left: list[tuple[int, bytes]] = []
    expected = []
    for at_ms, coded in STREAMS[name]:
        data, at_us = base64.b64decode(coded), START_US + int(at_ms * 1000)
        line.take([Arrival(0, data, at_us)])
        if data[1] & 0x7F != EVENT_TYPE:
            expected.append((int.from_bytes(data[2:4], "big"), data[12:]))
        if at_us // 1_000_000 > second:
            second = at_us // 1_000_000
            left += line.leave(at_us - HOLD_BACK_US)
    left += line.leave(1 << 60)
    assert left == expected
    assert line.counted("events_suppressed") == len(STREAMS[name]) - len(expected)
