"""What must be right on this machine before calls can be recorded, and what to change where it is not.

``inspect`` looks, once, at start; the rules are pure functions of what it saw. Three severities: *fatal* stops the
start because nothing could be recorded; *error* will cost recordings or secrecy sooner or later and is an alarm in
the log; *warning* is worth a look. A recorder that can record starts.
"""

from __future__ import annotations

import errno
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dualtone.domain.errors import Unavailable
from sbc_agent.media import srtp_context
from sbc_agent.protocol.sdes import SrtpPolicy
from sbc_agent.runtime.config import AgentConfig, PortRange, WhenFull
from sbc_agent.runtime.durable import make_private_directory
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.spool_room import DiskSpace
from sbc_agent.runtime.system_errors import plain

Severity = Literal["fatal", "error", "warning"]

_PROC: Final = Path("/proc")
_DESCRIPTORS_A_STREAM: Final = 2  # RTP and RTCP
_DESCRIPTORS_BESIDE: Final = 512  # SIP connections, uplink, files being written
_BYTES_A_STREAM: Final = 150_000  # half of what PERFORMANCE allows a call
_MEGABYTE: Final = 1 << 20
_LOW_SPACE_BYTES: Final = 1 << 30
_FEW_PORTS: Final = 2_000
_EARLIEST_S: Final = 1_767_225_600  # 2026-01-01: before that no agent of this version was built
_AHEAD_S: Final = 3_600
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        severity: ``fatal``, ``error`` or ``warning``.
        check: Which check found it; one word, for the log.
        message: What is wrong and what to change, in plain words.
    """

    severity: Severity
    check: str
    message: str


def descriptors(limit: int, pool_size: int) -> list[Finding]:
    """Whether enough files can be open.

    Args:
        limit: RLIMIT_NOFILE after the soft limit was raised to the hard one.
        pool_size: How many streams can be received at once.
    """
    needed = pool_size * _DESCRIPTORS_A_STREAM + _DESCRIPTORS_BESIDE
    if limit >= needed:
        return []
    return [
        Finding(
            "fatal",
            "descriptors",
            f"media.pool_size = {pool_size} needs {needed} open files, but this process may open {limit}: set "
            f"LimitNOFILE={needed} in the systemd unit (or ulimit -Hn {needed}), or lower media.pool_size to "
            f"{max(0, limit - _DESCRIPTORS_BESIDE) // _DESCRIPTORS_A_STREAM}",
        )
    ]


def locked_memory(limit: int, pool_size: int, *, swapping: bool) -> list[Finding]:
    """Whether the hold-back can be kept out of swap.

    Args:
        limit: RLIMIT_MEMLOCK in bytes after the soft limit was raised; negative for none.
        pool_size: How many streams can be received at once.
        swapping: Whether this machine has swap at all.
    """
    needed = pool_size * _BYTES_A_STREAM
    if limit < 0 or limit >= needed or not swapping:
        return []
    return [
        Finding(
            "error",
            "locked_memory",
            f"audio that is held back may be swapped to disk: {needed // _MEGABYTE} MiB must be lockable and only "
            f"{limit // _MEGABYTE} MiB are. Set LimitMEMLOCK=infinity in the systemd unit, or switch swap off",
        )
    ]


def media_ports(ports: PortRange, ephemeral: tuple[int, int], reserved: str) -> list[Finding]:
    """Whether the kernel could give away a port of the media range first.

    Args:
        ports: The media range.
        ephemeral: net.ipv4.ip_local_port_range.
        reserved: net.ipv4.ip_local_reserved_ports, for example ``8080,9000-9100``.
    """
    first, last = max(ports.first, ephemeral[0]), min(ports.last, ephemeral[1])
    if first > last or _is_reserved(first, last, reserved):
        return []
    return [
        Finding(
            "warning" if ports.last - ports.first < _FEW_PORTS else "error",
            "media_ports",
            f"media.ports {ports} overlaps the ports that the kernel gives to outgoing connections "
            f"({ephemeral[0]}-{ephemeral[1]}): choose a range outside of it, or run "
            f"sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last} (and write that to /etc/sysctl.d)",
        )
    ]


def _is_reserved(first: int, last: int, reserved: str) -> bool:
    spans = [entry.partition("-") for entry in reserved.strip().split(",") if entry]
    return any(int(low) <= first and last <= int(high or low) for low, _, high in spans)


def space(free_bytes: int, min_free_bytes: int, when_full: WhenFull, spool_dir: Path) -> list[Finding]:
    """Whether the spool has room. A full one stops no start: what lies in it must go up, and that makes room.

    Args:
        free_bytes: What the agent's user may still write.
        min_free_bytes: Below which the spool counts as full.
        when_full: What becomes of new calls then.
        spool_dir: The spool.
    """
    left = f"{spool_dir} has {free_bytes // _MEGABYTE} MiB left"
    if free_bytes < min_free_bytes:
        fate = "refused" if when_full == "refuse_calls" else "recorded in memory"
        limit = f"less than agent.min_free_mb = {min_free_bytes // _MEGABYTE}"
        return [Finding("error", "space", f"{left}, {limit}: new calls are {fate}. Make room there")]
    if free_bytes < max(_LOW_SPACE_BYTES, 2 * min_free_bytes):
        return [
            Finding(
                "warning",
                "space",
                f"{left}: two G.711 streams take about 60 MiB an hour while the cloud is out of reach",
            )
        ]
    return []


def file_system(name: str, spool_dir: Path) -> list[Finding]:
    """Whether the spool outlives a power cut.

    Args:
        name: Type of the file system, as in /proc/mounts.
        spool_dir: The spool.
    """
    if name not in _MEMORY_FILE_SYSTEMS:
        return []
    return [
        Finding(
            "error",
            "file_system",
            f"{spool_dir} lies in memory ({name}): calls that wait there are lost with the power. "
            "Set agent.spool_dir to a directory on a disk",
        )
    ]


def wall_clock(now_s: float, newest_spooled_s: float | None) -> list[Finding]:
    """Whether the clock can be believed.

    Args:
        now_s: Unix time.
        newest_spooled_s: When the newest call of the spool began, by its id, or None.
    """
    if now_s < _EARLIEST_S:
        return [
            Finding(
                "error",
                "wall_clock",
                "this machine's clock stands before 2026: recordings would carry wrong times and the cloud would "
                "refuse the agent. Set the clock and run an NTP client such as chrony",
            )
        ]
    if newest_spooled_s is not None and newest_spooled_s > now_s + _AHEAD_S:
        return [
            Finding(
                "warning",
                "wall_clock",
                "this machine's clock went back: calls in the spool are from more than an hour ahead of it. Check the "
                "clock and run an NTP client such as chrony",
            )
        ]
    return []


def srtp(policy: SrtpPolicy) -> list[Finding]:
    """Whether SRTP can be opened, if it may come."""
    if policy == "off":
        return []
    try:
        srtp_context.prove()
    except Unavailable as error:
        return [
            Finding(
                "fatal",
                "srtp",
                f'sip.srtp = "{policy}", but this machine cannot open SRTP: {error}. Install the agent\'s own '
                'requirements, or set sip.srtp = "off" to record plain RTP alone',
            )
        ]
    return []


def directory(path: Path, setting: str, *, make: bool = True) -> list[Finding]:
    """Writes and removes a file in a directory, which is made if it is not there and is to be."""
    try:
        if make:
            make_private_directory(path)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _FULL and path.is_dir():
            return [Finding("error", "directory", f"{setting} {path} is full ({plain(error)}): make room there")]
        return [
            Finding(
                "fatal",
                "directory",
                f"{setting} {path} cannot be used ({plain(error)}): create it and give it to the agent's user, "
                f"for example install -d -m 700 -o dualtone {path}",
            )
        ]
    return []


def inspect(config: AgentConfig) -> list[Finding]:
    """Looks at this machine: raises soft limits to the hard ones, makes the directories, and returns what is wrong."""
    spool_dir, media = config.agent.spool_dir, config.media
    findings = directory(config.agent.state_dir, "agent.state_dir") + directory(spool_dir, "agent.spool_dir")
    findings += descriptors(_raised(resource.RLIMIT_NOFILE), media.pool_size)
    findings += locked_memory(_raised(resource.RLIMIT_MEMLOCK), media.pool_size, swapping=swapping())
    findings += media_ports(media.ports, ephemeral_ports(), read_proc("sys/net/ipv4/ip_local_reserved_ports"))
    if spool_dir.is_dir():
        agent = config.agent
        findings += space(DiskSpace.of(spool_dir).free_bytes, agent.min_free_bytes, agent.when_full, spool_dir)
        findings += file_system(file_system_of(spool_dir), spool_dir)
    findings += srtp(config.sip.srtp)
    findings += wall_clock(time.time(), _newest(spool_dir) if spool_dir.is_dir() else None)
    return findings


def _raised(limit: int) -> int:
    """Raises a soft limit to the hard one; returns it."""
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (hard, hard))
    return hard


def read_proc(name: str) -> str:
    """A file below /proc; empty if it cannot be read."""
    try:
        return (_PROC / name).read_text(encoding="ascii")
    except OSError:
        return ""


def swapping() -> bool:
    """Whether this machine has swap."""
    return len(read_proc("swaps").splitlines()) > 1


def ephemeral_ports() -> tuple[int, int]:
    """net.ipv4.ip_local_port_range, or what most systems have."""
    fields = read_proc("sys/net/ipv4/ip_local_port_range").split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 else (32_768, 60_999)  # noqa: PLR2004 - first, last


def file_system_of(path: Path) -> str:
    """The type of the file system that a path lies on: that of the longest mount point above it."""
    best, name = "", ""
    real = str(path.resolve())
    for line in read_proc("mounts").splitlines():
        fields = line.split()
        point = fields[1].encode("ascii").decode("unicode_escape")  # spaces are written \040
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, name = point, fields[2]
    return name


_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_TIME_CHARACTERS: Final = 10


def _newest(spool_dir: Path) -> float | None:
    """Unix time at which the newest call of the spool began: the first ten characters of its ULID are milliseconds."""
    calls = Spool(spool_dir).calls()
    if not calls:
        return None
    value = 0
    for character in calls[-1][:_ULID_TIME_CHARACTERS]:
        value = value * 32 + _CROCKFORD.index(character)
    return value / 1000
