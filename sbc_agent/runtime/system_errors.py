"""The operating system's errors in its own few words, without the address or the path that a library adds. Pure."""

from __future__ import annotations

import os
import socket


def plain(error: OSError) -> str:
    """What went wrong, for example ``connection refused``; a time-out and an unknown error by their class."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return (
        os.strerror(error.errno).lower() if isinstance(error.errno, int) and error.errno > 0 else type(error).__name__
    )
