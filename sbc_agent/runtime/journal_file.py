"""A file of lines, the newest of each key being what counts: appended to by one write each, rewritten when it grew.

A line is eight hexadecimal digits of CRC-32 over the rest, a space, the key, a space, and JSON. One that was written in
half is passed over, and so is whatever else does not agree with its digits.
The file is rewritten under another name and then renamed, so that it is there whole, as it was before or after.
Nothing is synced.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sbc_agent.runtime.durable import PRIVATE_FILE

REWRITE_BYTES: Final = 4 << 20
MAX_FILE_BYTES: Final = 512 << 20
_REWRITE_TIMES: Final = 4
_DIGITS: Final = 8
_NEW: Final = ".new"


class JournalFile:
    """The file. One process at a time writes it.

    Args:
        path: Its name; it need not be there.

    Attributes:
        damaged: How many lines, or files too large to be one of ours, were passed over.

    Raises:
        OSError: If it is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.damaged = 0
        self._path = path
        self._lines: dict[str, bytes] = {}
        self._kept_bytes = 0
        self._size = 0
        self._descriptor: int | None = None
        self._is_torn = True  # until we know: an empty line harms nothing
        self._read()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Keys with their newest JSON, the key first that was first put."""
        return iter(list(self._lines.items()))

    def get(self, key: str) -> bytes | None:
        """The newest JSON of a key."""
        return self._lines.get(key)

    def put(self, key: str, data: bytes) -> None:
        """Appends a line.

        Args:
            key: Letters, digits and signs without a space.
            data: JSON on one line.

        Raises:
            OSError: If the disk does not take it whole; then what counted before still does.
        """
        line = _line(key, data)
        self._append(b"\n" + line if self._is_torn else line)
        self.forget(key)
        self._lines[key] = data
        self._kept_bytes += len(data)
        if self._size > max(REWRITE_BYTES, _REWRITE_TIMES * self._kept_bytes):
            with contextlib.suppress(OSError):  # the file is good as it is, and grows meanwhile
                self.rewrite()

    def forget(self, key: str) -> None:
        """Nobody needs a key any more: its lines go with the next rewriting."""
        self._kept_bytes -= len(self._lines.pop(key, b""))

    def rewrite(self) -> None:
        """Writes what counts and nothing else; without that there is no file.

        Raises:
            OSError: If the disk does not take it; then the file stays as it is.
        """
        if not self._lines:
            self._path.unlink(missing_ok=True)
            self._use(None, 0)
            return
        new = self._path.with_name(self._path.name + _NEW)
        data = b"".join(_line(key, line) for key, line in self._lines.items())
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            _write(descriptor, data)
            new.rename(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self._use(descriptor, len(data))

    def close(self) -> None:
        """Closes the file."""
        self._use(None, self._size)

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, PRIVATE_FILE)
        self._is_torn = True
        _write(self._descriptor, data)
        self._is_torn = False
        self._size += len(data)

    def _use(self, descriptor: int | None, size: int) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._size, self._is_torn = descriptor, size, descriptor is None

    def _read(self) -> None:
        try:
            self._size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if self._size > MAX_FILE_BYTES:
            self.damaged = 1
            return
        *lines, _begun = self._path.read_bytes().split(b"\n")
        for line in filter(None, lines):
            key, _, data = line[_DIGITS + 1 :].partition(b" ")
            if line[: _DIGITS + 1] != _digits(line[_DIGITS + 1 :]) + b" " or not key.isascii():
                self.damaged += 1
                continue
            self.forget(key.decode("ascii"))
            self._lines[key.decode("ascii")] = data
            self._kept_bytes += len(data)


def _line(key: str, data: bytes) -> bytes:
    rest = b"%s %s" % (key.encode("ascii"), data)
    return b"%s %s\n" % (_digits(rest), rest)


def _digits(data: bytes) -> bytes:
    return b"%08x" % zlib.crc32(data)


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError("the disk took a part of an entry")
