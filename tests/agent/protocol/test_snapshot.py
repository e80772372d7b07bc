"""A server that is killed and restored answers as one that never was, and keeps no names."""

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, precondition, rule

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address, message, sdp, snapshot
from sbc_agent.protocol.dialogs import QUIET_SECONDS
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.media_session import FLAG_SRTP_KEYS_LOST
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.sdes import FLAG_SRTP_KEYS_VISIBLE
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.snapshot import impersonal
from sbc_agent.protocol.uas import LONGEST_SESSION_SECONDS, ServerSettings
from tests.agent.protocol.builders import (
    MEDIA_ADDRESS,
    METADATA,
    TCP,
    TWO_STREAMS,
    UDP,
    Src,
    Under,
    counted_octets,
    crlf,
    only,
    status,
    tag_of,
)
from tests.agent.protocol.test_server import ok

SDP = ("Content-Type", "application/sdp")
HELD = TWO_STREAMS.replace("a=sendonly", "a=inactive")
MORE = TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\na=sendonly\n"
OFFERS = {
    "active": TWO_STREAMS,
    "held": HELD,
    "more": MORE,
    "one": TWO_STREAMS.replace("m=audio 6002", "m=audio 0"),
    "srtp": TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP"),
    "none": None,
}
OFFER = st.sampled_from(sorted(OFFERS))


class Survivor(Under):
    """A server under test whose journal is kept as the shell keeps it, and which can die and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.octets = itertools.count(1), counted_octets()
        self.server = self.fresh()
        self.journal: dict[int, bytes] = {}

    def fresh(self) -> SipServer:
        return SipServer(ServerSettings(MEDIA_ADDRESS), lambda: f"{next(self.tokens):032x}", self.octets)

    def pump(self) -> list[Request | Response]:
        sent = super().pump()
        for session, taken in self.server.changed():
            if taken is None:
                self.journal.pop(session, None)
            else:
                self.journal[session] = canonical.encode(taken.to_json())
        return sent

    def restart(self) -> None:
        """The process is killed; another reads the journal."""
        found, self.journal = list(self.journal.values()), {}
        self.server = self.fresh()
        for text in found:
            self.updated.append(self.server.restore(snapshot.from_json(canonical.decode(text)), self.now))
        self.pump()


def told(messages: list[Request | Response]) -> list[tuple[Any, ...]]:
    """What a peer sees of messages, but for the names in From and To, which a restart forgets."""
    seen: list[tuple[Any, ...]] = []
    for sent in messages:
        tags = tuple(address.parse(sent.required(name)).tag for name in ("from", "to"))
        kept = tuple(
            (name, value)
            for name, value in sent.headers
            if name not in {"From", "To", "Via"} and not (name == "Contact" and isinstance(sent, Request))
        )
        head = (sent.method, sent.uri) if isinstance(sent, Request) else (sent.status,)
        seen.append((*head, tags, kept, sent.body))
    return seen


def body(offer: str) -> dict[str, Any]:
    text = OFFERS[offer]
    return {} if text is None else {"body": crlf(text)}


class Restarts(RuleBasedStateMachine):
    """Two servers hear the same peers; one of them is killed now and then."""

    dialogs = Bundle("dialogs")

    def __init__(self) -> None:
        super().__init__()
        self.steady, self.killed = Survivor(), Survivor()
        self.numbers = itertools.count()

    @rule(target=dialogs, flow=st.sampled_from([UDP, TCP]), offer=st.sampled_from(["active", "held", "more", "none"]))
    def invite(self, flow: Flow, offer: str) -> Src:
        src = Src(call_id=f"call-{next(self.numbers)}", flow=flow)
        src.to_tag = tag_of(only(self.hand_in(src.invite(sdp=OFFERS[offer]), src)))
        return src

    @rule(src=dialogs, offer=OFFER)
    def re_invite(self, src: Src, offer: str) -> None:
        self.hand_in(src.invite(sdp=OFFERS[offer]), src)

    @rule(src=dialogs, offer=OFFER, method=st.sampled_from(["UPDATE", "INFO", "OPTIONS"]))
    def request(self, src: Src, offer: str, method: str) -> None:
        self.hand_in(src.request(method, SDP, **body(offer)), src)

    @rule(src=dialogs, offer=OFFER)
    def ack(self, src: Src, offer: str) -> None:
        self.hand_in(src.request("ACK", SDP, cseq=src.cseq, **body(offer)), src)

    @rule(src=dialogs)
    def late(self, src: Src) -> None:
        """A request out of order."""
        if src.cseq > 1:
            self.hand_in(src.request("OPTIONS", cseq=src.cseq - 1), src)

    @rule(src=consumes(dialogs))
    def bye(self, src: Src) -> None:
        self.hand_in(src.request("BYE"), src)

    @precondition(lambda self: self.steady.now < 1025)
    @rule(seconds=st.sampled_from([0.1, 0.6, 4.0]))
    def time_passes(self, seconds: float) -> None:
        for server in (self.steady, self.killed):
            server.advance(seconds)

    @rule()
    def kill(self) -> None:
        self.killed.restart()

    def hand_in(self, data: bytes, src: Src) -> list[Request | Response]:
        answers, others = self.steady.receive(data, src.flow), self.killed.receive(data, src.flow)
        assert told(answers) == told(others)
        assert self.steady.server.sessions == self.killed.server.sessions
        return answers

    def teardown(self) -> None:
        """Our BYE at shutdown: the same dialogs, CSeq numbers, targets."""
        sent = []
        for server in (self.steady, self.killed):
            server.server.end_all("shutdown", server.now)
            sent.append(sorted(told(server.pump()), key=repr))
        assert sent[0] == sent[1]


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def asked(messages: list[Request | Response]) -> set[str]:
    """The requests of ours among messages, copies once."""
    return {sent.required("cseq") for sent in messages if isinstance(sent, Request)}


def restarted(src: Src, under: Survivor, **invite: Any) -> Response:
    answer = under.call(src, **invite)
    under.restart()
    return answer


@pytest.mark.parametrize("flow", [UDP, TCP], ids=["udp", "tcp"])
@pytest.mark.parametrize("text", [TWO_STREAMS, HELD, None], ids=["offer", "held", "our offer"])
def test_a_copy_of_the_invite_gets_its_200_again(flow: Flow, text: str | None) -> None:
    """Killed before the 200 left, or before the ACK came: the same tag, ports and version; no second call."""
    under, src = Survivor(), Src(flow=flow)
    invite = src.invite(sdp=text)
    first = only(under.receive(invite, flow))
    under.restart()
    again = only(under.receive(invite, flow))
    assert told([again]) == told([first])
    assert bytes(only(under.receive(invite, flow))) == bytes(again), "and a further copy is a copy"
    assert under.server.sessions == 1
    src.to_tag = tag_of(again)
    assert under.receive(src.request("ACK"), flow) == []
    assert [sent for sent in under.advance(QUIET_SECONDS - 1) if isinstance(sent, Request)] == []
    assert status(under.receive(src.request("BYE"), flow)) == 200


def test_a_copy_of_a_re_invite_is_no_new_offer() -> None:
    """Its answer has the version that it had, and the stream stays held."""
    under, src = Survivor(), Src()
    under.call(src)
    invite = src.invite(sdp=HELD)
    first = only(under.receive(invite))
    under.restart()
    again = only(under.receive(invite))
    assert told([again]) == told([first])
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]


def test_an_acknowledged_invite_is_not_answered_by_200_again() -> None:
    """What has come to an end stays so: a stray copy opens nothing and repeats nothing."""
    under, src = Survivor(), Src()
    invite = src.invite()
    src.to_tag = tag_of(only(under.receive(invite)))
    under.receive(src.request("ACK"))
    under.restart()
    assert status(under.receive(invite)) == 482
    assert under.server.sessions == 1
    assert status(under.receive(src.request("OPTIONS", cseq=1))) == 500


def test_the_version_goes_on() -> None:
    """REQ: RFC 3264 section 8: the version in `o=` rises by one with each change, over a restart too; the id stays."""
    under, src = Survivor(), Src()
    first = restarted(src, under)
    second = only(under.receive(src.invite(sdp=HELD)))
    under.receive(src.request("ACK"))
    under.restart()
    third = only(under.receive(src.invite(sdp=HELD)))
    origins = [sdp.parse(answer.body).origin for answer in (first, second, third)]
    assert [int(origin.version) for origin in origins] == [1, 2, 2]
    assert len({origin.session_id for origin in origins}) == 1


def test_our_requests_follow_on() -> None:
    """REQ: RFC 3261 section 12.2.1.1: CSeq grows by one over a restart; tags, Call-ID, routes and target are kept."""
    under, src = Survivor(), Src()
    answer = only(under.receive(src.invite(("Record-Route", "<sip:203.0.113.60;lr;did=9f1.12345678>"))))
    src.to_tag = tag_of(answer)
    under.receive(src.request("ACK"))
    under.advance(QUIET_SECONDS + 1)
    probe = under.sent[-1][1]
    under.restart()
    under.server.end_all("shutdown", under.now)
    bye = only(under.pump())
    assert isinstance(probe, Request)
    assert isinstance(bye, Request)
    assert [probe.header("cseq"), bye.header("cseq")] == ["1 OPTIONS", "2 BYE"]
    assert bye.uri == "sip:src@198.51.100.7:5060"
    assert bye.all("route") == ["<sip:203.0.113.60;lr;did=9f1.12345678>"]
    assert bye.header("call-id") == src.call_id
    assert (address.parse(bye.required("from")).tag, address.parse(bye.required("to")).tag) == (src.to_tag, src.tag)
    assert under.messages[-1].fallback == ("203.0.113.60", 5060)


def test_silence_goes_on() -> None:
    """REQ: RFC 4028: the time of silence counts over a restart; a probe that was open is sent again at once."""
    under, src = Survivor(), Src()
    timer = (("Supported", "timer"), ("Session-Expires", "1800"))
    src.to_tag = tag_of(only(under.receive(src.invite(*timer))))
    under.receive(src.request("ACK"))
    under.advance(1_000)
    under.restart()
    assert under.advance(830) == []
    assert asked(under.advance(3)) == {"1 OPTIONS"}
    under.restart()
    probe = only(under.advance(0.1))
    assert probe.header("cseq") == "2 OPTIONS"
    kept = tuple(line for line in probe.headers if line[0] in {"Via", "From", "To", "Call-ID", "CSeq"})
    under.receive(bytes(Response(headers=kept, status=200, reason="OK")))
    assert under.advance(1_800) == []
    assert asked(under.advance(40)) == {"3 OPTIONS"}


def test_a_peer_that_never_acknowledged_is_asked() -> None:
    """REQ: RFC 3261 section 13.3.1.4: the 64*T1 count over a restart, then the peer is probed."""
    under, src = Survivor(), Src()
    under.receive(src.invite())
    under.advance(20)
    under.restart()
    assert asked(under.advance(11.9)) == set()
    assert asked(under.advance(0.2)) == {"1 OPTIONS"}


def test_facts_come_back_with_the_next_metadata() -> None:
    """After a restart only the Call-ID is known of a call, until the peer tells again."""
    under, src = Survivor(), Src()
    restarted(src, under)
    facts = dict(under.updated[-1].facts)
    assert [media["stream"] for media in facts.pop("media")] == [0, 1]  # negotiated, and so known
    assert facts == {
        "sip_call_id": src.call_id,
        "user_agent": "",
        "src": "198.51.100.7",
        "end": "",
        "flags": [],
        "sessions": [],
        "groups": [],
        "participants": [],
        "streams": [],
        "extensions": {},
    }
    under.receive(src.invite())
    assert [person["name"] for person in under.updated[-1].facts["participants"]] == ["Alice", ""]


def test_nothing_names_anybody() -> None:
    """Of names, numbers, headers and metadata nothing is in a snapshot."""
    under, src = Survivor(), Src(call_id="\udce9t\udce9", tag="\udcff")
    named = src.invite(("User-Agent", "Agent Smith"), ("User-to-User", "c0ffee;encoding=hex"))
    named = named.replace(b"<sip:src@example.com>", b'"Alice Liddell" <sip:+442079460018@example.com;user=phone>')
    named = named.replace(b"<sip:srs@example.com>", b"<tel:+12025550147>")
    named = named.replace(b"<sip:src@198.51.100.7:5060>", b'"Bob" <sip:2025550199@198.51.100.7:5060;id=12025550123>')
    answer = only(under.receive(named))
    (text,) = under.journal.values()
    for personal in ("Alice", "Liddell", "Bob", "4420", "202555", "Smith", "c0ffee", "alice", "bob", "abc@example"):
        assert personal not in text.decode()
    under.restart()
    src.to_tag = tag_of(answer)
    assert status(under.receive(src.request("OPTIONS"))) == 200
    under.server.end_all("shutdown", under.now)
    bye = only(under.pump())
    assert isinstance(bye, Request)
    assert (bye.header("call-id"), bye.uri) == ("\udce9t\udce9", "sip:198.51.100.7:5060")
    assert bye.header("to") == "<sip:example.com>;tag=\udcff"


URIS = {
    "sip:alice@h": "sip:alice@h",
    "sip:ext12@h:5070;transport=tcp": "sip:ext12@h:5070;transport=tcp",
    "sip:+4420@h;lr": "sip:h;lr",
    "sips:100@h": "sips:h",
    "sip:a@h?Subject=Bob": "sip:a@h",
    "sip:a@h;x-number=02079460018;ob": "sip:a@h;ob",
    "tel:+442079460018": "sip:anonymous.invalid",
    "urn:service:sos": "sip:anonymous.invalid",
}


@pytest.mark.parametrize("uri", URIS)
def test_what_is_left_of_a_uri(uri: str) -> None:
    """Host, port and parameters stay; what could be a number goes."""
    assert impersonal(uri) == URIS[uri]


def test_a_dialog_is_restored_once() -> None:
    """Two snapshots of one dialog are damage, not two calls."""
    under, src = Survivor(), Src()
    restarted(src, under)
    (text,) = under.journal.values()
    with pytest.raises(MalformedInput):
        under.server.restore(snapshot.from_json(canonical.decode(text)), under.now)
    assert under.server.sessions == 1


@given(data=st.data())
@settings(max_examples=200)
def test_a_damaged_snapshot_is_refused_or_usable(data: st.DataObject) -> None:
    """A snapshot whose bytes were changed raises MalformedInput and nothing else, or makes a session."""
    under = Survivor()
    under.call(Src())
    value: Any = json.loads(next(iter(under.journal.values())))
    place = value[data.draw(st.sampled_from(["dialog", "media"]))]
    name = data.draw(st.sampled_from(sorted(place)))
    place[name] = data.draw(
        st.one_of(st.none(), st.integers(-9, 2**60), st.text(max_size=9), st.lists(st.integers(0, 9)), st.booleans())
    )
    server = under.fresh()
    try:
        server.restore(snapshot.from_json(value), under.now)
    except MalformedInput:
        return
    server.end_all("shutdown", under.now)


def test_metadata_is_not_asked_for_twice() -> None:
    """That metadata once came is remembered: a restart does not make a call one without metadata."""
    under, src = Survivor(), Src()
    restarted(src, under, metadata=METADATA)
    assert under.updated[-1].facts["flags"] == []
    bare = Survivor()
    restarted(Src(), bare, metadata=None)
    assert bare.updated[-1].facts["flags"] == ["no-metadata"]


SECURED = TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP", 1).replace(
    "a=label:1", "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:LUV0oNDOSB9F0gw60mV/9/ySYI27BYvNw6eII5Ed\na=label:1"
)


def test_keys_are_not_kept() -> None:
    """No key of the peer's or of ours, nor any part of one, reaches the journal."""
    under, src = Survivor(), Src()
    answer = under.call(src, sdp=SECURED)
    assert b"inline:AQEBAQ" in answer.body
    (text,) = under.journal.values()
    assert b"AES_CM_128_HMAC_SHA1_80" in text, "which suite was agreed is no secret"
    for secret in (b"LUV0", b"AQEB", b"oNDOSB9F", base64.b64decode("LUV0oNDO")):
        assert secret not in text


@pytest.mark.parametrize("offering", ["INVITE", "UPDATE"])
def test_streams_of_srtp_wait_for_the_next_offer(offering: str) -> None:
    """What came under keys that a restart forgot cannot be opened: inactive and flagged until an offer names keys."""
    under, src = Survivor(), Src()
    first = restarted(src, under, sdp=SECURED)
    restored = under.updated[-1]
    assert [(stream.active, stream.crypto) for stream in restored.streams] == [(False, None), (True, None)]
    assert restored.facts["flags"] == [FLAG_SRTP_KEYS_VISIBLE, FLAG_SRTP_KEYS_LOST]
    answer = only(under.receive(src.request(offering, SDP, body=crlf(SECURED))))
    streams = under.updated[-1].streams
    assert [stream.active for stream in streams] == [True, True]
    assert streams[0].crypto is not None
    before, after = sdp.parse(first.body), sdp.parse(answer.body)
    assert (before.origin.version, after.origin.version) == ("1", "2"), "our key is another"
    assert before.media[0].crypto != after.media[0].crypto
    assert [media.port for media in after.media] == [media.port for media in before.media]


def question(under: Survivor) -> Request:
    """The UPDATE by which a restarted server asks for keys."""
    (asked,) = under.advance(0)
    assert isinstance(asked, Request)
    assert asked.method == "UPDATE"
    return asked


def answered(asked: Request, code: int, text: str = "") -> bytes:
    kept = [(name, value) for name, value in asked.headers if name in {"Via", "From", "To", "Call-ID", "CSeq"}]
    return bytes(message.response(code, "x", [*kept, *([SDP] if text else [])], crlf(text)))


def test_the_peer_is_asked_for_its_keys() -> None:
    """REQ: RFC 3311 section 5.1: an UPDATE offers the streams as they are, its answer names the keys."""
    under, src = Survivor(), Src()
    first = restarted(src, under, sdp=SECURED)
    asked = question(under)
    ours, before = sdp.parse(asked.body), sdp.parse(first.body)
    assert asked.header("content-type") == "application/sdp"
    assert [(media.protocol, media.port, media.label) for media in ours.media] == [
        (media.protocol, media.port, media.label) for media in before.media
    ]
    assert [len(media.crypto) for media in ours.media] == [1, 0]
    assert (before.origin.version, ours.origin.version) == ("1", "2")
    assert under.receive(answered(asked, 200, SECURED)) == []
    streams = under.updated[-1].streams
    assert [stream.active for stream in streams] == [True, True]
    assert streams[0].crypto is not None
    assert base64.b64encode(streams[0].crypto.keys[0].key).startswith(b"LUV0")
    assert all(b"LUV0" not in event.raw and b"AgIC" not in event.raw for event in under.recorded)
    assert FLAG_SRTP_KEYS_LOST in under.updated[-1].facts["flags"], "what came meanwhile is lost"
    assert under.advance(100) == []


@pytest.mark.parametrize("refused", [False, True])
def test_an_offer_without_keys_answers_no_question(*, refused: bool) -> None:
    """A refresh without keys, or an offer that is refused, comes meanwhile: the peer's answer still counts."""
    under, src = Survivor(), Src()
    restarted(src, under, sdp=SECURED)
    asked = question(under)
    meanwhile = TWO_STREAMS.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF" if refused else "RTP/SAVP", 1)
    if refused:
        meanwhile = meanwhile.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF")
    answer = only(under.receive(src.request("UPDATE", SDP, body=crlf(meanwhile))))
    assert isinstance(answer, Response)
    assert answer.status == (488 if refused else 200)
    assert under.updated[-1].streams[0].crypto is None
    under.receive(answered(asked, 200, SECURED))
    assert [stream.active for stream in under.updated[-1].streams] == [True, True]


def test_keys_are_not_asked_for_while_an_offer_of_ours_is_open() -> None:
    """REQ: RFC 3311 section 5.1: no offer crosses one of ours; the ACK of our 200 names the keys."""
    under, src = Survivor(), Src()
    under.call(src, sdp=SECURED)
    under.receive(src.request("INVITE"))
    ack = src.request("ACK", SDP, body=crlf(SECURED))
    under.restart()
    assert under.advance(0) == []
    under.receive(ack)
    streams = under.updated[-1].streams
    assert [stream.active for stream in streams] == [True, True]
    assert streams[0].crypto is not None
    assert streams[0].crypto.keys != ()


@pytest.mark.parametrize("code", [405, 488, 501, None])
def test_a_peer_that_does_not_answer_the_question_has_lost_nothing(code: int | None) -> None:
    """Refused or not heard, it is not asked again; the session lives, and the streams wait for an offer."""
    under, src = Survivor(), Src()
    restarted(src, under, sdp=SECURED)
    asked = question(under)
    if code is not None:
        under.receive(answered(asked, code))
    later = under.advance(QUIET_SECONDS - 100)
    assert {item.method for item in later if isinstance(item, Request)} <= {"UPDATE"}
    assert (len(later) > 0) == (code is None), "repeated as any request, and no other one"
    assert under.ended == []
    under.receive(src.request("INVITE", SDP, body=crlf(SECURED)))
    assert [stream.active for stream in under.updated[-1].streams] == [True, True]


def test_an_answer_without_keys_changes_nothing() -> None:
    """A 200 without a description, or with one that cannot be read, leaves the streams waiting."""
    for text in ("", "v=1"):
        under, src = Survivor(), Src(call_id=f"call {len(text)}")
        restarted(src, under, sdp=SECURED)
        under.receive(answered(question(under), 200, text))
        assert [stream.active for stream in under.updated[-1].streams] == [False, True]


def test_a_dialog_that_the_peer_does_not_know_ends() -> None:
    """REQ: RFC 3261 section 12.2.1.2: 481 to our question ends the session, as it does to a probe."""
    under, src = Survivor(), Src()
    restarted(src, under, sdp=SECURED)
    under.receive(answered(question(under), 481))
    assert [event.reason for event in under.ended] == ["error"]


def test_a_peer_with_an_offer_of_its_own_is_asked_again() -> None:
    """REQ: RFC 3261 section 14.1: 491 is glare: asked again within 2 s, three times at most."""
    under, src = Survivor(), Src()
    restarted(src, under, sdp=SECURED)
    under.receive(answered(question(under), 491))
    for _ in range(2):
        (asked,) = under.advance(1.6)
        assert isinstance(asked, Request)
        under.receive(answered(asked, 491))
    assert under.advance(100) == []


def test_an_offer_of_the_peers_answers_the_question() -> None:
    """It is taken, not refused by 491; what the UPDATE is answered afterwards does not matter any more."""
    under, src = Survivor(), Src()
    restarted(src, under, sdp=SECURED)
    asked = question(under)
    newer = SECURED.replace("inline:LUV0", "inline:LUVa")
    assert status(under.receive(src.request("UPDATE", SDP, body=crlf(newer)))) == 200
    under.receive(answered(asked, 200, SECURED))
    crypto = under.updated[-1].streams[0].crypto
    assert crypto is not None
    assert base64.b64encode(crypto.keys[0].key).startswith(b"LUVa")


def test_who_takes_no_update_is_not_asked() -> None:
    """An Allow header without UPDATE is kept over the restart; nor is asked who has no SRTP."""
    under, src = Survivor(), Src()
    invite = src.invite(("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS"), sdp=SECURED)
    src.to_tag = tag_of(only(under.receive(invite)))
    under.receive(src.request("ACK"))
    restarted(Src(call_id="plain"), under)
    assert under.advance(100) == []


def test_asked_for_an_offer_after_a_restart_we_offer_srtp() -> None:
    """A re-INVITE without an offer: ours names the agreed suite, and the answer in the ACK brings the peer's key."""
    under, src = Survivor(), Src()
    restarted(src, under, sdp=SECURED)
    ours = sdp.parse(only(under.receive(src.request("INVITE"))).body)
    assert [(media.protocol, len(media.crypto)) for media in ours.media] == [("RTP/SAVP", 1), ("RTP/AVP", 0)]
    assert ours.media[0].crypto[0].startswith("7 AES_CM_128_HMAC_SHA1_80 inline:")
    under.receive(src.request("ACK", SDP, body=crlf(SECURED)))
    assert [stream.active for stream in under.updated[-1].streams] == [True, True]


def test_a_pause_of_the_src_outlives_a_restart() -> None:
    """What AudioCodes paused by INFO stays paused until it says otherwise."""
    under, src = Survivor(), Src()
    under.call(src)
    under.receive(src.request("INFO", ("X-AC-Action", "pause-siprec")))
    under.restart()
    assert [stream.active for stream in under.updated[-1].streams] == [False, False]
    under.receive(src.request("INFO", ("X-AC-Action", "resume-siprec")))
    assert [stream.active for stream in under.updated[-1].streams] == [True, True]


def test_the_longest_duration_counts_from_the_first_answer() -> None:
    """A restart does not lengthen it."""
    under, src = Survivor(), Src()
    under.call(src)
    began = under.now
    under.now += 1_000
    under.restart()
    while not under.ended and (at := under.server.timer()) is not None:
        for asked in under.advance(at - under.now):
            if isinstance(asked, Request) and asked.method == "OPTIONS":
                under.receive(ok(under, code=200))
    assert under.ended[0].at == pytest.approx(began + LONGEST_SESSION_SECONDS)
