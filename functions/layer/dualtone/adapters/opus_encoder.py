"""Opus by ffmpeg: a process between two pipes. Nothing is ever written to a file.

Two channels of 8 kHz stay at 8 kHz: upsampling costs time and adds nothing. ``voip`` keeps the parties apart, where
``audio`` leaks one into the other at -10 to -20 dB. The encoder is free to vary its rate about 24 kbit/s; pages are
made equally long afterwards (``domain.audio.ogg``). Output is bit-exact for the same samples and the same ffmpeg.
"""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, Final

import ffmpeg
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.g711 import CLOCK_HZ
from dualtone.domain.audio.ogg import PageReader
from dualtone.domain.errors import MalformedInput, Unavailable

BIT_RATE: Final = 24_000
COMPLEXITY: Final = 1
FRAME_MS: Final = 20
PAGE_US: Final = 1_000_000

_CHUNK: Final = 1 << 16
_PATIENCE_S: Final = 60


class OpusEncoder:
    """One stream that is being encoded."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Takes a running ffmpeg whose standard streams are pipes."""
        self._process = process
        self._stdin, self._stdout = _pipe(process.stdin), _pipe(process.stdout)
        self._reader = PageReader()
        os.set_blocking(self._stdin.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._selector.register(self._stdin, selectors.EVENT_WRITE)

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        """Takes int16[n, 2], contiguous, in the machine's byte order; returns the pages that are complete by now.

        Raises:
            Unavailable: If the encoder fails.
        """
        pages: list[bytes] = []
        left = memoryview(samples.data).cast("B")
        while left:
            for key, _events in self._ready():
                if key.fileobj is self._stdin:
                    try:
                        left = left[os.write(self._stdin.fileno(), left[:_CHUNK]) :]
                    except BlockingIOError:
                        continue
                    except BrokenPipeError as error:
                        raise Unavailable("the Opus encoder ended early") from error
                elif not self._read(pages):
                    raise Unavailable("the Opus encoder ended early")
        return pages

    def finish(self) -> list[bytes]:
        """Ends the stream; returns the remaining pages.

        Raises:
            Unavailable: If the encoder fails.
        """
        pages: list[bytes] = []
        self._selector.unregister(self._stdin)
        self._stdin.close()
        while self._ready() and self._read(pages):
            pass
        if self._process.wait(_PATIENCE_S) != 0:
            raise Unavailable("the Opus encoder failed")
        try:
            self._reader.close()
        except MalformedInput as error:
            raise Unavailable("the Opus encoder ended early") from error
        return pages

    def close(self) -> None:
        """Frees pipes and process, whatever state they are in."""
        self._selector.close()
        self._process.kill()
        self._process.wait(_PATIENCE_S)
        for stream in (self._stdin, self._stdout):
            try:
                stream.close()
            except BrokenPipeError:
                continue

    def _ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._selector.select(_PATIENCE_S)
        if not ready:
            raise Unavailable("the Opus encoder does not go on")
        return ready

    def _read(self, pages: list[bytes]) -> bool:
        """Reads what there is; says whether more may follow."""
        data = os.read(self._stdout.fileno(), _CHUNK)
        try:
            pages += self._reader.feed(data)
        except MalformedInput as error:
            raise Unavailable("the Opus encoder wrote something else") from error
        return bool(data)


@contextmanager
def started() -> Iterator[OpusEncoder]:
    """Starts an encoder; its process is gone when the block is left."""
    encoder = OpusEncoder(subprocess.Popen(_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0))  # noqa: S603 - our own words
    try:
        yield encoder
    finally:
        encoder.close()


@cache
def _command() -> list[str]:
    native = "s16le" if np.dtype(np.int16).newbyteorder("<") == np.dtype(np.int16) else "s16be"
    source = ffmpeg.input("pipe:0", format=native, ar=CLOCK_HZ, ac=2)
    output = ffmpeg.output(
        source,
        "pipe:1",
        format="ogg",
        acodec="libopus",
        audio_bitrate=BIT_RATE,
        application="voip",
        vbr="on",
        compression_level=COMPLEXITY,
        frame_duration=FRAME_MS,
        page_duration=PAGE_US,
        map_metadata=-1,
        fflags="+bitexact",
        flags="+bitexact",
    )
    words = output.global_args("-hide_banner", "-nostdin", "-loglevel", "quiet")
    return [str(word) for word in words.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the encoder's standard streams are pipes")
    return stream
