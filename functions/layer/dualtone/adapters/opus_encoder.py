"""Opus by ffmpeg, between two pipes.

Two channels of 8 kHz stay at 8 kHz: upsampling costs time and adds nothing. ``voip`` keeps the parties apart, where
``audio`` leaks one into the other at -10 to -20 dB. The encoder is free to vary its rate about 24 kbit/s, or 32 for
16 kHz; pages are made equally long afterwards (``domain.audio.ogg``). Output is bit-exact for the same samples and the
same ffmpeg.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import ffmpeg
import numpy as np
import numpy.typing as npt

from dualtone.adapters import ffmpeg_process
from dualtone.adapters.ffmpeg_process import FfmpegProcess
from dualtone.domain.audio.ogg import PageReader
from dualtone.domain.errors import MalformedInput, Unavailable

BIT_RATE: Final = {8_000: 24_000, 16_000: 32_000}
COMPLEXITY: Final = 1
FRAME_MS: Final = 20
PAGE_US: Final = 1_000_000


class OpusEncoder:
    """One stream that is being encoded."""

    def __init__(self, process: FfmpegProcess) -> None:
        """Takes a running ffmpeg."""
        self._process = process
        self._reader = PageReader()
        self._pages: list[bytes] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        """Takes int16[n, 2], contiguous, in the machine's byte order; returns the pages that are complete by now.

        Raises:
            Unavailable: If the encoder fails.
        """
        self._process.write(memoryview(samples.data).cast("B"), self._answered)
        return self._complete()

    def finish(self) -> list[bytes]:
        """Ends the stream; returns the remaining pages.

        Raises:
            Unavailable: If the encoder fails.
        """
        self._process.finish(self._answered)
        try:
            self._reader.close()
        except MalformedInput as error:
            raise Unavailable("the Opus encoder ended early") from error
        return self._complete()

    def _answered(self, data: bytes) -> None:
        try:
            self._pages += self._reader.feed(data)
        except MalformedInput as error:
            raise Unavailable("the Opus encoder wrote something else") from error

    def _complete(self) -> list[bytes]:
        pages, self._pages = self._pages, []
        return pages


@contextmanager
def started(rate_hz: int) -> Iterator[OpusEncoder]:
    """Starts an encoder for samples of a rate, 8,000 or 16,000; its process is gone when the block is left."""
    process = FfmpegProcess(_command(rate_hz), "Opus encoder")
    try:
        yield OpusEncoder(process)
    finally:
        process.close()


@cache
def _command(rate_hz: int) -> list[str]:
    source = ffmpeg.input("pipe:0", format=ffmpeg_process.NATIVE_PCM, ar=rate_hz, ac=2)
    output = ffmpeg.output(
        source,
        "pipe:1",
        format="ogg",
        acodec="libopus",
        audio_bitrate=BIT_RATE[rate_hz],
        application="voip",
        vbr="on",
        compression_level=COMPLEXITY,
        frame_duration=FRAME_MS,
        page_duration=PAGE_US,
        map_metadata=-1,
        fflags="+bitexact",
        flags="+bitexact",
    )
    return ffmpeg_process.words(output)
