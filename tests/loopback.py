"""Everything that passes over the loopback interface, taken from the kernel's own tap (packet(7)): needs root."""

from __future__ import annotations

import base64
import binascii
import ctypes
import re
import socket
import struct
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_ALL_PROTOCOLS: Final = 3
_SOL_PACKET, _STATISTICS, _OUTGOING = 263, 6, 4
_IPV4, _TCP, _UDP = 0x0800, 6, 17
_ETHERNET_BYTES: Final = 14
_BUFFER_BYTES: Final = 64 << 20
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")
_LARGEST: Final = 65_600 + _ETHERNET_BYTES

Flow = tuple[int, int]


class Loopback:
    """Captures while it is entered.

    Args:
        ports: First and last port of each range of which packets are wanted, whoever sent them: the kernel leaves out
            all others, so that a busy machine makes it miss nothing.

    Attributes:
        tcp: What was sent on each flow (source and destination port), in the order of its numbers.
        udp: Every datagram's payload by flow.
    """

    def __init__(self, ports: Sequence[tuple[int, int]]) -> None:
        self._ports = ports
        self.udp: dict[Flow, list[bytes]] = defaultdict(list)
        self._segments: dict[Flow, dict[int, bytes]] = defaultdict(dict)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="loopback", daemon=True)

    def __enter__(self) -> Self:
        """Opens the tap."""
        self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._tap.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE
        program = ctypes.create_string_buffer(b"".join(_filter(self._ports)))
        described = struct.pack("HP", len(program) // 8, ctypes.addressof(program))
        self._tap.setsockopt(socket.SOL_SOCKET, 26, described)  # SO_ATTACH_FILTER
        self._tap.bind(("lo", 0))
        self._tap.settimeout(0.2)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it; a capture that missed a packet proves nothing."""
        self._stopping.set()
        self._thread.join()
        _, missed = struct.unpack("II", self._tap.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        self._tap.close()
        assert missed == 0, f"{missed} packets were not captured"

    @property
    def tcp(self) -> dict[Flow, bytes]:
        """The bytes of each flow."""
        return {flow: b"".join(found[at] for at in sorted(found)) for flow, found in self._segments.items()}

    def _listen(self) -> None:
        while True:
            try:
                frame, address = self._tap.recvfrom(_LARGEST)
            except TimeoutError:
                if self._stopping.is_set():
                    return
                continue
            if address[2] == _OUTGOING:  # each packet is seen as it leaves and as it comes
                self._take(frame[_ETHERNET_BYTES:], int.from_bytes(frame[12:14], "big"))

    def _take(self, packet: bytes, kind: int) -> None:
        if kind != _IPV4:
            return
        head = 4 * (packet[0] & 15)
        body = packet[head : int.from_bytes(packet[2:4], "big") or len(packet)]
        flow = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
        if packet[9] == _UDP:
            self.udp[flow].append(body[8:])
        elif packet[9] == _TCP and len(body) > (offset := 4 * (body[12] >> 4)):
            self._segments[flow][int.from_bytes(body[4:8], "big")] = body[offset:]


def _filter(ports: Sequence[tuple[int, int]]) -> list[bytes]:
    """A program of the kernel's packet filter: IPv4, and a source or destination port within one of the ranges."""
    tests = []
    left = 2 * (1 + 2 * len(ports))  # instructions up to the one that refuses
    for offset in (_ETHERNET_BYTES, _ETHERNET_BYTES + 2):
        tests.append((0x48, 0, 0, offset))  # a port: half a word behind the IP header
        left -= 1
        for first, last in ports:
            tests.append((0x35, 0, 1, first))  # below the range: on to the next
            tests.append((0x25, 0, left - 1, last))  # above it: likewise; else accepted
            left -= 2
    begin = [
        (0x28, 0, 0, 12),
        (0x15, 0, len(tests) + 1, _IPV4),
        (0xB1, 0, 0, _ETHERNET_BYTES),  # X: the length of the IP header
    ]
    end = [(0x06, 0, 0, 0), (0x06, 0, 0, _LARGEST)]
    return [struct.pack("HBBI", *instruction) for instruction in [*begin, *tests, *end]]


def told(data: bytes) -> bytes:
    """Some bytes, and whatever they carry in URL coding and in base64, twice over: bodies in envelopes in bodies."""
    whole = [data]
    layer = [data]
    for _ in range(3):
        layer = [decoded for piece in layer for decoded in _decoded(piece)]
        whole += layer
    return b"\n".join(whole)


def _decoded(piece: bytes) -> list[bytes]:
    found = []
    for text in {piece, urllib.parse.unquote_to_bytes(piece.replace(b"+", b" ")), urllib.parse.unquote_to_bytes(piece)}:
        if text != piece:
            found.append(text)
        for match in _BASE64.findall(text):
            with suppress(binascii.Error):
                found.append(base64.b64decode(match + b"=" * (-len(match) % 4)))
    return found
