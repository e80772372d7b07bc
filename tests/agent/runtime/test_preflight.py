"""The checks at start: what is wrong with this machine, and what to change."""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path

import pytest

from sbc_agent.media import srtp_context
from sbc_agent.runtime import config, preflight
from sbc_agent.runtime.config import PortRange

SPOOL = Path("/var/spool/a")
EPHEMERAL = (32_768, 60_999)


def only(findings: list[preflight.Finding]) -> preflight.Finding:
    (finding,) = findings
    return finding


def test_descriptors_for_the_pool() -> None:
    """Too few open files stop the start, and the message names a limit that will do and a pool that will fit."""
    assert preflight.descriptors(1_312, 400) == []
    finding = only(preflight.descriptors(1_024, 400))
    assert finding.severity == "fatal"
    assert "LimitNOFILE=1312" in finding.message
    assert "lower media.pool_size to 256" in finding.message


@pytest.mark.parametrize(
    ("limit", "swapping", "found"), [(8 << 20, True, 1), (8 << 20, False, 0), (-1, True, 0), (1 << 30, True, 0)]
)
def test_memory_for_the_hold_back(limit: int, swapping: bool, found: int) -> None:
    """S3: what is held back must not reach a swap partition; without swap, or with enough lockable, it cannot."""
    findings = preflight.locked_memory(limit, 400, swapping=swapping)
    assert len(findings) == found
    assert all("LimitMEMLOCK=infinity" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("ports", "reserved", "severity"),
    [
        (PortRange(20_000, 29_999), "", None),
        (PortRange(30_000, 39_999), "", "error"),
        (PortRange(40_000, 40_399), "", "warning"),
        (PortRange(60_999, 65_000), "", "error"),
        (PortRange(61_000, 65_000), "", None),
        (PortRange(30_000, 39_999), "8080,32768-39999\n", None),
        (PortRange(30_000, 39_999), "32768-39998", "error"),
        (PortRange(40_000, 40_001), "40000,40001", "warning"),
    ],
)
def test_ports_that_the_kernel_gives_away(ports: PortRange, reserved: str, severity: str | None) -> None:
    """An overlap is told with the range to reserve; a few ports on a test machine are worth a warning only."""
    findings = preflight.media_ports(ports, EPHEMERAL, reserved)
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    assert all("ip_local_reserved_ports=" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("free", "least", "severity"),
    [
        (10, 256, "error"),
        (0, 256, "error"),
        (0, 0, "warning"),
        (500, 256, "warning"),
        (3_000, 2_000, "warning"),
        (10_000, 256, None),
    ],
)
def test_room_in_the_spool(free: int, least: int, severity: str | None) -> None:
    """A full spool is an error and stops no start, for sending makes room; little is a warning."""
    findings = preflight.space(free << 20, least << 20, "refuse_calls", SPOOL)
    assert [finding.severity for finding in findings] == ([severity] if severity else [])


def test_what_becomes_of_new_calls_is_told() -> None:
    """The finding names the setting, and says what its policy does."""
    assert (
        "min_free_mb = 256: new calls are refused"
        in only(preflight.space(1 << 20, 256 << 20, "refuse_calls", SPOOL)).message
    )
    assert (
        "new calls are recorded in memory"
        in only(preflight.space(1 << 20, 256 << 20, "record_in_memory", SPOOL)).message
    )


def test_a_spool_in_memory() -> None:
    """A tmpfs forgets."""
    assert preflight.file_system("ext4", SPOOL) == []
    assert "Set agent.spool_dir" in only(preflight.file_system("tmpfs", SPOOL)).message


@pytest.mark.parametrize(
    ("now", "newest", "severity"),
    [
        (0.0, None, "error"),
        (1_800_000_000, None, None),
        (1_800_000_000, 1_800_000_100, None),
        (1_800_000_000, 1_900_000_000, "warning"),
    ],
)
def test_the_clock(now: float, newest: float | None, severity: str | None) -> None:
    """A clock that was never set, or that went back behind the spool, is told."""
    assert [finding.severity for finding in preflight.wall_clock(now, newest)] == ([severity] if severity else [])


def test_directories_are_made_private(tmp_path: Path) -> None:
    """What is missing is made, for this user alone."""
    path = tmp_path / "a" / "b"
    assert preflight.directory(path, "agent.state_dir") == []
    assert path.stat().st_mode & 0o777 == 0o700
    assert list(path.iterdir()) == []


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A file in its place stops the start, and the message names setting, reason and remedy."""
    (tmp_path / "file").write_text("")
    finding = only(preflight.directory(tmp_path / "file", "agent.spool_dir"))
    assert finding.severity == "fatal"
    assert finding.message.startswith(f"agent.spool_dir {tmp_path / 'file'} cannot be used (file exists)")
    assert "install -d" in finding.message


def test_a_full_directory_stops_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in a full spool must go up: no space and no quota left is an error, not the end."""

    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    finding = only(preflight.directory(tmp_path, "agent.spool_dir"))
    assert finding.severity == "error"
    assert finding.message == f"agent.spool_dir {tmp_path} is full (disk quota exceeded): make room there"


def test_inspecting_this_machine(tmp_path: Path) -> None:
    """All checks run here; the soft limit on open files ends up at the hard one; nothing fatal stands in the way."""
    text = f"""
[agent]
state_dir = "{tmp_path}/state"
spool_dir = "{tmp_path}/spool"
[media]
address = "127.0.0.1"
ports = "40000-40099"
pool_size = 4
[uplink]
api = "http://127.0.0.1:1"
"""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        findings = preflight.inspect(config.parse(text))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert soft == hard
    assert not [finding for finding in findings if finding.severity == "fatal"]
    assert {finding.check for finding in findings} <= {
        "descriptors",
        "locked_memory",
        "media_ports",
        "space",
        "file_system",
        "wall_clock",
        "directory",
    }


def test_srtp_that_cannot_be_opened_stops_the_start_only_where_it_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do; plain RTP is recorded without the library."""
    assert preflight.srtp("allow") == []
    srtp_context.library.cache_clear()
    monkeypatch.setitem(sys.modules, "pylibsrtp", None)
    finding = only(preflight.srtp("require_tls"))
    assert (finding.severity, finding.check) == ("fatal", "srtp")
    assert 'sip.srtp = "off"' in finding.message
    assert preflight.srtp("off") == []
