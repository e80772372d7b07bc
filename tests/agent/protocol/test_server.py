"""The recording server: what each request does, by the chapters of RFC 3261 and RFC 7866."""

from typing import Literal

import pytest

from sbc_agent.protocol import address, message, sdp
from sbc_agent.protocol.dialogs import MAX_UNACKNOWLEDGED, QUIET_SECONDS
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.limits import Rate, SipLimits
from sbc_agent.protocol.media_session import (
    FLAG_ANSWER_MISSING,
    FLAG_DIGITS_SUPPRESSED,
    FLAG_NO_METADATA,
    MAX_INDEXED,
)
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.recognition import MAX_ASKED_CHARACTERS, MAX_ASKED_HEADERS
from sbc_agent.protocol.server_session import FLAG_DIALOG_LOST, FLAG_NO_ACK
from sbc_agent.protocol.transaction_layer import MAX_HELD_BYTES
from sbc_agent.protocol.transactions import T1
from sbc_agent.protocol.uas import ServerSettings
from tests.agent.protocol.builders import (
    MEDIA_ADDRESS,
    METADATA,
    TCP,
    TWO_STREAMS,
    UDP,
    Src,
    Under,
    crlf,
    only,
    status,
    tag_of,
)

HELD = TWO_STREAMS.replace("a=sendonly", "a=inactive")
SDP = ("Content-Type", "application/sdp")
XML = ("Content-Type", "application/rs-metadata+xml")


def response(messages: list[Request | Response]) -> Response:
    found = only(messages)
    assert isinstance(found, Response)
    return found


def ok(under: Under, *, code: int) -> bytes:
    """The peer's answer to the last request of ours."""
    asked = under.sent[-1][1]
    assert isinstance(asked, Request)
    kept = [(name, value) for name, value in asked.headers if name in {"Via", "From", "To", "Call-ID", "CSeq"}]
    return bytes(message.response(code, "x", kept))


# --- a call ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [UDP, TCP], ids=["udp", "tcp"])
def test_a_call(flow: Flow) -> None:
    """INVITE, 200, ACK, BYE: the dialog's headers, the streams, the record, the end."""
    under, src = Under(), Src(flow=flow)
    answer = under.call(src)
    asked = src.last
    assert asked is not None
    assert [answer.header(name) for name in ("from", "call-id")] == [asked.header("from"), asked.header("call-id")]
    assert answer.header("cseq") == "1 INVITE"
    assert len(answer.all("via")) == 1
    contact = address.parse(answer.required("contact"))
    assert "+sip.srs" in contact.parameters
    uri = contact.parsed_uri()
    assert (uri.host, uri.port, uri.transport) == ("192.0.2.1", 5060, flow.transport)
    assert [(media.label, media.port) for media in sdp.parse(answer.body).media] == [("1", 20000), ("2", 20002)]
    assert [(s.label, s.port, s.active) for s in under.updated[0].streams] == [("1", 20000, True), ("2", 20002, True)]
    assert under.updated[0].facts["sip_call_id"] == src.call_id
    bye = src.request("BYE")
    assert status(under.receive(bye, flow)) == 200
    assert [(event.reason, event.flags) for event in under.ended] == [("bye", ())]
    assert under.server.sessions == 0
    assert [event.direction for event in under.recorded] == [0, 1, 0, 0, 1]
    assert under.recorded[-2].raw == bye


def test_the_shell_hears_of_the_streams_before_the_answer_leaves() -> None:
    """Ports are listened to before the peer can know them."""
    under, src = Under(ports=False), Src()
    under.receive(src.invite())
    under.server.answer(under.offered[0].session, {0: 20000, 1: 20002}, under.now)
    kinds = []
    while (event := under.server.next_event()) is not None:
        kinds.append(type(event).__name__)
    assert kinds == ["SessionUpdated", "MessageRecorded", "SendMessage", "MessageRecorded"]


def test_nothing_remains_when_time_has_passed() -> None:
    """After the timers have run out, no timer is left behind a finished call."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.request("BYE"))
    assert under.advance(100) == []
    assert under.server.timer() is None


# --- copies and loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [UDP, TCP], ids=["udp", "tcp"])
def test_the_200_is_repeated_until_the_ack(flow: Flow) -> None:
    """REQ: RFC 3261 section 13.3.1.4: from T1, doubling to T2, whatever the transport."""
    under, src = Under(), Src(flow=flow)
    first = response(under.receive(src.invite(), flow))
    start = under.now
    under.advance(12)
    assert [round(at - start, 3) for at, _ in under.sent[1:]] == [0.5, 1.5, 3.5, 7.5, 11.5]
    assert all(bytes(copy) == bytes(first) for _, copy in under.sent)
    src.to_tag = tag_of(first)
    under.receive(src.request("ACK"), flow)
    assert under.advance(60) == []


def test_a_copy_of_an_invite_gets_the_same_200() -> None:
    """REQ: RFC 3261 section 17.2.1: a copy is no new request: same answer, no new session, no new ports."""
    under, src = Under(), Src()
    invite = src.invite()
    first, copy = response(under.receive(invite)), response(under.receive(invite))
    assert bytes(first) == bytes(copy)
    assert len(under.offered) == 1
    src.to_tag = tag_of(first)
    under.receive(src.request("ACK"))
    assert under.receive(invite) == [], "REQ: RFC 6026 section 7.1: absorbed once it is acknowledged"


def test_a_copy_is_one_dialogs() -> None:
    """Of two dialogs with one Call-ID the one whose INVITE comes again gets its 200, and no other."""
    under = Under()
    invite = Src(tag="one").invite()
    answer = only(under.receive(invite))
    other = only(under.receive(Src(tag="other").invite(branch="z9hG4bKother")))
    assert tag_of(other) != tag_of(answer)
    assert bytes(only(under.receive(invite))) == bytes(answer)


def test_a_copy_of_a_bye_gets_the_same_200() -> None:
    """A lost 200 to BYE is sent again though the dialog is gone; another BYE gets 481."""
    under, src = Under(), Src()
    under.call(src)
    bye = src.request("BYE")
    assert bytes(response(under.receive(bye))) == bytes(response(under.receive(bye)))
    assert status(under.receive(src.request("BYE"))) == 481
    assert len(under.ended) == 1


def test_trying_is_sent_when_the_shell_takes_its_time() -> None:
    """REQ: RFC 3261 section 17.2.1: 100 after 200 ms, then copies of the INVITE get it again."""
    under, src = Under(ports=False), Src()
    invite = src.invite()
    assert under.receive(invite) == []
    trying = response(under.advance(0.2))
    assert (trying.status, tag_of(trying)) == (100, "")
    assert status(under.receive(invite)) == 100
    assert status(under.answer()) == 200


def test_an_invite_over_a_second_path_is_merged() -> None:
    """REQ: RFC 3261 section 8.2.2.2: same Call-ID, From tag and CSeq under another branch: 482."""
    under, src = Under(), Src()
    under.receive(src.invite())
    assert status(under.receive(src.invite(cseq=1, branch="z9hG4bKother"))) == 482
    assert len(under.offered) == 1


def test_a_second_try_after_a_refusal_is_a_new_session() -> None:
    """The same Call-ID with a higher CSeq after a refusal is taken."""
    under, src = Under(ports=False), Src()
    under.receive(src.invite())
    assert status(under.refuse(503)) == 503
    under.accepts = True
    assert status(under.receive(src.invite())) == 200


# --- where answers go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("via", "expected", "port"),
    [
        ("198.51.100.7:5060;branch=z9hG4bK1", "198.51.100.7:5060;branch=z9hG4bK1", 5060),
        ("sbc.example:5070;branch=z9hG4bK1", "sbc.example:5070;branch=z9hG4bK1;received=198.51.100.7", 5070),
        ("sbc.example;branch=z9hG4bK1", "sbc.example;branch=z9hG4bK1;received=198.51.100.7", 5060),
        ("10.0.0.1;rport;branch=z9hG4bK1", "10.0.0.1;rport=4444;branch=z9hG4bK1;received=198.51.100.7", 4444),
        ("h;maddr=203.0.113.9;branch=z9hG4bK1", "h;maddr=203.0.113.9;branch=z9hG4bK1;received=198.51.100.7", 5060),
    ],
)
def test_responses_go_back_to_the_source(via: str, expected: str, port: int) -> None:
    """REQ: RFC 3261 section 18.2.2 and RFC 3581: the source address, at rport, else the port of sent-by, else 5060."""
    under, src = Under(), Src()
    data = src.request("OPTIONS").replace(b"198.51.100.7:5060;branch=z9hG4bKcall-1@198.51.100.7-0", via.encode())
    answer = response(under.receive(data, Flow("udp", ("198.51.100.7", 4444), UDP.local)))
    assert answer.header("via") == f"SIP/2.0/UDP {expected}"
    assert under.messages[-1].fallback == ("198.51.100.7", port)


def test_all_vias_and_record_routes_are_copied_in_order() -> None:
    """REQ: RFC 3261 sections 8.2.6.2 and 12.1.1: Via and Record-Route come back as they came."""
    under, src = Under(), Src()
    extra = [("Via", "SIP/2.0/UDP 203.0.113.1;branch=z9hG4bKb, SIP/2.0/UDP 203.0.113.2;branch=z9hG4bKc")]
    extra += [("Record-Route", "<sip:203.0.113.60;lr>"), ("Record-Route", "<sip:203.0.113.61;lr>")]
    answer = response(under.receive(src.invite(*extra)))
    assert answer.listed("via")[1:] == [
        "SIP/2.0/UDP 203.0.113.1;branch=z9hG4bKb",
        "SIP/2.0/UDP 203.0.113.2;branch=z9hG4bKc",
    ]
    assert answer.all("record-route") == ["<sip:203.0.113.60;lr>", "<sip:203.0.113.61;lr>"]


def test_a_replaced_connection_is_answered_on_the_new_one() -> None:
    """SBCs replace TCP connections in mid-call: later requests are answered where they came, and ours go there."""
    under, src = Under(), Src(flow=TCP)
    under.call(src)
    under.server.flow_closed(TCP)
    second = Flow("tcp", ("198.51.100.7", 40001), TCP.local, 2)
    assert status(under.receive(src.request("OPTIONS"), second)) == 200
    assert under.messages[-1].flow == second
    under.server.end_all("shutdown", under.now)
    under.pump()
    assert under.messages[-1].flow == second


def test_requests_of_ours_follow_the_route_set() -> None:
    """REQ: RFC 3261 section 12.2.1.1: Route as recorded, the target as request URI; a strict router takes its place."""
    for route, uri, routes in (
        ("<sip:203.0.113.60;lr>", "sip:src@198.51.100.7:5060", ["<sip:203.0.113.60;lr>"]),
        ("<sip:203.0.113.60>", "sip:203.0.113.60", ["<sip:src@198.51.100.7:5060>"]),
    ):
        under, src = Under(), Src()
        answer = response(under.receive(src.invite(("Record-Route", route))))
        src.to_tag = tag_of(answer)
        under.receive(src.request("ACK"))
        under.server.end_all("shutdown", under.now)
        bye = only(under.pump())
        assert isinstance(bye, Request)
        assert (bye.method, bye.uri, bye.all("route")) == ("BYE", uri, routes)
        assert under.messages[-1].fallback == ("203.0.113.60", 5060)
        assert address.parse(bye.required("from")).tag == src.to_tag
        assert address.parse(bye.required("to")).tag == src.tag


# --- refusals --------------------------------------------------------------------------------------------------------


def plain_invite(
    src: Src, *extra: tuple[str, str], body: bytes = crlf(TWO_STREAMS), kind: tuple[str, str] = SDP
) -> bytes:
    """An INVITE without any mark of a recording session."""
    data = src.request("INVITE", kind, *extra, body=body)
    return data.replace(b"5060>;+sip.src", b"5060>", 1)


MARKS = {
    "Require": (("Require", "siprec"),),
    "Require among others (CUBE)": (("Require", "100rel,siprec"),),
    "Contact +sip.src": (("Contact", "<sip:h>;+sip.src"),),
    "Contact src (AudioCodes, BroadWorks)": (("Contact", "<sip:h>;src"),),
    "Contact +sip.src inside the URI (Avaya)": (("Contact", "<sip:h;+sip.src>"),),
    "isFocus (Cisco BiB)": (("Contact", "<sip:h>;isFocus"),),
    "Cisco NBR": (("X-Cisco-Recording-Participant", 'sip:1@h;media-index="0 1"'),),
}


@pytest.mark.parametrize("name", MARKS)
def test_one_mark_makes_a_recording_session(name: str) -> None:
    """REQ: INTEROP: any of the marks is enough."""
    assert status(Under().receive(plain_invite(Src(), *MARKS[name]))) == 200


def test_metadata_or_a_configured_peer_makes_a_recording_session() -> None:
    """Metadata in the body or a configured peer stand for the mark; words that only look like it do not."""
    under = Under()
    assert status(under.receive(plain_invite(Src(), body=METADATA.encode(), kind=XML))) == 200
    assert status(under.receive(plain_invite(Src(call_id="2"), ("Contact", "<sip:srcx@h>;source=1")))) == 488
    configured = Under(settings=ServerSettings(MEDIA_ADDRESS, peers=frozenset({"198.51.100.7"})))
    assert status(configured.receive(plain_invite(Src()))) == 200


def test_an_ordinary_call_is_refused_and_told_why() -> None:
    """An INVITE that is no recording session gets 488 with a reason for people, and leaves nothing behind."""
    under = Under()
    answer = response(under.receive(plain_invite(Src())))
    assert answer.status == 488
    assert "SIPREC" in answer.required("warning")
    assert under.server.sessions == 0


REFUSALS = {
    "REGISTER": ("REGISTER", (), 405),
    "a method nobody knows": ("FROBNICATE", (), 405),
    "PRACK: we never send a reliable provisional": ("PRACK", (), 481),
    "BYE outside a dialog": ("BYE", (), 481),
    "UPDATE outside a dialog": ("UPDATE", (), 481),
    "INFO outside a dialog": ("INFO", (), 481),
    "CANCEL of nothing": ("CANCEL", (), 481),
    "an extension nobody knows": ("INVITE", (("Require", "siprec, frob, nicate"),), 420),
    "an encoding": ("INVITE", (("Require", "siprec"), ("Content-Encoding", "gzip")), 415),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    """What we do not do is refused by the standard's code, with what helps the peer."""
    method, headers, code = REFUSALS[name]
    under, src = Under(), Src()
    answer = response(under.receive(src.request(method, *headers, SDP, body=crlf(TWO_STREAMS))))
    assert answer.status == code
    assert tag_of(answer)
    if code == 405:
        assert "INVITE" in answer.required("allow")
    if code == 420:
        assert answer.header("unsupported") == "frob, nicate"
    if code == 415:
        assert answer.header("accept-encoding") == "identity"


@pytest.mark.parametrize("method", ["INVITE", "BYE", "OPTIONS", "UPDATE", "INFO"])
def test_an_unknown_dialog_gets_481(method: str) -> None:
    """REQ: INTEROP: unknown dialog: 481, never silence."""
    assert status(Under().receive(Src(to_tag="unknown").request(method, ("Require", "siprec")))) == 481


def test_an_ack_is_never_answered() -> None:
    """An ACK to nothing is ignored."""
    assert Under().receive(Src(to_tag="unknown").request("ACK", cseq=1)) == []


UNREADABLE = {
    "a body shorter than its length": (b"Content-Length: 0", b"Content-Length: 9", 400),
    "a control character": (b"Max-Forwards: 70", b"Max-Forwards: 7\x010", 400),
    "CSeq and method differ": (b"1 OPTIONS", b"1 BYE", 400),
    "a From that is no address": (b"From: <sip:src@example.com>;tag=src", b"From: <", 400),
    "another version": (b"192.0.2.1 SIP/2.0", b"192.0.2.1 SIP/3.0", 505),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_answered(name: str) -> None:
    """A broken request that still says whom to answer is answered."""
    old, new, code = UNREADABLE[name]
    data = Src().request("OPTIONS")
    assert data.count(old) == 1
    assert status(Under().receive(data.replace(old, new))) == code


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"\0", b"garbage", b"SIP/2.0 999999 x\r\n\r\n", b"INVITE\r\n\r\n"])
def test_what_says_nobody_is_dropped(data: bytes) -> None:
    """Keep-alives and garbage without a return address get no answer."""
    assert Under().receive(data) == []


OFFERS = {
    "SRTP alone": (TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP"), 488),
    "video alone": (TWO_STREAMS.replace("m=audio", "m=video"), 488),
    "no description": ("nonsense", 488),
    "a broken m= line": ("v=0\nm=audio\n", 488),
}


@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_of_which_nothing_can_be_recorded(name: str) -> None:
    """488 lets the SRC fail over or alarm: a session without a recording would only look like one."""
    sdp_text, code = OFFERS[name]
    under = Under()
    answer = response(under.receive(Src().invite(sdp=sdp_text)))
    assert answer.status == code
    assert "399" in answer.required("warning")
    assert (under.server.sessions, under.offered) == (0, [])


def test_full_is_503_without_retry_after() -> None:
    """REQ: RFC 3261 section 21.5.4 and INTEROP: overload answers at once, without taking the whole recorder out."""
    under, src = Under(ports=False), Src()
    invite = src.invite()
    under.receive(invite)
    answer = response(under.refuse(503))
    assert (answer.status, answer.header("retry-after")) == (503, None)
    assert [event.reason for event in under.ended] == ["cancelled"]
    assert status(under.receive(invite)) == 503, "a copy gets the same answer"
    src.to_tag = tag_of(answer)
    assert under.receive(src.request("ACK", branch="z9hG4bKcall-1@198.51.100.7-0")) == []
    assert under.advance(100) == []


def test_a_draining_server_takes_no_new_sessions() -> None:
    """While it drains, new sessions and OPTIONS get 503; running calls go on."""
    under, src = Under(), Src()
    under.call(src)
    under.server.draining = True
    assert status(under.receive(Src(call_id="other").invite())) == 503
    assert status(under.receive(Src(call_id="third").request("OPTIONS"))) == 503
    assert status(under.receive(src.request("OPTIONS"))) == 200
    assert status(under.receive(src.request("BYE"))) == 200


# --- CANCEL, OPTIONS, INFO, UPDATE -----------------------------------------------------------------------------------


def test_cancel_before_the_answer() -> None:
    """REQ: RFC 3261 section 9.2: 200 to the CANCEL and 487 to the INVITE, whose ACK ends it."""
    under, src = Under(ports=False), Src()
    under.receive(src.invite(branch="z9hG4bKsame"))
    answers = under.receive(src.request("CANCEL", cseq=1, branch="z9hG4bKsame"))
    assert [(a.status, a.header("cseq")) for a in answers if isinstance(a, Response)] == [
        (200, "1 CANCEL"),
        (487, "1 INVITE"),
    ]
    assert [event.reason for event in under.ended] == ["cancelled"]
    src.to_tag = tag_of(answers[1])
    assert under.receive(src.request("ACK", cseq=1, branch="z9hG4bKsame")) == []
    assert under.answer() == [], "the shell's answer comes too late"
    assert under.advance(100) == []


def test_cancel_after_the_answer_changes_nothing() -> None:
    """REQ: RFC 3261 section 9.2: a CANCEL after a final response has no effect on it."""
    under, src = Under(), Src()
    under.receive(src.invite(branch="z9hG4bKsame"))
    assert status(under.receive(src.request("CANCEL", cseq=1, branch="z9hG4bKsame"))) == 200
    assert under.server.sessions == 1


def test_options_is_answered() -> None:
    """REQ: RFC 3261 section 11.2: what we can, in and out of dialogs: it keeps us in service."""
    under, src = Under(), Src()
    answer = response(under.receive(src.request("OPTIONS")))
    assert answer.status == 200
    assert "application/rs-metadata" in answer.required("accept")
    assert "INVITE" in answer.required("allow")
    assert "siprec" in answer.required("supported")
    assert "+sip.srs" in answer.required("contact")


HEADERS = ("X-Consent", "no"), ("P-Charging-Vector", "icid-value=1"), ("x-consent", "yes"), ("Subject", "none of it")


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO"])
def test_headers_that_a_policy_may_ask_for(method: str) -> None:
    """What no standard defines is told by name in lower case, equal names joined; the latest word of a name counts."""
    under, src = Under(), Src()
    under.call(src)
    assert under.updated[-1].headers == {}
    told = len(under.updated)
    body = crlf(TWO_STREAMS) if method == "INVITE" else b""
    assert status(under.receive(src.request(method, SDP, *HEADERS, body=body))) == 200
    assert under.updated[-1].headers == {"x-consent": "no, yes", "p-charging-vector": "icid-value=1"}
    assert len(under.updated) == told + 1
    under.receive(src.request("INFO", ("X-Consent", "maybe")))
    assert under.updated[-1].headers == {"p-charging-vector": "icid-value=1", "x-consent": "maybe"}
    assert "maybe" not in repr(under.updated[-1])
    assert "x-consent" not in under.updated[-1].facts["extensions"]
    under.receive(src.request("INFO", ("X-Consent", "maybe")))
    assert len(under.updated) == told + 2, "the same word again is no news"


def test_headers_have_a_bound() -> None:
    """Of more names than that the latest stay, and no value is longer than that."""
    under, src = Under(), Src()
    many = [(f"X-Name-{number}", "v" * 5_000) for number in range(MAX_ASKED_HEADERS)]
    under.call(src)
    under.receive(src.request("INFO", ("X-First", "1")))
    under.receive(src.request("INFO", *many[:6]))
    for start in range(6, MAX_ASKED_HEADERS, 6):
        under.receive(src.request("INFO", *many[start : start + 6]))
    told = under.updated[-1].headers
    assert len(told) == MAX_ASKED_HEADERS
    assert "x-first" not in told
    assert {len(value) for value in told.values()} == {MAX_ASKED_CHARACTERS}


def test_names_to_find_a_call_by_have_a_bound() -> None:
    """A peer that puts new parameters into every From does not fill our memory: the first stay."""
    under, src = Under(), Src()
    under.call(src)
    for number in range(20):
        marks = "".join(f";x-mark-{number}-{index}=1" for index in range(10))
        asked = src.request("INFO").replace(b"<sip:src@example.com>", f"<sip:src@example.com{marks}>".encode())
        assert status(under.receive(asked)) == 200
    extensions = under.updated[-1].facts["extensions"]
    assert len(extensions) == MAX_INDEXED
    assert "x-mark-0-0" in extensions


def test_info_is_answered_and_pressed_keys_are_not_stored() -> None:
    """Keys in an INFO never reach the signalling record; everything else does."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.request("INFO", ("X-AC-Action", "pause-siprec")))
    assert b"pause-siprec" in under.recorded[-2].raw
    keys = src.request("INFO", ("Content-Type", "application/dtmf-relay"), body=b"Signal=5\r\nDuration=160\r\n")
    assert status(under.receive(keys)) == 200
    assert not any(b"Signal" in event.raw for event in under.recorded)
    under.receive(src.request("BYE"))
    assert FLAG_DIGITS_SUPPRESSED in under.ended[0].flags


def test_update_with_metadata_alone() -> None:
    """Metadata alone (Avaya, BroadWorks, Webex): 200, the facts corrected, the streams as before."""
    under, src = Under(), Src()
    under.call(src)
    later = METADATA.replace("sip:bob@example.com", "sip:carol@example.com")
    answer = response(under.receive(src.request("UPDATE", XML, body=later.encode())))
    assert (answer.status, answer.body) == (200, b"")
    assert [person["aor"] for person in under.updated[-1].facts["participants"]] == [
        "sip:alice@example.com",
        "sip:carol@example.com",
    ]
    assert under.updated[-1].streams == under.updated[0].streams


def test_update_with_an_offer() -> None:
    """REQ: RFC 3311 section 5.2: a description in an UPDATE is an offer; its answer needs no ACK."""
    under, src = Under(), Src()
    under.call(src)
    answer = response(under.receive(src.request("UPDATE", SDP, body=crlf(HELD))))
    assert [media.direction.value for media in sdp.parse(answer.body).media] == ["inactive", "inactive"]
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]
    assert under.advance(100) == []


# --- re-INVITE --------------------------------------------------------------------------------------------------------


def test_hold_and_resume() -> None:
    """A re-INVITE changes which streams are kept, the ports stay, and the dialog's tags stay."""
    under, src = Under(), Src()
    first = under.call(src)
    for text, active in ((HELD, False), (TWO_STREAMS, True)):
        answer = response(under.receive(src.invite(sdp=text)))
        under.receive(src.request("ACK"))
        assert tag_of(answer) == tag_of(first)
        assert [media.port for media in sdp.parse(answer.body).media] == [20000, 20002]
        assert [stream.active for stream in under.updated[-1].streams] == [active, active]
    assert len(under.offered) == 1, "no port is needed, so nobody is asked"


def test_a_description_alone_keeps_the_metadata() -> None:
    """A session refresh without metadata changes nothing that is known."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.invite(metadata=None))
    assert under.updated[-1].facts == under.updated[0].facts


def test_a_re_invite_without_description_gets_our_offer() -> None:
    """REQ: RFC 3261 section 14.2: we offer what there is; the ACK answers."""
    under, src = Under(), Src()
    under.call(src)
    answer = response(under.receive(src.request("INVITE")))
    offered = sdp.parse(answer.body)
    assert [(media.port, media.label, media.direction.value) for media in offered.media] == [
        (20000, "1", "recvonly"),
        (20002, "2", "recvonly"),
    ]
    under.receive(src.request("ACK", SDP, body=crlf(HELD)))
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]


def test_delayed_offer() -> None:
    """Cisco BiB: no description in the INVITE; our 200 offers an m-line for each label, the ACK answers."""
    under, src = Under(), Src()
    answer = response(under.receive(src.request("INVITE", ("Require", "siprec"), XML, body=METADATA.encode())))
    assert [media.label for media in sdp.parse(answer.body).media] == ["1", "2"]
    src.to_tag = tag_of(answer)
    one_leg = TWO_STREAMS.replace("m=audio 6002", "m=audio 0")
    under.receive(src.request("ACK", SDP, body=crlf(one_leg)))
    assert [stream.active for stream in under.updated[-1].streams] == [True, False]
    bare = Under()
    src = Src()
    src.to_tag = tag_of(response(bare.receive(src.request("INVITE", ("Require", "siprec")))))
    bare.receive(src.request("ACK"))
    assert bare.updated[-1].facts["flags"] == [FLAG_ANSWER_MISSING, FLAG_NO_METADATA]


def test_an_ack_that_is_late_is_no_answer_to_our_offer() -> None:
    """REQ: RFC 3261 section 13.2.2.4: an ACK belongs to the 2xx of its CSeq, and answers no other."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.invite())
    late = src.request("ACK")
    under.receive(src.request("INVITE"))
    answer = src.request("ACK", SDP, body=crlf(HELD))
    under.receive(late)
    assert FLAG_ANSWER_MISSING not in under.updated[-1].facts["flags"]
    under.receive(answer)
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]


def test_our_offer_is_given_up_with_its_ack() -> None:
    """An offer of ours whose ACK never comes stands in nobody's way when its 200 is no longer repeated."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.request("INVITE"))
    under.advance(64 * T1 - 1)
    assert status(under.receive(src.invite())) == 491
    under.advance(2)
    assert set(under.updated[-1].facts["flags"]) == {FLAG_ANSWER_MISSING, FLAG_NO_ACK}
    for method in ("INVITE", "UPDATE"):
        assert status(under.receive(src.request(method, SDP, body=crlf(HELD)))) == 200
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]


def test_an_ack_of_nothing_gives_our_offer_up() -> None:
    """An ACK beyond the 200 that has our offer ends its repetition: no answer is waited for either."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.request("INVITE"))
    under.receive(src.request("ACK", cseq=src.cseq + 1))
    assert under.advance(100) == []
    assert status(under.receive(src.invite())) == 200


def test_metadata_alone_crosses_no_offer() -> None:
    """REQ: RFC 3311 section 5.2: 491 is for an UPDATE with an offer; what carries none is taken at once."""
    under, src = Under(), Src()
    under.call(src)
    under.receive(src.request("INVITE"))
    ack = src.request("ACK", SDP, body=crlf(HELD))
    told = METADATA.replace("Alice", "Alicia").encode()
    assert status(under.receive(src.request("UPDATE", XML, body=told))) == 200
    assert under.updated[-1].facts["participants"][0]["name"] == "Alicia"
    assert status(under.receive(src.request("UPDATE", SDP, body=crlf(TWO_STREAMS)))) == 491
    under.receive(ack)
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]


SECURE = {
    "the request line": ("sip:srs@192.0.2.1", "sips:srs@192.0.2.1", ()),
    "the top route": ("", "", (("Record-Route", "<sips:proxy.example.com;lr>"),)),
    "Contact": ("<sip:src@198.51.100.7:5060;transport=tls>", "<sips:src@198.51.100.7>", ()),
}


@pytest.mark.parametrize("name", SECURE)
def test_sips_is_answered_by_sips(name: str) -> None:
    """REQ: RFC 3261 sections 12.1.1 and 8.1.1.8: who is addressed by SIPS names itself so, over TLS."""
    old, new, extra = SECURE[name]
    flow = Flow("tls", ("198.51.100.7", 40000), ("192.0.2.1", 5061), 1)
    under, src = Under(), Src(flow=flow)
    invite = src.invite(*extra).replace(old.encode(), new.encode(), 1) if old else src.invite(*extra)
    answer = response(under.receive(invite, flow))
    assert answer.header("contact") == "<sips:recorder@192.0.2.1:5061>;+sip.srs"
    src.to_tag = tag_of(answer)
    under.receive(src.request("ACK"), flow)
    if name != "the request line":
        (probe,) = under.advance(QUIET_SECONDS)
        assert probe.header("contact") == answer.header("contact")
    plain = Src(call_id="plain", flow=flow)
    assert response(under.receive(plain.invite(), flow)).header("contact") == (
        "<sip:recorder@192.0.2.1:5061;transport=tls>;+sip.srs"
    )


@pytest.mark.parametrize(("transport", "port"), [("udp", 5060), ("tcp", 5060), ("tls", 5061)])
def test_requests_of_ours_go_to_the_transports_port(transport: Literal["udp", "tcp", "tls"], port: int) -> None:
    """REQ: RFC 3261 section 18.1.1: a Contact without a port means the default one of its transport."""
    flow = Flow(transport, ("198.51.100.7", 40000), ("192.0.2.1", 5062), 1)
    under, src = Under(), Src(flow=flow)
    src.request("INVITE", ("Require", "siprec"), SDP, body=crlf(TWO_STREAMS))
    assert src.last is not None
    headers = [(name, value) for name, value in src.last.headers if name != "Contact"]
    contact = ("Contact", "<sip:src@198.51.100.9>")
    invite = message.request("INVITE", src.last.uri, [*headers, contact], src.last.body)
    src.to_tag = tag_of(response(under.receive(bytes(invite), flow)))
    under.receive(src.request("ACK"), flow)
    under.advance(QUIET_SECONDS)
    assert under.messages[-1].fallback == ("198.51.100.9", port)


def test_our_offer_has_no_more_streams_than_an_offer_may_have() -> None:
    """Metadata that names a hundred streams takes no hundred ports."""
    streams = "".join(f"<stream stream_id='{number}'><label>{number}</label></stream>" for number in range(100))
    under, src = Under(), Src()
    under.receive(src.request("INVITE", ("Require", "siprec"), XML, body=f"<recording>{streams}</recording>".encode()))
    assert len(under.updated[-1].streams) == sdp.MAX_MEDIA


def test_a_label_of_the_metadata_cannot_break_our_offer() -> None:
    """REQ: RFC 4574 section 4: a label is a token; of anything else we make none."""
    told = METADATA.replace("<label>1<", "<label>1\na=inactive\nm=audio 1 RTP/AVP 0<")
    answer = response(Under().receive(Src().request("INVITE", ("Require", "siprec"), XML, body=told.encode())))
    offered = sdp.parse(answer.body)
    assert [(media.label, media.direction.value) for media in offered.media] == [(None, "recvonly"), ("2", "recvonly")]


def test_more_streams_ask_for_more_ports() -> None:
    """A third m-line in a re-INVITE gets a port of its own; without one it alone is refused."""
    third = TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\na=sendonly\n"
    under, src = Under(), Src()
    under.call(src)
    assert len(sdp.parse(response(under.receive(src.invite(sdp=third))).body).media) == 3
    assert (under.offered[-1].initial, under.offered[-1].needs_ports) == (False, (2,))
    under, src = Under(), Src()
    under.call(src)
    under.accepts = False
    under.receive(src.invite(sdp=third))
    answered = sdp.parse(response(under.answer(ports={})).body)
    assert [media.port for media in answered.media] == [20000, 20002, 0]


def test_overlapping_re_invites_are_both_answered() -> None:
    """REQ: INTEROP: a second comes while the first one's 200 has no ACK; an ACK of the later settles both."""
    under, src = Under(), Src()
    under.call(src)
    assert status(under.receive(src.invite(sdp=HELD))) == 200
    assert status(under.receive(src.invite())) == 200
    assert [stream.active for stream in under.updated[-1].streams] == [True, True]
    under.receive(src.request("ACK"))
    assert under.advance(100) == []


def test_an_offer_meets_one_that_waits_for_the_shell() -> None:
    """REQ: RFC 3261 section 14.2: 500 with Retry-After while the last INVITE has no final response."""
    under, src = Under(), Src()
    under.call(src)
    under.accepts = False
    under.receive(src.invite(sdp=TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\n"))
    answer = response(under.receive(src.invite()))
    assert (answer.status, answer.header("retry-after")) == (500, "3")
    assert status(under.answer()) == 200


def test_crossing_offers_are_glare() -> None:
    """REQ: RFC 3261 section 14.2: while our own offer has no answer, another offer gets 491."""
    under, src = Under(), Src()
    src.to_tag = tag_of(response(under.receive(src.request("INVITE", ("Require", "siprec")))))
    assert status(under.receive(src.invite())) == 491
    assert status(under.receive(src.request("UPDATE", SDP, body=crlf(HELD)))) == 491


def test_an_offer_that_cannot_be_recorded_leaves_the_session_as_it_was() -> None:
    """REQ: RFC 3261 section 14.2: 488 to a re-INVITE changes nothing."""
    under, src = Under(), Src()
    under.call(src)
    assert status(under.receive(src.invite(sdp=TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP")))) == 488
    assert under.updated[-1].streams == under.updated[0].streams
    assert status(under.receive(src.request("BYE"))) == 200


def test_late_requests_get_500() -> None:
    """REQ: RFC 3261 section 12.2.2: a CSeq number that does not grow is out of order."""
    under, src = Under(), Src()
    under.call(src)
    src.cseq = 10
    under.receive(src.request("OPTIONS"))
    assert status(under.receive(src.request("OPTIONS", cseq=10))) == 500
    assert status(under.receive(src.request("BYE", cseq=5))) == 500
    assert under.server.sessions == 1


def test_a_bye_ends_what_is_pending() -> None:
    """REQ: RFC 3261 section 15.1.2: a BYE is answered 200 and a pending re-INVITE 487."""
    under, src = Under(), Src()
    under.call(src)
    under.accepts = False
    under.receive(src.invite(sdp=TWO_STREAMS + "m=audio 6004 RTP/AVP 8\n"))
    answers = under.receive(src.request("BYE"))
    assert [a.status for a in answers if isinstance(a, Response)] == [487, 200]
    assert under.answer() == []


def test_a_contact_that_cannot_be_read_keeps_the_target() -> None:
    """A malformed Contact in a re-INVITE (seen with OpenSIPS) leaves the target as it was."""
    under, src = Under(), Src()
    under.call(src)
    data = src.invite().replace(b"Contact: <sip:src@198.51.100.7:5060>", b"Contact: <sip:src")
    assert status(under.receive(data)) == 200
    under.receive(src.request("ACK"))
    under.server.end_all("shutdown", under.now)
    bye = only(under.pump())
    assert isinstance(bye, Request)
    assert bye.uri == "sip:src@198.51.100.7:5060"


# --- peers that are gone ---------------------------------------------------------------------------------------------


def test_without_an_ack_the_peer_is_asked_and_a_dead_one_ends() -> None:
    """REQ: RFC 3261 section 13.3.1.4: 64*T1 without ACK: a probe first, then BYE and the end, flagged."""
    under, src = Under(), Src()
    under.receive(src.invite())
    under.advance(32.5)
    probe = under.sent[-1][1]
    assert isinstance(probe, Request)
    assert probe.method == "OPTIONS"
    assert under.ended == []
    under.advance(32.5)
    assert [(event.reason, event.flags) for event in under.ended] == [("error", (FLAG_NO_ACK, FLAG_DIALOG_LOST))]
    byes = [sent for _, sent in under.sent if isinstance(sent, Request) and sent.method == "BYE"]
    assert byes
    under.advance(100)
    assert under.server.timer() is None


def test_without_an_ack_a_living_peer_is_recorded_on() -> None:
    """An SRC whose ACK is lost on its way but which answers the probe keeps its recording."""
    under, src = Under(), Src()
    under.receive(src.invite())
    under.advance(32.5)
    under.receive(ok(under, code=405))
    under.advance(600)
    assert under.ended == []


def test_a_later_request_stands_for_the_ack() -> None:
    """A request in the dialog shows that the peer knows it: no probe, no end."""
    under, src = Under(), Src()
    answer = response(under.receive(src.invite()))
    src.to_tag = tag_of(answer)
    under.receive(src.request("OPTIONS"))
    under.advance(200)
    assert under.ended == []
    assert not any(isinstance(sent, Request) for _, sent in under.sent)


@pytest.mark.parametrize(("code", "ended"), [(200, False), (405, False), (481, True)])
def test_a_quiet_dialog_is_probed(code: int, ended: bool) -> None:
    """REQ: INTEROP: probe before reaping: after an hour of silence the peer is asked; 481 ends the session."""
    under, src = Under(), Src()
    under.call(src)
    under.advance(QUIET_SECONDS + 0.1)
    probe = under.sent[-1][1]
    assert isinstance(probe, Request)
    assert (probe.method, probe.header("cseq")) == ("OPTIONS", "1 OPTIONS")
    under.receive(ok(under, code=code))
    assert bool(under.ended) is ended


def test_three_probes_without_answer_end_the_session() -> None:
    """A peer that is silent for an hour and three probes is gone; one lost answer is no proof."""
    under, src = Under(), Src()
    under.call(src)
    under.advance(QUIET_SECONDS + 33)
    assert under.ended == []
    under.advance(2 * (60 + 33))
    assert [event.reason for event in under.ended] == ["error"]


def test_a_session_timer_is_accepted_with_the_src_as_refresher() -> None:
    """REQ: RFC 4028 section 9: the 2xx says refresher=uac and requires timer; without refresh the peer is probed."""
    under, src = Under(), Src()
    timer = (("Supported", "timer"), ("Session-Expires", "1800"))
    answer = response(under.receive(src.invite(*timer)))
    assert (answer.header("session-expires"), answer.header("require")) == ("1800;refresher=uac", "timer")
    src.to_tag = tag_of(answer)
    under.receive(src.request("ACK"))
    under.advance(1700)
    under.receive(src.request("UPDATE", *timer))
    under.advance(1700)
    assert not any(isinstance(sent, Request) for _, sent in under.sent)
    under.advance(200)
    assert any(isinstance(sent, Request) for _, sent in under.sent)


def test_a_session_timer_is_never_raised() -> None:
    """REQ: RFC 4028 section 9: an interval below the shortest is agreed to as it is, and probed no sooner than that."""
    under, src = Under(), Src()
    answer = response(under.receive(src.invite(("Supported", "timer"), ("Session-Expires", "30"), ("Min-SE", "30"))))
    assert answer.header("session-expires") == "30;refresher=uac"
    src.to_tag = tag_of(answer)
    under.receive(src.request("ACK"))
    assert under.advance(90 + 31) == []
    assert under.advance(2) != []


@pytest.mark.parametrize("value", ["1800;refresher=uas", "x", "", "0"])
def test_a_session_timer_that_we_cannot_keep_is_left_out(value: str) -> None:
    """Asked to refresh, or asked nonsense, we have no session timer."""
    answer = response(Under().receive(Src().invite(("Supported", "timer"), ("Session-Expires", value))))
    assert (answer.header("session-expires"), answer.status) == (None, 200)


def test_shutdown_says_bye_to_all() -> None:
    """REQ: RFC 7866 section 8: the SRS ends its sessions by BYE, so that the SRC knows; the answer is awaited."""
    under = Under()
    sources = [Src(call_id=f"call-{number}") for number in range(3)]
    for src in sources:
        under.call(src)
    under.server.end_all("shutdown", under.now)
    byes = under.pump()
    assert [sent.method for sent in byes if isinstance(sent, Request)] == ["BYE"] * 3
    assert [event.reason for event in under.ended] == ["shutdown"] * 3
    assert under.server.requests_waiting == 3
    for bye in byes:
        kept = [(name, value) for name, value in bye.headers if name in {"Via", "From", "To", "Call-ID", "CSeq"}]
        under.receive(bytes(message.response(405, "Method Not Allowed", kept)))
    assert under.server.requests_waiting == 0


# --- streams ---------------------------------------------------------------------------------------------------------


def test_messages_are_cut_from_a_stream() -> None:
    """A request may come in pieces, and several at once; keep-alives are answered."""
    under, src = Under(), Src(flow=TCP)
    data = src.request("OPTIONS") + src.request("OPTIONS")
    assert under.receive(data[:50], TCP) == []
    assert [a.status for a in under.receive(data[50:], TCP) if isinstance(a, Response)] == [200, 200]
    under.receive(b"\r\n\r\n", TCP)
    assert under.messages[-1].data == b"\r\n"


def test_a_stream_that_cannot_be_read_is_closed() -> None:
    """REQ: RFC 3261 section 18.3: after a head without Content-Length nothing can be trusted."""
    under = Under()
    under.receive(b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n", TCP)
    assert under.closed == [TCP]


def test_slow_and_idle_connections_are_closed() -> None:
    """A message that does not come to its end in 15 s, or a connection on which nothing lives for 15 min, is closed."""
    slow = Under()
    slow.receive(b"OPTIONS sip:a SIP/2.0\r\n", TCP)
    for _ in range(4):
        slow.advance(4)
        slow.receive(b"X: y\r\n", TCP)
    assert slow.closed == [TCP]
    idle, src = Under(), Src(flow=TCP)
    idle.receive(src.request("OPTIONS"), TCP)
    idle.advance(899)
    assert idle.closed == []
    idle.advance(2)
    assert idle.closed == [TCP]


def test_a_connection_with_a_dialog_is_not_idle() -> None:
    """While a dialog lives on a connection, silence on it is no reason to close it."""
    under, src = Under(), Src(flow=TCP)
    under.call(src)
    under.advance(3_000)
    assert under.closed == []


def test_rfc_2543_peers_are_matched_without_a_branch() -> None:
    """REQ: RFC 3261 section 17.2.3: without the magic cookie, a copy is known by all that it repeats."""
    under, src = Under(), Src()
    invite = src.invite(branch="old-style")
    first, copy = under.receive(invite), under.receive(invite)
    assert bytes(only(first)) == bytes(only(copy))
    assert len(under.offered) == 1


def flooded(*, ports: bool) -> Under:
    """A server that reads whatever comes, however much."""
    plenty = Rate(1e6, 1e6)
    limits = SipLimits(plenty, plenty, plenty, plenty)
    return Under(ports=ports, settings=ServerSettings(MEDIA_ADDRESS, limits=limits))


def test_a_flood_of_large_requests_is_held_in_bounds() -> None:
    """What transactions keep has a bound in octets too: past it 503, and all is well when they have been answered."""
    under, large, count = flooded(ports=False), "<recording>" + "x" * 60_000, 0
    while not (answers := under.receive(Src(call_id=f"call-{count}").invite(metadata=large))):
        count += 1
    assert status(answers) == 503
    assert (count + 1) * 62_000 > MAX_HELD_BYTES > count * 60_000
    under.server.end_all("shutdown", under.now)
    assert {answer.status for answer in under.pump() if isinstance(answer, Response)} == {503}
    assert status(under.receive(Src(call_id="next").request("OPTIONS"))) == 200


def test_an_answered_request_is_not_kept() -> None:
    """For half a minute copies of it are answered anew, for which the answer is enough."""
    under, src = flooded(ports=True), Src()
    asked = [src.request("OPTIONS", body=b"x" * 60_000) for _ in range(100)]
    answers = [bytes(only(under.receive(data))) for data in asked]
    assert under.server._layer._held_bytes == sum(map(len, answers))
    assert [bytes(only(under.receive(data))) for data in asked] == answers
    under.advance(64)
    assert under.server._layer._held_bytes == 0


def test_offers_without_end_and_without_ack_are_not_all_repeated() -> None:
    """Only the latest answers go out again: a peer that never says ACK cannot multiply what we send."""
    under, src = Under(), Src()
    src.to_tag = tag_of(response(under.receive(src.invite())))
    for _ in range(100):
        assert status(under.receive(src.invite())) == 200
    assert len(under.advance(T1)) == MAX_UNACKNOWLEDGED
