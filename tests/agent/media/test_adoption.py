"""A call goes on after a restart: the next key, the same chain, the same causes; and what was lost is declared."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from dualtone.domain.call_files import GapEntry
from sbc_agent.media import call_state, cuts, messages, pauses, spool
from sbc_agent.media.messages import Adopted, Alarm, CutDone, Finished
from tests.agent.media import killing
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.sealed_call import CALL, KEY_ARN, agent_key, ingest_key, open_call, public_der

RESTARTED_US = START_US + 20_000_000


def alarms(desk: Desk) -> list[str]:
    return [alarm.kind for alarm in desk.of(Alarm)]


def killed(directory: Path, seconds: float = 6, **changes: object) -> Desk:
    """A desk that is not used any more after some talk, as if its process had been killed."""
    desk = Desk(directory, hold_back_ms=1_000, part_s=2, **changes)  # type: ignore[arg-type]
    desk.begin()
    desk.talk(seconds)
    desk.settle()
    return desk


def restarted(directory: Path, *active: bool, now_us: int = RESTARTED_US, openings: int = 1) -> Desk:
    """The next run, on the same spool; it adopts the call."""
    desk = Desk(directory, hold_back_ms=1_000, part_s=2, now_us=now_us, openings=openings)
    desk.adopt(*active)
    desk.settle_jobs()
    return desk


def test_a_call_goes_on_under_the_next_key(tmp_path: Path) -> None:
    """What was sealed before and what comes after is one call: one chain, two keys, a gap from the last arrival."""
    killed(tmp_path)
    desk = restarted(tmp_path)
    assert desk.of(Adopted) == [Adopted(call=CALL, epoch=1)]
    number = desk.talk(5, 1_000)
    desk.end()
    desk.run(3)
    call = desk.opened()
    before = [at_us for at_us in call.arrivals_us(0) if at_us < RESTARTED_US]
    assert [opening.epoch for opening in call.openings] == [0, 1]
    assert call.openings[1].sequence == 2
    assert call.openings[1].started_at_us == RESTARTED_US
    assert {entry.epoch for entry in call.manifest.parts} == {0, 1}
    assert [entry.index for entry in call.manifest.parts] == list(range(len(call.manifest.parts)))
    assert call.sequences(0) == [*range(len(before)), *range(1_000, number)]
    assert len(before) >= 200
    assert call.manifest.gaps == [GapEntry(stream, before[-1], RESTARTED_US, "restart") for stream in range(2)]
    assert (call.manifest.flags, call.manifest.answered_at_us) == (["restarted"], START_US)
    assert call.manifest.end_reason == "bye"
    assert [one.received for one in call.manifest.statistics] == [250, 250]
    assert len([entry for entry in call.manifest.streams[0].formats if entry.payload_type == 8]) == 1
    assert alarms(desk) == []


def test_a_call_survives_any_number_of_restarts(tmp_path: Path) -> None:
    """Each gap is declared by itself, and the third run knows what the second one noted."""
    killed(tmp_path)
    second = restarted(tmp_path)
    second.talk(4, 1_000)
    second.settle()
    third_us = RESTARTED_US + 10_000_000
    third = restarted(tmp_path, now_us=third_us, openings=2)
    number = third.talk(3, 2_000)
    third.end()
    third.run(3)
    call = third.opened()
    assert [opening.epoch for opening in call.openings] == [0, 1, 2]
    gaps = [gap for gap in call.manifest.gaps if gap.stream == 0]
    assert [gap.to_us for gap in gaps] == [RESTARTED_US, third_us]
    arrivals = call.arrivals_us(0)
    assert [gap.from_us for gap in gaps] == [
        max(at_us for at_us in arrivals if at_us < RESTARTED_US),
        max(at_us for at_us in arrivals if at_us < third_us),
    ]
    assert call.sequences(0)[-1] == number - 1


def test_a_call_that_was_paused_stays_paused(tmp_path: Path) -> None:
    """Causes, numbers and who asked for them go on; an old resume is still old."""
    desk = Desk(tmp_path, hold_back_ms=1_000)
    desk.begin()
    desk.talk(3)
    from_us = desk.now_us - 500_000
    assert desk.pause(from_us, number=7) is not None
    desk.talk(1, 150)
    desk.settle()
    again = restarted(tmp_path)
    number = again.talk(2, 1_000)
    old = again.resume(number=6)
    assert old is not None
    assert (old.outcome, old.causes) == ("superseded", ("payment",))
    new = again.resume(number=8)
    assert new is not None
    resumed_us = again.now_us
    number = again.talk(2, number)
    again.end()
    again.run(3)
    call = again.opened()
    assert not [at_us for at_us in call.arrivals_us(0) if from_us <= at_us < resumed_us]
    assert call.sequences(0)[-100:] == list(range(1_100, number))
    assert GapEntry(0, from_us, resumed_us, "payment") in call.manifest.gaps
    (entry,) = call.manifest.pauses
    assert (entry.number, entry.from_us, entry.to_us) == (7, from_us, resumed_us)
    assert entry.silent_from[0].rtp_timestamp is not None


@pytest.mark.parametrize("on_expiry", ["silent", "resume"])
def test_a_lease_runs_on_over_a_restart(tmp_path: Path, on_expiry: messages.OnExpiry) -> None:
    desk = Desk(tmp_path, hold_back_ms=1_000)
    desk.begin()
    desk.talk(3)
    desk.pause(desk.now_us, lease_us=5_000_000, on_expiry=on_expiry)
    expiry_us = desk.now_us + 5_000_000
    desk.settle()
    again = restarted(tmp_path)
    number = again.talk(2, 1_000)
    again.end()
    again.run(3)
    call = again.opened()
    (lapse,) = again.of(messages.LeaseExpired)
    assert (lapse.at_us, lapse.on_expiry) == (expiry_us, on_expiry)
    heard = list(range(1_000, number)) if on_expiry == "resume" else []
    assert [one for one in call.sequences(0) if one >= 1_000] == heard


def test_streams_that_are_not_named_any_more_are_over(tmp_path: Path) -> None:
    """One side left while the agent was away; later it comes back with a re-INVITE."""
    killed(tmp_path)
    desk = restarted(tmp_path, True)
    desk.talk(2, 1_000)
    back_us = desk.now_us
    desk.change(True, True)
    number = desk.talk(2, 1_100)
    desk.end()
    desk.run(3)
    call = desk.opened()
    assert [one for one in call.sequences(1) if one >= 1_000] == list(range(1_100, number))
    assert GapEntry(1, RESTARTED_US, back_us, "inactive") in call.manifest.gaps
    assert [stream.label for stream in call.manifest.streams] == ["0", "1"]


def test_a_call_that_was_killed_at_its_beginning_goes_on(tmp_path: Path) -> None:
    """Its opening is there, a note is not: it has no causes, and the streams that it is adopted with."""
    desk = killed(tmp_path, 0)
    (desk.spool_dir / CALL / "state.json").unlink()
    again = restarted(tmp_path)
    number = again.talk(2, 1_000)
    again.end()
    again.run(3)
    call = again.opened()
    assert call.sequences(0) == list(range(1_000, number))
    assert call.manifest.gaps == []
    assert call.manifest.answered_at_us == START_US


@pytest.mark.parametrize(
    "case", ["nothing there", "finished", "runs already", "note damaged", "no opening", "port taken"]
)
def test_what_cannot_be_adopted_is_told_and_changes_nothing(tmp_path: Path, case: str) -> None:
    """A call of which it is not known whether it was paused is not recorded; it is closed as it lies."""
    if case != "nothing there":
        desk = killed(tmp_path)
        directory = desk.spool_dir / CALL
        if case == "note damaged":
            (directory / "state.json").write_bytes(b'{"answered')
        elif case == "no opening":
            (directory / "opening-00.json").unlink()
    again = Desk(tmp_path, hold_back_ms=1_000, now_us=RESTARTED_US)
    if case == "finished":
        again.tell(messages.Recover())
        again.settle_jobs()
    elif case == "runs already":
        again.adopt()
    elif case == "port taken":
        other = messages.Begin(call=CALL[:-1] + "V", at_us=again.now_us, streams=again.streams(True))
        again.tell(other)
    again.settle_jobs()
    names = {path.name for path in again.spool_dir.glob(f"{CALL}/*")} if again.spool_dir.exists() else set()
    told = len(alarms(again))
    again.adopt()
    assert alarms(again)[told:] == ["command"]
    again.settle()
    assert {path.name for path in again.spool_dir.glob(f"{CALL}/*")} == names


def test_recover_closes_what_was_not_adopted(tmp_path: Path) -> None:
    """Nothing is touched before; then every other leftover is declared, with its pauses."""
    desk = Desk(tmp_path, hold_back_ms=1_000)
    desk.begin()
    desk.talk(4)
    desk.pause(desk.now_us - 500_000)
    desk.settle()
    paused_us = desk.now_us - 500_000
    again = Desk(tmp_path, hold_back_ms=1_000, now_us=RESTARTED_US)
    again.run(1)
    assert not (again.spool_dir / CALL / "manifest.json").exists()
    again.tell(messages.Recover())
    again.settle()
    assert alarms(again) == ["recovered"]
    assert again.of(Finished)
    manifest = open_call(again.spool_dir / CALL).manifest
    assert (manifest.flags, manifest.end_reason) == (["recovered"], "error")
    assert [(pause.from_us, pause.to_us, pause.resumed_by) for pause in manifest.pauses] == [
        (paused_us, max(manifest.ended_at_us, paused_us), "")
    ]


def test_recover_leaves_the_calls_of_this_run_alone(tmp_path: Path) -> None:
    killed(tmp_path)
    again = restarted(tmp_path)
    again.tell(messages.Recover())
    number = again.talk(2, 1_000)
    again.end()
    again.run(3)
    call = again.opened()
    assert call.sequences(0)[-1] == number - 1
    assert alarms(again) == []


def test_a_pause_that_comes_before_the_adoption_is_not_lost(tmp_path: Path) -> None:
    """A desk on the LAN may be quicker than the agent's start: the call is silent when it goes on."""
    desk = killed(tmp_path)
    again = Desk(tmp_path, hold_back_ms=1_000, part_s=2, now_us=RESTARTED_US, openings=1)
    from_us = START_US + 2_500_000
    answer = again.pause(from_us)
    assert answer is not None
    assert (answer.outcome, answer.causes) == ("too_late", ("payment",))
    again.adopt()
    again.settle_jobs()
    again.talk(2, 1_000)
    again.end()
    again.run(3)
    call = again.opened()
    assert again.of(CutDone)[0].command == answer.command
    assert max(call.arrivals_us(0)) < from_us
    assert call.manifest.pauses[0].from_us == from_us
    assert desk.now_us < RESTARTED_US


def test_a_pause_that_comes_while_old_parts_are_read_is_carried_out(tmp_path: Path) -> None:
    """It names a moment before the crash: what had been sealed of it goes, and only that."""
    killed(tmp_path)
    again = Desk(tmp_path, hold_back_ms=1_000, part_s=2, now_us=RESTARTED_US, openings=1)
    again.adopt()
    from_us = START_US + 3_000_000
    answer = again.pause(from_us)
    assert answer is not None
    assert answer.outcome == "too_late"
    again.settle_jobs()
    again.run(2)
    again.resume()
    number = again.talk(2, 1_000)
    again.end()
    again.run(3)
    call = again.opened()
    assert {done.command for done in again.of(CutDone)} == {answer.command}
    assert not [at_us for at_us in call.arrivals_us(0) if from_us <= at_us < RESTARTED_US]
    assert call.sequences(0)[-100:] == list(range(1_000, number))
    assert call.arrivals_us(0)[0] == START_US


@pytest.mark.parametrize("is_adopted", [True, False])
def test_a_pause_that_the_spool_refused_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_adopted: bool
) -> None:
    """It comes once; the call may have been adopted when the spool takes it."""
    killed(tmp_path)
    again = Desk(tmp_path, hold_back_ms=1_000, part_s=2, now_us=RESTARTED_US, openings=1)

    def refuse(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(cuts, "note", refuse)
        assert again.pause(START_US + 2_500_000) is None
        again.run(3)
        assert alarms(again) == ["spool_write"]
    if is_adopted:
        again.adopt()
        again.settle_jobs()
    again.run(2)
    again.settle()
    (answer,) = again.of(messages.PauseApplied)
    assert (answer.outcome, answer.causes) == ("too_late", ("payment",))
    assert {done.command for done in again.of(CutDone)} == {answer.command}


@pytest.mark.parametrize("back_us", [500_000, 3_000_000])
@pytest.mark.parametrize("is_adopted", [True, False])
def test_a_command_that_comes_again_after_a_crash_is_answered_as_the_first_time(
    tmp_path: Path, back_us: int, *, is_adopted: bool
) -> None:
    """The first answer may have been lost with the run that gave it."""
    desk = Desk(tmp_path, hold_back_ms=1_000, part_s=2)
    desk.begin()
    desk.talk(6)
    from_us = desk.now_us - back_us
    first = desk.pause(from_us, number=1)
    resumed = desk.resume("manual", number=1)
    desk.settle()
    assert first is not None
    assert resumed is not None
    again = Desk(tmp_path, hold_back_ms=1_000, part_s=2, now_us=RESTARTED_US, openings=1)
    if is_adopted:
        again.adopt()
        again.settle_jobs()
    second = again.pause(from_us, number=1)
    assert second is not None
    assert second.model_copy(update={"left_until_us": first.left_until_us}) == first
    second = again.resume("manual", number=1)
    assert second is not None
    assert second.model_copy(update={"left_until_us": resumed.left_until_us}) == resumed
    again.next_number()
    for other in (again.pause(from_us, number=1), again.resume("manual", number=1)):
        assert other is not None
        assert other.outcome == "superseded"
    again.run(1)
    again.settle()
    assert bool(again.of(CutDone)) is (first.outcome == "too_late")


def test_an_old_cut_is_carried_out_by_the_next_run(tmp_path: Path) -> None:
    """Noted and answered, then killed before the files were rewritten."""
    desk = killed(tmp_path)
    cut = cuts.Cut(CALL, START_US + 1_000_000, START_US + 2_000_000)
    cuts.note(desk.spool_dir / CALL, cut)
    again = restarted(tmp_path)
    again.talk(1, 1_000)
    again.end()
    again.run(3)
    call = again.opened()
    (done,) = again.of(CutDone)
    assert (done.command, done.parts) == (CALL, tuple(f"part-00-{index:06d}.dtp" for index in range(len(done.parts))))
    assert not [at_us for at_us in call.arrivals_us(0) if cut.from_us <= at_us <= cut.to_us]


def test_cuts_of_finished_calls_are_told_again_by_the_next_run(tmp_path: Path) -> None:
    """Whether the SIP process heard of them before it ended is not known."""
    desk = killed(tmp_path)
    desk = Desk(tmp_path, now_us=RESTARTED_US)
    desk.tell(messages.Recover())
    desk.settle_jobs()
    answer = desk.pause(START_US + 1_000_000, until_us=START_US + 2_000_000)
    assert answer is not None
    desk.settle()
    again = Desk(tmp_path, now_us=RESTARTED_US + 1)
    again.tell(messages.Recover())
    again.settle()
    assert [done.command for done in again.of(CutDone)] == [answer.command]
    assert not again.of(Finished)


def test_new_calls_and_epochs_are_wrapped_to_the_new_ingest_key(tmp_path: Path) -> None:
    """A running call keeps its key; one that begins after the change names the new one; no key is refused."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    desk.tell(messages.UseIngestKey(key_arn=f"{KEY_ARN}-2", public_key_der=public_der(ingest_key())))
    other = CALL[:-1] + "V"
    streams = tuple(one.model_copy(update={"port": one.port + 4}) for one in desk.streams(True))
    desk.tell(messages.Begin(call=other, at_us=desk.now_us, streams=streams))
    desk.tell(messages.UseIngestKey(key_arn="bad", public_key_der=public_der(agent_key())))
    assert alarms(desk) == ["command"]
    desk.tell(messages.Drain(flush=True))
    desk.run(0.1)
    desk.settle()
    assert open_call(desk.spool_dir / CALL).opening.key_arn == KEY_ARN
    assert open_call(desk.spool_dir / other).opening.key_arn == f"{KEY_ARN}-2"


def test_a_run_that_is_killed_at_any_line_is_gone_on_with(tmp_path: Path) -> None:
    """Whatever was being written: the next run adopts the call, opens all of it, and holds what was answered.

    A pause that was answered is in force; one that was not may be, for it was asked for; nothing of a span whose pause
    was answered is in any file after the next run.
    """
    modules = (spool, call_state, cuts, pauses)
    first_us = START_US + 1_500_000

    def work(directory: Path, say: killing.Say) -> None:
        desk = Desk(directory, hold_back_ms=400, part_s=1)
        desk.begin()
        number = desk.talk(1)
        number = desk.talk(1.5, number)
        answer = desk.pause(first_us, number=1)
        say(["pause", answer.outcome if answer else ""])
        number = desk.talk(0.5, number)
        answer = desk.resume(number=2)
        say(["resume", answer.outcome if answer else ""])
        desk.talk(1, number)
        desk.settle_jobs()
        say(["end", ""])

    total = 5_200
    outcomes = set()
    for after in [*range(0, total, 137)]:
        directory = tmp_path / str(after)
        ended = killing.run(partial(work, directory), modules, after)
        said = [what for what, outcome in ended.said if outcome != ""]
        outcomes.add(tuple(said))
        if not (directory / "spool" / CALL / "opening-00.json").exists():
            assert not said
            continue
        again = Desk(directory, hold_back_ms=400, part_s=1, now_us=RESTARTED_US, openings=1)
        again.adopt()
        again.settle_jobs()
        number = again.talk(1, 1_000)
        again.end()
        again.run(2)
        call = again.opened()
        arrivals = call.arrivals_us(0)
        is_heard = [one for one in call.sequences(0) if one >= 1_000] == list(range(1_000, number))
        if said == ["pause"]:
            assert call.manifest.pauses
            if not call.manifest.pauses[0].resumed_by:
                assert not is_heard
        else:
            assert is_heard or not said
        if said:
            assert not [at_us for at_us in arrivals if first_us <= at_us < START_US + 2_500_000]
            assert not list((directory / "spool" / CALL).glob(".part*"))
    assert {(), ("pause",), ("pause", "resume")} <= outcomes
