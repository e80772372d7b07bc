"""A generator of G.711 RTP for many streams, in a process of its own: sendmmsg through ctypes.

Standard input: one JSON line {"ports": [...], "seconds": n}. Standard output: one JSON line when all is sent.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import time
from typing import Any

import numpy as np

PACKET_TIME_S = 0.02
PAYLOAD_BYTES = 160
BURSTS = 10  # per packet time: streams are spread over it
PACKET_BYTES = 12 + PAYLOAD_BYTES
_MOST_AT_ONCE = 1024  # UIO_MAXIOV


def generate(ports: list[int], seconds: float) -> dict[str, float]:
    """Sends to every port, 50 packets a second each, at the time that each is due."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    count = len(ports)
    packets = np.zeros((count, PACKET_BYTES), np.uint8)
    packets[:, 0], packets[:, 1] = 0x80, 8
    packets[:, 8:12] = np.arange(1, count + 1, dtype=">u4").view(np.uint8).reshape(count, 4)
    packets[:, 12:] = np.random.default_rng(1).integers(0, 256, (count, PAYLOAD_BYTES), np.uint8)
    names = np.frombuffer(
        b"".join(
            struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton("127.0.0.1") + bytes(8)
            for port in ports
        ),
        np.uint8,
    ).copy()
    index = np.arange(count, dtype=np.uint64)
    vectors = np.zeros((count, 2), np.uint64)
    vectors[:, 0] = np.uint64(packets.ctypes.data) + index * np.uint64(PACKET_BYTES)
    vectors[:, 1] = PACKET_BYTES
    headers = np.zeros((count, 8), np.uint64)
    headers[:, 0] = np.uint64(names.ctypes.data) + index * np.uint64(16)
    headers[:, 1] = 16
    headers[:, 2] = np.uint64(vectors.ctypes.data) + index * np.uint64(16)
    headers[:, 3] = 1
    bounds = [count * burst // BURSTS for burst in range(BURSTS + 1)]
    late_ms, start = 0.0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        for number in range(round(seconds / PACKET_TIME_S)):
            packets[:, 2:8] = np.frombuffer(struct.pack(">HI", number & 0xFFFF, number * PAYLOAD_BYTES), np.uint8)
            for burst in range(BURSTS):
                due = start + (number + burst / BURSTS) * PACKET_TIME_S
                time.sleep(max(due - time.monotonic(), 0))
                late_ms = max(late_ms, 1000 * (time.monotonic() - due))
                at = bounds[burst]
                while at < bounds[burst + 1]:
                    sent = libc.sendmmsg(
                        peer.fileno(),
                        ctypes.c_void_p(headers.ctypes.data + at * 64),
                        min(bounds[burst + 1] - at, _MOST_AT_ONCE),
                        0,
                    )
                    if sent <= 0:
                        raise OSError(ctypes.get_errno(), "sendmmsg")
                    at += sent
    return {"sent": round(seconds / PACKET_TIME_S) * count, "late_ms_max": round(late_ms, 1)}


if __name__ == "__main__":
    order = json.loads(sys.stdin.readline())
    print(json.dumps(generate(order["ports"], order["seconds"])), flush=True)
