"""A packet capture of what an agent says to its cloud: every TCP segment on loopback to the cloud's ports.

It needs the right to open packet sockets (CAP_NET_RAW). The local cloud speaks plain HTTP, so that what is captured can
be read: requests, and in them the agent's signed reports.
"""

from __future__ import annotations

import base64
import ctypes
import json
import re
import select
import socket
import struct
import threading
from collections.abc import Collection
from typing import Any, Final, Self

_ETH_P_IP: Final = 0x0800
_TCP: Final = 6
_ETHERNET_BYTES: Final = 14
_BUFFER_BYTES: Final = 32 << 20
_SO_ATTACH_FILTER: Final = 26
_ACCEPTED_BYTES: Final = 1 << 18
_LONGEST: Final = 1 << 17
_PAYLOAD: Final = re.compile(rb'payload\\*":\s*\\*"([A-Za-z0-9+/=]+)')


def may_capture() -> bool:
    """Whether this process may open packet sockets."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP)).close()
    except (AttributeError, PermissionError):
        return False
    return True


def _only_to(ports: Collection[int]) -> bytes:
    """A classic BPF program that lets TCP over IPv4 to these ports through, behind an Ethernet header."""
    wanted = sorted(ports)
    program = [
        (0x30, 0, 0, _ETHERNET_BYTES + 9),  # the protocol
        (0x15, 0, len(wanted) + 2, _TCP),
        (0xB1, 0, 0, _ETHERNET_BYTES),  # X: length of the IP header
        (0x48, 0, 0, _ETHERNET_BYTES + 2),  # the destination port
        *((0x15, len(wanted) - place, 0, port) for place, port in enumerate(wanted)),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, _ACCEPTED_BYTES),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class Capture:
    """Captures from the moment it is entered until it is left.

    Args:
        ports: TCP ports of the cloud.
    """

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = frozenset(ports)
        self._segments: dict[tuple[int, int], dict[int, bytes]] = {}
        self._done = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        program = ctypes.create_string_buffer(_only_to(self._ports))
        described = struct.pack("@HP", (len(program) - 1) // 8, ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
        self._socket.bind(("lo", 0))
        self._thread = threading.Thread(target=self._listen, name="capture", daemon=True)

    def __enter__(self) -> Self:
        """Begins to capture."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes what is in the buffer still, and stops."""
        self._done.set()
        self._thread.join()
        self._socket.close()

    @property
    def said(self) -> bytes:
        """Everything that was said to the cloud, connection by connection, in the order of the octets."""
        return b"\n".join(self._stream(segments) for segments in list(self._segments.values()))

    @property
    def requests(self) -> list[str]:
        """Method and target of every HTTP request."""
        found = re.findall(rb"(?:^|\r\n\r\n|\n|[}\]>])((?:GET|PUT|POST|DELETE|HEAD) /\S*) HTTP/1\.1\r\n", self.said)
        return [request.decode("ascii") for request in found]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event in the agent's reports."""
        found: list[dict[str, Any]] = []
        for payload in _PAYLOAD.findall(self.said):
            report = json.loads(base64.b64decode(payload))
            found += report.get("events", [])
        return found

    def _stream(self, segments: dict[int, bytes]) -> bytes:
        """Puts segments together; one that came twice counts once (RFC 9293 section 3.4: numbers wrap at 32 bits)."""
        segments = dict(segments)
        first = next(iter(segments))
        whole = bytearray()
        for number in sorted(segments, key=lambda number: (number - first + (1 << 31)) % (1 << 32)):
            at = (number - first) % (1 << 32)
            if at < 1 << 31:
                whole[at : at + len(segments[number])] = segments[number]
        return bytes(whole)

    def _listen(self) -> None:
        while True:
            if select.select([self._socket], [], [], 0.2)[0]:
                self._take(self._socket.recv(_LONGEST)[_ETHERNET_BYTES:])
            elif self._done.is_set():
                return

    def _take(self, packet: bytes) -> None:
        header_bytes = 4 * (packet[0] & 0xF)
        segment = packet[header_bytes : struct.unpack_from("!H", packet, 2)[0]]
        source, destination, number = struct.unpack_from("!HHI", segment)
        data = segment[4 * (segment[12] >> 4) :]
        if data:
            self._segments.setdefault((source, destination), {})[number] = data
