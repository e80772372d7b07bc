"""Draining sockets: many packets of many sockets into preallocated slots, with source address and kernel timestamp.

``BatchReceiver`` calls recvmmsg(2) through ctypes, once a socket, on message headers that were built once; what the
kernel wrote is then read by numpy for all sockets together. ``PlainReceiver`` does the same with recvfrom_into where
recvmmsg is missing, one packet a call and at several times the cost.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from sbc_agent.media import memory
from sbc_agent.media.sockets import SO_TIMESTAMPNS

GROUP: Final = 256  # sockets drained together: their packets stay in the processor's cache until they are in the rings
DEPTH: Final = 32  # packets of one socket in one call
SLOT_BYTES: Final = 1600  # an Ethernet frame's worth; an odd number of cache lines, so that slots spread over the cache
MAX_PACKET_BYTES: Final = 1536
_FIRST: Final = 4  # RTP headers start here in a slot: payloads behind twelve bytes of header are then aligned to 16

_NAME_BYTES: Final = 16  # struct sockaddr_in
_CONTROL_BYTES: Final = 32  # struct cmsghdr and one struct timespec
_HEADER_BYTES: Final = 64  # struct mmsghdr where pointers have eight bytes
_POINTER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Received:
    """Packets of one call, ordered by socket and then by arrival.

    Attributes:
        member: Index into the list of descriptors, int64[n].
        offset: Where the packet starts in the receiver's buffer, int64[n].
        length: Bytes of the packet, int64[n].
        source: Address and port of the sender as one number, uint64[n]; never 0.
        stamp_us: Arrival in microseconds of CLOCK_REALTIME, int64[n].
        full: Members that may have more packets waiting.
    """

    member: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    source: npt.NDArray[np.uint64]
    stamp_us: npt.NDArray[np.int64]
    full: npt.NDArray[np.int64]


class Receiver(Protocol):
    """Drains up to ``GROUP`` sockets; what it returned is valid until its next call."""

    @property
    def buffer(self) -> npt.NDArray[np.uint8]:
        """All slots, flat; at least ``SLOT_BYTES`` may be read from any packet's offset."""

    def receive(self, descriptors: Sequence[int]) -> Received:
        """Takes what waits in non-blocking sockets, at most ``DEPTH`` packets of each."""


def source_key(host: str, port: int) -> int:
    """The number by which ``Received.source`` names an IPv4 sender: struct sockaddr_in's first eight bytes."""
    raw = struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host)
    return int.from_bytes(raw, sys.byteorder)


def best_receiver() -> Receiver:
    """The fastest receiver that this system has."""
    libc: Any = ctypes.PyDLL(None)  # the interpreter's lock is kept: no call waits, and giving it up costs more
    if hasattr(libc, "recvmmsg") and ctypes.sizeof(ctypes.c_void_p) == _POINTER_BYTES:
        return BatchReceiver(libc.recvmmsg)
    return PlainReceiver()


class BatchReceiver:
    """recvmmsg(2), prepared.

    Args:
        recvmmsg: The C function, returning int.
    """

    def __init__(self, recvmmsg: Any) -> None:  # noqa: ANN401 - ctypes gives its functions no public type
        count = GROUP * DEPTH
        index = np.arange(count, dtype=np.uint64)
        self.buffer = memory.array((GROUP * DEPTH + 1) * SLOT_BYTES, np.uint8)
        self._recvmmsg = recvmmsg
        self._start = index.astype(np.int64) * SLOT_BYTES + _FIRST
        self._names = np.zeros((count, 2), np.uint64)
        self._control = np.zeros((count, 4), np.int64)
        self._vectors = np.zeros((count, 2), np.uint64)
        self._vectors[:, 0] = self._start.astype(np.uint64) + np.uint64(self.buffer.ctypes.data)
        self._vectors[:, 1] = MAX_PACKET_BYTES
        # struct mmsghdr in words of 8 bytes: name, its length, vectors, how many, control, its length, flags, received
        self._headers = np.zeros((count, 8), np.uint64)
        self._headers[:, 0] = np.uint64(self._names.ctypes.data) + index * np.uint64(_NAME_BYTES)
        self._headers[:, 2] = np.uint64(self._vectors.ctypes.data) + index * np.uint64(16)
        self._headers[:, 3] = 1
        self._headers[:, 4] = np.uint64(self._control.ctypes.data) + index * np.uint64(_CONTROL_BYTES)
        self._reset()
        raw = (ctypes.c_char * self._headers.nbytes).from_buffer(self._headers.data.cast("B"))
        self._pointers = [ctypes.byref(raw, member * DEPTH * _HEADER_BYTES) for member in range(GROUP)]
        words = self._headers.view(np.uint32)
        self._flags, self._received = words[:, 12], words[:, 14]
        self._stamped = self._headers[:, 5]
        self._column = np.arange(DEPTH)

    def _reset(self) -> None:
        """The kernel writes back how much of name and control it used: nearly always all of it."""
        self._headers[:, 1] = _NAME_BYTES
        self._headers[:, 5] = _CONTROL_BYTES

    def receive(self, descriptors: Sequence[int]) -> Received:
        """Takes what waits in non-blocking sockets, at most ``DEPTH`` packets of each."""
        members = len(descriptors)
        assert members <= GROUP
        flags = int(socket.MSG_DONTWAIT)
        calls = map(self._recvmmsg, descriptors, self._pointers, repeat(DEPTH), repeat(flags), repeat(None))
        counts = np.fromiter(calls, np.int64, members)  # -1 where nothing waits
        np.maximum(counts, 0, out=counts)
        rows = np.flatnonzero((self._column < counts[:, None]).ravel())
        control = self._control[rows]
        if (self._stamped[rows] != _CONTROL_BYTES).any():
            self._mend(rows, control)
        return Received(
            np.repeat(np.arange(members), counts),
            self._start[rows],
            # What was longer than a slot is no RTP that we know: it counts as malformed.
            np.where(self._flags[rows] & socket.MSG_TRUNC, 0, self._received[rows]).astype(np.int64),
            self._names[rows, 0],
            control[:, 2] * 1_000_000 + control[:, 3] // 1000,
            np.flatnonzero(counts == DEPTH),
        )

    def _mend(self, rows: npt.NDArray[np.int64], control: npt.NDArray[np.int64]) -> None:
        """Where the kernel gave no timestamp, the time of reading has to do."""
        control[self._stamped[rows] != _CONTROL_BYTES, 2:] = divmod(time.time_ns(), 1_000_000_000)
        self._reset()


class PlainReceiver:
    """recvmsg_into(2), one packet a call, for systems without recvmmsg."""

    def __init__(self) -> None:
        self.buffer = memory.array((GROUP * DEPTH + 1) * SLOT_BYTES, np.uint8)
        self._view = self.buffer.data

    def receive(self, descriptors: Sequence[int]) -> Received:
        """Takes what waits in non-blocking sockets, at most ``DEPTH`` packets of each."""
        rows: list[tuple[int, int, int, int, int]] = []
        full: list[int] = []
        for member, descriptor in enumerate(descriptors):
            packets = self._packets(member, descriptor)
            rows += packets
            if len(packets) == DEPTH:
                full.append(member)
        member_, offset, length, source, stamp_us = np.array(rows, np.uint64).reshape(-1, 5).T
        return Received(
            member_.astype(np.int64),
            offset.astype(np.int64),
            length.astype(np.int64),
            source.copy(),
            stamp_us.astype(np.int64),
            np.array(full, np.int64),
        )

    def _packets(self, member: int, descriptor: int) -> list[tuple[int, int, int, int, int]]:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, fileno=descriptor)  # borrowed, never closed
        packets = []
        try:
            for slot in range(DEPTH):
                offset = (member * DEPTH + slot) * SLOT_BYTES + _FIRST
                view = self._view[offset : offset + MAX_PACKET_BYTES]
                length, control, flags, address = one.recvmsg_into([view], _CONTROL_BYTES, socket.MSG_DONTWAIT)
                length = 0 if flags & socket.MSG_TRUNC else length
                packets.append((member, offset, length, source_key(*address), _stamp_us(control)))
        except BlockingIOError:
            pass
        finally:
            one.detach()
        return packets


def _stamp_us(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@ll", data[: _CONTROL_BYTES // 2])
            return int(seconds) * 1_000_000 + int(nanoseconds) // 1000
    return time.time_ns() // 1000
