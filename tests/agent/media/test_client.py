"""The channel to the media process, real sockets on both ends, when it is too small or nobody reads."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dualtone.domain.errors import MalformedInput, Unavailable
from sbc_agent.media import client as clients
from sbc_agent.media import messages
from sbc_agent.media.client import MediaClient
from sbc_agent.media.clock import AgentClock

CALL = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[MediaClient, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 << 10)
    with ours, theirs, subprocess.Popen([sys.executable, "-c", ""]) as process:
        yield MediaClient(ours, process, AgentClock(0)), theirs


def received(channel: socket.socket) -> messages.Command:
    return messages.parse_command(channel.recv(messages.MAX_MESSAGE_BYTES))


def test_a_command_too_large_for_a_datagram_is_refused_and_the_next_one_goes_out(
    pair: tuple[MediaClient, socket.socket],
) -> None:
    """Were it queued, it would stand before the commands of every other call for ever."""
    client, theirs = pair
    with pytest.raises(MalformedInput):
        client.session(CALL, {"user_agent": "x" * messages.MAX_MESSAGE_BYTES})
    client.streams(CALL, 1, ())
    assert client.unsent == 0
    assert isinstance(received(theirs), messages.Streams)


def test_the_largest_sip_message_goes_through(pair: tuple[MediaClient, socket.socket]) -> None:
    client, theirs = pair
    client.signalling(CALL, 1, 0, bytes(65_535))
    command = received(theirs)
    assert isinstance(command, messages.Signalling)
    assert command.raw == bytes(65_535)


def test_a_child_that_takes_nothing_does_not_fill_the_memory(
    pair: tuple[MediaClient, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are refused from a bound on; the end of a call still queues, behind what came before it."""
    monkeypatch.setattr(clients, "MAX_UNSENT_BYTES", 1 << 20)
    client, theirs = pair
    sent = 0
    while client._unsent_bytes <= clients.MAX_UNSENT_BYTES:
        client.signalling(CALL, 1, 0, bytes(65_535))
        sent += 1
    with pytest.raises(Unavailable):
        client.signalling(CALL, 1, 0, b"x")
    client.end(CALL, 2, "bye")
    theirs.setblocking(False)
    kinds = []
    while client.unsent:
        kinds.append(type(received(theirs)))
        client._flush()
    theirs.setblocking(True)
    while len(kinds) < sent + 1:
        kinds.append(type(received(theirs)))
    assert kinds == [messages.Signalling] * sent + [messages.End]
