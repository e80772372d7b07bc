"""SIP over TLS, with real sockets."""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Response
from sbc_agent.protocol.transaction_layer import Patience
from sbc_agent.runtime.sip_certificate import TlsFiles
from sbc_agent.runtime.sip_shell import SipAddresses, SipSettings
from tests.agent.protocol.builders import Src, tag_of
from tests.agent.runtime.certificates import Authority
from tests.agent.runtime.test_sip_shell import ANY, PATIENCE_S, Peer, running, until


def settings(files: TlsFiles, **kw: Any) -> SipSettings:
    return SipSettings("127.0.0.1", None, None, tls=ANY, tls_files=files, **kw)


def source() -> Src:
    return Src(flow=Flow("tls", ("127.0.0.1", 40000), ANY, 1))


def trusting(authority: Authority, own: TlsFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file("ca"))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


async def connect(addresses: SipAddresses, context: ssl.SSLContext) -> Peer:
    assert addresses.tls is not None
    peer = Peer()
    async with asyncio.timeout(PATIENCE_S):
        peer.reader, peer.writer = await asyncio.open_connection(*addresses.tls, ssl=context)
    return peer


async def answers(peer: Peer) -> bool:
    answer = await peer.exchange(source().request("OPTIONS"))
    return isinstance(answer, Response) and answer.status == 200


def test_a_call_over_tls_whose_connection_is_replaced(tmp_path: Path) -> None:
    """The peer is told to come back by TLS; the dialog outlives its connection; one connection carries it all."""
    authority = Authority.new(tmp_path)

    async def scenario() -> None:
        async with running(settings(authority.sign("srs"))) as (shell, addresses, media):
            src, first = source(), await connect(addresses, trusting(authority))
            answer = await first.exchange(src.invite())
            assert addresses.tls is not None
            assert f"127.0.0.1:{addresses.tls[1]};transport=tls" in answer.required("contact")
            src.to_tag = tag_of(answer)
            first.writer.write(src.request("ACK"))
            await first.exchange(src.request("OPTIONS"))
            assert shell.counters.connections == 1
            await first.close()
            second = await connect(addresses, trusting(authority))
            done = await second.exchange(src.request("BYE"))
            assert isinstance(done, Response)
            assert done.status == 200
            await second.close()
            assert [told.ended[1] for told in media.calls.values() if told.ended] == ["bye"]

    asyncio.run(scenario())


def test_mutual_tls_refuses_who_cannot_prove_itself(tmp_path: Path) -> None:
    """No certificate, or one of another authority, gets no connection, and is counted; a good one does."""
    authority, strangers = Authority.new(tmp_path), Authority.new(tmp_path, "strangers")
    own = authority.sign("srs")
    files = TlsFiles(own.certificate, own.key, authority.file("ca"))

    async def scenario() -> None:
        async with running(settings(files)) as (shell, addresses, _media):
            for own_files in (None, strangers.sign("stranger")):
                context = trusting(authority, own_files)
                peer = await connect(addresses, context)  # REQ: RFC 8446: the client hears of the refusal afterwards
                with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                    await answers(peer)
                peer.writer.transport.abort()
            assert shell.counters.failed_handshakes == 2
            good = await connect(addresses, trusting(authority, authority.sign("sbc")))
            assert await answers(good)
            await good.close()

    asyncio.run(scenario())


def test_a_renewed_certificate_serves_the_next_connection(tmp_path: Path) -> None:
    """No restart: connections that there are go on, new ones are shown the new certificate."""
    authority = Authority.new(tmp_path)
    files, renewed = authority.sign("srs"), authority.sign("renewed")

    def shown(peer: Peer) -> Any:
        return dict(entry[0] for entry in peer.writer.get_extra_info("peercert")["subject"])["commonName"]

    async def scenario() -> None:
        async with running(settings(files)) as (_, addresses, _media):
            old = await connect(addresses, trusting(authority))
            assert shown(old) == "srs"
            os.replace(renewed.certificate, files.certificate)  # noqa: PTH105 - one step, as who renews does it
            os.replace(renewed.key, files.key)  # noqa: PTH105 - as above
            new = await connect(addresses, trusting(authority))
            assert shown(new) == "renewed"
            assert await answers(old)
            assert await answers(new)
            await old.close()
            await new.close()

    asyncio.run(scenario())


def test_a_handshake_that_is_never_done_is_closed_in_time(tmp_path: Path) -> None:
    """Half-open TLS, whole but silent TLS and silent TCP all end; who speaks is served meanwhile."""
    authority = Authority.new(tmp_path)
    files = authority.sign("srs")
    asked = SipSettings("127.0.0.1", None, ANY, tls=ANY, tls_files=files, patience=Patience(message_s=0.2))

    async def scenario() -> None:
        async with running(asked) as (shell, addresses, _media):
            half = await Peer().connect(addresses.tls)
            half.writer.write(b"\x16\x03\x01\x02\x00")  # the head of a record that does not follow
            silent = await connect(addresses, trusting(authority))
            plain = await Peer().connect(addresses.tcp)
            assert all([await half.closed(), await silent.closed(), await plain.closed()])
            assert (shell.counters.late_messages, shell.counters.late_handshakes) == (3, 1)
            assert shell.counters.connections_open == 0
            speaking = await connect(addresses, trusting(authority))
            assert await answers(speaking)
            for peer in (half, silent, plain, speaking):
                await peer.close()

    asyncio.run(scenario())


def test_plain_sip_on_the_tls_port_is_cut_off(tmp_path: Path) -> None:
    """A peer that forgot TLS learns it at once."""
    files = Authority.new(tmp_path).sign("srs")

    async def scenario() -> None:
        async with running(settings(files)) as (shell, addresses, _media):
            peer = await Peer().connect(addresses.tls)
            peer.writer.write(source().request("OPTIONS"))
            assert await peer.closed()
            assert shell.counters.failed_handshakes == 1
            await peer.close()

    asyncio.run(scenario())


def test_our_bye_finds_a_peer_by_tls_whose_connection_is_gone(tmp_path: Path) -> None:
    """REQ: RFC 3261 section 18.2.2: a new connection takes it, by TLS as the dialog is."""
    authority = Authority.new(tmp_path)
    files, sbc = authority.sign("srs"), authority.sign("sbc")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(sbc.certificate, sbc.key)

    async def scenario() -> None:
        came: asyncio.Queue[bytes] = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await came.put(await reader.read(65_536))
            writer.close()

        listener = await asyncio.start_server(accept, *ANY, ssl=serving)
        port = listener.sockets[0].getsockname()[1]
        async with running(settings(files)) as (shell, addresses, _media):
            src, peer = source(), await connect(addresses, trusting(authority))
            invite = src.invite().replace(b"198.51.100.7:5060", b"127.0.0.1:%d" % port)
            src.to_tag = tag_of(await peer.exchange(invite))
            peer.writer.write(src.request("ACK"))
            await peer.exchange(src.request("OPTIONS"))
            await peer.close()
            await until(lambda: not shell.counters.connections_open)
            draining = asyncio.create_task(shell.drain(grace_s=PATIENCE_S))
            async with asyncio.timeout(PATIENCE_S):
                assert (await came.get()).startswith(b"BYE ")
            draining.cancel()
        listener.close()
        await listener.wait_closed()

    asyncio.run(scenario())
