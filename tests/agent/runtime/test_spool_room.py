"""The room in the spool: full is told once, room again is told once, and the policy decides about new calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbc_agent.runtime.config import WhenFull
from sbc_agent.runtime.spool_room import DiskSpace, SpoolRoom, takes_a_write
from tests.agent.runtime.spooled import Lines

MIB = 1 << 20
LIMIT = 256 * MIB
SPOOL = Path("/var/spool/a")


class Disk:
    """A disk as a test wants it."""

    def __init__(self) -> None:
        self.space = DiskSpace(10 * LIMIT, 1_000_000)
        self.gone = False
        self.writable = True
        self.probes = 0

    def measure(self, _: Path) -> DiskSpace:
        if self.gone:
            raise FileNotFoundError
        return self.space

    def probe(self, _: Path) -> bool:
        self.probes += 1
        return self.writable


def made(disk: Disk, lines: Lines, when_full: WhenFull = "refuse_calls") -> SpoolRoom:
    return SpoolRoom(
        SPOOL,
        min_free_bytes=LIMIT,
        when_full=when_full,
        log=lines.log,
        measure=disk.measure,
        probe=disk.probe,
    )


def events(lines: Lines) -> list[tuple[object, object]]:
    return [(line["event"], line["level"]) for line in lines.events()]


@pytest.mark.parametrize(("when_full", "takes"), [("refuse_calls", False), ("record_in_memory", True)])
def test_full_is_told_when_it_begins_and_when_it_ends(when_full: WhenFull, takes: bool) -> None:
    """One alarm at the beginning, one line at the end, nothing between; the policy decides about calls meanwhile."""
    disk, lines = Disk(), Lines()
    room = made(disk, lines, when_full)
    room.look()
    assert (room.full, room.takes_calls) == (False, True)
    disk.space = DiskSpace(LIMIT - 1)
    for _ in range(3):
        room.look()
    assert (room.full, room.takes_calls) == (True, takes)
    disk.space = DiskSpace(2 * LIMIT)
    room.look()
    room.look()
    assert (room.full, room.takes_calls) == (False, True)
    assert events(lines) == [("spool_full", "error"), ("spool_has_room", "warning")]
    assert lines.named("spool_full")[0]["reason"] == "little_space"
    assert "agent.min_free_mb = 256" in str(lines.named("spool_full")[0]["message"])


def test_the_edge_does_not_flutter() -> None:
    """Room again is told an eighth above the limit only."""
    disk, lines = Disk(), Lines()
    room = made(disk, lines)
    for free in (LIMIT - 1, LIMIT, LIMIT + 1, LIMIT - 1, LIMIT * 9 // 8 - 1):
        disk.space = DiskSpace(free)
        room.look()
    assert len(lines.events()) == 1
    disk.space = DiskSpace(LIMIT * 9 // 8)
    room.look()
    assert not room.full


def test_files_run_out_too() -> None:
    """A file system with bytes but without inodes is full; one that counts none is not."""
    disk, lines = Disk(), Lines()
    room = made(disk, lines)
    disk.space = DiskSpace(10 * LIMIT, None)
    room.look()
    assert not room.full
    disk.space = DiskSpace(10 * LIMIT, 3)
    room.look()
    assert room.full
    assert lines.named("spool_full")[0]["reason"] == "few_files"


def test_what_the_media_process_was_refused_counts_until_a_write_succeeds() -> None:
    """A quota shows in no figure of the file system."""
    disk, lines = Disk(), Lines()
    disk.writable = False
    room = made(disk, lines)
    room.refused()
    room.refused()
    room.look()
    assert (room.full, disk.probes) == (True, 1)
    disk.writable = True
    room.look()
    assert not room.full
    assert events(lines) == [("spool_full", "error"), ("spool_has_room", "warning")]
    assert lines.named("spool_full")[0]["reason"] == "write_refused"
    room.look()
    assert disk.probes == 2, "nothing is written where all is well"


def test_a_disk_that_is_gone_is_full() -> None:
    """Where nothing can be measured nothing can be written."""
    disk, lines = Disk(), Lines()
    disk.gone = True
    room = made(disk, lines)
    room.look()
    assert room.full


def test_this_machine(tmp_path: Path) -> None:
    """What is measured and tried is the file system itself."""
    assert DiskSpace.of(tmp_path).free_bytes > 0
    assert takes_a_write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not takes_a_write(tmp_path / "nowhere")
