"""INTEROP, "Media": what SIP must do so that the media process can do its part."""

import pytest

from sbc_agent.protocol.dialogs import QUIET_SECONDS
from sbc_agent.protocol.events import MessageRecorded, SendMessage, SessionOffered, SessionUpdated
from sbc_agent.protocol.message import Request
from tests.agent.protocol.builders import TWO_STREAMS, Under
from tests.agent.protocol.interop.lines import shows
from tests.agent.protocol.interop.vendors import AUDIOCODES, OPENSIPS, opened, whole
from tests.agent.protocol.test_server import ok


@shows("M1a")
@pytest.mark.parametrize("name", [AUDIOCODES, OPENSIPS])
def test_streams_are_told_before_the_answer_leaves(name: str) -> None:
    """The shell hears which ports must listen, then the record of the request, and only then what it is to send."""
    under = Under(ports=False)
    under.server.receive(whole(name), opened(whole(name)).src.flow, under.now)
    offered = under.server.next_event()
    assert isinstance(offered, SessionOffered)
    assert offered.needs_ports == (0, 1)
    under.server.answer(offered.session, {0: 20000, 1: 20002}, under.now)
    events = [under.server.next_event() for _ in range(4)]
    assert [type(event) for event in events] == [SessionUpdated, MessageRecorded, SendMessage, MessageRecorded]


@shows("M1c")
def test_where_media_comes_from_is_not_asked() -> None:
    """An offer's addresses may be anyone's: the stream has our port, and no address that it must come from."""
    found = opened(whole(OPENSIPS))
    assert b"198.51.100.133" in found.under.recorded[0].raw
    assert [stream.port for stream in found.under.updated[-1].streams] == [20000, 20002]
    assert "198.51.100" not in repr(found.under.updated[-1].streams)


@shows("M3b", "C2b")
def test_silence_ends_nothing() -> None:
    """Hours without a request, and without any media for all we know: asked each hour, the peer answers, it goes on."""
    found = opened(whole(OPENSIPS))
    for hour in range(1, 25):
        (asked,) = found.under.advance(QUIET_SECONDS)
        assert isinstance(asked, Request)
        assert asked.method == "OPTIONS", hour
        found.under.receive(ok(found.under, code=200))
    assert found.under.server.sessions == 1
    assert found.active == [True, True]
    assert found.under.ended == []


@shows("M3a")
def test_ports_of_a_session_are_asked_for_once() -> None:
    """Through holds and refreshes a session keeps its ports; only a new m-line asks for one more."""
    found = opened(whole(AUDIOCODES))
    more = TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\n"
    for text in (TWO_STREAMS, TWO_STREAMS.replace("sendonly", "inactive"), more):
        found.under.receive(found.src.invite(sdp=text))
        found.under.receive(found.src.request("ACK"))
    assert [event.needs_ports for event in found.under.offered] == [(0, 1), (2,)]
