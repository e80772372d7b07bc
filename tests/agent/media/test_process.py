"""The media process as its parent sees it: a real child, real sockets, files opened with the tenant's key."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sbc_agent.media.client import MediaClient
from sbc_agent.media.messages import (
    Alarm,
    Event,
    Finished,
    FormatSpec,
    IngestKeySettings,
    MediaSettings,
    PartClosed,
    PortFree,
    StreamSpec,
)
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
