"""How long a datagram waited in its socket: the kernel notes when it came.

Both ends are read from the wall clock. One that was stepped meanwhile says nothing of value for a moment: a wait below
zero counts as none.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

from sbc_agent.media.sockets import SO_TIMESTAMPNS

_TIMESPEC: Final = struct.Struct("@ll")
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)


def stamp_arrivals(datagrams: socket.socket) -> None:
    """Asks the kernel to note when each datagram of a socket came."""
    datagrams.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def waited_s(ancillary: Sequence[tuple[int, int, bytes]]) -> float:
    """How long ago a datagram came, in seconds; 0 where the kernel does not say.

    Args:
        ancillary: What ``recvmsg`` gave beside it.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            came_s = float(seconds) + float(nanoseconds) / 1_000_000_000
            return max(0.0, time.time() - came_s)
    return 0.0
