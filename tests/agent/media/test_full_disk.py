"""A disk that is really full, in the middle of records: what is sealed waits, and nothing is lost or written twice."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sbc_agent.media.messages import Alarm, SpoolRecovered
from tests.agent.media.desk import Desk

ROOM_BYTES = 256 << 10
Relief = Callable[[], None]


def _mount(path: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Relief]:
    """A spool on a file system with room for a quarter of a megabyte; its size can be raised."""
    spool = tmp_path / "spool"
    spool.mkdir()
    if not _mount(spool, f"size={ROOM_BYTES}"):
        pytest.skip("this user may not mount a file system; the limit of a file's size stands for it")
    yield lambda: _grow(spool)
    subprocess.run(["umount", str(spool)], check=True)


def _grow(spool: Path) -> None:
    assert _mount(spool, "remount,size=64m")


@pytest.fixture
def limited_file() -> Iterator[Relief]:
    """No file of this process grows beyond a quarter of a megabyte, until the limit is lifted."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("how", ["small_disk", "limited_file"])
def test_what_the_disk_refuses_waits_and_follows(tmp_path: Path, request: pytest.FixtureRequest, how: str) -> None:
    """The call goes on over a full disk: one alarm, records in memory, and every packet once when there is room."""
    relieve: Relief = request.getfixturevalue(how)
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    number = desk.talk(25)
    alarms = [event.kind for event in desk.events if isinstance(event, Alarm)]
    assert alarms == ["spool_write"]
    assert desk.disk.backlog_bytes > 50_000
    number = desk.talk(2, number)
    relieve()
    number = desk.talk(2, number)
    assert desk.disk.backlog_bytes == 0
    assert sum(isinstance(event, SpoolRecovered) for event in desk.events) == 1
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert [call.sequences(stream) for stream in (0, 1)] == [list(range(number))] * 2
    assert "records_lost" not in call.manifest.flags


@pytest.mark.parametrize("how", ["small_disk", "limited_file"])
def test_a_call_that_ends_on_a_full_disk_is_written_when_there_is_room(
    tmp_path: Path, request: pytest.FixtureRequest, how: str
) -> None:
    """Signature and manifest wait as well."""
    relieve: Relief = request.getfixturevalue(how)
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    number = desk.talk(20)
    desk.end()
    desk.run(5)
    assert desk.engine.counters()["calls"] == 1, "it is not given up"
    relieve()
    desk.run(2)
    assert desk.opened().sequences(0) == list(range(number))
