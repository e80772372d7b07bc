"""The SIP side of a test call, without sockets and without waiting."""

from __future__ import annotations

import itertools

import pytest

from sbc_agent.protocol import body, message, metadata, sdp
from sbc_agent.protocol.message import Request, Response
from sbc_agent.runtime import src_offer
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.src_dialog import Answered, AnsweredStream, Ended, Refused, SrcDialog, TimedOut, Transport
from sbc_agent.runtime.src_offer import Party

TARGET = Endpoint("192.0.2.10", 5060)
LOCAL = Endpoint("192.0.2.20", 6060)
ANSWER = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n"
    b"m=audio 20000 RTP/AVP 8\r\na=recvonly\r\na=label:1\r\n"
    b"m=audio 20002 RTP/AVP 8\r\na=recvonly\r\na=label:2\r\n"
)
PARTIES = [
    Party('sip:+442079460101@"x"', "O'Neil & <Sons>", True, "1", 7000, "cGFydHkx", "c3RyZWFtMQ=="),
    Party("sip:+442079460102@192.0.2.20", "Bob", False, "2", 7002, "cGFydHky", "c3RyZWFtMg=="),
]


def dialog(transport: Transport = "udp") -> SrcDialog:
    numbers = itertools.count()
    offer = src_offer.body(
        PARTIES,
        address="192.0.2.20",
        session_id="c2Vzc2lvbg==",
        sip_session_id="a;remote=b",
        now_iso="2026-01-01T00:00:00Z",
    )
    return SrcDialog(
        target=TARGET,
        local=LOCAL,
        transport=transport,
        call_id="call@src",
        tag="us",
        branch=lambda: str(next(numbers)),
        offer=offer,
    )


def sent(of: SrcDialog) -> list[Request]:
    """What it wants sent, parsed."""
    found = [message.parse(data) for data, _ in of.outgoing()]
    assert all(isinstance(one, Request) for one in found)
    return found  # type: ignore[return-value]


def reply(
    request: Request,
    status: int,
    *,
    content: bytes = b"",
    kind: str = "application/sdp",
    extra: list[tuple[str, str]] | None = None,
) -> bytes:
    headers = [(name, request.required(name)) for name in ("Via", "From", "Call-ID", "CSeq")]
    headers += [("To", request.required("To") + ("" if status == 100 else ";tag=them"))]
    headers += [("Contact", "<sip:srs@192.0.2.11:5070>;+sip.srs")]
    headers += [("Content-Type", kind)] if content else []
    return bytes(message.response(status, "Reason", [*headers, *(extra or [])], content))


def answered(transport: Transport = "udp") -> tuple[SrcDialog, Request]:
    """A dialog after its 200, and the ACK it sent."""
    made = dialog(transport)
    made.invite(0)
    (invite,) = sent(made)
    made.receive(reply(invite, 200, content=ANSWER), 0.1)
    (ack,) = sent(made)
    return made, ack


def test_the_invite_is_a_recording_session_with_two_labelled_streams_and_metadata() -> None:
    """Any recorder finds in it what RFC 7866 asks for: Require, +sip.src, labels, sendonly, metadata with roles."""
    made = dialog()
    made.invite(0)
    (invite,) = sent(made)
    assert invite.method == "INVITE"
    assert "siprec" in invite.listed("Require")
    assert "+sip.src" in invite.required("Contact")
    content = body.read(invite)
    assert content.sdp is not None
    assert content.metadata is not None
    offer = sdp.parse(content.sdp)
    assert [(media.label, media.direction.value, media.port) for media in offer.media] == [
        ("1", "sendonly", 7000),
        ("2", "sendonly", 7002),
    ]
    assert [codec.name for codec in offer.media[0].codecs()] == ["PCMA"]


def test_the_metadata_reads_back_as_it_was_meant() -> None:
    """Names with XML's own characters, roles, and who sends which stream survive a real parser."""
    text = src_offer.metadata(
        PARTIES,
        session_id="c2Vzc2lvbg==",
        sip_session_id="a;remote=b",
        now_iso="2026-01-01T00:00:00Z",
        ucid="00FA080018803B69810C6D",
    )
    found = metadata.parse(text.encode())
    assert [(person.aor, person.name, person.role) for person in found.participants] == [
        ('sip:+442079460101@"x', "O'Neil & <Sons", "caller"),
        ("sip:+442079460102@192.0.2.20", "Bob", "callee"),
    ]
    assert found.sends == {"cGFydHkx": ("c3RyZWFtMQ==",), "cGFydHky": ("c3RyZWFtMg==",)}
    assert {stream.stream_id: stream.label for stream in found.streams} == {"c3RyZWFtMQ==": "1", "c3RyZWFtMg==": "2"}
    assert found.sessions[0].sip_session_id == "a;remote=b"
    assert found.extensions["ucid"] == "00FA080018803B69810C6D;encoding=hex"
    assert not found.flags


@pytest.mark.parametrize(
    ("text", "aor"),
    [
        ("+442079460101", "sip:+442079460101@192.0.2.1"),
        ("tel:+442079460101", "tel:+442079460101"),
        ("sip:alice@example.com", "sip:alice@example.com"),
        ("alice@example.com", "sip:alice@example.com"),
    ],
)
def test_a_number_becomes_an_address(text: str, aor: str) -> None:
    """A bare number gets a scheme and a host; an address keeps its own."""
    assert src_offer.address_of_record(text, "192.0.2.1") == aor


def test_an_unanswered_invite_is_repeated_by_timer_a_and_given_up_by_timer_b() -> None:
    """REQ: RFC 3261 section 17.1.1.2: on UDP at 0.5, 1.5, 3.5 ... s, until 64*T1."""
    made = dialog()
    made.invite(0)
    times = []
    while made.next_event() is None:
        due = made.timer()
        assert due is not None
        made.outgoing()
        made.handle_timer(due)
        times.append(due)
        if made.outgoing() == []:
            break
    assert times == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 32.0]


def test_giving_up_is_an_event() -> None:
    """After 32 seconds the call has failed."""
    made = dialog()
    made.invite(0)
    made.handle_timer(32)
    assert made.next_event() == TimedOut("INVITE")
    assert made.timer() is None


def test_nothing_is_repeated_on_tcp_or_after_a_provisional_answer() -> None:
    """Timer A runs on UDP alone, and stops at 100 Trying."""
    over_tcp = dialog("tcp")
    over_tcp.invite(0)
    assert over_tcp.timer() == 32
    over_udp = dialog()
    over_udp.invite(0)
    (invite,) = sent(over_udp)
    over_udp.receive(reply(invite, 100), 0.1)
    assert over_udp.timer() == 32


def test_a_call_that_rings_for_ever_is_cancelled() -> None:
    """REQ: RFC 3261 section 9.1: CANCEL carries the INVITE's branch and CSeq number."""
    made = dialog()
    made.invite(0)
    (invite,) = sent(made)
    made.receive(reply(invite, 180), 0.1)
    made.handle_timer(32)
    (cancel,) = sent(made)
    assert cancel.method == "CANCEL"
    assert cancel.required("Via") == invite.required("Via")
    assert cancel.required("CSeq") == "1 CANCEL"


def test_a_200_is_acknowledged_every_time() -> None:
    """The ACK goes to the recorder's Contact with a branch of its own; a copy of the 200 gets the same ACK."""
    made = dialog()
    made.invite(0)
    (invite,) = sent(made)
    answer = reply(invite, 200, content=ANSWER, extra=[("Record-Route", "<sip:a;lr>, <sip:b;lr>")])
    made.receive(answer, 0.1)
    (ack,) = sent(made)
    assert (ack.method, ack.uri, ack.required("CSeq")) == ("ACK", "sip:srs@192.0.2.11:5070", "1 ACK")
    assert ack.required("Via") != invite.required("Via")
    assert ack.required("To").endswith(";tag=them")
    assert ack.all("Route") == ["<sip:b;lr>", "<sip:a;lr>"]
    made.receive(answer, 0.6)
    assert sent(made) == [ack]
    assert made.next_event() == Answered(
        (AnsweredStream("1", "192.0.2.10", 20000), AnsweredStream("2", "192.0.2.10", 20002))
    )
    assert made.next_event() is None


def test_requests_go_to_the_contact_when_it_is_an_address() -> None:
    """The next hop of the dialog is the recorder's Contact."""
    made = dialog()
    made.invite(0)
    ((data, first),) = made.outgoing()
    assert first == TARGET
    invite = message.parse(data)
    assert isinstance(invite, Request)
    made.receive(reply(invite, 200, content=ANSWER), 0.1)
    ((_, second),) = made.outgoing()
    assert second == Endpoint("192.0.2.11", 5070)


@pytest.mark.parametrize("status", [302, 404, 486, 503, 603])
def test_a_refusal_is_acknowledged_with_the_invites_branch(status: int) -> None:
    """REQ: RFC 3261 section 17.1.1.3: the ACK to a refusal belongs to the INVITE's transaction, also for its copies."""
    made = dialog()
    made.invite(0)
    (invite,) = sent(made)
    for _ in range(2):
        made.receive(reply(invite, status), 0.1)
        (ack,) = sent(made)
        assert ack.required("Via") == invite.required("Via")
    assert made.next_event() == Refused(status, "Reason")
    assert made.next_event() is None
    assert made.timer() is None


@pytest.mark.parametrize(("content", "kind"), [(b"", ""), (ANSWER, "text/plain"), (b"nonsense", "application/sdp")])
def test_an_answer_that_cannot_be_used_is_acknowledged_and_ended(content: bytes, kind: str) -> None:
    """A 200 without a session description is told as a refusal, and the session can be ended."""
    made = dialog()
    made.invite(0)
    (invite,) = sent(made)
    made.receive(reply(invite, 200, content=content, kind=kind), 0.1)
    event = made.next_event()
    assert isinstance(event, Refused)
    assert event.status == 200
    sent(made)
    made.bye(1)
    (bye,) = sent(made)
    assert bye.method == "BYE"


def test_the_bye_is_repeated_until_it_is_answered() -> None:
    """REQ: RFC 3261 section 17.1.2: timer E repeats, the answer ends it."""
    made, _ = answered()
    made.next_event()
    made.bye(10)
    (bye,) = sent(made)
    assert (bye.method, bye.required("CSeq")) == ("BYE", "2 BYE")
    made.handle_timer(10.5)
    assert sent(made) == [bye]
    made.receive(reply(bye, 200), 10.6)
    assert made.next_event() == Ended("us", 200)
    assert made.timer() is None
    made.bye(11)
    assert sent(made) == []


def test_a_bye_that_nobody_answers_times_out() -> None:
    """After 32 seconds we stop."""
    made, _ = answered()
    made.next_event()
    made.bye(10)
    made.handle_timer(42)
    assert made.next_event() == TimedOut("BYE")


def request_from_recorder(method: str, call_id: str = "call@src") -> bytes:
    headers = [
        ("Via", "SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKx"),
        ("From", "<sip:recorder@192.0.2.10>;tag=them"),
        ("To", "<sip:src@192.0.2.20>;tag=us"),
        ("Call-ID", call_id),
        ("CSeq", f"7 {method}"),
    ]
    return bytes(message.request(method, "sip:src@192.0.2.20:6060", headers))


@pytest.mark.parametrize(
    ("method", "status"),
    [("BYE", 200), ("OPTIONS", 200), ("INFO", 200), ("INVITE", 488), ("UPDATE", 488), ("REFER", 405)],
)
def test_requests_of_the_recorder_are_answered(method: str, status: int) -> None:
    """The recorder may hang up and ask; what we do not do is refused, never ignored."""
    made, _ = answered()
    made.next_event()
    made.receive(request_from_recorder(method), 1)
    ((data, _),) = made.outgoing()
    response = message.parse(data)
    assert isinstance(response, Response)
    assert (response.status, response.required("CSeq")) == (status, f"7 {method}")
    assert made.next_event() == (Ended("recorder", 200) if method == "BYE" else None)


def test_a_bye_after_the_end_gets_481() -> None:
    """REQ: RFC 3261 section 12.2.2: a request for a dialog that is gone."""
    made, _ = answered()
    made.receive(request_from_recorder("BYE"), 1)
    made.outgoing()
    made.receive(request_from_recorder("BYE"), 2)
    ((data, _),) = made.outgoing()
    response = message.parse(data)
    assert isinstance(response, Response)
    assert response.status == 481


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"garbage", request_from_recorder("BYE", "other@call")])
def test_what_is_not_ours_is_passed_over(data: bytes) -> None:
    """Neither noise nor another call's message changes anything."""
    made, _ = answered()
    made.next_event()
    made.receive(data, 1)
    assert made.outgoing() == []
    assert made.next_event() is None
