"""ffmpeg between two pipes: what is written to it and what it answers. Nothing is ever written to a file.

Both pipes are served together, so that neither side waits for the other for ever, and never for more than a minute.
"""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

import imageio_ffmpeg
import numpy as np

from dualtone.domain.errors import Unavailable

NATIVE_PCM: Final = "s16le" if np.dtype(np.int16).newbyteorder("<") == np.dtype(np.int16) else "s16be"
"""What ffmpeg calls 16-bit samples in the machine's byte order."""

_CHUNK: Final = 1 << 16
_PATIENCE_S: Final = 60


class FfmpegProcess:
    """A running ffmpeg."""

    def __init__(self, words: Sequence[str], task: str) -> None:
        """Starts one.

        Args:
            words: Its arguments.
            task: What it is, for errors: ``Opus encoder``.
        """
        self._task = task
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)  # noqa: S603 - our own words
        self._stdin, self._stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        os.set_blocking(self._stdin.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def write(self, data: memoryview, answered: Callable[[bytes], None]) -> None:
        """Writes all of some octets, and hands on what is answered meanwhile.

        Raises:
            Unavailable: If it ended, or takes nothing.
        """
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        left = data
        while left:
            for key, _events in self._ready():
                if key.fileobj is self._stdin:
                    try:
                        left = left[os.write(self._stdin.fileno(), left[:_CHUNK]) :]
                    except BlockingIOError:
                        continue
                    except BrokenPipeError as error:
                        raise Unavailable(f"the {self._task} ended early") from error
                elif not self._read(answered):
                    raise Unavailable(f"the {self._task} ended early")
        self._selector.unregister(self._stdin)

    def read(self, answered: Callable[[bytes], None]) -> bool:
        """Waits for an answer; says whether more may follow.

        Raises:
            Unavailable: If none comes.
        """
        self._ready()
        return self._read(answered)

    def finish(self, answered: Callable[[bytes], None]) -> None:
        """Says that nothing follows, and hands on the rest of the answer.

        Raises:
            Unavailable: If it failed.
        """
        self._stdin.close()
        while self.read(answered):
            pass
        if self._process.wait(_PATIENCE_S) != 0:
            raise Unavailable(f"the {self._task} failed")

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
            raise Unavailable(f"the {self._task} does not go on")
        return ready

    def _read(self, answered: Callable[[bytes], None]) -> bool:
        data = os.read(self._stdout.fileno(), _CHUNK)
        answered(data)
        return bool(data)


def words(output: Any) -> list[str]:  # noqa: ANN401 - ffmpeg-python has no types
    """The command line of what ffmpeg-python describes, for the ffmpeg that comes with us."""
    quiet = output.global_args("-hide_banner", "-nostdin", "-loglevel", "quiet")
    return [str(word) for word in quiet.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("standard streams are pipes")
    return stream
