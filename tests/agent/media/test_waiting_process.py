"""Calls that wait for a decision, in the real media process: kept whole, destroyed, or gone with a kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sbc_agent.media.client import MediaClient
from sbc_agent.media.messages import Alarm, Decided, Finished, PartClosed, PortFree
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import CALL, open_call
from tests.agent.media.test_process import DEADLINE_S, Heard, running, settings, streams
from tests.agent.media.untold import files, readable

PACKETS = 100


async def speak(client: MediaClient, first: int = 0) -> None:
    """Both sides speak, until the media process has seen all of it."""
    before = (await client.stats()).received
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for number in range(first, first + PACKETS):
            for side, port in enumerate(client.ports[:2]):
                peer.sendto(packet(number, speech(side, number), ssrc=side), ("127.0.0.1", port))
    async with asyncio.timeout(DEADLINE_S):
        while (await client.stats()).received < before + 2 * PACKETS:
            pass


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def test_a_call_that_is_kept_is_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (client, heard):
            client.begin(CALL, client.clock.now_us(), streams(client), waits=True)
            await speak(client)
            await until(lambda: files(tmp_path / "spool"))
            assert readable(tmp_path / "spool") == []
            client.decide(CALL, client.clock.now_us(), keep=True)
            await speak(client, PACKETS)
            client.end(CALL, client.clock.now_us(), "bye", [])
            await heard.until(lambda events: any(isinstance(event, Finished) for event in events))
            assert heard.of(Decided) == [Decided(call=CALL, keep=True, outcome="kept")]

    asyncio.run(scenario())
    call = open_call(tmp_path / "spool" / CALL)
    for side in range(2):
        assert call.sequences(side) == list(range(2 * PACKETS))


@pytest.mark.parametrize("ended_first", [False, True])
def test_a_call_that_is_discarded_leaves_no_file(tmp_path: Path, ended_first: bool) -> None:
    """Whether it is decided in the call or after its end; the ports are free in either case."""

    async def scenario() -> None:
        async with running(tmp_path) as (client, heard):
            client.begin(CALL, client.clock.now_us(), streams(client), waits=True)
            client.session(CALL, {"flags": ["secret"]})
            await speak(client)
            await until(lambda: files(tmp_path / "spool"))
            if ended_first:
                client.end(CALL, client.clock.now_us(), "bye", [])
            client.decide(CALL, client.clock.now_us(), keep=False)
            await heard.until(lambda events: any(isinstance(event, Decided) for event in events))
            await until(lambda: not files(tmp_path / "spool"))
            if not ended_first:
                await speak(client, PACKETS)
                client.end(CALL, client.clock.now_us(), "bye", [])
            await heard.until(lambda events: sum(isinstance(event, PortFree) for event in events) == 2)
            assert (await client.stats()).calls == 0
            assert [event for event in heard.events if isinstance(event, PartClosed | Finished | Alarm)] == []

    asyncio.run(scenario())
    assert files(tmp_path / "spool") == []


def test_a_call_that_is_never_recorded_writes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (client, heard):
            client.begin(CALL, client.clock.now_us(), streams(client), waits=True, silent=True)
            await speak(client)
            stats = await client.stats()
            assert (stats.stored, stats.records, stats.bytes_sealed) == (0, 0, 0)
            client.end(CALL, client.clock.now_us(), "bye", [])
            await heard.until(lambda events: sum(isinstance(event, PortFree) for event in events) == 2)
            assert not (tmp_path / "spool" / CALL).exists()

    asyncio.run(scenario())


def test_after_a_kill_nobody_reads_it_and_the_next_run_deletes_it(tmp_path: Path) -> None:
    """Between kill -9 and the next start there are sealed bytes whose key no disk ever had."""

    async def killed() -> None:
        client = MediaClient.spawn(settings(tmp_path))
        await client.ready()
        client.begin(CALL, client.clock.now_us(), streams(client), waits=True)
        await speak(client)
        await until(lambda: files(tmp_path / "spool"))
        os.kill(client.pid, signal.SIGKILL)
        assert await client.closed() == -signal.SIGKILL

    async def next_run() -> None:
        async with running(tmp_path) as (client, heard):
            client.adopt(CALL, client.clock.now_us(), ())
            client.recover()
            await until(lambda: not (tmp_path / "spool" / CALL).exists())
            assert [event.kind for event in heard.events if isinstance(event, Alarm)] == ["command"]

    asyncio.run(killed())
    assert files(tmp_path / "spool")
    assert readable(tmp_path / "spool") == []
    asyncio.run(next_run())


def test_a_terminated_process_discards_what_nobody_decided(tmp_path: Path) -> None:
    async def scenario() -> None:
        client = MediaClient.spawn(settings(tmp_path))
        heard = Heard(client)
        await client.ready()
        client.begin(CALL, client.clock.now_us(), streams(client), waits=True)
        await speak(client)
        await until(lambda: files(tmp_path / "spool"))
        os.kill(client.pid, signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            assert await client.closed() == 0
        assert not heard.of(Finished)

    asyncio.run(scenario())
    assert files(tmp_path / "spool") == []
