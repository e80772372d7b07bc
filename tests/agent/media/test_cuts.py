"""A span that has left the ring is cut out of the spool: wherever a crash strikes, nothing is torn, nothing stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dualtone.domain import part
from dualtone.domain.call_files import GapEntry
from dualtone.domain.part import RecordType
from sbc_agent.media import call_state, cuts
from sbc_agent.media.cuts import Cut
from sbc_agent.media.messages import Alarm, CutDone, PartClosed, PauseApplied
from tests.agent.media import killing
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.sealed_call import AGENT, CALL, TENANT, agent_key, open_call, public_der


def sealed_within(directory: Path, from_us: int, to_us: int) -> list[bytes]:
    """The sealed bytes of a call's media records of a span, as they lie in its parts now."""
    return [
        bytes(record.sealed)
        for path in directory.glob("part-*")
        for record in part.read(path.read_bytes()).records
        if record.head.type is RecordType.MEDIA and record.head.overlaps(from_us, to_us)
    ]


def contents(directory: Path) -> bytes:
    """All bytes of a directory, hidden files included."""
    return b"".join(path.read_bytes() for path in directory.iterdir())


def test_what_had_left_is_cut_out_of_running_files(tmp_path: Path) -> None:
    """The open part is closed and cut before it has a name; the ring is blanked; the call goes on and opens whole."""
    desk = Desk(tmp_path, hold_back_ms=1_000, part_s=3)
    desk.begin()
    number = desk.talk(10)
    from_us, directory = desk.now_us - 6_000_000, desk.spool_dir / CALL
    desk.settle_jobs()
    left = sealed_within(directory, from_us, desk.now_us)
    closed = len(desk.of(PartClosed))
    assert len(left) >= 4
    answer = desk.pause(from_us)
    assert answer is not None
    assert (answer.outcome, answer.from_us) == ("too_late", from_us)
    assert from_us < answer.left_until_us < desk.now_us - 900_000
    desk.settle_jobs()
    (done,) = desk.of(CutDone)
    assert (done.command, done.from_us, done.to_us) == (answer.command, from_us, answer.left_until_us)
    assert len(desk.of(PartClosed)) == closed + 1
    assert set(done.parts) <= {path.name for path in directory.glob("part-*.dtp")}
    written = contents(directory)
    assert not [sealed for sealed in left if sealed in written]
    assert {path.name for path in directory.glob(".*")} == set()
    number = desk.talk(2, number)
    desk.resume()
    resumed_us = desk.now_us
    number = desk.talk(3, number)
    desk.end()
    desk.run(3)
    call = desk.opened()
    for stream in range(2):
        arrivals = call.arrivals_us(stream)
        assert not [at_us for at_us in arrivals if from_us <= at_us < resumed_us]
        assert [at_us for at_us in arrivals if at_us < from_us - 1_000_000] == [
            START_US + 20_000 * one for one in range(500) if START_US + 20_000 * one < from_us - 1_000_000
        ]
        assert next(at_us for at_us in arrivals if at_us >= resumed_us) == resumed_us
    assert call.manifest.gaps == [GapEntry(stream, from_us, resumed_us, "payment") for stream in range(2)]
    assert sum(head.span_us for head in call.removed) >= 3_900_000


def test_a_pause_for_a_finished_call_cuts_its_files(tmp_path: Path) -> None:
    """After the manifest, as long as the files lie in the spool: the span goes, and the names say where it was."""
    desk = Desk(tmp_path, hold_back_ms=200, part_s=2)
    desk.begin()
    desk.talk(6)
    desk.end()
    desk.run(2)
    desk.settle_jobs()
    from_us, until_us = START_US + 2_500_000, START_US + 3_500_000
    answer = desk.pause(from_us, until_us=until_us)
    assert answer is not None
    assert (answer.outcome, answer.causes) == ("too_late", ())
    desk.settle_jobs()
    (done,) = desk.of(CutDone)
    assert (done.from_us, done.to_us) == (from_us, until_us - 1)
    resumed = desk.resume()
    assert resumed is not None
    assert resumed.outcome == "acknowledged"
    call = desk.opened()
    arrivals = call.arrivals_us(0)
    assert not [at_us for at_us in arrivals if from_us <= at_us < until_us]
    assert {START_US + 1_000_000, START_US + 5_000_000} <= set(arrivals)
    assert call.removed


def test_what_waits_in_memory_for_a_full_disk_is_cut_there(tmp_path: Path) -> None:
    """No record of the span reaches the disk when that takes data again; numbers and digest show what was cut."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    desk.talk(1)
    desk.settle_jobs()
    recording = desk.engine._recordings[CALL]
    recording.spool._limit_us = 1 << 60
    directory = desk.spool_dir / CALL
    desk.settle_jobs()
    whole, write = [False], recording.spool._write_whole

    def refuses(data: bytes) -> None:
        if not whole[0]:
            raise OSError
        write(data)

    recording.spool._write_whole = refuses  # type: ignore[method-assign]
    number = desk.talk(3, 50)
    from_us = desk.now_us - 2_500_000
    waiting = list(recording.spool._backlog)
    assert len(waiting) >= 2
    desk.pause(from_us)
    assert not set(waiting[-1:]) & set(recording.spool._backlog)
    whole[0] = True
    number = desk.talk(1, number)
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert max(call.arrivals_us(0)) < from_us
    assert len(call.removed) >= 2
    assert not [frame for frame in waiting if frame[35:] in contents(directory) and frame in waiting[-2:]]
    assert desk.of(CutDone)


@pytest.fixture(name="spooled", scope="module")
def _spooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished call in three parts."""
    desk = Desk(tmp_path_factory.mktemp("spooled"), hold_back_ms=200, part_s=2)
    desk.begin()
    desk.talk(6)
    desk.end()
    desk.run(2)
    desk.settle()
    return desk.spool_dir / CALL


def test_killed_at_any_line_a_cut_is_finished_by_the_next_run(spooled: Path, tmp_path: Path) -> None:
    """After each crash every part is whole; repeated, the cut leaves no byte of the span, and no file of its own."""
    cut = Cut(CALL, START_US + 1_500_000, START_US + 4_200_000)
    secrets = sealed_within(spooled, cut.from_us, cut.to_us)
    whole = {path.name: part.read(path.read_bytes()).digest for path in spooled.glob("part-*")}
    assert len(secrets) >= 3
    is_killed, lines = True, 0
    while is_killed:
        directory = tmp_path / str(lines) / CALL
        shutil.copytree(spooled, directory)

        def work(say: killing.Say, directory: Path = directory) -> None:
            cuts.note(directory, cut)
            say("noted")
            cuts.carry_out(directory, CALL, cut)
            say("cut")

        ended = killing.run(work, (cuts, call_state), lines)
        for name, digest in whole.items():
            found = part.read((directory / name).read_bytes())
            found.verify(public_der(agent_key()))
            assert found.digest == digest
        if "noted" in ended.said:
            assert cuts.noted(directory) == [cut]
            assert isinstance(cuts.carry_out(directory, CALL, cut)[0], CutDone)
            written = contents(directory)
            assert not [secret for secret in secrets if secret in written]
            assert not list(directory.glob(".part*"))
        shutil.rmtree(directory)
        is_killed, lines = ended.is_killed, lines + 1
    assert lines > 60


def test_a_cut_is_repeated_without_harm(spooled: Path, tmp_path: Path) -> None:
    directory = tmp_path / CALL
    shutil.copytree(spooled, directory)
    cut = Cut(CALL, START_US + 1_500_000, START_US + 4_200_000)
    first = cuts.carry_out(directory, CALL, cut)
    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert cuts.carry_out(directory, CALL, cut) == first
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == after


def test_a_cut_leaves_later_parts_alone(spooled: Path, tmp_path: Path) -> None:
    """A part that was begun after the pause is still written to."""
    directory = tmp_path / CALL
    shutil.copytree(spooled, directory)
    (done,) = cuts.carry_out(directory, CALL, Cut(CALL, 0, 1 << 52, below=1))
    assert isinstance(done, CutDone)
    assert done.parts == ("part-00-000000.dtp",)


def test_a_part_that_cannot_be_read_is_told_and_the_others_are_cut(spooled: Path, tmp_path: Path) -> None:
    directory = tmp_path / CALL
    shutil.copytree(spooled, directory)
    (directory / "part-00-000000.dtp").write_bytes(b"DTP1 damaged")
    assert cuts.carry_out(directory, CALL, Cut(CALL, 0, 1 << 52)) == [Alarm(kind="unrecoverable", call=CALL)]
    assert not sealed_within_others(directory)


def sealed_within_others(directory: Path) -> list[bytes]:
    (directory / "part-00-000000.dtp").unlink()
    return sealed_within(directory, 0, 1 << 52)


def test_a_directory_that_was_freed_holds_nothing(tmp_path: Path) -> None:
    (done,) = cuts.carry_out(tmp_path / CALL, CALL, Cut(CALL, 0, 1))
    assert isinstance(done, CutDone)
    assert done.parts == ()


def test_a_pause_between_end_and_manifest_is_noted_for_the_next_run(tmp_path: Path) -> None:
    """The engine has let go of the call, its manifest is not written yet: the span goes all the same."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    desk.talk(3)
    desk.end()
    desk.run(1.2)
    assert desk.pause(START_US + 1_000_000) is not None
    desk.run(1)
    call = desk.opened()
    assert max(call.arrivals_us(0)) < START_US + 1_000_000
    assert [event.outcome for event in desk.of(PauseApplied)] == ["too_late"]
    assert open_call(desk.spool_dir / CALL).manifest.tenant == TENANT
    assert call.manifest.agent == AGENT
