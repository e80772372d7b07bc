"""Decoders of a call: how many are started for it, whatever its sources do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.codecs import Codec, codec_of
from dualtone.domain.audio.decoding import MOST_STARTS, Decoders
from dualtone.domain.audio.framing import Packets


class Silent:
    """Implements `decoding.Decoder`."""

    def decode(self, data: bytes, samples: int) -> npt.NDArray[np.int16]:
        return np.zeros(samples, np.int16)

    def close(self) -> None:
        """Nothing runs."""


def coded(name: str) -> Codec:
    codec = codec_of(name, 8000, 1)
    assert codec is not None
    return codec


def packet(number: int) -> Packets:
    numbers = np.array([number])
    return Packets(numbers.astype(np.uint16), 320 * numbers, np.array([160]), np.zeros(160, np.uint8))


def test_a_new_source_with_every_packet_does_not_start_decoders_for_ever() -> None:
    """The last of them goes on, what comes after it is kept raw; what needs no decoder is heard all the same."""
    started: list[Codec] = []

    def start(codec: Codec) -> Silent:
        started.append(codec)
        return Silent()

    decoders, wide = Decoders(start), coded("G722")
    ssrc = 0
    while decoders.can_decode(ssrc, wide):
        decoders.decode(ssrc, wide, packet(0))
        ssrc += 1
        assert ssrc <= MOST_STARTS
    assert len(started) == MOST_STARTS
    assert decoders.can_decode(ssrc - 1, wide)
    assert decoders.decode(ssrc - 1, wide, packet(1)).samples.size == 320
    assert decoders.can_decode(ssrc, coded("PCMA"))
    assert len(started) == MOST_STARTS
