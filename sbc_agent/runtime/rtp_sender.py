"""Sends G.711 RTP for very many streams, in a process of its own: sendmmsg(2) through ctypes, 20 ms a packet.

Streams are spread over the packet time in ten bursts, as many callers are. Each stream's sequence numbers begin with 0
and its timestamps with 0, so that a recorder's loss shows in what it kept.

Standard input, a JSON line each: ``{"add": [[row, host, port], ...]}``, ``{"remove": [row, ...]}``, ``{"stop": true}``.
Standard output, a JSON line each: ``{"ready": true}`` when it can send; ``{"sent": {row: packets}}`` after a remove;
``{"late_ms_max": n}`` after a stop.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import numpy as np

PACKET_TIME_S: Final = 0.02
PAYLOAD_BYTES: Final = 160
PACKET_BYTES: Final = 12 + PAYLOAD_BYTES
BURSTS: Final = 10
MOST_CATCH_UP_S: Final = 0.2
_PCMA: Final = 8
_MOST_AT_ONCE: Final = 1024  # UIO_MAXIOV
_HEADER_BYTES: Final = 64  # struct mmsghdr on 64-bit Linux
_NAME_BYTES: Final = 16  # struct sockaddr_in
_SEND_BUFFER_BYTES: Final = 4 << 20
_READ_BYTES: Final = 1 << 20


class RtpSender:
    """The streams and their packets.

    Args:
        rows: How many streams there may be.
    """

    def __init__(self, rows: int) -> None:
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._packets = np.zeros((rows, PACKET_BYTES), np.uint8)
        self._packets[:, 0], self._packets[:, 1] = 0x80, _PCMA
        self._packets[:, 8:12] = np.arange(1, rows + 1, dtype=">u4").view(np.uint8).reshape(rows, 4)
        self._packets[:, 12:] = np.random.default_rng(1).integers(0, 256, (rows, PAYLOAD_BYTES), np.uint8)
        self._names = np.zeros((rows, _NAME_BYTES), np.uint8)
        self._vectors = np.zeros((rows, 2), np.uint64)
        index = np.arange(rows, dtype=np.uint64)
        self._vectors[:, 0] = np.uint64(self._packets.ctypes.data) + index * np.uint64(PACKET_BYTES)
        self._vectors[:, 1] = PACKET_BYTES
        self._every = np.zeros((rows, _HEADER_BYTES // 8), np.uint64)
        self._every[:, 0] = np.uint64(self._names.ctypes.data) + index * np.uint64(_NAME_BYTES)
        self._every[:, 1] = _NAME_BYTES
        self._every[:, 2] = np.uint64(self._vectors.ctypes.data) + index * np.uint64(16)
        self._every[:, 3] = 1
        self._is_active = np.zeros(rows, np.bool_)
        self._sent = np.zeros(rows, np.int64)
        self._groups: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self._headers: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
        self._regroup()

    def add(self, row: int, host: str, port: int) -> None:
        """Begins a stream in the next burst that it belongs to."""
        name = struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)
        self._names[row] = np.frombuffer(name, np.uint8)
        self._sent[row], self._is_active[row] = 0, True
        self._regroup()

    def remove(self, row: int) -> int:
        """Ends a stream; returns how many packets of it were sent."""
        self._is_active[row] = False
        self._regroup()
        return int(self._sent[row])

    def send_burst(self, burst: int) -> None:
        """Sends a packet of each stream of a burst, from 0 to 9.

        Raises:
            OSError: If the system refuses.
        """
        rows, headers = self._groups[burst], self._headers[burst]
        number = self._sent[rows]
        count = rows.size
        self._packets[rows, 2:4] = (number & 0xFFFF).astype(">u2").view(np.uint8).reshape(count, 2)
        stamp = (number * PAYLOAD_BYTES & 0xFFFFFFFF).astype(">u4")
        self._packets[rows, 4:8] = stamp.view(np.uint8).reshape(count, 4)
        at = 0
        while at < count:
            sent = self._libc.sendmmsg(
                self._socket.fileno(),
                ctypes.c_void_p(headers.ctypes.data + at * _HEADER_BYTES),
                min(count - at, _MOST_AT_ONCE),
                0,
            )
            if sent <= 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            at += sent
        self._sent[rows] += 1

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def _regroup(self) -> None:
        active = np.flatnonzero(self._is_active)
        self._groups = [active[active % BURSTS == burst] for burst in range(BURSTS)]
        self._headers = [np.ascontiguousarray(self._every[rows]) for rows in self._groups]


def main() -> None:
    """Sends what it is told to, at the time that each packet is due, until told to stop or nobody is left to tell."""
    sender = RtpSender(int(sys.argv[1]))
    late_s, burst, pending = 0.0, 0, b""
    os.set_blocking(0, False)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        _say({"ready": True})
        start = time.monotonic()
        while True:
            due = start + burst * PACKET_TIME_S / BURSTS
            while selector.select(max(due - time.monotonic(), 0)):
                read = os.read(0, _READ_BYTES)
                *lines, pending = (pending + read).split(b"\n")
                if not read or not _obey(sender, lines):
                    _say({"late_ms_max": round(1000 * late_s, 1)})
                    sender.close()
                    return
                if due <= time.monotonic():
                    break
            late_now_s = time.monotonic() - due
            late_s = max(late_s, late_now_s)
            if late_now_s > MOST_CATCH_UP_S:  # no telephone speaks faster because it was held up
                start += late_now_s
            sender.send_burst(burst % BURSTS)
            burst += 1


def _obey(sender: RtpSender, lines: Iterable[bytes]) -> bool:
    """Does what lines of the input say; returns whether to go on."""
    for line in lines:
        order = json.loads(line)
        for row, host, port in order.get("add", ()):
            sender.add(row, host, port)
        if "remove" in order:
            _say({"sent": {row: sender.remove(row) for row in order["remove"]}})
        if order.get("stop"):
            return False
    return True


def _say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):  # whoever started it was ended
        main()
