"""What a crash leaves behind: cut, signed, declared; and opened again with the tenant's key."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from dualtone.domain import part
from dualtone.domain.call_files import GapEntry
from dualtone.domain.ids import CallId
from sbc_agent.media import call_state, messages, spool
from sbc_agent.media import recovery as recoveries
from sbc_agent.media.messages import Alarm, Event, Finished
from sbc_agent.media.recovery import Recovery, Settled
from sbc_agent.media.seal import AgentKey
from tests.agent.media import killing
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.sealed_call import AGENT, CALL, TENANT, agent_key, open_call

OPEN_PART = "part-00-000000.dtp.open"


def crashed(tmp_path: Path, seconds: float = 4) -> Path:
    """A call of which the agent died; returns the spool."""
    desk = Desk(tmp_path, hold_back_ms=500, part_s=60)
    desk.begin(True, False)
    desk.tell(messages.Session(call=CALL, session={"flags": []}))
    desk.talk(seconds)
    desk.settle()
    return desk.spool_dir


def recovery(spool_dir: Path) -> Recovery:
    return Recovery(spool_dir, TENANT, AGENT, "0.1.0", AgentKey(AGENT, agent_key()), 0)


def recover(spool_dir: Path) -> list[Event]:
    return [event for _, job in recovery(spool_dir).leftovers(()) for event in job()]


def test_a_call_is_closed_with_what_reached_the_disk(tmp_path: Path) -> None:
    """Formats and the open gap come from what the agent noted; the end is when it last wrote, what it held is lost."""
    spool_dir = crashed(tmp_path)
    os.utime(spool_dir / CALL / OPEN_PART, ns=((START_US + 9_000_000) * 1000,) * 2)
    for path in spool_dir.glob("*/*.json"):
        os.utime(path, ns=(START_US * 1000,) * 2)
    assert recover(spool_dir) == [
        Alarm(kind="recovered", call=CALL),
        Finished(call=CALL, path=str(spool_dir / CALL / "manifest.json")),
    ]
    call = open_call(spool_dir / CALL)
    assert call.sequences(0) == list(range(len(call.sequences(0))))
    assert len(call.sequences(0)) >= 100
    assert (call.manifest.end_reason, call.manifest.flags) == ("error", ["recovered"])
    assert (call.manifest.answered_at_us, call.manifest.ended_at_us) == (START_US, START_US + 9_000_000)
    sealed_us = call.arrivals_us(0)[-1]
    assert call.manifest.gaps == [
        GapEntry(1, START_US, START_US + 9_000_000, "inactive"),
        GapEntry(0, sealed_us, START_US + 9_000_000, "restart"),
        GapEntry(1, sealed_us, START_US + 9_000_000, "restart"),
    ]
    assert [entry.codec for entry in call.manifest.streams[0].formats] == ["PCMA", "telephone-event"]
    assert call.sessions == [{"flags": []}]
    assert not list((spool_dir / CALL).glob("*.open"))
    assert recover(spool_dir) == []


def test_a_torn_tail_is_cut_wherever_it_tore(tmp_path: Path) -> None:
    """At whichever byte the file ends, its whole records are kept and nothing else."""
    spool_dir = crashed(tmp_path)
    data = (spool_dir / CALL / OPEN_PART).read_bytes()
    whole = part.read(data)
    edges, at = [], len(part.encode_header(whole.header))
    for record in whole.records:
        edges.append(at)
        at += part.FRAME_HEAD_BYTES + len(record.sealed)
    edges.append(at)
    assert at == len(data)
    for cut in sorted({min(edge + by, len(data)) for edge in edges[1:] for by in (-1, 0, 1)}):
        copy = tmp_path / f"copy-{cut}"
        shutil.copytree(spool_dir, copy)
        (copy / CALL / OPEN_PART).write_bytes(data[:cut])
        recover(copy)
        kept = sum(1 for one in edges[1:] if one <= cut)
        assert sum(entry.records for entry in open_call(copy / CALL).manifest.parts) == kept


def test_a_part_without_a_record_is_removed_and_the_call_declared(tmp_path: Path) -> None:
    spool_dir = crashed(tmp_path)
    path = spool_dir / CALL / OPEN_PART
    for size in (0, 5, len(part.encode_header(part.read(path.read_bytes()).header))):
        copy = tmp_path / f"copy-{size}"
        shutil.copytree(spool_dir, copy)
        (copy / CALL / OPEN_PART).write_bytes(path.read_bytes()[:size])
        assert isinstance(recover(copy)[-1], Finished)
        assert open_call(copy / CALL).manifest.parts == []


def test_a_part_that_was_signed_but_not_yet_named_keeps_its_bytes(tmp_path: Path) -> None:
    """The uplink may have sent it under its name already."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    desk.talk(2)
    desk.end()
    desk.run(2)
    desk.settle()
    directory = desk.spool_dir / CALL
    data = (directory / OPEN_PART.removesuffix(".open")).read_bytes()
    (directory / OPEN_PART.removesuffix(".open")).rename(directory / OPEN_PART)
    (directory / "manifest.json").unlink()
    recover(desk.spool_dir)
    assert (directory / OPEN_PART.removesuffix(".open")).read_bytes() == data
    assert len(open_call(directory).sequences(0)) == 100


def test_a_call_whose_note_is_gone_is_still_declared(tmp_path: Path) -> None:
    spool_dir = crashed(tmp_path)
    (spool_dir / CALL / "state.json").write_bytes(b'{"answered')
    recover(spool_dir)
    manifest = open_call(spool_dir / CALL).manifest
    assert (manifest.streams, manifest.answered_at_us) == ([], START_US)


@pytest.mark.parametrize("case", ["no opening", "opening of another agent", "part of another call"])
def test_what_cannot_be_trusted_is_left_alone_and_told(tmp_path: Path, case: str) -> None:
    spool_dir = crashed(tmp_path)
    directory = spool_dir / CALL
    if case == "no opening":
        (directory / "opening-00.json").unlink()
    elif case == "opening of another agent":
        data = (directory / "opening-00.json").read_bytes()
        (directory / "opening-00.json").write_bytes(data.replace(b'"signature":"MEU', b'"signature":"MEX', 1)[:-9])
    else:
        other = directory.with_name(CALL[:-1] + "V")
        directory.rename(other)
        directory = other
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert recover(spool_dir) == [Alarm(kind="unrecoverable", call=CallId(directory.name))]
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_other_files_in_the_spool_are_no_calls(tmp_path: Path) -> None:
    (tmp_path / ".openings").write_text("3\n")
    (tmp_path / CALL).write_text("no directory")
    assert list(recovery(tmp_path).leftovers(())) == []


def test_killed_at_any_line_a_recovery_is_done_by_the_next_run(tmp_path: Path) -> None:
    """Signed, named, declared: whatever was done is kept, what was not is done, and the call is the same in the end."""
    spool_dir = crashed(tmp_path)

    def work(spool_dir: Path, _say: killing.Say) -> None:
        recover(spool_dir)

    is_killed, lines, calls = True, 0, []
    while is_killed:
        copy = tmp_path / f"copy-{lines}"
        shutil.copytree(spool_dir, copy)
        ended = killing.run(partial(work, copy), (recoveries, spool, call_state), lines)
        assert ended.is_killed or recover(copy) == []
        if not (copy / CALL / "manifest.json").exists():
            assert isinstance(recover(copy)[-1], Finished)
        calls.append(open_call(copy / CALL).sequences(0))
        shutil.rmtree(copy)
        is_killed, lines = ended.is_killed, lines + 1
    assert calls == [calls[0]] * len(calls)
    assert lines > 100


def test_a_loss_is_declared_once() -> None:
    """A run that died before it kept anything makes the loss longer; one that kept something ends it."""
    settled = Settled([], 0, {0: 50, 2: 90}, [])
    assert settled.losses({0: 10, 1: 60, 2: 70, 3: 100}) == [(50, 70), (90, 100)]
    assert Settled([], 0, {}, []).losses({0: 10, 1: 60, 2: 70}) == [(10, 70)]
