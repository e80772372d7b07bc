"""The media process as its parent sees it: a real child, real sockets, files opened with the tenant's key."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dualtone.domain.errors import Unavailable
from sbc_agent.media.client import MediaClient
from sbc_agent.media.messages import (
    Adopted,
    Alarm,
    CallPolicy,
    Choice,
    Event,
    Finished,
    FormatSpec,
    IngestKeySettings,
    MediaSettings,
    PartClosed,
    Pause,
    PauseApplied,
    PortFree,
    Resume,
    SelfPaused,
    Stats,
    StreamSpec,
)
from tests.agent.media.dial import CARD
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import (
    AGENT,
    CALL,
    KEY_ARN,
    TENANT,
    ingest_key,
    open_call,
    public_der,
    write_agent_key,
)

PCMA = FormatSpec(payload_type=8, codec="PCMA", clock_hz=8000)
EVENTS = FormatSpec(payload_type=101, codec="telephone-event", clock_hz=8000)
DEADLINE_S = 30


class Heard:
    """Every event of a client, and a way to wait for some."""

    def __init__(self, client: MediaClient) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        client.subscribe(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[list[Event]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self.events):
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def settings(directory: Path, **changes: object) -> MediaSettings:
    write_agent_key(directory / "agent.key")
    return MediaSettings(
        tenant=TENANT,
        agent=AGENT,
        agent_key_path=directory / "agent.key",
        spool_dir=directory / "spool",
        address="127.0.0.1",
        port_first=21_000,
        port_last=31_000,
        pool_size=4,
        hold_back_ms=200,
        tick_ms=20,
        ingest_key=IngestKeySettings(key_arn=KEY_ARN, public_key_der=public_der(ingest_key())),
        version="0.1.0",
    ).model_copy(update=changes)


@asynccontextmanager
async def running(directory: Path, **changes: object) -> AsyncIterator[tuple[MediaClient, Heard]]:
    client = MediaClient.spawn(settings(directory, **changes))
    heard = Heard(client)
    await client.ready()
    try:
        yield client, heard
    finally:
        client.drain(flush=True)
        async with asyncio.timeout(DEADLINE_S):
            assert await client.closed() == 0


def streams(client: MediaClient, *, active: bool = True) -> tuple[StreamSpec, StreamSpec]:
    first, second = client.ports[:2]
    return (
        StreamSpec(stream=0, label="1", port=first, active=active, formats=(PCMA, EVENTS)),
        StreamSpec(stream=1, label="2", port=second, formats=(PCMA, EVENTS)),
    )


async def stored(client: MediaClient, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await client.stats()).stored < count:
            pass


def test_a_call_is_recorded_sealed_and_finished(tmp_path: Path) -> None:
    """Both sides of a call come out of the files again, byte for byte and in order; digits do not."""

    async def scenario() -> None:
        async with running(tmp_path) as (client, heard):
            client.begin(CALL, client.clock.now_us(), streams(client))
            client.session(CALL, {"flags": [], "participants": []})
            client.signalling(CALL, client.clock.now_us(), 0, b"INVITE sip:recorder SIP/2.0\r\n")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                for number in range(25):
                    for side, port in enumerate(client.ports[:2]):
                        peer.sendto(packet(65_530 + number, speech(side, number), ssrc=side), ("127.0.0.1", port))
                peer.sendto(packet(1, b"\x05\x0a\x00\xa0", payload_type=101, ssrc=7), ("127.0.0.1", client.ports[0]))
            await stored(client, 50)
            client.end(CALL, client.clock.now_us(), "bye", ["hello"])
            await heard.until(lambda events: any(isinstance(event, Finished) for event in events))
            assert {event.port for event in heard.of(PortFree)} == set(client.ports[:2])  # type: ignore[union-attr]
            assert len(heard.of(PartClosed)) == 1
            assert not heard.of(Alarm)

    asyncio.run(scenario())
    call = open_call(tmp_path / "spool" / CALL)
    for side in range(2):
        assert call.sequences(side) == [(65_530 + number) % 65_536 for number in range(25)]
        assert call.payload(side) == b"".join(speech(side, number) for number in range(25))
        assert call.arrivals_us(side) == sorted(call.arrivals_us(side))
    assert call.opening.sequence == 1
    assert call.manifest.answered_at_us <= call.arrivals_us(0)[0] <= call.manifest.ended_at_us
    assert (call.manifest.end_reason, call.manifest.flags, call.manifest.gaps) == ("bye", ["hello"], [])
    assert [one.received for one in call.manifest.statistics] == [25, 25]
    assert [one.events_suppressed for one in call.manifest.statistics] == [1, 0]
    assert call.sessions == [{"flags": [], "participants": []}]
    assert call.signalling[0][1:] == (0, b"INVITE sip:recorder SIP/2.0\r\n")
    assert not list((tmp_path / "spool" / CALL).glob("*.open"))


async def talk(client: MediaClient, count: int) -> None:
    """Sends packets to both sides of a call and waits until they are in the ring."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for number in range(count):
            for side, port in enumerate(client.ports[:2]):
                peer.sendto(packet(number, speech(side, number), ssrc=side), ("127.0.0.1", port))
    await stored(client, 2 * count)


@pytest.mark.parametrize("ending", ["signal", "two signals"])
def test_a_stop_finishes_every_call(tmp_path: Path, ending: str) -> None:
    """After SIGTERM the process seals what it holds, and exits by itself."""

    async def scenario() -> None:
        client = MediaClient.spawn(settings(tmp_path, hold_back_ms=60_000 if ending == "two signals" else 200))
        await client.ready()
        client.begin(CALL, client.clock.now_us(), streams(client))
        await talk(client, 10)
        for _ in range(2 if ending == "two signals" else 1):
            os.kill(client.pid, signal.SIGTERM)
            await client.stats()  # the first signal has been taken when a command after it has been answered
        async with asyncio.timeout(DEADLINE_S):
            assert await client.closed() == 0

    asyncio.run(scenario())
    call = open_call(tmp_path / "spool" / CALL)
    assert call.manifest.end_reason == "shutdown"
    assert call.sequences(0) == call.sequences(1) == list(range(10))


def test_keys_reach_the_child_and_only_what_follows_from_them_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A consent key as an event on a real socket, then a card's number by signalling: a choice, and a pause."""

    async def scenario() -> None:
        async with running(tmp_path, log_level="debug") as (client, heard):
            client.begin(CALL, client.clock.now_us(), streams(client), policy=CallPolicy(accept_keys="9"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                for number in range(3):
                    data = packet(number, b"\x09\x0a\x00\xa0", timestamp=800, payload_type=101, ssrc=7)
                    peer.sendto(data, ("127.0.0.1", client.ports[0]))
                await heard.until(lambda events: any(isinstance(event, Choice) for event in events))
            client.policy(CALL, client.clock.now_us(), CallPolicy())
            begin_us = client.clock.now_us()
            for digit in CARD:
                client.digit(CALL, client.clock.now_us(), digit)
            await heard.until(lambda events: any(isinstance(event, PauseApplied) for event in events))
            (choice,) = heard.of(Choice)
            (paused,) = heard.of(SelfPaused)
            (applied,) = heard.of(PauseApplied)
            assert isinstance(choice, Choice)
            assert isinstance(paused, SelfPaused)
            assert isinstance(applied, PauseApplied)
            assert choice.choice == "accept"
            assert begin_us <= paused.pause.effective_at_us <= client.clock.now_us()
            assert (applied.command, applied.origin, applied.causes) == (paused.pause.command, "agent", ("dtmf",))
            assert [event.kind for event in heard.of(Alarm) if isinstance(event, Alarm)] == ["payment_without_pause"]
            client.end(CALL, client.clock.now_us(), "bye")
            await heard.until(lambda events: any(isinstance(event, Finished) for event in events))

    asyncio.run(scenario())
    said = capfd.readouterr()
    assert CARD not in said.out + said.err
    assert [(pause.origin, pause.cause) for pause in open_call(tmp_path / "spool" / CALL).manifest.pauses] == [
        ("agent", "dtmf")
    ]


def test_without_its_parent_it_ends_at_once(tmp_path: Path) -> None:
    """Its ports are wanted by the next run, and so are its calls: nothing is waited for, no call is closed."""

    async def scenario() -> None:
        client = MediaClient.spawn(settings(tmp_path, hold_back_ms=60_000))
        await client.ready()
        client.begin(CALL, client.clock.now_us(), streams(client))
        await talk(client, 10)
        client._channel.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(DEADLINE_S):
            assert await client.closed() == 0

    asyncio.run(scenario())
    assert not (tmp_path / "spool" / CALL / "manifest.json").exists()


def test_what_a_killed_process_left_is_closed_by_the_next(tmp_path: Path) -> None:
    """Killed without warning: what had left the ring is declared by the next run, and openings go on counting."""

    async def killed() -> None:
        client = MediaClient.spawn(settings(tmp_path, hold_back_ms=0))
        await client.ready()
        client.begin(CALL, client.clock.now_us(), streams(client))
        await talk(client, 10)
        async with asyncio.timeout(DEADLINE_S):
            while (await client.stats()).left_ring < 20:
                pass
        os.kill(client.pid, signal.SIGKILL)
        assert await client.closed() == -signal.SIGKILL

    async def next_run() -> None:
        async with running(tmp_path) as (client, heard):
            client.recover()
            await heard.until(lambda events: any(isinstance(event, Finished) for event in events))
            assert [event.kind for event in heard.events if isinstance(event, Alarm)] == ["recovered"]
            client.begin(CALL[:-1] + "V", client.clock.now_us(), streams(client))

    asyncio.run(killed())
    asyncio.run(next_run())
    call = open_call(tmp_path / "spool" / CALL)
    assert (call.manifest.end_reason, call.sequences(0)) == ("error", list(range(10)))
    assert open_call(tmp_path / "spool" / (CALL[:-1] + "V")).opening.sequence == 2


def pause(client: MediaClient, number: int, from_us: int) -> Pause:
    return Pause(
        call=CALL,
        at_us=client.clock.now_us(),
        from_us=from_us,
        cause="payment",
        origin="cloud",
        number=number,
        command=CALL,
        by="someone",
        effective_at_us=from_us,
        lease_us=60_000_000,
    )


def resume(client: MediaClient, number: int) -> Resume:
    now_us = client.clock.now_us()
    return Resume(call=CALL, at_us=now_us, cause="payment", origin="cloud", number=number, command=CALL, by="another")


def answers(heard: Heard) -> list[PauseApplied]:
    return [event for event in heard.events if isinstance(event, PauseApplied)]


def test_a_paused_call_is_silent_over_a_kill_until_it_is_resumed(tmp_path: Path) -> None:
    """Paused, killed by -9, adopted by the next run: not one packet of the span is in any file, before or after."""
    directory = tmp_path / "spool" / CALL

    async def send(client: MediaClient, first: int, count: int, until: Callable[[Stats], int], seen: int) -> None:
        for number in range(first, first + count):
            for side, port in enumerate(client.ports[:2]):
                peer.sendto(packet(number, speech(side, number), ssrc=side), ("127.0.0.1", port))
        async with asyncio.timeout(DEADLINE_S):
            while until(await client.stats()) < seen:
                pass

    async def first_run() -> int:
        client = MediaClient.spawn(settings(tmp_path, hold_back_ms=60_000))
        heard = Heard(client)
        await client.ready()
        client.begin(CALL, client.clock.now_us(), streams(client))
        await send(client, 0, 10, lambda stats: stats.stored, 20)
        from_us = client.clock.now_us()
        await send(client, 10, 10, lambda stats: stats.stored, 40)
        sent_us = client.clock.now_us()
        client.pause(pause(client, 1, from_us))
        await heard.until(lambda _: bool(answers(heard)))
        (answer,) = answers(heard)
        assert (answer.outcome, answer.causes) == ("acknowledged", ("payment",))
        assert answer.at_us >= sent_us
        assert [one.rtp_timestamp for one in answer.silent_from] == [1_600, 1_600]
        await send(client, 20, 10, lambda stats: stats.dropped, 40)
        assert (await client.stats()).stored == 20
        os.kill(client.pid, signal.SIGKILL)
        await client.closed()
        return from_us

    async def second_run(from_us: int) -> None:
        async with running(tmp_path, hold_back_ms=0) as (client, heard):
            client.adopt(CALL, client.clock.now_us(), streams(client))
            client.recover()
            await heard.until(lambda events: Adopted(call=CALL, epoch=1) in events)
            await send(client, 30, 10, lambda stats: stats.dropped, 20)
            client.resume(resume(client, 1))
            client.resume(resume(client, 2))
            await heard.until(lambda _: len(answers(heard)) == 2)
            assert [one.outcome for one in answers(heard)] == ["superseded", "acknowledged"]
            await send(client, 40, 10, lambda stats: stats.stored, 20)
            client.end(CALL, client.clock.now_us(), "bye")
            await heard.until(lambda events: any(isinstance(event, Finished) for event in events))
            call = open_call(directory)
            assert call.sequences(0) == call.sequences(1) == list(range(40, 50))
            (entry,) = call.manifest.pauses
            assert (entry.from_us, entry.to_us) == (from_us, answers(heard)[1].at_us)
            assert {gap.cause for gap in call.manifest.gaps} == {"payment", "restart"}

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        asyncio.run(second_run(asyncio.run(first_run())))


def test_a_stopped_process_loses_nothing(tmp_path: Path) -> None:
    """Packets that came while the process stood still lie in the kernel's buffers, with the time of their arrival."""

    async def scenario() -> None:
        async with running(tmp_path) as (client, heard):
            client.begin(CALL, client.clock.now_us(), streams(client))
            await client.stats()
            os.kill(client.pid, signal.SIGSTOP)
            sent_us = []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                for number in range(150):
                    sent_us.append(client.clock.now_us())
                    peer.sendto(packet(number, speech(0, number)), ("127.0.0.1", client.ports[0]))
            os.kill(client.pid, signal.SIGCONT)
            await stored(client, 150)
            client.end(CALL, client.clock.now_us(), "bye")
            await heard.until(lambda events: any(isinstance(event, Finished) for event in events))
            call = open_call(tmp_path / "spool" / CALL)
            assert call.sequences(0) == list(range(150))
            assert all(0 <= arrived - sent < 20_000 for sent, arrived in zip(sent_us, call.arrivals_us(0), strict=True))

    asyncio.run(scenario())


def proc(pid: int) -> tuple[str, str]:
    """The process's limits and status, as the kernel tells them."""
    return Path(f"/proc/{pid}/limits").read_text(), Path(f"/proc/{pid}/status").read_text()


def test_memory_stays_in_the_process(tmp_path: Path) -> None:
    """No core file, no dump by another process of the same user, and the rings are out of reach of swap."""

    async def scenario() -> None:
        async with running(tmp_path) as (client, _):
            await client.stats()  # answered when the start is over
            limits, status = await asyncio.to_thread(proc, client.pid)
            core = next(line.split() for line in limits.splitlines() if line.startswith("Max core file size"))
            assert core[4:6] == ["0", "0"]
            assert "VmLck:\t       0 kB" not in status

    asyncio.run(scenario())


def test_a_process_that_cannot_start_says_so(tmp_path: Path) -> None:
    """A key that is no key: the client raises instead of waiting, and nothing of the file is shown."""

    async def scenario() -> None:
        broken = settings(tmp_path)
        broken.agent_key_path.write_text("not a key")
        client = MediaClient.spawn(broken)
        with pytest.raises(Unavailable):
            await client.ready()
        assert await client.closed() == 1
        with pytest.raises(Unavailable):
            client.drain()

    asyncio.run(scenario())
