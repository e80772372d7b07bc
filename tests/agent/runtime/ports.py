"""Media ports that nobody else on this machine has: chosen when asked for, and kept until this process ends."""

from __future__ import annotations

import random
import socket
from contextlib import closing
from typing import Final

BLOCK: Final = 100
_BLOCKS: Final = range(20_000, 30_000, BLOCK)  # below the ports that the kernel gives to whoever asks for any


def own_block() -> int:
    """The first of a hundred ports on loopback; another run's agents, and another worker's, have others.

    Its first TCP port, which no agent under test listens on, is held as the sign that the block is taken.
    """
    for first in random.sample(_BLOCKS, len(_BLOCKS)):
        sign = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if _binds(sign, first) and all(_is_free(port) for port in range(first, first + BLOCK)):
            sign.detach()  # open as long as the process lives
            return first
        sign.close()
    raise AssertionError("no hundred free ports on this machine")


def _is_free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        return _binds(probe, port)


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
