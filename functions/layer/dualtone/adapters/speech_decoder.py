"""G.722, G.729 and Opus by ffmpeg, between two pipes: one process for each source, as long as that sends.

What is fed gives a number of samples that is known beforehand, and ffmpeg holds none of them back: raw formats and
pages of our own are read without looking ahead (``probesize``, ``analyzeduration``), and every frame is written as soon
as it is decoded (``flush_packets``). So a batch is complete when that many samples have come. Only the very first
octets are looked at before anything is decoded; ``framing`` sees to it that they are enough.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import ffmpeg
import numpy as np
import numpy.typing as npt

from dualtone.adapters import ffmpeg_process
from dualtone.adapters.ffmpeg_process import FfmpegProcess
from dualtone.domain.audio.codecs import Codec, Coding
from dualtone.domain.errors import Unavailable

_LEAST_PROBE_BYTES: Final = 32
_SAMPLE_BYTES: Final = 2

# libopus, because it gives samples for every well-formed packet and conceals where one is empty; ffmpeg's own does not.
_FORMATS: Final[dict[Coding, dict[str, Any]]] = {
    Coding.G722: {"format": "g722"},
    Coding.G729: {"format": "g729", "bit_rate": 8_000},
    Coding.OPUS: {"format": "ogg", "acodec": "libopus"},
}


class SpeechDecoder:
    """One source that is being decoded."""

    def __init__(self, coding: Coding) -> None:
        """Starts a decoder."""
        self._process = FfmpegProcess(_command(coding), f"{coding.name} decoder")
        self._come = bytearray()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def decode(self, data: bytes, samples: int) -> npt.NDArray[np.int16]:
        """Feeds octets; returns the next int16[samples].

        Raises:
            Unavailable: If the decoder fails, or does not give as many samples.
        """
        if data:
            self._process.write(memoryview(data), self._come.extend)
        wanted = samples * _SAMPLE_BYTES
        while len(self._come) < wanted:
            if not self._process.read(self._come.extend):
                raise Unavailable("a decoder ended early")
        decoded = np.frombuffer(bytes(self._come[:wanted]), np.int16)
        del self._come[:wanted]
        return decoded

    def close(self) -> None:
        """Ends it, whatever state it is in."""
        self._process.close()


def start(codec: Codec) -> SpeechDecoder:
    """Starts a decoder for a codec; its process is there until it is closed."""
    return SpeechDecoder(codec.coding)


@cache
def _command(coding: Coding) -> list[str]:
    source = ffmpeg.input("pipe:0", threads=1, probesize=_LEAST_PROBE_BYTES, analyzeduration=0, **_FORMATS[coding])
    output = ffmpeg.output(source, "pipe:1", format=ffmpeg_process.NATIVE_PCM, ac=1, flush_packets=1)
    return ffmpeg_process.words(output)
