"""Control: commands reach the calls they mean, in any order and however often; what became of them is told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import call_match
from dualtone.domain.agent_events import AckEvent, CutEvent, LeaseEvent
from dualtone.domain.call_command import Command, Origin
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.media.messages import CutDone, Finished, LeaseExpired
from sbc_agent.media.silence import Silence
from sbc_agent.runtime.clock_offset import Measurement, TrueTime
from sbc_agent.runtime.orders import of_command
from tests.agent.runtime.controlled import (
    HOLD_BACK_US,
    LIVE_KEY,
    ROUND_TRIP_US,
    START_US,
    Desk,
    facts,
    token,
    until,
)
from tests.agent.runtime.spooled import TENANT, call_id

UCID = "00FA080018803B69810C6D"
HOUR_US = 3_600_000_000


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def now(desk: Desk) -> dict[str, Any]:
    """When an order is received."""
    return {"received_us": desk.time.now_us(), "clock": desk.control.offset()}


def obey(desk: Desk, *commands: Any) -> list[str]:
    """Commands arrive one after the other."""

    async def scenario() -> list[str]:
        return [await desk.control.obey(command) for command in commands]

    return asyncio.run(scenario())


# -- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_is_told_as_it_begins_changes_and_ends(desk: Desk) -> None:
    """Each event has a higher revision; tokens and sealed parties, never a number; nothing sealed once it is over."""
    call = desk.begin(told=facts(extension="1001"))
    desk.control.on_call(call, facts(extension="1002"), "live", desk.time.now_us())
    desk.time.pass_s(9)
    desk.end(call)
    desk.control.media_event(Finished(call=call, path="manifest.json"))
    told = desk.told.calls(call)
    assert [event.state for event in told] == ["live", "live", "ended", "spooled"]
    assert [event.revision for event in told] == [1, 2, 3, 4]
    assert [event.ended_at_us for event in told] == [None, None, START_US + 9_000_000, START_US + 9_000_000]
    assert token("extension", "1001") in told[0].matches
    assert token("extension", "1001") not in told[1].matches
    assert {token("ucid", UCID), token("extension", "1002")} <= set(told[1].matches)
    parties = call_match.unseal(LIVE_KEY, TENANT, call, told[0].sealed_bytes)
    assert [party["aor"] for party in parties] == ["sip:1001@example.com"]
    assert [event.sealed for event in told[2:]] == ["", ""]
    assert "1001" not in str([event.sealed for event in told])


def test_without_a_live_key_calls_are_told_all_the_same(tmp_path: Path) -> None:
    """An older cloud gave none: no tokens, nothing sealed, and commands by call id work."""
    desk = Desk(tmp_path, live_key=b"")
    call = desk.begin()
    assert (desk.told.calls(call)[0].matches, desk.told.calls(call)[0].sealed) == ([], "")
    assert obey(desk, desk.command(call=call)) == ["applied"]
    assert desk.causes(call) == ("payment",)


# -- commands by call -------------------------------------------------------------------------------------------------


def test_a_pause_begins_before_the_moment_that_was_meant(desk: Desk) -> None:
    """By 250 ms and the clock's uncertainty; the acknowledgement says who, when, and where each stream falls silent."""
    call = desk.begin()
    desk.time.pass_s(4)
    meant_ms = desk.true_time.now_ms() - 3_000
    assert obey(desk, desk.command(call=call, effective_at_ms=meant_ms)) == ["applied"]
    (sent,) = desk.media.commands
    assert sent.from_us == 1000 * meant_ms - 250_000 - desk.true_time.uncertainty_us  # type: ignore[union-attr]
    assert sent.effective_at_us == 1000 * meant_ms  # type: ignore[union-attr]
    (ack,) = desk.told.acks
    assert (ack.outcome, ack.origin, ack.action, ack.cause) == ("acknowledged", "cloud", "pause", "payment")
    assert (ack.received_at_us, ack.effective_at_us) == (desk.time.now_us(), 1000 * meant_ms)
    assert [found.rtp_timestamp for found in ack.silent_from] == [160]
    assert desk.told.calls(call)[-1].causes == ["payment"]


@pytest.mark.parametrize("offset_us", [HOUR_US, -HOUR_US, 0], ids=["slow", "fast", "right"])
def test_true_time_becomes_the_agents(tmp_path: Path, offset_us: int) -> None:
    """However far the agent's clock is off, the gap begins before the true moment that was meant; hardly earlier."""
    desk = Desk(tmp_path, offset_us=offset_us)
    call = desk.begin()
    desk.time.pass_s(4)
    meant_ms = desk.true_time.now_ms() - 1_000
    obey(desk, desk.command(call=call, effective_at_ms=meant_ms))
    (sent,) = desk.media.commands
    began_us = sent.from_us + offset_us  # type: ignore[union-attr]
    assert 1000 * meant_ms - 300_000 <= began_us <= 1000 * meant_ms - 250_000 - ROUND_TRIP_US // 2
    assert desk.told.acks[0].outcome == "acknowledged"


def test_a_resume_is_never_back_dated(desk: Desk) -> None:
    """It acts when it arrives."""
    call = desk.begin()
    obey(desk, desk.command(call=call))
    desk.time.pass_s(2)
    obey(desk, desk.command("resume", call=call))
    assert desk.media.commands[1].at_us == desk.time.now_us()
    assert desk.causes(call) == ()
    assert desk.told.acks[1].from_us == desk.time.now_us()


def test_causes_form_a_set(desk: Desk) -> None:
    """Audio is kept only when the last of them is lifted."""
    call = desk.begin()
    for action, cause in [("pause", "payment"), ("pause", "manual"), ("resume", "payment")]:
        obey(desk, desk.command(action, call=call, cause=cause))
        desk.time.pass_s(0.1)
    assert desk.causes(call) == ("manual",)
    obey(desk, desk.command("resume", call=call, cause="manual"))
    assert desk.causes(call) == ()


def test_an_expired_command_is_refused(desk: Desk) -> None:
    """By true time, also when the agent's clock is wrong."""
    call = desk.begin()
    stale = desk.command(call=call)
    desk.time.pass_s(60)
    assert obey(desk, stale) == ["expired"]
    assert desk.media.commands == []


def test_a_clock_that_was_never_measured_refuses_no_pause_by_match(desk: Desk) -> None:
    """It may be an hour ahead: the pause counts from now, its resume comes again when it is known what time it is."""
    call, issued_ms = desk.begin(), desk.true_time.now_ms() - 3_600_000
    name: dict[str, Any] = {
        "match": token("ucid", UCID),
        "issued_at_ms": issued_ms,
        "expires_at_ms": issued_ms + 60_000,
    }
    desk.true_time = desk.control._true_time = TrueTime(desk.time)
    pause = desk.command(**name, effective_at_ms=issued_ms - 1_000, number=issued_ms)
    assert obey(desk, pause) == ["applied"]
    (sent,) = desk.media.commands
    assert sent.from_us == desk.time.now_us() - 1_000_000 - 250_000 - desk.true_time.uncertainty_us  # type: ignore[union-attr]
    resume = desk.command("resume", **name, number=issued_ms + 1)
    with pytest.raises(Unavailable):
        obey(desk, resume)
    assert desk.causes(call) == ("payment",)
    desk.true_time.learn(Measurement(-HOUR_US, ROUND_TRIP_US, desk.time.now_us()))
    assert obey(desk, resume) == ["applied"]
    assert desk.causes(call) == ()


def test_a_call_that_is_not_here_is_unknown(desk: Desk) -> None:
    """The cloud is told so."""
    elsewhere = call_id(1, 7)
    assert obey(desk, desk.command(call=elsewhere)) == ["applied"]
    assert [ack.outcome for ack in desk.told.acks] == ["unknown"]


def test_a_command_that_comes_twice_has_one_effect(desk: Desk) -> None:
    """The second is answered as superseded, and changes nothing."""
    call = desk.begin()
    pause = desk.command(call=call)
    obey(desk, pause, pause)
    assert [ack.outcome for ack in desk.told.acks] == ["acknowledged", "superseded"]
    assert desk.causes(call) == ("payment",)


def test_a_replayed_resume_opens_no_newer_pause(desk: Desk) -> None:
    """Pause, resume, pause, and the resume again: the call stays silent."""
    call = desk.begin()
    first, resume, second = (
        desk.command(action, call=call, number=number) for action, number in [("pause", 1), ("resume", 2), ("pause", 3)]
    )
    obey(desk, first, resume, second, resume)
    assert desk.causes(call) == ("payment",)
    assert [ack.outcome for ack in desk.told.acks] == ["acknowledged"] * 3 + ["superseded"]


def test_while_the_media_process_does_not_answer_a_command_is_repeated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message stays in the queue; when it comes again it waits for the same answer."""
    monkeypatch.setattr("sbc_agent.runtime.control.ANSWER_S", 0.01)
    call = desk.begin()
    desk.media.answers = False
    pause = desk.command(call=call)

    async def scenario() -> str:
        with pytest.raises(Unavailable):
            await desk.control.obey(pause)
        again = asyncio.ensure_future(desk.control.obey(pause))
        await asyncio.sleep(0)
        desk.media.answer(desk.media.commands[0])
        return await again

    assert asyncio.run(scenario()) == "applied"
    assert len(desk.media.commands) == 1


def test_when_the_media_process_has_ended_commands_are_repeated(desk: Desk) -> None:
    """They are unavailable, not lost."""
    call = desk.begin()
    desk.media.gone = True
    with pytest.raises(Unavailable):
        obey(desk, desk.command(call=call))


# -- too late ---------------------------------------------------------------------------------------------------------


def test_after_a_late_pause_the_cloud_hears_when_nothing_older_is_in_flight(desk: Desk) -> None:
    """The cut is told only when the uplink says that no older bytes of the parts can arrive any more."""
    call = desk.begin()
    desk.time.pass_s(20)
    meant_ms = desk.true_time.now_ms() - 15_000

    async def scenario() -> None:
        await desk.control.obey(desk.command(call=call, effective_at_ms=meant_ms))
        await until(lambda: desk.recut_futures)
        assert desk.told.cuts == []
        desk.recut_futures[0].set_result(None)
        await until(lambda: desk.told.cuts)

    asyncio.run(scenario())
    (cut,) = desk.told.cuts
    assert desk.recuts == [(call, ("part-00-000000.dtp",))]
    assert (cut.call, cut.parts) == (call, ["part-00-000000.dtp"])
    assert cut.from_us <= 1000 * meant_ms - 250_000
    assert [ack.outcome for ack in desk.told.acks] == ["too_late"]


def test_a_cut_waits_for_the_answer_that_the_disk_holds_up(desk: Desk) -> None:
    """The spool was cut before the call's state could be noted: the cloud hears the answer all the same, and first."""
    call = desk.begin()
    desk.time.pass_s(20)
    desk.media.answers = False
    pause = desk.command(call=call, effective_at_ms=desk.true_time.now_ms() - 15_000)

    async def scenario() -> None:
        obeying = asyncio.ensure_future(desk.control.obey(pause))
        await until(lambda: desk.media.commands)
        cut = CutDone(call=call, command=pause.id, from_us=START_US, to_us=START_US + 1, parts=("part-00-000000.dtp",))
        desk.control.media_event(cut)
        await until(lambda: desk.recut_futures)
        desk.recut_futures[0].set_result(None)
        await asyncio.sleep(0.05)
        assert desk.told.cuts == []
        desk.media.answer(desk.media.commands[0])
        assert await obeying == "applied"
        await until(lambda: desk.told.cuts)

    asyncio.run(scenario())
    told = [event for event in desk.told.events if isinstance(event, AckEvent | CutEvent)]
    assert [event.type for event in told] == ["ack", "cut"]


def test_a_cut_is_told_although_the_disk_refused_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uplink could not read what was sent: it is alarmed, and asked again."""
    monkeypatch.setattr("sbc_agent.runtime.control.RECUT_AGAIN_S", 0.001)
    call = desk.begin()
    desk.time.pass_s(20)
    desk.recut_failures = 3

    async def scenario() -> None:
        await desk.control.obey(desk.command(call=call, effective_at_ms=desk.true_time.now_ms() - 15_000))
        async with asyncio.timeout(2):
            await until(lambda: desk.recut_futures)
            desk.recut_futures[0].set_result(None)
            await until(lambda: desk.told.cuts)

    asyncio.run(scenario())
    assert len(desk.lines.named("recut_failed")) == 2, "the first and the second of three"


def test_a_lease_that_runs_out_is_told(desk: Desk) -> None:
    """Silent: the cause stays and it is alarmed. Resumed: the cause is gone."""
    call = desk.begin()
    obey(desk, desk.command(call=call), desk.command(call=call, cause="manual", number=2**50))
    desk.control.media_event(LeaseExpired(call=call, cause="payment", on_expiry="silent", at_us=START_US))
    assert desk.told.calls(call)[-1].causes == ["manual", "payment"]
    desk.control.media_event(LeaseExpired(call=call, cause="manual", on_expiry="resume", at_us=START_US))
    assert desk.told.calls(call)[-1].causes == ["payment"]
    assert [event.cause for event in desk.told.events if isinstance(event, LeaseEvent)] == ["payment", "manual"]
    assert len(desk.lines.named("lease_expired")) == 2


# -- commands by match ------------------------------------------------------------------------------------------------


def test_a_pause_by_match_reaches_every_call_with_the_token(desk: Desk) -> None:
    """Both legs of a consultation have the extension; a third call does not."""
    first = desk.begin(1, facts(UCID, "1001"))
    second = desk.begin(2, facts("00FA080018803B69810C6E", "1001"))
    third = desk.begin(3, facts("00FA080018803B69810C6F", "1003"))
    assert obey(desk, desk.command(match=token("extension", "1001"))) == ["applied"]
    assert (desk.causes(first), desk.causes(second), desk.causes(third)) == (("payment",), ("payment",), ())


@pytest.mark.parametrize(("waits_s", "paused"), [(0, True), (60, True), (61, False)])
def test_a_pause_waits_sixty_seconds_for_its_call(desk: Desk, waits_s: int, paused: bool) -> None:
    """The payment page was faster than the SBC."""
    assert obey(desk, desk.command(match=token("ucid", UCID))) == ["pending"]
    desk.time.pass_s(waits_s)

    async def scenario() -> None:
        call = desk.begin()
        assert desk.causes(call) == (("payment",) if paused else ())

    asyncio.run(scenario())


def test_a_pause_waits_for_a_call_that_becomes_known_later(desk: Desk) -> None:
    """The call is there, its UCID comes with an UPDATE."""

    async def scenario() -> None:
        call = desk.begin(1, facts("00FA080018803B69810000"))
        await desk.control.obey(desk.command(match=token("ucid", UCID)))
        assert desk.causes(call) == ()
        desk.control.on_call(call, facts(UCID), "live", desk.time.now_us())
        assert desk.causes(call) == ("payment",)
        desk.control.on_call(call, facts(UCID, "1007"), "live", desk.time.now_us())
        assert len(desk.media.commands) == 1, "told again, it is not given the same pause again"

    asyncio.run(scenario())


def test_a_resume_takes_a_waiting_pause_away(desk: Desk) -> None:
    """In either order of delivery, and whichever of them comes again."""

    async def scenario() -> None:
        for number, places in enumerate([(0, 1), (1, 0), (0, 1, 0, 0)]):
            name = {"match": token("ucid", UCID)}
            commands = [
                desk.command("pause", number=10 * number + 1, **name),
                desk.command("resume", number=10 * number + 2, **name),
            ]
            for place in places:
                await desk.control.obey(commands[place])
            assert desk.causes(desk.begin(number)) == ()
            desk.time.pass_s(1)

    asyncio.run(scenario())


def test_waiting_pauses_outlive_a_kill(tmp_path: Path) -> None:
    """The pause came, the agent was killed, the call begins in the run after."""
    first = Desk(tmp_path)
    obey(first, first.command(match=token("ucid", UCID)))

    async def scenario() -> None:
        second = Desk(tmp_path, time=first.time)
        second.time.pass_s(2)
        assert second.causes(second.begin()) == ("payment",)

    asyncio.run(scenario())


def test_a_pause_finds_a_call_that_has_just_ended(desk: Desk) -> None:
    """Two seconds after the BYE the ring still has it; the span lies before its end."""
    call = desk.begin()
    desk.time.pass_s(10)
    desk.end(call)
    desk.time.pass_s(2)
    meant_ms = desk.true_time.now_ms() - 4_000
    assert obey(desk, desk.command(match=token("ucid", UCID), effective_at_ms=meant_ms)) == ["applied"]
    assert desk.told.acks[0].outcome == "acknowledged"


def test_a_pause_finds_a_call_in_the_spool_but_not_one_that_was_over_before(tmp_path: Path) -> None:
    """Days without an uplink: by an extension, only the call that the span touches is cut; also after a restart."""
    first = Desk(tmp_path)
    calls = []
    for number in range(3):
        call = first.begin(number)
        first.time.pass_s(30)
        first.end(call)
        first.spool(call)
        first.control.media_event(Finished(call=call, path="manifest.json"))
        first.time.pass_s(30)
        calls.append(call)
    desk = Desk(tmp_path, time=first.time, media=first.media)
    now_ms = desk.true_time.now_ms()

    async def scenario() -> None:
        await desk.control.obey(
            desk.command(match=token("extension", "1001"), effective_at_ms=now_ms - 100_000, until_ms=now_ms - 95_000)
        )

    asyncio.run(scenario())
    assert [command.call for command in desk.media.commands] == [calls[1]]
    assert [ack.outcome for ack in desk.told.acks] == ["too_late"]


def test_what_ended_a_moment_ago_does_not_keep_a_pause_from_the_next_call(desk: Desk) -> None:
    """The page names an extension; that extension's last call has just ended, the call that is meant begins now."""

    async def scenario() -> None:
        before = desk.begin(1)
        desk.time.pass_s(5)
        desk.end(before)
        desk.time.pass_s(0.1)
        await desk.control.obey(desk.command(match=token("extension", "1001")))
        desk.time.pass_s(1)
        assert desk.causes(desk.begin(2)) == ("payment",)

    asyncio.run(scenario())


# -- restart ----------------------------------------------------------------------------------------------------------


def test_after_a_restart_adopted_calls_are_found_by_their_tokens(tmp_path: Path) -> None:
    """The journal's tokens and what was kept here; what nobody adopted is over."""
    first = Desk(tmp_path)
    lives = first.begin(1)
    dies = first.begin(2, facts("00FA080018803B69810C6E", "1009"))
    desk = Desk(tmp_path, time=first.time, media=first.media)
    desk.control.on_adopted(lives, [token("ucid", UCID)], START_US)
    desk.control.settle()
    assert [event.state for event in desk.told.calls(lives)] == ["live"]
    assert [event.state for event in desk.told.calls(dies)] == ["spooled"]
    assert desk.told.calls(lives)[-1].revision > first.told.calls(lives)[-1].revision
    assert desk.told.calls(lives)[-1].sealed == first.told.calls(lives)[-1].sealed
    desk.control.on_call(lives, {}, "live", desk.time.now_us())
    for kind, value in [("ucid", UCID), ("extension", "1001")]:
        obey(desk, desk.command(match=token(kind, value), number=desk.true_time.now_ms()))
        assert desk.causes(lives) == ("payment",)
        desk.time.pass_s(1)
        obey(desk, desk.command("resume", match=token(kind, value)))
        assert desk.causes(lives) == ()
        desk.time.pass_s(1)


@pytest.mark.parametrize("is_adopting", [False, True], ids=["before the control channel", "after it"])
def test_a_call_that_begins_anew_is_silent_for_what_the_old_one_was(tmp_path: Path, is_adopting: bool) -> None:
    """From its beginning, for every cause that nobody lifted, and until a resume of either origin."""

    async def scenario() -> None:
        first = Desk(tmp_path)
        old = first.begin(1)
        for action, cause in [("pause", "payment"), ("pause", "manual"), ("pause", "consent"), ("resume", "manual")]:
            await first.control.obey(first.command(action, call=old, cause=cause))
            first.time.pass_s(0.1)
        desk = Desk(tmp_path, time=first.time)
        name = [token("ucid", UCID)]
        if is_adopting:
            desk.control.on_adopted(old, name, START_US)
            desk.control.settle()
            desk.media.answers = False
            desk.control.carry_out_on(old, of_command(desk.command("resume", call=old, cause="consent"), **now(desk)))
            desk.media.answers = True
            desk.control.on_call(old, {}, "ended", desk.time.now_us())
        began_us = desk.time.now_us()
        new = call_id(began_us // 1000, 2)
        desk.media.silences[new] = Silence()
        desk.time.pass_s(0 if is_adopting else 1.5)
        desk.control.on_adopted(new, name, began_us, old)
        desk.control.settle()
        causes = ("payment",) if is_adopting else ("consent", "payment")
        assert desk.causes(new) == causes
        assert desk.media.silences[new].covers(began_us, desk.time.now_us())
        assert desk.told.calls(new)[-1].causes == list(causes)
        inherited = [ack for ack in desk.told.acks if ack.call == new]
        assert {(ack.by, ack.outcome, ack.on_expiry) for ack in inherited} == {
            ("agent:restart", "acknowledged", "silent")
        }
        assert len(desk.lines.named("pause_inherited")) == len(causes)
        desk.time.pass_s(1)
        origins: dict[str, Origin] = {"payment": "cloud", "consent": "lan"}
        for cause, origin in origins.items():
            resume = desk.command("resume", call=new, cause=cause)
            desk.control.carry_out_on(new, of_command(resume, **now(desk), origin=origin))
        assert desk.causes(new) == ()

    asyncio.run(scenario())


def test_a_full_disk_keeps_no_pause_from_a_call(desk: Desk) -> None:
    """What cannot be kept is alarmed; the call is silent all the same."""
    desk.state.close()

    async def scenario() -> None:
        call = desk.begin()
        await desk.control.obey(desk.command(match=token("ucid", UCID)))
        assert desk.causes(call) == ("payment",)

    asyncio.run(scenario())
    assert desk.lines.named("call_not_kept")


def test_no_number_reaches_the_state_or_the_log(desk: Desk, tmp_path: Path) -> None:
    """Tokens and sealed parties alone."""
    call = desk.begin(told=facts(extension="+442079460101"))
    obey(desk, desk.command(call=call))
    desk.state.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + desk.lines.stream.getvalue().encode()
    for secret in (b"442079460101", b"Alice", UCID.encode(), LIVE_KEY):
        assert secret not in written


def test_how_far_back_a_pause_may_reach(desk: Desk) -> None:
    """Just inside the hold-back it is in time."""
    call = desk.begin()
    desk.time.pass_s(20)
    reach_ms = (HOLD_BACK_US - 250_000 - desk.true_time.uncertainty_us) // 1000
    obey(desk, desk.command(call=call, effective_at_ms=desk.true_time.now_ms() - reach_ms))
    assert desk.told.acks[0].outcome == "acknowledged"


# -- any order of delivery --------------------------------------------------------------------------------------------


def conversation(desk: Desk, call: str, seed: int) -> list[Command]:
    """Pauses and resumes of three causes as people and payment systems give them, in their order."""
    dice = random.Random(seed)
    commands = []
    for number in range(1, dice.randrange(3, 9)):
        action = dice.choice(["pause", "resume"])
        commands.append(
            desk.command(action, call=call, number=number, cause=dice.choice(["payment", "manual", "consent"]))
        )
    return commands


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_delivery_does_not_matter(tmp_path: Path, seed: int) -> None:
    """Delayed, doubled and reordered: the causes are those of ordered delivery, and no pause loses its silence."""

    async def deliver(desk: Desk, call: CallId, commands: list[Command]) -> dict[str, int]:
        """When each command came first."""
        came: dict[str, int] = {}
        for command in commands:
            desk.time.pass_s(0.05)
            came.setdefault(command.id, desk.time.now_us())
            await desk.control.obey(command)
        return came

    (tmp_path / "ordered").mkdir()
    ordered, shuffled, dice = Desk(tmp_path / "ordered"), Desk(tmp_path), random.Random(seed)
    call = ordered.begin()
    assert shuffled.begin() == call
    commands = conversation(ordered, call, seed)
    asyncio.run(deliver(ordered, call, commands))
    delivered = [command for command in commands for _ in range(dice.choice([1, 1, 2]))]
    dice.shuffle(delivered)
    came = asyncio.run(deliver(shuffled, call, delivered))
    assert shuffled.causes(call) == ordered.causes(call)
    for pause in (command for command in commands if command.action == "pause"):
        from_us = 1000 * pause.issued_at_ms - 250_000
        resumed_us = [
            came[later.id]
            for later in commands
            if (later.action, later.cause) == ("resume", pause.cause) and later.number > pause.number
        ]
        to_us = min(resumed_us, default=shuffled.time.now_us())
        assert to_us <= from_us or shuffled.media.silences[call].covers(from_us, to_us - 1)
