"""A generator of G.711 RTP for many streams, in a process of its own: sendmmsg through ctypes.

Standard input: one JSON line {"ports": [...], "seconds": n}, and "srtp": a master key and salt in hex, or "". Standard
output: one JSON line when all is sent. SRTP is AES_CM_128_HMAC_SHA1_80, a context for each stream.
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
from pylibsrtp import Policy, Session, _binding

PACKET_TIME_S = 0.02
PAYLOAD_BYTES = 160
MOST_CATCH_UP_S = 0.2
BURSTS = 10  # per packet time: streams are spread over it
_HEADER_BYTES = 12
PACKET_BYTES = _HEADER_BYTES + PAYLOAD_BYTES
_TAG_BYTES = 10
_MOST_AT_ONCE = 1024  # UIO_MAXIOV


class Protection:
    """SRTP of many senders, a context for each.

    Args:
        key: Master key and salt of all.
        addresses: Where their packets lie, with room for a tag behind each.
    """

    def __init__(self, key: bytes, addresses: list[int]) -> None:
        policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND)
        self._sessions = [Session(policy) for _ in addresses]
        cast = _binding.ffi.cast
        self._handles = [int(cast("uintptr_t", session._srtp[0])) for session in self._sessions]
        self._addresses = addresses
        self._protect = ctypes.PyDLL(_binding.__file__).srtp_protect
        self._protect.argtypes = [ctypes.c_void_p] * 3

    def protect(self, begin: int, end: int) -> None:
        """Protects the packets of a run of senders."""
        lengths = np.full(end - begin, PACKET_BYTES, np.intc)
        pointers = lengths.ctypes.data + lengths.itemsize * np.arange(end - begin)
        statuses = map(self._protect, self._handles[begin:end], self._addresses[begin:end], pointers.tolist())
        if any(statuses):
            raise ValueError("a packet was not protected")


def generate(ports: list[int], seconds: float, key: bytes = b"") -> dict[str, float]:
    """Sends to every port, 50 packets a second each, at the time that each is due; as SRTP if there is a key."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    count = len(ports)
    sent_bytes = PACKET_BYTES + (_TAG_BYTES if key else 0)
    packets = np.zeros((count, sent_bytes + -sent_bytes % 16), np.uint8)
    packets[:, 0], packets[:, 1] = 0x80, 8
    packets[:, 8:12] = np.arange(1, count + 1, dtype=">u4").view(np.uint8).reshape(count, 4)
    speech = np.random.default_rng(1).integers(0, 256, (count, PAYLOAD_BYTES), np.uint8)
    packets[:, _HEADER_BYTES:PACKET_BYTES] = speech
    addresses = packets.ctypes.data + packets.shape[1] * np.arange(count)
    protection = Protection(key, addresses.tolist()) if key else None
    names = np.frombuffer(
        b"".join(
            struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton("127.0.0.1") + bytes(8)
            for port in ports
        ),
        np.uint8,
    ).copy()
    index = np.arange(count, dtype=np.uint64)
    vectors = np.zeros((count, 2), np.uint64)
    vectors[:, 0] = addresses.astype(np.uint64)
    vectors[:, 1] = sent_bytes
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
                if protection is not None:
                    packets[bounds[burst] : bounds[burst + 1], _HEADER_BYTES:PACKET_BYTES] = speech[
                        bounds[burst] : bounds[burst + 1]
                    ]
                    protection.protect(bounds[burst], bounds[burst + 1])
                due = start + (number + burst / BURSTS) * PACKET_TIME_S
                time.sleep(max(due - time.monotonic(), 0))
                late_s = time.monotonic() - due
                late_ms = max(late_ms, 1000 * late_s)
                if late_s > MOST_CATCH_UP_S:  # no telephone speaks faster because it was held up
                    start += late_s
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
    key = bytes.fromhex(order.get("srtp", ""))
    print(json.dumps(generate(order["ports"], order["seconds"], key)), flush=True)
