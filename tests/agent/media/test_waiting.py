"""Calls that wait for a decision: nobody can open them until they are kept, and nothing is left if they are not."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from threading import Event

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dualtone.domain.ids import CallId
from dualtone.domain.part import RecordType
from sbc_agent.media import spool as spools
from sbc_agent.media import waiting as waitings
from sbc_agent.media.call_state import CallState
from sbc_agent.media.messages import (
    Adopt,
    Alarm,
    Begin,
    CutDone,
    Decided,
    Drain,
    End,
    Finished,
    PartClosed,
    PauseApplied,
    PortFree,
    Recover,
    Session,
    Signalling,
)
from sbc_agent.media.seal import CallSeal
from sbc_agent.runtime.spool import Spool
from tests.agent.media import killing
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.packets import speech
from tests.agent.media.sealed_call import CALL, TENANT, open_call
from tests.agent.media.untold import files, readable, remembers


def outcomes(desk: Desk) -> list[str]:
    return [event.outcome for event in desk.of(Decided)]


def test_a_call_that_is_kept_is_whole_from_its_beginning(tmp_path: Path) -> None:
    """Parts that were closed meanwhile are told when the opening record is durable, in their order, after the word."""
    desk = Desk(tmp_path, hold_back_ms=500, part_s=2)
    desk.begin(waits=True)
    desk.tell(Session(call=CALL, session={"flags": ["early"]}))
    number = desk.talk(7)
    desk.settle_jobs()
    assert len(list((desk.spool_dir / CALL).glob("*.dtp"))) >= 2
    assert not desk.of(PartClosed)
    assert not readable(desk.spool_dir)
    desk.decide(keep=True)
    desk.settle_jobs()
    number = desk.talk(2, number)
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert call.sequences(0) == call.sequences(1) == list(range(number))
    assert call.sessions == [{"flags": ["early"]}]
    assert (call.opening.sequence, call.opening.started_at_us, call.manifest.answered_at_us) == (1, START_US, START_US)
    told = [event for event in desk.events if isinstance(event, Decided | PartClosed | Finished)]
    assert told[0] == Decided(call=CALL, keep=True, outcome="kept")
    assert [event.digest for event in told[1:-1] if isinstance(event, PartClosed)] == [
        entry.digest for entry in call.manifest.parts
    ]
    assert isinstance(told[-1], Finished)


def test_a_call_that_is_discarded_leaves_nothing_anywhere(tmp_path: Path) -> None:
    """Files are gone, rings and buffers wiped, what comes afterwards is dropped; no opening's number was used up."""
    desk = Desk(tmp_path, part_s=1)
    desk.begin(waits=True)
    number = desk.talk(8)
    assert files(desk.spool_dir)
    assert remembers(desk, speech(0, number - 1))
    desk.pause(desk.now_us, "manual")
    desk.resume("manual")
    recording = desk.engine._recordings[CALL]
    seal = recording.seal
    desk.decide(keep=False)
    assert (seal._key, recording.call.silence.pauses) == (None, [])
    with pytest.raises(AttributeError):  # no key is left to seal with, nor to open
        seal.frame(RecordType.SIGNALLING, 0, 0, 0, b"")
    desk.run(0.1)
    desk.settle_jobs()
    assert outcomes(desk) == ["discarded"]
    assert files(desk.spool_dir) == []
    assert not any(remembers(desk, speech(side, one)) for side in (0, 1) for one in range(number))
    later = desk.talk(2, number)
    assert not any(remembers(desk, speech(side, one)) for side in (0, 1) for one in range(number, later))
    assert not [event for event in desk.events if isinstance(event, PortFree)]
    desk.end()
    desk.run(8)
    desk.settle()
    assert {event.port for event in desk.of(PortFree)} == {20_000, 20_002}
    assert files(desk.spool_dir) == []
    assert [event for event in desk.events if isinstance(event, Finished | PartClosed)] == []
    assert desk.engine.counters()["calls"] == 0
    assert desk._openings == 0


def test_a_call_on_demand_is_not_gathered_until_it_is_wanted(tmp_path: Path) -> None:
    """Before that, no byte is in rings, buffers or spool; then it is an ordinary call that begins at that moment."""
    desk = Desk(tmp_path, hold_back_ms=500)
    desk.begin(waits=True, silent=True)
    desk.tell(Signalling(call=CALL, at_us=desk.now_us, direction=0, raw=b"INVITE"))
    desk.tell(Session(call=CALL, session={"flags": ["before"]}))
    number = desk.talk(12)
    assert not any(remembers(desk, speech(0, one)) for one in range(number))
    assert files(desk.spool_dir) == []
    assert not desk.of(Alarm)
    kept_us = desk.now_us
    desk.decide(keep=True)
    desk.tell(Session(call=CALL, session={"flags": ["after"]}))
    last = desk.talk(2, number)
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert call.sequences(0) == call.sequences(1) == list(range(number, last))
    assert (call.manifest.answered_at_us, call.manifest.gaps) == (kept_us, [])
    assert (call.sessions, call.signalling) == ([{"flags": ["after"]}], [])
    assert outcomes(desk) == ["kept"]


def test_a_call_on_demand_that_nobody_wants_leaves_when_it_ends(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(waits=True, silent=True)
    desk.talk(2)
    desk.end()
    assert desk.engine.counters()["calls"] == 0
    assert {event.port for event in desk.of(PortFree)} == {20_000, 20_002}
    desk.begin(waits=True, silent=True)  # rows and ports are free again
    assert not desk.of(Alarm)
    assert files(desk.spool_dir) == []


@pytest.mark.parametrize("keep", [True, False])
def test_a_call_that_ended_undecided_waits_for_the_decision(tmp_path: Path, keep: bool) -> None:
    desk = Desk(tmp_path, hold_back_ms=500, part_s=2)
    desk.begin(waits=True)
    number = desk.talk(3)
    desk.end()
    desk.run(60)
    desk.settle_jobs()  # parts have their names: nobody renames what is being read
    assert not desk.of(Finished)
    assert not readable(desk.spool_dir)
    desk.decide(keep=keep)
    desk.run(1)
    desk.settle()
    assert desk.engine.counters()["calls"] == 0
    if keep:
        assert open_call(desk.spool_dir / CALL).sequences(1) == list(range(number))
    else:
        assert files(desk.spool_dir) == []
        assert not desk.of(Finished)


def test_many_calls_that_wait_hold_up_no_other_at_its_end(tmp_path: Path) -> None:
    """Only so many calls are finished in a tick: those that wait for a decision are not of them."""
    desk = Desk(tmp_path, hold_back_ms=0, ports=40)
    for index in range(40):
        call = f"{CALL[:-2]}{index:02d}"
        streams = (desk.streams(True)[0].model_copy(update={"port": 20_000 + 2 * index}),)
        desk.tell(Begin(call=call, at_us=desk.now_us, streams=streams, waits=index < 39))
        desk.tell(End(call=call, at_us=desk.now_us, reason="bye"))
    desk.run(0.3)
    desk.settle()
    assert [event.call for event in desk.of(Finished)] == [f"{CALL[:-2]}39"]


def test_a_drain_discards_what_nobody_decided(tmp_path: Path) -> None:
    desk = Desk(tmp_path, hold_back_ms=500, part_s=1)
    desk.begin(waits=True)
    desk.talk(3)
    desk.tell(Drain())
    desk.settle_jobs()
    assert desk.engine.is_drained
    assert files(desk.spool_dir) == []


def test_a_call_that_was_discarded_may_be_kept_from_a_later_moment(tmp_path: Path) -> None:
    """As when it is transferred to a line that must record: under another key, and of before there is nothing."""
    keys = itertools.count()
    desk = Desk(tmp_path, hold_back_ms=500, part_s=1, randomness=lambda count: bytes([next(keys)]) * count)
    desk.begin(waits=True)
    number = desk.talk(3)
    desk.pause(desk.now_us, "manual")
    desk.resume("manual")
    desk.decide(keep=False)
    desk.settle_jobs()  # what is kept later waits until what was discarded is gone
    number = desk.talk(2, number)
    kept_us = desk.now_us
    desk.decide(keep=True)
    last = desk.talk(3, number)
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert call.sequences(0) == list(range(number, last))
    assert (call.manifest.answered_at_us, call.manifest.pauses) == (kept_us, [])
    assert outcomes(desk) == ["discarded", "kept"]


def test_what_is_noted_of_a_call_that_is_kept_after_all_does_not_go_with_what_was_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the disk is: a pause is answered when no crash forgets it, and nobody is alarmed."""
    may_delete, delete = Event(), shutil.rmtree

    def slow(path: Path) -> None:
        assert may_delete.wait(30)
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", slow)
    desk = Desk(tmp_path, hold_back_ms=500, part_s=1)
    desk.begin(waits=True)
    number = desk.talk(3)
    desk.decide(keep=False)
    desk.decide(keep=True)
    number = desk.talk(2, number)
    assert desk.pause(desk.now_us, "manual") is None
    desk.run(1)
    assert desk.of(PauseApplied) == []
    may_delete.set()
    desk.settle_jobs()
    desk.run(1.5)
    desk.settle_jobs()
    assert [answer.outcome for answer in desk.of(PauseApplied)] == ["acknowledged"]
    assert CallState.read(desk.spool_dir / CALL).silence.causes == ("manual",)
    assert desk.of(Alarm) == []
    desk.end()
    desk.run(2)
    assert [pause.cause for pause in desk.opened().manifest.pauses] == ["manual"]


def test_what_is_kept_is_not_discarded_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, hold_back_ms=500)
    desk.begin()
    number = desk.talk(2)
    desk.decide(keep=False)
    desk.end()
    desk.run(2)
    assert desk.opened().sequences(0) == list(range(number))
    assert outcomes(desk) == ["kept"]


def test_a_decision_on_a_call_that_is_not_there_is_answered(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.decide(keep=True)
    assert outcomes(desk) == ["unknown"]


def test_pauses_silence_a_call_that_waits_also_late_ones(tmp_path: Path) -> None:
    """A late pause is cut out of the parts at once, and told again by every later run once the call is kept."""
    desk = Desk(tmp_path, hold_back_ms=500, part_s=2)
    desk.begin(waits=True)
    number = desk.talk(5)
    late = desk.pause(START_US + 2_000_000, until_us=START_US + 3_000_000)
    assert late is not None
    assert late.outcome == "too_late"
    assert not (desk.spool_dir / CALL / "cuts.json").exists()
    assert not (desk.spool_dir / CALL / "state.json").exists()
    paused = desk.pause(desk.now_us)
    assert paused is not None
    assert paused.outcome == "acknowledged"
    first = desk.now_us
    number = desk.talk(2, number)
    desk.resume()
    resumed = desk.now_us
    desk.decide(keep=True)
    desk.talk(1, number)
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert len(desk.of(CutDone)) == 1
    arrivals = call.arrivals_us(0)
    assert arrivals
    assert not [at for at in arrivals if START_US + 2_000_000 <= at < START_US + 3_000_000 or first <= at < resumed]
    assert [pause.cause for pause in call.manifest.pauses] == ["payment", "payment"]
    again = Desk(tmp_path, now_us=desk.now_us)
    again.tell(Recover())
    again.settle()
    assert [event.command for event in again.of(CutDone)] == [late.command]


def test_a_full_disk_keeps_a_waiting_call_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as of any other call; where the disk refuses the opening record, the call is kept when it obeys."""
    desk = Desk(tmp_path, hold_back_ms=500)
    desk.begin(waits=True)
    number = desk.talk(2)
    with monkeypatch.context() as full:
        full.setattr(os, "write", _refused)
        full.setattr(spools, "replace_file", _refused)
        number = desk.talk(2, number)
        desk.decide(keep=True)
        number = desk.talk(1, number)
        assert [event.kind for event in desk.of(Alarm)] == ["spool_write"]
        assert not outcomes(desk)
    number = desk.talk(2, number)
    desk.end()
    desk.run(2)
    assert desk.opened().sequences(0) == list(range(number))
    assert outcomes(desk) == ["kept"]


def test_a_run_that_was_killed_leaves_nothing_of_a_waiting_call(tmp_path: Path) -> None:
    """The next one deletes what lies there, also where its dialog asks for it again."""
    desk = Desk(tmp_path, part_s=1)
    desk.begin(waits=True)
    desk.talk(8)
    desk.settle_jobs()
    assert files(desk.spool_dir)
    again = Desk(tmp_path, now_us=desk.now_us)
    again.tell(Adopt(call=CALL, at_us=again.now_us, streams=again.streams(True, True)))
    again.tell(Recover())
    again.settle()
    assert [event.kind for event in again.of(Alarm)] == ["command"]
    assert not again.of(Finished)
    assert files(again.spool_dir) == []


def test_a_call_that_may_be_known_to_the_cloud_is_left_alone(tmp_path: Path) -> None:
    """A power failure may lose an opening record that was sent already: such a call's parts are not deleted."""
    desk = Desk(tmp_path, hold_back_ms=0)
    desk.begin()
    desk.talk(2)
    desk.settle_jobs()
    (desk.spool_dir / CALL / "opening-00.json").unlink()
    before = files(desk.spool_dir)
    again = Desk(tmp_path, now_us=desk.now_us)
    again.tell(Recover())
    again.settle()
    assert files(again.spool_dir) == before
    assert [event.kind for event in again.of(Alarm)] == ["unrecoverable"]


def test_the_uplink_finds_nothing_of_a_call_that_waits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, hold_back_ms=0, part_s=1)
    desk.begin(waits=True)
    desk.talk(4)
    desk.settle_jobs()
    spool = Spool(desk.spool_dir)
    assert spool.parts(CallId(CALL))
    assert spool.waiting(CallId(CALL), frozenset()) == []
    desk.decide(keep=True)
    desk.settle_jobs()
    waiting = spool.waiting(CallId(CALL), frozenset())
    assert waiting == ["opening-00.json", *spool.parts(CallId(CALL))]


def test_a_key_that_is_forgotten_seals_nothing_and_is_overwritten() -> None:
    seal = CallSeal(TENANT, CallId(CALL), 0, b"k" * 32)
    key = seal._key
    assert key is not None
    assert bytes(key) == b"k" * 32
    seal.forget()
    assert bytes(key) == bytes(32)
    with pytest.raises(AttributeError):
        seal.frame(RecordType.MEDIA, 0, 0, 0, b"speech")


@pytest.mark.parametrize("after_lines", [*range(0, 60, 5), *range(60, 400, 40)])
@pytest.mark.parametrize("keep", [True, False])
def test_a_kill_at_any_line_of_a_decision_leaves_it_kept_or_gone(tmp_path: Path, after_lines: int, keep: bool) -> None:
    """What was told as kept is there after the kill; what is not is readable by nobody, and deleted by the next run."""

    def work(say: killing.Say) -> None:
        desk = Desk(tmp_path, hold_back_ms=200, part_s=1)
        desk.begin(waits=True)
        desk.talk(3)
        desk.decide(keep=keep)
        desk.run(0.5)
        desk.settle_jobs()
        say(outcomes(desk))

    ended = killing.run(work, (waitings,), after_lines) if keep else killing.run(work, (waitings, spools), after_lines)
    told = ended.said[0] if ended.said else []
    spool_dir = tmp_path / "spool"
    was_readable = bool(readable(spool_dir)) if spool_dir.exists() else False
    assert not was_readable or keep
    if not ended.is_killed:
        assert told == ["kept" if keep else "discarded"]
    again = Desk(tmp_path, now_us=START_US + 10_000_000)
    again.tell(Recover())
    again.settle()
    if was_readable:
        assert [event.call for event in again.of(Finished)] == [CALL]
    else:
        assert files(spool_dir) == []
        assert told != ["kept"]


class Waits(RuleBasedStateMachine):
    """Whatever the order of pauses, decisions, ends and kills: an undecided or discarded call has no readable byte."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.state = "none"
        self.ended = self.was_kept = False
        self.number = 0

    @initialize(hold_back_ms=st.sampled_from([0, 200, 1_000]), part_s=st.sampled_from([1, 60]))
    def start(self, hold_back_ms: int, part_s: int) -> None:
        self.desk = Desk(Path(self._directory.name), hold_back_ms=hold_back_ms, part_s=part_s)

    @precondition(lambda self: self.state == "none" and not self.was_kept)
    @rule(silent=st.sampled_from([False, False, True]))
    def begin(self, silent: bool) -> None:
        self.desk.settle_jobs()
        self.desk.run(31)  # ports have rested
        assert CALL not in self.desk.engine._recordings
        self.desk.begin(waits=True, silent=silent)
        self.state, self.ended = "waiting", False

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.5]))
    def talk(self, seconds: float) -> None:
        self.number = self.desk.talk(seconds, self.number)

    @rule(back_ms=st.sampled_from([0, 150, 900]), cause=st.sampled_from(["payment", "manual"]), ends=st.booleans())
    def pause(self, back_ms: int, cause: str, ends: bool) -> None:
        from_us = self.desk.now_us - 1_000 * back_ms
        until_us = self.desk.now_us + 100_000 if ends else None
        self.desk.pause(from_us, cause, until_us=until_us)  # type: ignore[arg-type]

    @rule(cause=st.sampled_from(["payment", "manual"]))
    def resume(self, cause: str) -> None:
        self.desk.resume(cause)  # type: ignore[arg-type]

    @precondition(lambda self: self.state != "none" and not self.ended)
    @rule()
    def describe(self) -> None:
        self.desk.tell(Session(call=CALL, session={"flags": ["secret"]}))
        self.desk.tell(Signalling(call=CALL, at_us=self.desk.now_us, direction=0, raw=b"INVITE sip:secret"))

    @precondition(lambda self: self.state != "none" and not self.ended)
    @rule(active=st.booleans())
    def hold(self, active: bool) -> None:
        self.desk.change(True, active)

    @rule(keep=st.booleans())
    def decide(self, keep: bool) -> None:
        self.desk.decide(keep=keep)
        if self.state not in ("none", "kept"):
            not_kept = "none" if self.ended else "discarded"
            self.state = "kept" if keep else not_kept

    @precondition(lambda self: self.state != "none" and not self.ended)
    @rule()
    def end(self) -> None:
        is_silent = self.desk.engine._recordings[CALL].call.is_on_demand
        self.desk.end()
        self.ended = True
        if is_silent:
            self.state = "none"

    @precondition(lambda self: self.state != "none")
    @rule(settled=st.booleans())
    def kill(self, settled: bool) -> None:
        if settled:
            self.desk.settle_jobs()
        self.desk.disk.close()  # a thread that outlived the kill would be no kill
        self.was_kept |= self.state == "kept"
        self.desk = Desk(Path(self._directory.name), hold_back_ms=200, now_us=self.desk.now_us)
        self.desk.tell(Recover())
        self.desk.settle_jobs()
        self.state, self.ended = "none", False
        if not self.was_kept:
            assert files(self.desk.spool_dir) == []

    @invariant()
    def nobody_reads_it(self) -> None:
        if not hasattr(self, "desk") or self.state == "kept" or self.was_kept:
            return
        assert not readable(self.desk.spool_dir)
        assert not self.desk.of(PartClosed)
        assert not self.desk.of(Finished)
        if self.state in ("discarded", "none"):
            self.desk.settle_jobs()
            assert files(self.desk.spool_dir) == []

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self._check_end()
        self._directory.cleanup()

    def _check_end(self) -> None:
        desk = self.desk
        if self.state != "none" and not self.ended:
            desk.end()
        if self.state == "kept":
            for _ in range(5):  # each note waits for the disk's threads, and the next one for it
                desk.settle_jobs()
                desk.run(1)
            desk.settle()
            assert open_call(desk.spool_dir / CALL).manifest.call == CALL
        else:
            desk.settle()


TestWaits = Waits.TestCase
TestWaits.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


def _refused(*_: object, **__: object) -> int:
    raise OSError("full")
