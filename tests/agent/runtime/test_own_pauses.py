"""Calls that pause themselves, since a card's number was typed: the cloud is told as of any pause; who may end it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dualtone.domain.agent_events import AckEvent, CutEvent
from dualtone.domain.ids import CallId
from sbc_agent.media.messages import Pause, SelfPaused
from tests.agent.runtime.controlled import Desk, until
from tests.agent.runtime.spooled import AGENT

SECOND = 1_000_000
BY = f"agent:{AGENT}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def pause_itself(desk: Desk, call: CallId, *, ago_s: int = 3) -> Pause:
    """The media process pauses a call and tells of it; its answer follows as for any pause."""
    now_us = desk.time.now_us()
    pause = Pause(
        call=call,
        at_us=now_us,
        from_us=now_us - ago_s * SECOND - 250_000,
        cause="dtmf",
        origin="agent",
        number=now_us // 1000,
        command="01JD000000000000000000000A",
        by=BY,
        effective_at_us=now_us - ago_s * SECOND,
        lease_us=900 * SECOND,
    )
    desk.media.tell(SelfPaused(pause=pause))
    desk.media.answer(pause)
    return pause


def test_it_is_told_as_any_pause_with_who_and_since_when(desk: Desk) -> None:
    """The ledger gets all that it gets of a pause on the LAN; whoever looks at the call sees its cause."""

    async def scenario() -> None:
        call = desk.begin()
        desk.time.pass_s(20)
        pause = pause_itself(desk, call)
        (ack,) = desk.told.acks
        assert (ack.origin, ack.cause, ack.action, ack.by) == ("agent", "dtmf", "pause", BY)
        assert (ack.command, ack.number, ack.outcome) == (pause.command, pause.number, "acknowledged")
        assert (ack.effective_at_us, ack.from_us) == (pause.effective_at_us, pause.from_us)
        assert (ack.received_at_us, ack.until_us, ack.lease_s, ack.on_expiry) == (pause.at_us, None, 900, "silent")
        assert desk.told.calls(call)[-1].causes == ["dtmf"]
        assert [line["call"] for line in desk.lines.named("payment_without_pause")] == [call]

    asyncio.run(scenario())


def test_what_had_left_is_recut_before_the_cloud_hears_of_the_cut(desk: Desk) -> None:
    """Typing takes longer than the hold-back: parts that were rewritten go before the word that they were."""

    async def scenario() -> None:
        call = desk.begin()
        desk.time.pass_s(20)
        pause = pause_itself(desk, call, ago_s=9)
        await until(lambda: desk.recut_futures)
        assert [event for event in desk.told.events if isinstance(event, CutEvent)] == []
        desk.recut_futures[0].set_result(None)
        await until(lambda: desk.told.cuts)
        (cut,) = desk.told.cuts
        assert cut.command == pause.command

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["endpoint:pay_1", "person:0a1b"])
def test_a_payment_that_is_over_ends_it_too(desk: Desk, by: str) -> None:
    """The payment system that forgot to begin says when card entry is over: both causes are lifted, each on record."""

    async def scenario() -> None:
        call = desk.begin()
        desk.time.pass_s(20)
        pause = pause_itself(desk, call)
        desk.time.pass_s(30)
        await desk.control.obey(desk.command("resume", call=call, by=by))
        assert desk.causes(call) == ()
        told = [ack for ack in desk.told.acks if isinstance(ack, AckEvent) and ack.action == "resume"]
        assert {(ack.origin, ack.cause, ack.by) for ack in told} == {("cloud", "payment", by), ("agent", "dtmf", by)}
        assert all(ack.number > pause.number for ack in told if ack.origin == "agent")
        assert desk.told.calls(call)[-1].causes == []

    asyncio.run(scenario())


def test_an_officer_ends_it_by_its_cause(desk: Desk) -> None:
    """And by no other: lifting a manual pause leaves it."""

    async def scenario() -> None:
        call = desk.begin()
        desk.time.pass_s(20)
        pause_itself(desk, call)
        for cause, left in (("manual", ("dtmf",)), ("dtmf", ())):
            desk.time.pass_s(5)
            await desk.control.obey(desk.command("resume", call=call, cause=cause))
            assert desk.causes(call) == left

    asyncio.run(scenario())


def test_a_payment_that_is_over_leaves_other_calls_and_causes(desk: Desk) -> None:
    """A call that did not pause itself gets no second resume."""

    async def scenario() -> None:
        call = desk.begin()
        await desk.control.obey(desk.command(call=call))
        desk.time.pass_s(5)
        await desk.control.obey(desk.command("resume", call=call))
        assert [command.cause for command in desk.media.commands] == ["payment", "payment"]

    asyncio.run(scenario())
