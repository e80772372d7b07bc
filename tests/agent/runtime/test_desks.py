"""Desks as they are kept: secrets shown once, hashes on disk, changes seen at once."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from dualtone.domain.errors import MalformedInput, NotFound, PolicyViolation
from sbc_agent.runtime import desks
from sbc_agent.runtime.desks import Desks
from tests.agent.runtime.controlled import START_US
from tests.agent.runtime.spooled import Lines

NOW_MS = START_US // 1000


def test_secrets_are_shown_once_and_kept_as_hashes(tmp_path: Path) -> None:
    """Neither the token nor the handset's secret is in any file, and the file is for the agent alone."""
    new = desks.add(tmp_path, "Reception", ["sip:1001@pbx", "1002"], now_ms=NOW_MS)
    text = (tmp_path / "desks.json").read_text()
    assert new.token.startswith("dsk_")
    assert len(new.phone) == 64
    assert new.token != f"dsk_{new.phone}"
    assert all(secret not in text for secret in (new.token, new.token[4:], new.phone))
    assert all(secret not in repr(new) for secret in (new.token, new.phone))
    assert (tmp_path / "desks.json").stat().st_mode & 0o777 == 0o600
    assert desks.read(tmp_path) == (new.desk,)
    assert new.desk.lines == ("1001", "1002")


def test_a_running_agent_sees_every_change(tmp_path: Path) -> None:
    """A desk that is added is known and one that is removed is not, from the next request on."""
    running = Desks(tmp_path, Lines().log)
    assert running.with_token("dsk_x") is None
    one = desks.add(tmp_path, "One", ["1001"], now_ms=NOW_MS)
    two = desks.add(tmp_path, "Two", ["1002"], now_ms=NOW_MS)
    assert (running.with_token(one.token), running.with_phone(two.phone)) == (one.desk, two.desk)
    assert running.with_token(one.phone) is None
    assert running.with_phone(one.token) is None
    desks.remove(tmp_path, "One")
    assert (running.with_token(one.token), running.with_token(two.token)) == (None, two.desk)


def test_a_damaged_file_is_an_alarm_and_those_known_before_stay(tmp_path: Path) -> None:
    """No desk loses its keys by somebody's editor; adding is refused until the file is whole."""
    lines = Lines()
    running = Desks(tmp_path, lines.log)
    new = desks.add(tmp_path, "One", ["1001"], now_ms=NOW_MS)
    assert running.with_token(new.token) == new.desk
    (tmp_path / "desks.json").write_text("{")
    assert running.with_token(new.token) == new.desk
    assert running.with_token(new.token) == new.desk
    assert [line["level"] for line in lines.named("desks_unread")] == ["error"]
    with pytest.raises(MalformedInput, match="damaged"):
        desks.add(tmp_path, "Two", ["1002"], now_ms=NOW_MS)


def test_a_file_that_cannot_be_opened_for_a_moment_keeps_no_removed_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every descriptor is in use as a desk is removed: at the next request the file is looked at again."""
    lines = Lines()
    running = Desks(tmp_path, lines.log)
    new = desks.add(tmp_path, "One", ["1001"], now_ms=NOW_MS)
    assert running.with_token(new.token) == new.desk
    desks.remove(tmp_path, "One")

    def no_descriptor(_: object) -> bytes:
        raise OSError(errno.EMFILE, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", no_descriptor)
        assert running.with_token(new.token) == new.desk
    assert lines.named("desks_unread")
    assert running.with_token(new.token) is None


def test_an_id_that_is_no_string_of_ours_is_refused(tmp_path: Path) -> None:
    """The file is checked member by member."""
    desks.add(tmp_path, "One", ["1001"], now_ms=NOW_MS)
    path = tmp_path / "desks.json"
    document = json.loads(path.read_text())
    document["desks"][0]["id"] = "desk_1"
    path.write_text(json.dumps(document))
    with pytest.raises(MalformedInput):
        desks.read(tmp_path)


@pytest.mark.parametrize("name", ["", " x", "x\n", "a" * 65, "<b>", "_"])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    """The sentence says what a name is made of."""
    with pytest.raises(MalformedInput, match="1 to 64"):
        desks.add(tmp_path, name, ["1001"], now_ms=NOW_MS)


@pytest.mark.parametrize("lines", [[], ["sip:@host"], [""], [str(n) for n in range(17)]])
def test_lines_that_name_nobody_are_refused(tmp_path: Path, lines: list[str]) -> None:
    """An address without a user, and more lines than a desk has, are not taken."""
    with pytest.raises(MalformedInput, match="line"):
        desks.add(tmp_path, "One", lines, now_ms=NOW_MS)


def test_a_name_is_used_once_and_removed_once(tmp_path: Path) -> None:
    """Who adds it again is told to remove it first."""
    desks.add(tmp_path, "One", ["1001"], now_ms=NOW_MS)
    with pytest.raises(PolicyViolation, match="already"):
        desks.add(tmp_path, "One", ["1002"], now_ms=NOW_MS)
    desks.remove(tmp_path, "One")
    with pytest.raises(NotFound, match="desk list"):
        desks.remove(tmp_path, "One")


def test_without_a_state_directory_there_are_no_desks(tmp_path: Path) -> None:
    """The agent is enrolled first."""
    with pytest.raises(NotFound, match="enrol"):
        desks.add(tmp_path / "none", "One", ["1001"], now_ms=NOW_MS)
