"""The SIP sockets, for real, on loopback: UDP and TCP, limits, replaced connections, orderly ends."""

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sbc_agent.protocol import message
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.stream import StreamFramer
from sbc_agent.runtime import journal
from sbc_agent.runtime.journal import Journal
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.sip_shell import SipAddresses, SipSettings, SipShell
from sbc_agent.runtime.sip_streams import ConnectionLimits
from tests.agent.protocol.builders import Src, tag_of
from tests.agent.protocol.memory_media import MemoryMedia

ANY = ("127.0.0.1", 0)
SETTINGS = SipSettings("127.0.0.1", ANY, ANY)
PATIENCE_S = 10.0


class Peer:
    """A peer on one TCP connection, or on a UDP socket."""

    def __init__(self) -> None:
        self.framer = StreamFramer()

    async def connect(self, address: tuple[str, int] | None) -> "Peer":
        assert address is not None
        self.reader, self.writer = await asyncio.open_connection(*address)
        return self

    async def exchange(self, data: bytes = b"") -> Request | Response:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            while (whole := self.framer.next_message()) is None:
                more = await self.reader.read(65_536)
                assert more, "the connection was closed"
                self.framer.feed(more)
        return message.parse(whole)

    async def closed(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read(1) == b""
            return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def udp_exchange(peer: socket.socket, address: tuple[str, int] | None, data: bytes = b"") -> Request | Response:
    assert address is not None
    loop = asyncio.get_running_loop()
    if data:
        await loop.sock_sendto(peer, data, address)
    async with asyncio.timeout(PATIENCE_S):
        return message.parse(await loop.sock_recv(peer, 65_535))


@contextlib.asynccontextmanager
async def running(
    settings: SipSettings = SETTINGS, media: MemoryMedia | None = None
) -> AsyncIterator[tuple[SipShell, SipAddresses, MemoryMedia]]:
    media = media or MemoryMedia()
    shell = SipShell(settings, media, Log(stream=io.StringIO()))
    try:
        yield shell, await shell.start(), media
    finally:
        await shell.close()


async def until(reached: Callable[[], bool]) -> None:
    """Lets the loop turn until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not reached():  # noqa: ASYNC110 - a counter wakes nobody
            await asyncio.sleep(0)


def udp_socket() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.bind(ANY)
    return opened


def answer_to(asked: Request, status: int) -> bytes:
    kept = [(name, value) for name, value in asked.headers if name in {"Via", "From", "To", "Call-ID", "CSeq"}]
    return bytes(message.response(status, "x", kept))


def local(data: bytes, port: int) -> bytes:
    """A builder's message with our loopback address in Via and Contact."""
    return data.replace(b"198.51.100.7:5060", b"127.0.0.1:%d" % port).replace(
        b"198.51.100.7:40000", b"127.0.0.1:%d" % port
    )


def test_a_call_over_udp() -> None:
    """A call over datagrams, a 60 kB one among them."""

    async def scenario() -> None:
        async with running() as (shell, addresses, media):
            with udp_socket() as peer:
                port, src = peer.getsockname()[1], Src()
                invite = src.invite(metadata="<recording>" + " " * 58_000 + "</recording>")
                answer = await udp_exchange(peer, addresses.udp, local(invite, port))
                assert isinstance(answer, Response)
                assert answer.status == 200
                assert f"127.0.0.1:{addresses.udp[1] if addresses.udp else 0}" in answer.required("contact")
                src.to_tag = tag_of(answer)
                assert addresses.udp is not None
                await asyncio.get_running_loop().sock_sendto(peer, local(src.request("ACK"), port), addresses.udp)
                done = await udp_exchange(peer, addresses.udp, local(src.request("BYE"), port))
                assert isinstance(done, Response)
                assert done.status == 200
                assert shell.recorder.calls == 0
                (told,) = media.calls.values()
                assert told.ended is not None

    asyncio.run(scenario())


def test_a_call_over_tcp_whose_connection_is_replaced() -> None:
    """The dialog outlives its first connection; the BYE comes over a second."""

    async def scenario() -> None:
        async with running() as (shell, addresses, media):
            src = Src(flow=Flow("tcp", ("127.0.0.1", 40000), ANY, 1))
            first = await Peer().connect(addresses.tcp)
            answer = await first.exchange(src.invite())
            assert "transport=tcp" in answer.required("contact")
            src.to_tag = tag_of(answer)
            first.writer.write(src.request("ACK"))
            await first.exchange(src.request("OPTIONS"))
            await first.close()
            second = await Peer().connect(addresses.tcp)
            done = await second.exchange(src.request("BYE"))
            assert isinstance(done, Response)
            assert done.status == 200
            await second.close()
            assert [told.ended[1] for told in media.calls.values() if told.ended] == ["bye"]
            assert shell.recorder.calls == 0

    asyncio.run(scenario())


def test_a_response_whose_connection_is_gone_takes_a_new_one() -> None:
    """REQ: RFC 3261 section 18.2.2: the response goes to the source address at the port of sent-by."""

    async def scenario() -> None:
        came: asyncio.Queue[bytes] = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await came.put(await reader.read(65_536))
            writer.close()

        listener = await asyncio.start_server(accept, *ANY)
        port = listener.sockets[0].getsockname()[1]
        async with running() as (_, addresses, _media):
            peer = await Peer().connect(addresses.tcp)
            src = Src(flow=Flow("tcp", ("198.51.100.7", 40000), ANY, 1))
            await peer.exchange(local(src.invite(), port))
            await peer.close()  # without an ACK: the 200 is repeated, over a connection of ours
            async with asyncio.timeout(PATIENCE_S):
                again = message.parse(await came.get())
            assert isinstance(again, Response)
            assert again.status == 200
        listener.close()
        await listener.wait_closed()

    asyncio.run(scenario())


def test_unreadable_streams_are_closed() -> None:
    """A stream that cannot be read is closed; others go on."""

    async def scenario() -> None:
        async with running() as (_, addresses, _media):
            bad, good = await Peer().connect(addresses.tcp), await Peer().connect(addresses.tcp)
            bad.writer.write(b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n")
            assert await bad.closed()
            await bad.close()
            answer = await good.exchange(Src(flow=Flow("tcp", ("h", 1), ANY, 1)).request("OPTIONS"))
            assert isinstance(answer, Response)
            assert answer.status == 200
            await good.close()

    asyncio.run(scenario())


def test_too_many_connections_of_one_peer() -> None:
    """One peer cannot take all connections: what is above its share is closed at once."""
    settings = SipSettings("127.0.0.1", ANY, ANY, connections=ConnectionLimits(peer=2))

    async def scenario() -> None:
        async with running(settings) as (shell, addresses, _media):
            peers = [await Peer().connect(addresses.tcp) for _ in range(2)]
            for peer in peers:
                await peer.exchange(Src(flow=Flow("tcp", ("h", 1), ANY, 1)).request("OPTIONS"))
            third = await Peer().connect(addresses.tcp)
            assert await third.closed()
            assert shell.counters.connections_refused == 1
            for peer in [*peers, third]:
                await peer.close()

    asyncio.run(scenario())


def test_draining_says_bye_and_waits_for_the_answer() -> None:
    """A stop ends all calls by BYE, answers late INVITEs 503, and ends as soon as the peers have answered."""

    async def scenario() -> None:
        async with running() as (shell, addresses, media):
            with udp_socket() as peer:
                port, src = peer.getsockname()[1], Src()
                answer = await udp_exchange(peer, addresses.udp, local(src.invite(), port))
                src.to_tag = tag_of(answer)
                assert addresses.udp is not None
                await asyncio.get_running_loop().sock_sendto(peer, local(src.request("ACK"), port), addresses.udp)
                draining = asyncio.create_task(shell.drain(grace_s=30))
                bye = await udp_exchange(peer, addresses.udp)
                assert isinstance(bye, Request)
                assert bye.method == "BYE"
                refused = await udp_exchange(peer, addresses.udp, local(Src(call_id="late").invite(), port))
                assert isinstance(refused, Response)
                assert refused.status == 503
                assert addresses.udp is not None
                await asyncio.get_running_loop().sock_sendto(peer, answer_to(bye, 200), addresses.udp)
                async with asyncio.timeout(PATIENCE_S):
                    await draining
            assert shell.recorder.calls == 0
            assert [told.ended[1] for told in media.calls.values() if told.ended] == ["shutdown"]

    asyncio.run(scenario())


def test_transports_can_be_switched_off() -> None:
    """Without UDP or without TCP only the other is heard."""

    async def scenario() -> None:
        async with running(SipSettings("127.0.0.1", None, ANY)) as (_, addresses, _media):
            assert addresses.udp is None
            assert addresses.tcp is not None
        async with running(SipSettings("127.0.0.1", ANY, None)) as (_, addresses, _media):
            assert addresses.tcp is None

    asyncio.run(scenario())


def test_bound_to_every_address_we_name_the_media_address() -> None:
    """Where the socket listens on every address, our Contact names one that a peer can reach."""

    async def scenario() -> None:
        every = ("0.0.0.0", 0)
        async with running(SipSettings("127.0.0.1", every, None)) as (_, addresses, _media):
            with udp_socket() as peer:
                assert addresses.udp is not None
                port = peer.getsockname()[1]
                answer = await udp_exchange(
                    peer, ("127.0.0.1", addresses.udp[1]), local(Src().request("OPTIONS"), port)
                )
                assert f"@127.0.0.1:{addresses.udp[1]}" in answer.required("contact")

    asyncio.run(scenario())


def test_an_address_in_use_is_an_error() -> None:
    """A port that somebody else has is reported, not waited for."""

    async def scenario() -> None:
        with udp_socket() as taken:
            shell = SipShell(
                SipSettings("127.0.0.1", taken.getsockname(), None), MemoryMedia(), Log(stream=io.StringIO())
            )
            with pytest.raises(OSError, match="in use"):
                await shell.start()
            await shell.close()

    asyncio.run(scenario())


def test_a_fault_of_one_call_holds_up_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recorder cannot do is told; the 200 leaves, and the timers go on."""

    async def call() -> None:
        async with running() as (shell, addresses, media):
            monkeypatch.setattr(media, "session", lambda *_: 1 // 0)
            with udp_socket() as peer:
                asked = local(Src().invite(), peer.getsockname()[1])
                answer = await udp_exchange(peer, addresses.udp, asked)
                assert isinstance(answer, Response)
                assert answer.status == 200
                assert shell._timer is not None

    asyncio.run(call())


BOOT = "0f1e2d3c-0000-4000-8000-000000000001"


@contextlib.asynccontextmanager
async def run_of_agent(
    directory: Path, media: MemoryMedia, settings: SipSettings = SETTINGS
) -> AsyncIterator[tuple[SipShell, SipAddresses]]:
    """One run over a journal; it ends as by a kill: nobody is told."""
    now = asyncio.get_running_loop().time()
    legacy = journal.inherit(directory, boot_id=BOOT, now=now)
    log = Log(stream=io.StringIO())
    kept = Journal(directory, boot_id=BOOT, clock_offset_us=media.clock.offset_us, log=log)
    shell = SipShell(settings, media, log, journal=kept)
    try:
        yield shell, await shell.start(legacy)
    finally:
        await shell.close()


def test_a_call_goes_on_in_the_next_run(tmp_path: Path) -> None:
    """Same address, same dialog: the peer's BYE after the restart is answered, by a connection that is new."""

    async def scenario() -> None:
        src = Src(flow=Flow("tcp", ("127.0.0.1", 40000), ANY, 1))
        async with run_of_agent(tmp_path, MemoryMedia()) as (_, addresses):
            first = await Peer().connect(addresses.tcp)
            src.to_tag = tag_of(await first.exchange(src.invite()))
            first.writer.write(src.request("ACK"))
            await first.exchange(src.request("OPTIONS"))
            await first.close()
        again = SipSettings("127.0.0.1", addresses.udp, addresses.tcp)
        media = MemoryMedia()
        async with run_of_agent(tmp_path, media, again) as (shell, _):
            assert shell.recorder.calls == 1
            assert media.has_recovered
            second = await Peer().connect(addresses.tcp)
            answer = await second.exchange(src.request("BYE"))
            assert isinstance(answer, Response)
            assert answer.status == 200
            (told,) = media.calls.values()
            assert told.adopted
            assert told.ended is not None
            await second.close()
        async with run_of_agent(tmp_path, MemoryMedia(), again) as (shell, _):
            assert shell.recorder.calls == 0

    asyncio.run(scenario())


def test_a_call_that_cannot_go_on_is_ended_by_bye(tmp_path: Path) -> None:
    """Its ports are not open any more: the peer is told at once, unasked."""

    async def scenario() -> None:
        with udp_socket() as peer:
            port, src = peer.getsockname()[1], Src()
            async with run_of_agent(tmp_path, MemoryMedia()) as (_, addresses):
                answer = await udp_exchange(peer, addresses.udp, local(src.invite(), port))
                src.to_tag = tag_of(answer)
            again = SipSettings("127.0.0.1", addresses.udp, addresses.tcp)
            async with run_of_agent(tmp_path, MemoryMedia(ports=[30000]), again) as (shell, _):
                bye = await udp_exchange(peer, addresses.udp)
                assert isinstance(bye, Request)
                assert (bye.method, bye.header("call-id")) == ("BYE", src.call_id)
                assert shell.recorder.calls == 0

    asyncio.run(scenario())
