"""The pool of UDP sockets: open before any call needs them, so that a port listens before the answer names it.

RTP takes an even port, RTCP the odd one above it (RFC 3550 section 11). What RTCP says is not used: its sockets carry
a filter that drops everything in the kernel, so that an SBC sees neither an answer nor an ICMP error. The same filter
shuts an RTP socket after its call: SBCs go on sending after BYE, and that must not fill the buffer of the next call.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dualtone.domain.errors import Unavailable

RECEIVE_BUFFER_BYTES: Final = 1 << 20  # ten seconds of a stream at about 850 bytes of buffer a packet, doubled by Linux

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPNS: Final = 35

# struct sock_filter {code, jt, jf, k}: BPF_RET | BPF_K with k = 0 keeps no byte of any packet.
_DROP_ALL: Final = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
_DROP_PROGRAM: Final = struct.pack("@HP", 1, ctypes.addressof(_DROP_ALL))


@dataclass(slots=True)
class RtpSocket:
    """A port pair of the pool.

    Attributes:
        port: The RTP port.
        rtp: Its socket: non-blocking, large buffer, kernel timestamps.
        rtcp: The socket of the port above, which drops everything.
        is_shut: Whether the RTP socket drops everything too.
    """

    port: int
    rtp: socket.socket
    rtcp: socket.socket
    is_shut: bool = False

    def shut(self) -> None:
        """Lets the kernel drop what still comes, and forgets what has come."""
        if not self.is_shut:
            self.rtp.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _DROP_PROGRAM)
            self.is_shut = True
        with contextlib.suppress(BlockingIOError):
            while True:
                self.rtp.recv(1)

    def reopen(self) -> None:
        """Lets packets in again."""
        if self.is_shut:
            self.rtp.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            self.is_shut = False

    def close(self) -> None:
        """Closes both sockets."""
        self.rtp.close()
        self.rtcp.close()


def open_pool(address: str, first: int, last: int, size: int, wanted: Iterable[int] = ()) -> dict[int, RtpSocket]:
    """Opens port pairs, passing over ports that another program holds.

    Args:
        address: IPv4 address to receive on.
        first: Lowest port.
        last: Highest port.
        size: How many pairs.
        wanted: RTP ports to open before all others: calls of an earlier run have them.

    Returns:
        At most ``size`` pairs by RTP port, in ascending order.

    Raises:
        Unavailable: If not one pair could be opened.
        OSError: If the system refuses sockets for another reason than a busy port.
    """
    pool: dict[int, RtpSocket] = {}
    ports = _even_ports(first, last)
    for port in dict.fromkeys([*(port for port in wanted if port in ports), *ports]):
        if len(pool) == size:
            break
        pair = _open_pair(address, port)
        if pair is not None:
            pool[port] = pair
    if not pool:
        raise Unavailable("no pair of media ports is free")
    return dict(sorted(pool.items()))


def _even_ports(first: int, last: int) -> range:
    return range(first + first % 2, last, 2)


def _open_pair(address: str, port: int) -> RtpSocket | None:
    opened: list[socket.socket] = []
    try:
        for number in (port, port + 1):
            opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            if number == port:
                _prepare_rtp(opened[-1])
            else:
                opened[-1].setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _DROP_PROGRAM)
            opened[-1].bind((address, number))
    except OSError as error:
        for one in opened:
            one.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return RtpSocket(port, opened[0], opened[1])


def _prepare_rtp(rtp: socket.socket) -> None:
    rtp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    try:
        rtp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:  # without CAP_NET_ADMIN net.core.rmem_max caps the request
        rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
