"""Everything that passes over the loopback interface, taken from the kernel's own tap (packet(7)): needs root."""

from __future__ import annotations

import base64
import binascii
import re
import socket
import struct
import threading
import urllib.parse
from collections import defaultdict
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

    Attributes:
        tcp: What was sent on each flow (source and destination port), in the order of its numbers.
        udp: Every datagram's payload by flow.
    """

    def __init__(self) -> None:
        self.udp: dict[Flow, list[bytes]] = defaultdict(list)
        self._segments: dict[Flow, dict[int, bytes]] = defaultdict(dict)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="loopback", daemon=True)

    def __enter__(self) -> Self:
        """Opens the tap."""
        self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._tap.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE
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
