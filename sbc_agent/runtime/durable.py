"""Files that are either there whole or not there at all, also after a crash, and that nobody else may read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import Final

from dualtone.domain.errors import PolicyViolation

PRIVATE_DIRECTORY: Final = 0o700
PRIVATE_FILE: Final = 0o600
_LOCK_POLL_S: Final = 0.01


def make_private_directory(path: Path) -> None:
    """Makes a directory and what is missing above it, the last one for this user alone."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)


def require_owner(directory: Path) -> None:
    """Passes silently if a directory is this user's, or not there.

    Raises:
        PolicyViolation: If it is another's: what root writes there the agent cannot read.
    """
    try:
        owner = directory.stat().st_uid
    except FileNotFoundError:
        return
    if os.geteuid() != owner:
        raise PolicyViolation(f"{directory} belongs to another user: run this as the agent's user, with sudo -u")


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


def hold_lock(path: Path, wait_s: float = 0.0) -> int:
    """Takes a lock that lasts as long as this process, however it ends.

    Args:
        path: The file that stands for it; made if it is not there.
        wait_s: How long to wait for another process.

    Returns:
        The file's descriptor, which must stay open.

    Raises:
        BlockingIOError: If another process has it.
        OSError: If the file cannot be opened.
    """
    until = time.monotonic() + wait_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise
            time.sleep(_LOCK_POLL_S)
        else:
            return descriptor
