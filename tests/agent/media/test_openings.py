"""The numbers of opening records: over restarts, and on a disk that takes nothing."""

from pathlib import Path

from sbc_agent.media.openings import OpeningCounter


def test_numbers_count_on_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / ".openings"
    counter = OpeningCounter(path)
    assert [counter(), counter()] == [1, 2]
    assert OpeningCounter(path)() == 3


def test_a_disk_that_takes_nothing_ends_no_call(tmp_path: Path) -> None:
    """The number is kept in memory and written with a later one; an error here would end the media process."""
    directory = tmp_path / "spool"
    counter = OpeningCounter(directory / ".openings")
    assert counter() == 1
    directory.mkdir()
    assert counter() == 2
    assert OpeningCounter(directory / ".openings")() == 3
