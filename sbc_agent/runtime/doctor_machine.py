"""What the doctor looks at on the machine itself: ports, buffers, disk, clock, limits. Looking is the only effect.

Buffers are told in seconds of media, because that is how long the media process may stand still without losing any.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sbc_agent.media.sockets import RECEIVE_BUFFER_BYTES, SO_RCVBUFFORCE
from sbc_agent.runtime import preflight
from sbc_agent.runtime.config import Endpoint, PortRange
from sbc_agent.runtime.diagnosis import Diagnosis
from sbc_agent.runtime.system_errors import plain

PACKETS_A_SECOND: Final = 50
"""Of one stream, at 20 ms a packet."""
BYTES_OF_BUFFER_A_PACKET: Final = 2_304
"""What a small packet costs a socket's buffer when it comes from a NIC: the driver's buffer and the kernel's header."""
LEAST_SOCKET_S: Final = 3.0
LEAST_BACKLOG_S: Final = 0.1
SLOW_FSYNC_S: Final = 0.1
_WRITTEN_BYTES: Final = 16 << 20
_CHUNK_BYTES: Final = 1 << 20
_FSYNCS: Final = 11
_BYTES_A_STREAM_S: Final = 9_000  # G.711, sealed, with arrival times
_TIME_ERROR: Final = 5  # adjtimex(2): the kernel's clock is not synchronised
_TIMEX_BYTES: Final = 512  # more than struct timex has on any machine
_IN_USE: Final = frozenset({errno.EADDRINUSE})


def listeners(endpoints: dict[str, tuple[Endpoint | None, socket.SocketKind]], *, running: bool) -> Iterator[Diagnosis]:
    """Whether the ports that the agent listens on are free, or are its own.

    Args:
        endpoints: By the setting's name: where, and by which transport; None is off.
        running: Whether the agent runs, so that it should be the one that has them.
    """
    for setting, (endpoint, kind) in endpoints.items():
        if endpoint is None:
            continue
        fault = _binding_fails(endpoint.host, endpoint.port, kind) if endpoint.port else 0
        if running and (fault in _IN_USE or not endpoint.port):
            yield Diagnosis("ports", "ok", f"{setting} {endpoint} is in use while the agent runs, as it should be")
        elif running:
            yield Diagnosis(
                "ports", "fail", f"{setting} {endpoint} is not listened to though the agent runs: restart it"
            )
        elif fault:
            reason = plain(OSError(fault, ""))
            yield Diagnosis(
                "ports", "fail", f"{setting} {endpoint} cannot be used ({reason}): stop what has it, or write another"
            )
        else:
            yield Diagnosis("ports", "ok", f"{setting} {endpoint} is free")


def media_pool(address: str, ports: PortRange, pool_size: int, *, running: bool) -> Diagnosis:
    """Whether so many pairs of the media range can be had.

    Args:
        address: ``media.address``.
        ports: ``media.ports``.
        pool_size: ``media.pool_size``.
        running: Whether the agent has them already.
    """
    if running:
        return Diagnosis("media_ports", "ok", f"the agent runs and has its {pool_size} pairs of {ports}")
    free = 0
    for port in range(ports.first + ports.first % 2, ports.last, 2):
        faults = [_binding_fails(address, each, socket.SOCK_DGRAM) for each in (port, port + 1)]
        if errno.EADDRNOTAVAIL in faults:
            return Diagnosis(
                "media_ports", "fail", f"media.address {address} is not this machine's: write one that ip addr shows"
            )
        free += not any(faults)
        if free == pool_size:
            return Diagnosis("media_ports", "ok", f"{pool_size} pairs of {ports} are free")
    return Diagnosis(
        "media_ports",
        "fail",
        f"of {ports} only {free} pairs are free and media.pool_size = {pool_size}: write a wider or another range",
    )


def _binding_fails(host: str, port: int, kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
        try:
            probe.bind((host, port))
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def socket_buffer() -> Diagnosis:
    """How many seconds of a stream a media socket holds while nobody reads it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        size = probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return judged_socket_buffer(size)


def judged_socket_buffer(size_bytes: int) -> Diagnosis:
    """Judges a socket's buffer, as the kernel counts it. Pure."""
    holds_s = size_bytes / (BYTES_OF_BUFFER_A_PACKET * PACKETS_A_SECOND)
    text = f"a media socket holds {holds_s:.1f} s of a stream ({size_bytes >> 10} KiB)"
    if holds_s >= LEAST_SOCKET_S:
        return Diagnosis("socket_buffer", "ok", text)
    return Diagnosis(
        "socket_buffer",
        "warn",
        f"{text}, and {LEAST_SOCKET_S:.0f} s are wanted: run sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES} "
        "(and write that to /etc/sysctl.d)",
    )


def backlog(queued_packets: int, pool_size: int) -> Diagnosis:
    """Judges the kernel's queue between NIC and sockets. Pure.

    Args:
        queued_packets: net.core.netdev_max_backlog, of one processor.
        pool_size: How many streams there may be.
    """
    rate = pool_size * PACKETS_A_SECOND
    holds_s = queued_packets / rate
    text = f"the kernel queues {queued_packets} packets a processor, {1000 * holds_s:.0f} ms of {pool_size} streams"
    if holds_s >= LEAST_BACKLOG_S:
        return Diagnosis("nic_backlog", "ok", text)
    wanted = 1 << (int(rate * LEAST_BACKLOG_S) - 1).bit_length()
    return Diagnosis(
        "nic_backlog",
        "warn",
        f"{text}: run sysctl -w net.core.netdev_max_backlog={wanted} (and write that to /etc/sysctl.d)",
    )


def nic_backlog(pool_size: int) -> Diagnosis:
    """The kernel's queue of this machine."""
    return backlog(int(preflight.read_proc("sys/net/core/netdev_max_backlog") or 1_000), pool_size)


def lost_datagrams(snmp: str) -> Diagnosis:
    """Whether the kernel has thrown datagrams away since the machine started. Pure.

    Args:
        snmp: /proc/net/snmp.
    """
    rows = [line.split() for line in snmp.splitlines() if line.startswith("Udp:")]
    counts = dict(zip(rows[0], rows[1], strict=False)) if len(rows) > 1 else {}
    lost = int(counts.get("RcvbufErrors", 0))
    if not lost:
        return Diagnosis("lost_packets", "ok", "no datagram was lost for want of buffer since the machine started")
    return Diagnosis(
        "lost_packets",
        "warn",
        f"{lost} datagrams of all programs were lost for want of buffer since the machine started: if the number grows "
        "while calls last, the machine is too slow or its buffers too small",
    )


def datagrams_lost() -> Diagnosis:
    """What this machine has lost."""
    return lost_datagrams(preflight.read_proc("net/snmp"))


def disk_speed(directory: Path, pool_size: int, *, clock: Callable[[], float] = time.perf_counter) -> list[Diagnosis]:
    """How fast the spool's disk writes and syncs, by writing 16 MiB that are removed again.

    Args:
        directory: ``agent.spool_dir``.
        pool_size: How many streams it must keep up with.
        clock: Monotonic seconds.
    """
    path = directory / f".doctor.{secrets.token_hex(4)}"
    chunk, syncs = secrets.token_bytes(_CHUNK_BYTES), []
    try:
        with path.open("xb", buffering=0) as file:
            path.chmod(0o600)
            began = clock()
            for _ in range(_WRITTEN_BYTES // _CHUNK_BYTES):
                file.write(chunk)
            os.fsync(file.fileno())
            took_s = clock() - began
            for _ in range(_FSYNCS):
                file.write(b"\0")
                began = clock()
                os.fsync(file.fileno())
                syncs.append(clock() - began)
    except OSError as error:
        return [
            Diagnosis("disk_speed", "fail", f"{directory} cannot be written ({plain(error)}): make room, or mend it")
        ]
    finally:
        path.unlink(missing_ok=True)
    return judged_disk(_WRITTEN_BYTES / max(took_s, 1e-6), statistics.median(syncs), pool_size)


def judged_disk(bytes_a_second: float, sync_s: float, pool_size: int) -> list[Diagnosis]:
    """Judges a disk. Pure.

    Args:
        bytes_a_second: What it writes.
        sync_s: What a small write takes until it is safe.
        pool_size: How many streams it must keep up with.
    """
    needed = pool_size * _BYTES_A_STREAM_S
    text = f"{bytes_a_second / 1e6:.0f} MB/s; {pool_size} streams need {needed / 1e6:.1f}"
    fast: Diagnosis = Diagnosis("disk_speed", "ok", text)
    if bytes_a_second < needed:
        fast = Diagnosis("disk_speed", "fail", f"{text}: use a faster disk, or lower media.pool_size")
    elif bytes_a_second < 4 * needed:
        fast = Diagnosis("disk_speed", "warn", f"{text}: little is left for reading it again and for everything else")
    text = f"a small write is safe on the disk after {1000 * sync_s:.1f} ms"
    if sync_s < SLOW_FSYNC_S:
        return [fast, Diagnosis("disk_sync", "ok", text)]
    return [fast, Diagnosis("disk_sync", "warn", f"{text}: the disk is slow or busy; use one of its own for the spool")]


def clock_kept() -> Diagnosis:
    """Whether something keeps this machine's clock, as the kernel knows it."""
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return judged_clock(state)


def judged_clock(state: int) -> Diagnosis:
    """Judges what adjtimex(2) answered: 0 to 4 are synchronised, 5 is not, below 0 it would not say. Pure."""
    if state < 0:
        return Diagnosis("ntp", "warn", "the kernel does not say whether its clock is kept: is this a container?")
    if state == _TIME_ERROR:
        return Diagnosis("ntp", "warn", "nothing keeps this machine's clock: run an NTP client such as chrony")
    return Diagnosis("ntp", "ok", "this machine's clock is kept by NTP or its like")


def core_dumps(limit: int, *, of: str) -> Diagnosis:
    """Whether the system may write the agent's memory, and with it audio and keys, to a file. Pure.

    Args:
        limit: RLIMIT_CORE, negative for none.
        of: Whose limit that is.
    """
    if limit == 0:
        return Diagnosis("core_dumps", "ok", f"core dumps are off ({of})")
    return Diagnosis(
        "core_dumps",
        "warn",
        f"core dumps are not off ({of}): the agent forbids its own; set LimitCORE=0 in the unit too",
    )


def limits(pid: int | None) -> tuple[dict[int, int], str]:
    """Hard limits of the running agent, or of this shell; a negative one is none.

    Args:
        pid: The agent's process, None if it does not run.

    Returns:
        By RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_CORE; and whose they are.
    """
    wanted = (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_CORE)
    if pid is not None:
        try:
            return {limit: resource.prlimit(pid, limit)[1] for limit in wanted}, "the running agent's"
        except (OSError, ValueError):
            pass  # another user's: this shell's are the next best
    return {limit: resource.getrlimit(limit)[1] for limit in wanted}, "this shell's; the service's may differ"
