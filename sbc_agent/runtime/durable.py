"""Files that are either there whole or not there at all, also after a crash, and that nobody else may read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

PRIVATE_DIRECTORY: Final = 0o700
PRIVATE_FILE: Final = 0o600


def make_private_directory(path: Path) -> None:
    """Makes a directory and what is missing above it, the last one for this user alone."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes a file with mode 0600: temporary name, fsync, then the real name, then fsync of the directory.

    Args:
        path: Its name.
        data: All of its content.
        replace: Whether an older file of that name gives way.

    Raises:
        FileExistsError: If it is there already and ``replace`` is false.
        OSError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.rename(path)
        else:
            path.hardlink_to(temporary)  # unlike rename, refuses a name that is taken
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
