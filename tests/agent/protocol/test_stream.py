"""Cutting a stream into messages: RFC 3261 section 18.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import stream
from sbc_agent.protocol.message import read_headers
from sbc_agent.protocol.stream import MAX_PINGS, StreamFramer


def message(body: bytes) -> bytes:
    return b"INFO sip:a SIP/2.0\r\nVia: x\r\nl: %d\r\n\r\n%s" % (len(body), body)


def drained(framer: StreamFramer) -> list[bytes]:
    found = []
    while (whole := framer.next_message()) is not None:
        found.append(whole)
    return found


@given(st.lists(st.binary(max_size=80), max_size=5), st.data())
def test_any_cut_gives_the_same_messages(bodies: list[bytes], data: st.DataObject) -> None:
    """However the network cuts the stream, and whatever line ends stand between messages, the messages are the same."""
    stream = b"".join(data.draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"])) + message(body) for body in bodies)
    framer, found = StreamFramer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        framer.feed(stream[:size])
        stream = stream[size:]
        found += drained(framer)
    assert found == [message(body) for body in bodies]
    assert not framer.partial


def test_bare_line_feeds() -> None:
    """A stream whose heads end in bare LFs is cut as well."""
    framer = StreamFramer()
    framer.feed(b"INFO sip:a SIP/2.0\nl: 2\n\nabINFO sip:b SIP/2.0\nl: 0\n\n")
    assert drained(framer) == [b"INFO sip:a SIP/2.0\nl: 2\n\nab", b"INFO sip:b SIP/2.0\nl: 0\n\n"]


def test_keep_alives_are_counted() -> None:
    """REQ: RFC 5626 section 4.4.1: a double CRLF is a ping that wants a CRLF; a single one is none."""
    framer = StreamFramer()
    framer.feed(b"\r\n\r\n")
    assert drained(framer) == []
    assert framer.take_pings() == 1
    assert framer.take_pings() == 0
    framer.feed(b"\r\n")
    assert drained(framer) == []
    assert framer.take_pings() == 0


BROKEN = {
    "no Content-Length": b"INFO sip:a SIP/2.0\r\nVia: x\r\n\r\n",
    "a Content-Length that is no number": b"INFO sip:a SIP/2.0\r\nl: x\r\n\r\n",
    "two that differ": b"INFO sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n",
    "a message of more than 65535 octets": b"INFO sip:a SIP/2.0\r\nl: 65535\r\n\r\n",
    "a head without end": b"INFO sip:a SIP/2.0\r\n" + b"X: y\r\n" * 8_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_ends_the_stream(name: str) -> None:
    """REQ: RFC 3261 section 18.3: without a length to trust, nothing after the head can be read."""
    framer = StreamFramer()
    framer.feed(BROKEN[name])
    with pytest.raises(MalformedInput):
        drained(framer)


def test_partial_tells_of_an_unfinished_message() -> None:
    """A message that has begun and is not whole can be timed out by whoever owns the stream."""
    framer = StreamFramer()
    framer.feed(b"INFO")
    assert framer.next_message() is None
    assert framer.partial


def test_a_head_is_read_once_however_slowly_its_body_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An octet at a time costs no more reading than all at once: a slow sender cannot buy our time cheaply."""
    reads = 0

    def counted(block: bytes) -> tuple[tuple[str, str], ...]:
        nonlocal reads
        reads += 1
        return read_headers(block)

    monkeypatch.setattr(stream, "read_headers", counted)
    framer, whole = StreamFramer(), message(b"x" * 2_000)
    for position in range(len(whole) - 1):
        framer.feed(whole[position : position + 1])
        assert framer.next_message() is None
    framer.feed(whole[-1:])
    assert framer.next_message() == whole
    assert reads == 1


def test_a_flood_of_keep_alives_is_answered_a_few_times() -> None:
    """A quarter of a megabyte of line ends asks for four answers, not for sixty thousand."""
    framer = StreamFramer()
    framer.feed(b"\r\n" * 131_072)
    assert drained(framer) == []
    assert framer.take_pings() == MAX_PINGS
    assert not framer.partial
