"""Floods and bad input against the sockets: limited, counted, harmless. Beside every case a call goes on."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sbc_agent.protocol import message
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.limits import Rate, SipLimits
from sbc_agent.protocol.message import Response
from sbc_agent.protocol.transaction_layer import Patience
from sbc_agent.runtime.admission import Capacity
from sbc_agent.runtime.sip_shell import SipAddresses, SipSettings, SipShell
from sbc_agent.runtime.sip_streams import ConnectionLimits
from tests.agent.protocol.builders import METADATA, TWO_STREAMS, Src, multipart, tag_of
from tests.agent.protocol.memory_media import MemoryMedia
from tests.agent.runtime.certificates import Authority
from tests.agent.runtime.test_sip_shell import ANY, PATIENCE_S, Peer, local, running, udp_exchange, udp_socket, until

SETTINGS = SipSettings("127.0.0.1", ANY, ANY)
SBC, FLOOD = "127.0.0.2", "127.0.0.3"
SMALL = SipLimits(known=Rate(2_000, 4_000), stranger=Rate(20, 10), strangers=Rate(40, 20), total=Rate(4_000, 8_000))


@dataclass
class LiveCall:
    """A call over UDP that must not notice anything."""

    shell: SipShell
    addresses: SipAddresses
    media: MemoryMedia
    socket: socket.socket
    src: Src

    @property
    def udp(self) -> tuple[str, int]:
        assert self.addresses.udp is not None
        return self.addresses.udp

    async def says(self, method: str) -> int:
        port = self.socket.getsockname()[1]
        answer = await udp_exchange(self.socket, self.udp, local(self.src.request(method), port))
        assert isinstance(answer, Response)
        return answer.status

    async def new_call(self, call_id: str) -> int:
        """What an INVITE of the same SBC is answered."""
        port = self.socket.getsockname()[1]
        answer = await udp_exchange(self.socket, self.udp, local(Src(call_id=call_id).invite(), port))
        assert isinstance(answer, Response)
        return answer.status

    async def ends(self) -> None:
        """It is recorded until its own BYE, and nothing else of it was told."""
        assert await self.says("BYE") == 200
        (told,) = (told for told in self.media.calls.values() if told.ended)
        assert told.ended is not None
        assert told.ended[1] == "bye"
        assert len(told.streams) == 1


@contextlib.asynccontextmanager
async def live_call(settings: SipSettings = SETTINGS) -> AsyncIterator[LiveCall]:
    async with running(settings) as (shell, addresses, media):
        with bound(SBC) as peer:
            port, src = peer.getsockname()[1], Src(call_id="live")
            answer = await udp_exchange(peer, addresses.udp, local(src.invite(), port))
            assert isinstance(answer, Response)
            assert answer.status == 200
            src.to_tag = tag_of(answer)
            call = LiveCall(shell, addresses, media, peer, src)
            peer.sendto(local(src.request("ACK"), port), call.udp)
            assert await call.says("OPTIONS") == 200
            yield call
            await call.ends()


def bound(host: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.bind((host, 0))
    return opened


def run(scenario: Callable[[LiveCall], Coroutine[Any, Any, None]], settings: SipSettings = SETTINGS) -> None:
    async def whole() -> None:
        async with live_call(settings) as call:
            await scenario(call)

    asyncio.run(whole())


FLOODS = {
    "OPTIONS": lambda index: Src(call_id=f"o{index}").request("OPTIONS"),
    "INVITE": lambda index: Src(call_id=f"i{index}").invite(),
    "INVITE without an end": lambda index: Src(call_id=f"e{index}").invite()[:-200],
    "BYE of no dialog": lambda index: Src(call_id=f"b{index}").request("BYE", to_tag="none"),
    "answers to nothing": lambda index: b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK%d\r\n\r\n" % index,
    "noise": lambda index: bytes([index % 256]) * 400,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_datagrams_is_dropped_unread(name: str) -> None:
    """A stranger's flood is read as far as strangers may speak; the SBC's requests in between are all answered."""

    async def scenario(call: LiveCall) -> None:
        with bound(FLOOD) as flood:
            for index in range(400):
                flood.sendto(FLOODS[name](index), call.udp)
                if index % 100 == 0:
                    assert await call.says("OPTIONS") == 200
            before = call.shell.counters.datagrams
            await until(lambda: call.shell.counters.datagrams >= 400)
            assert call.shell.counters.limited >= 300
            assert before <= call.shell.counters.datagrams

    run(scenario, replace(SETTINGS, limits=SMALL))


def test_a_flood_of_calls_takes_no_more_ports_than_there_are() -> None:
    """Past the pool every INVITE is answered 503 at once, without Retry-After; the ports come back when calls end."""

    async def scenario(call: LiveCall) -> None:
        assert [await call.new_call(f"n{index}") for index in range(15)] == [200] * 9 + [503] * 6
        assert call.shell.counters.refused == {"ports_exhausted": 6}

    run(scenario)


def test_more_calls_than_the_machine_is_set_to_take_are_refused_at_once() -> None:
    """REQ: RFC 3261 section 21.5.4: 503 without Retry-After moves this call to another recorder, not all calls."""

    async def scenario(call: LiveCall) -> None:
        port = call.socket.getsockname()[1]
        answer = await udp_exchange(call.socket, call.udp, local(Src(call_id="second").invite(), port))
        assert isinstance(answer, Response)
        assert (answer.status, answer.header("retry-after")) == (503, None)
        assert await call.says("OPTIONS") == 200
        assert call.shell.counters.refused == {"max_calls": 1}

    run(scenario, replace(SETTINGS, capacity=Capacity(calls=1)))


def test_while_messages_stand_new_calls_are_refused_and_running_ones_are_served() -> None:
    """Two looks, a quarter of a second apart, at messages that waited too long; the first in time ends it."""

    async def scenario(call: LiveCall) -> None:
        now, admission = asyncio.get_running_loop().time(), call.shell.admission
        admission.served("media_late", 2.0, now - 1.0)
        admission.served("media_late", 2.0, now)
        assert await call.new_call("refused") == 503
        assert await call.says("OPTIONS") == 200
        assert call.shell.counters.refused == {"media_late": 1}
        admission.served("media_late", 0.01, asyncio.get_running_loop().time())
        assert await call.new_call("taken") == 200

    run(scenario)


def test_a_flood_on_a_connection_is_left_in_it() -> None:
    """Who says too much on TCP is read no faster than strangers are: its own buffers fill, nobody else's."""

    async def scenario(call: LiveCall) -> None:
        flood = await Peer().connect(call.addresses.tcp)
        asked = Src(call_id="flood", flow=Flow("tcp", ("127.0.0.1", 1), ANY, 1))
        flood.writer.write(b"".join(asked.request("OPTIONS") for _ in range(2_000)))
        await until(lambda: call.shell.counters.held_up > 0)
        read = call.shell.counters.requests
        assert await call.says("OPTIONS") == 200
        assert read < 2_000
        flood.writer.transport.abort()

    run(scenario, replace(SETTINGS, limits=SMALL))


def test_connections_are_bounded_in_all_and_of_one_peer() -> None:
    """What is above is closed at once, and counted; whoever is connected is served."""

    async def scenario(call: LiveCall) -> None:
        peers = [await Peer().connect(call.addresses.tcp) for _ in range(6)]
        refused = [peer for peer in peers[3:] if await peer.closed()]
        assert len(refused) == call.shell.counters.connections_refused == 3
        assert call.shell.counters.connections_open == 3
        answer = await peers[0].exchange(Src(flow=Flow("tcp", ("h", 1), ANY, 1)).request("OPTIONS"))
        assert isinstance(answer, Response)
        for peer in peers:
            await peer.close()

    run(scenario, replace(SETTINGS, connections=ConnectionLimits(all=3)))


def test_a_slow_sender_is_closed_in_time() -> None:
    """An octet now and then keeps no connection: the message must be whole within so many seconds of its beginning."""

    async def scenario(call: LiveCall) -> None:
        slow = await Peer().connect(call.addresses.tcp)
        whole = Src(flow=Flow("tcp", ("h", 1), ANY, 1)).request("OPTIONS")
        closing = asyncio.create_task(slow.closed())
        for position in range(len(whole) - 1):
            slow.writer.write(whole[position : position + 1])
            await asyncio.sleep(0)
            if closing.done():
                break
        assert await closing
        assert call.shell.counters.late_messages == 1
        await slow.close()

    run(scenario, replace(SETTINGS, patience=Patience(message_s=0.1)))


def test_half_open_connections_are_closed_in_time_and_free_their_places() -> None:
    """Connections that say nothing, or half of something, hold a place for so many seconds and no longer."""

    async def scenario(call: LiveCall) -> None:
        silent = [await Peer().connect(call.addresses.tcp) for _ in range(20)]
        silent[0].writer.write(b"INVITE sip:a SIP/2.0\r\nVia:")
        assert all([await peer.closed() for peer in silent])
        assert call.shell.counters.late_messages == 20
        assert call.shell.counters.connections_open == 0
        for peer in silent:
            await peer.close()

    run(scenario, replace(SETTINGS, patience=Patience(message_s=0.1)))


def test_endless_headers_close_the_connection() -> None:
    """A head that never ends is not gathered past 32 KiB."""

    async def scenario(call: LiveCall) -> None:
        peer = await Peer().connect(call.addresses.tcp)
        peer.writer.write(b"OPTIONS sip:a SIP/2.0\r\n" + b"X-More: of the same\r\n" * 100_000)
        assert await peer.closed()
        assert call.shell.counters.malformed == 1
        await peer.close()

    run(scenario)


LENGTHS = {
    "missing": b"",
    "no number": b"Content-Length: many\r\n",
    "negative": b"Content-Length: -1\r\n",
    "larger than any message": b"Content-Length: 4294967296\r\n",
    "two that differ": b"Content-Length: 0\r\nl: 7\r\n",
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_wrong_content_length_ends_a_stream(name: str) -> None:
    """REQ: RFC 3261 section 18.3: nothing after it can be trusted to begin a message."""

    async def scenario(call: LiveCall) -> None:
        peer = await Peer().connect(call.addresses.tcp)
        whole = Src(flow=Flow("tcp", ("h", 1), ANY, 1)).request("OPTIONS")
        peer.writer.write(whole.replace(b"Content-Length: 0\r\n", LENGTHS[name]) * 2)
        assert await peer.closed()
        assert call.shell.counters.malformed == 1
        await peer.close()

    run(scenario)


def test_a_datagram_shorter_than_its_content_length_is_answered_400() -> None:
    """REQ: RFC 3261 section 18.3: on datagrams it is an error of the request, and the sender is told."""

    async def scenario(call: LiveCall) -> None:
        with udp_socket() as peer:
            asked = local(Src(call_id="short").invite(), peer.getsockname()[1])
            answer = await udp_exchange(peer, call.addresses.udp, asked[:-300])
            assert isinstance(answer, Response)
            assert answer.status == 400

    run(scenario)


def test_bodies_of_64_kib_are_read_as_often_as_their_size_allows() -> None:
    """The largest messages that fit are recorded; a flood of them is bounded by its octets."""

    async def scenario(call: LiveCall) -> None:
        body = "<recording>" + " " * 60_000 + "</recording>"
        with bound(FLOOD) as flood:
            for index in range(60):
                with contextlib.suppress(BlockingIOError):
                    flood.sendto(Src(call_id=f"large{index}").invite(metadata=body), call.udp)
                await asyncio.sleep(0)
            await until(lambda: call.shell.counters.datagrams > 20)
            assert 1 <= call.shell.counters.requests - 2 <= 4
            assert call.shell.counters.limited > 10

    run(scenario, replace(SETTINGS, limits=SMALL))


SECRET = socket.gethostname() + "\n"
BOMBS = {
    "a billion laughs": '<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{("&" + chr(97 + i) + ";") * 10}">' for i in range(9))
    + "]><recording><session>&j;</session></recording>",
    "an entity of a file": '<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
    "<recording><session>&a;</session></recording>",
    "a hundred thousand levels": "<recording>" + "<a>" * 15_000 + "</recording>",
    "quadratic": METADATA.replace("Alice", "&#38;" * 10_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_entity_bomb_costs_nothing_and_no_call(name: str) -> None:
    """The call that carries it is recorded, in bounded time and memory; nothing of a file is in what is told of it."""

    async def scenario(call: LiveCall) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF)
        with bound(SBC) as peer:
            port = peer.getsockname()[1]
            asked = local(Src(call_id="bomb").invite(metadata=BOMBS[name]), port)
            answer = await udp_exchange(peer, call.addresses.udp, asked)
        assert isinstance(answer, Response)
        assert answer.status == 200
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime - before.ru_utime < 1
        assert after.ru_maxrss - before.ru_maxrss < 64 << 10  # KiB
        told = [facts for one in call.media.calls.values() for facts in one.sessions]
        assert SECRET not in str(told)
        assert len(str(told)) < 200_000

    run(scenario)


def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    """Answers that nobody takes do not fill the memory: past its bound the connection is cut, and counted."""

    async def scenario(call: LiveCall) -> None:
        assert call.addresses.tcp is not None
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(call.addresses.tcp)
        deaf.setblocking(False)
        asked = Src(call_id="deaf", flow=Flow("tcp", ("127.0.0.1", 1), ANY, 1))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not call.shell.counters.connections_cut:
                    await loop.sock_sendall(deaf, b"".join(asked.request("OPTIONS") for _ in range(50)))
        assert call.shell.counters.connections_cut == 1
        deaf.close()

    generous = Rate(1e6, 1e6)
    run(
        scenario,
        replace(
            SETTINGS,
            connections=ConnectionLimits(unsent_bytes=4_096),
            limits=SipLimits(generous, generous, generous, generous),
        ),
    )


def test_tls_handshakes_that_fail_are_counted_and_harmless(tmp_path: Path) -> None:
    """A hundred hellos of rubbish; the port serves on."""
    files = Authority.new(tmp_path).sign("srs")

    async def scenario(call: LiveCall) -> None:
        for _ in range(100):
            peer = await Peer().connect(call.addresses.tls)
            peer.writer.write(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
            async with asyncio.timeout(PATIENCE_S):
                assert len(await peer.reader.read()) < 50  # an alert, and the end
            await peer.close()
        assert call.shell.counters.failed_handshakes == 100

    run(scenario, replace(SETTINGS, tls=ANY, tls_files=files))


def test_no_message_is_too_strange_to_be_answered_or_dropped() -> None:
    """What SIP peers were seen to send by mistake: HTTP, TLS on UDP, NULs, an empty datagram, a message in UTF-16."""

    async def scenario(call: LiveCall) -> None:
        _, body = multipart(TWO_STREAMS, METADATA)
        whole = bytes(message.parse(Src().invite()))
        with bound(SBC) as peer:
            for strange in (
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01",
                b"\0" * 65_507,
                b"",
                body,
                whole.decode().encode("utf-16"),
            ):
                peer.sendto(strange, call.udp)
        assert await call.says("OPTIONS") == 200

    run(scenario)
