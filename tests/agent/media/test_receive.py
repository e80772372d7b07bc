"""Draining real loopback sockets: bytes, senders and kernel timestamps, by recvmmsg and without it."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dualtone.domain.errors import Unavailable
from sbc_agent.media.receive import (
    DEPTH,
    MAX_PACKET_BYTES,
    BatchReceiver,
    PlainReceiver,
    Receiver,
    best_receiver,
    source_key,
)
from sbc_agent.media.sockets import RtpSocket, open_pool


@pytest.fixture(params=["recvmmsg", "plain"])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    if request.param == "plain":
        return PlainReceiver()
    best = best_receiver()
    assert isinstance(best, BatchReceiver)
    return best


@pytest.fixture
def pool() -> Iterator[list[RtpSocket]]:
    with ExitStack() as stack:
        pairs = list(open_pool("127.0.0.1", 21_000, 31_000, 3).values())
        for pair in pairs:
            stack.callback(pair.close)
        yield pairs


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        yield one


def packets(receiver: Receiver, pool: list[RtpSocket]) -> list[tuple[int, bytes]]:
    """Which socket got what."""
    got = receiver.receive([pair.rtp.fileno() for pair in pool])
    return [
        (int(member), receiver.buffer[offset : offset + length].tobytes())
        for member, offset, length in zip(got.member, got.offset, got.length, strict=True)
    ]


def await_timestamps(receiver: Receiver, pool: list[RtpSocket], peer: socket.socket) -> None:
    """Linux begins to stamp packets a little after the first socket asked for it; until then reading stamps them."""
    for _ in range(100):
        peer.sendto(b"probe", ("127.0.0.1", pool[0].port))
        select.select([], [], [], 0.01)
        got = receiver.receive([pool[0].rtp.fileno()])
        if time.time_ns() // 1000 - int(got.stamp_us[0]) > 5_000:
            return
    pytest.fail("no kernel timestamps")


def test_every_packet_comes_with_its_sender_and_its_time(
    receiver: Receiver, pool: list[RtpSocket], peer: socket.socket
) -> None:
    """The timestamp is the kernel's at arrival, not ours at reading."""
    await_timestamps(receiver, pool, peer)
    before_us = time.time_ns() // 1000
    for number in range(3):
        for index in (0, 2):
            peer.sendto(bytes([index, number]) * 86, ("127.0.0.1", pool[index].port))
    after_us = time.time_ns() // 1000
    select.select([], [], [], 0.05)  # the reading is later than the arrival by more than the clock's grain
    got = receiver.receive([pair.rtp.fileno() for pair in pool])
    assert got.member.tolist() == [0, 0, 0, 2, 2, 2]
    assert [receiver.buffer[at : at + 2].tolist() for at in got.offset] == [
        [member, number] for member in (0, 2) for number in range(3)
    ]
    assert set(got.length.tolist()) == {172}
    assert set(got.source.tolist()) == {source_key(*peer.getsockname())}
    assert before_us - 1 <= got.stamp_us.min() <= got.stamp_us.max() <= after_us + 1
    assert got.full.size == 0


def test_sockets_without_packets_give_none(receiver: Receiver, pool: list[RtpSocket]) -> None:
    assert packets(receiver, pool) == []


def test_a_socket_with_more_says_so(receiver: Receiver, pool: list[RtpSocket], peer: socket.socket) -> None:
    for number in range(DEPTH + 5):
        peer.sendto(number.to_bytes(2, "big"), ("127.0.0.1", pool[1].port))
    first = receiver.receive([pair.rtp.fileno() for pair in pool])
    assert (first.full.tolist(), first.offset.size) == ([1], DEPTH)
    rest = receiver.receive([pair.rtp.fileno() for pair in pool])
    assert (rest.full.size, rest.offset.size) == (0, 5)
    assert receiver.buffer[rest.offset[0] : rest.offset[0] + 2].tolist() == [0, DEPTH]


def test_sizes_from_nothing_to_a_slot(receiver: Receiver, pool: list[RtpSocket], peer: socket.socket) -> None:
    """What is longer than a slot is no RTP: it counts as a packet of no length, and spoils nothing."""
    for size in (0, 1, MAX_PACKET_BYTES, MAX_PACKET_BYTES + 1, 9_000, 7):
        peer.sendto(b"z" * size, ("127.0.0.1", pool[0].port))
    assert [len(data) for _, data in packets(receiver, pool)] == [0, 1, MAX_PACKET_BYTES, 0, 0, 7]


def test_a_shut_socket_drops_and_forgets(receiver: Receiver, pool: list[RtpSocket], peer: socket.socket) -> None:
    """After a call its port takes nothing, not even into the kernel's buffer, until it is opened again."""
    peer.sendto(b"before", ("127.0.0.1", pool[0].port))
    pool[0].shut()
    peer.sendto(b"after", ("127.0.0.1", pool[0].port))
    assert packets(receiver, pool) == []
    pool[0].reopen()
    peer.sendto(b"next call", ("127.0.0.1", pool[0].port))
    assert packets(receiver, pool) == [(0, b"next call")]


def test_rtcp_is_dropped_without_an_icmp_error(pool: list[RtpSocket]) -> None:
    """The port above listens, so that the peer's connected socket sees no refusal; nothing is ever read from it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("127.0.0.1", pool[0].port + 1))
        for _ in range(2):
            one.send(b"\x80\xc8" + bytes(26))
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    with pytest.raises(BlockingIOError):
        pool[0].rtcp.recv(1)


def test_the_pool_passes_over_ports_that_others_hold() -> None:
    """RTP ports are even; a pair of which either port is taken is left out."""
    first = list(open_pool("127.0.0.1", 21_001, 31_000, 4).values())
    try:
        ports = [pair.port for pair in first]
        assert ports == sorted(ports)
        assert all(port % 2 == 0 for port in ports)
        first[1].rtp.close()  # its RTCP port is still held
        second: list[RtpSocket] = []
        with contextlib.suppress(Unavailable):  # nothing is free between them
            second = list(open_pool("127.0.0.1", ports[0], ports[3] + 1, 4).values())
        assert not {pair.port for pair in second} & set(ports)
        for pair in second:
            pair.close()
    finally:
        for pair in first:
            pair.close()


def test_wanted_ports_are_opened_first() -> None:
    """A call of an earlier run has its ports, wherever they stand in the range; what is none of the range's is not."""
    found = open_pool("127.0.0.1", 21_000, 31_000, 4)
    last = max(found)
    for pair in found.values():
        pair.close()
    again = open_pool("127.0.0.1", 21_000, 31_000, 2, [last, last + 1, 80, 40_000])
    assert list(again) == sorted(again)
    assert last in again
    assert len(again) == 2
    for pair in again.values():
        pair.close()
