"""The canary: it sings when the cloud's receipt comes, and its silence is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from dualtone.domain.audio import tones
from dualtone.domain.ids import CallId
from sbc_agent.runtime import canary_song
from sbc_agent.runtime.canary import Canary
from sbc_agent.runtime.src_link import CallFailed
from tests.agent.runtime.spooled import Lines, call_id

CALL, ANOTHER = call_id(1, 1), call_id(2, 2)


def sung(meets: Callable[[Canary, str], Awaitable[None]], patience_s: float = 5.0) -> tuple[bool, Canary, Lines]:
    """Lets a canary sing into what it meets."""
    lines = Lines()

    async def scenario() -> tuple[bool, Canary]:
        async def place(sip_call_id: str) -> None:
            await meets(bird, sip_call_id)

        bird = Canary(place, 3_600, lines.log, patience_s=patience_s)
        return await bird.sing(), bird

    well, bird = asyncio.run(scenario())
    return well, bird, lines


def test_it_sings_when_its_receipt_comes() -> None:
    """The call was recorded, uploaded, finalised, and the cloud says so by its signature."""

    async def recorder(bird: Canary, sip_call_id: str) -> None:
        assert bird.owns(sip_call_id)
        bird.recorded_as(CALL)
        asyncio.get_running_loop().call_soon(bird.freed, CALL)

    well, _, lines = sung(recorder)
    assert well
    assert [line["call"] for line in lines.named("canary_sang")] == [CALL]


@pytest.mark.parametrize("freed", [None, ANOTHER])
def test_without_its_receipt_it_is_silent(freed: CallId | None) -> None:
    """Another call's receipt is none of its own."""

    async def recorder(bird: Canary, _: str) -> None:
        bird.recorded_as(CALL)
        if freed is not None:
            bird.freed(freed)

    well, _, lines = sung(recorder, patience_s=0.01)
    assert not well
    assert [line["reason"] for line in lines.named("canary_silent")] == ["no_receipt"]


def test_a_call_that_nobody_takes_is_silence_too() -> None:
    """And is alarmed at once."""

    async def refusal(_: Canary, __: str) -> None:
        raise CallFailed("the recorder answered 503 Service Unavailable")

    well, _, lines = sung(refusal)
    assert not well
    assert [line["reason"] for line in lines.named("canary_silent")] == ["call_failed"]


def test_no_other_call_is_taken_for_it() -> None:
    """Not while it is under way, and not by its Call-ID afterwards."""
    seen: list[str] = []

    async def recorder(bird: Canary, sip_call_id: str) -> None:
        seen.append(sip_call_id)
        assert not bird.owns("")
        assert not bird.owns(sip_call_id + "x")
        bird.recorded_as(CALL)
        bird.freed(CALL)

    _, bird, _ = sung(recorder)
    assert not bird.owns(seen[0])
    assert not bird.owns("")


@pytest.mark.parametrize("call_id", ["\udcff@192.0.2.1", "ä@x", "a\udced\udca0\udc80", ""])
def test_a_call_id_of_any_octets_is_another_calls(call_id: str) -> None:
    """Messages are read with `surrogateescape`: no call is lost because its Call-ID is no UTF-8."""

    async def recorder(bird: Canary, _: str) -> None:
        assert not bird.owns(call_id)
        bird.recorded_as(CALL)
        bird.freed(CALL)

    assert sung(recorder)[0]


def test_it_tells_how_long_ago_it_sang() -> None:
    """Null until it has."""

    async def scenario() -> list[object]:
        async def place(_: str) -> None:
            bird.recorded_as(CALL)
            bird.freed(CALL)

        bird = Canary(place, 3_600, Lines().log)
        before = bird.figures()["age_s"]
        await bird.sing()
        return [before, bird.figures()["age_s"], bird.figures()["tried"], bird.figures()["failed"]]

    assert asyncio.run(scenario()) == [None, 0, 1, 0]


def test_its_song_is_no_key() -> None:
    """Blanking of tones leaves it alone, on both sides."""
    for song in (canary_song.sweep(), canary_song.sweep()[::-1]):
        assert tones.tones(tones.spectrum(song.reshape(-1, 80).astype(np.float32), 8_000)) == []
