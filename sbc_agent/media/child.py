"""The media process as a child: an interpreter on one end of a SOCK_SEQPACKET pair, which loads and waits.

It is started before anything else of the agent is loaded, and gets its settings when there are any (``MediaClient``): a
restart is as quick as the slower of the two processes. So nothing is imported here but the standard library.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_SOCKET_BUFFER_BYTES: Final = 4 << 20
_UMASK: Final = 0o077  # what it writes is for its user alone


@dataclass(slots=True)
class MediaChild:
    """A child; as a context manager, one that nobody has taken is ended.

    Attributes:
        channel: The parent's end of the pair.
        process: The child.
        is_taken: Whether somebody else sees to its end.
    """

    channel: socket.socket
    process: subprocess.Popen[bytes]
    is_taken: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        if not self.is_taken:
            self.channel.close()  # a child without settings ends by itself
            self.process.wait()


def start() -> MediaChild:
    """Starts the process.

    Raises:
        OSError: If no process can be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "sbc_agent.media", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            umask=_UMASK,
        )
    return MediaChild(ours, process)
