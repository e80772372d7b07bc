"""INTEROP, "Recognising a recording session": by any mark, and an answer to everything."""

import pytest

from sbc_agent.protocol.media_session import FLAG_NO_METADATA
from sbc_agent.protocol.message import Response
from sbc_agent.protocol.uas import ServerSettings
from tests.agent.protocol.builders import (
    MEDIA_ADDRESS,
    METADATA,
    TWO_STREAMS,
    UDP,
    Src,
    Under,
    crlf,
    only,
    sample,
    status,
)
from tests.agent.protocol.interop.lines import note, shows
from tests.agent.protocol.interop.vendors import (
    AUDIOCODES,
    AUDIOCODES_MANUAL,
    AUDIOCODES_NO_REQUIRE,
    AVAYA_SDP,
    BROADWORKS,
    BROADWORKS_METADATA,
    CUBE,
    OPENSIPS,
    ORACLE,
    ORACLE_METADATA,
    TWILIO,
    opened,
    siprec,
    text_of,
    whole,
)

NO_MARK = ("require", "contact")
RECORDED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "BroadWorks: src in Contact, no Require": (
        whole(BROADWORKS, body=crlf(TWO_STREAMS), drop=("content-type",), add=("Content-Type: application/sdp",)),
        ("R1a", "R1b"),
    ),
    "BroadWorks: metadata is mark enough": (
        siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA), drop=NO_MARK),
        ("R1a",),
    ),
    "AudioCodes 7.40A.251: +sip.src, no Require": (
        siprec(AUDIOCODES_NO_REQUIRE, TWO_STREAMS, text_of(ORACLE_METADATA)),
        ("R1a", "R1b"),
    ),
    "AudioCodes 7.20A: src, Require, no metadata": (whole(AUDIOCODES_MANUAL), ("R1a", "R1b")),
    "AudioCodes 7.40A.500": (whole(AUDIOCODES), ("R1a",)),
    "OpenSIPS": (whole(OPENSIPS), ("R1a",)),
    "Oracle: Require alone": (siprec(ORACLE, TWO_STREAMS, text_of(ORACLE_METADATA), drop=("contact",)), ("R1a",)),
    "Avaya: the mark inside the URI": (
        whole(
            BROADWORKS,
            body=crlf(text_of(AVAYA_SDP)),
            drop=("contact", "content-type"),
            add=("Contact: <sip:sbce@198.51.100.9:5060;transport=udp;+sip.src>", "Content-Type: application/sdp"),
        ),
        ("R1b",),
    ),
    "Cisco BiB: isFocus": (
        whole(
            BROADWORKS,
            body=b"",
            drop=("contact", "content-type"),
            add=("Contact: <sip:1000@198.51.100.9:5060>;isFocus",),
        ),
        ("R1b", "R3b"),
    ),
    "Cisco CUBE: 100rel": (
        whole(CUBE, body=crlf(TWO_STREAMS), add=("Contact: <sip:198.51.100.2:5060>", "Content-Type: application/sdp")),
        ("R2",),
    ),
    "Cisco NBR: its header alone": (
        whole(
            CUBE,
            body=crlf(TWO_STREAMS),
            drop=("require",),
            add=(
                "Contact: <sip:198.51.100.2:5060>",
                'X-Cisco-Recording-Participant: sip:1000@198.51.100.2;media-index="0"',
                "Content-Type: application/sdp",
            ),
        ),
        ("R3a",),
    ),
}
for _name, (_, _lines) in RECORDED.items():
    note(_lines, _name)


@pytest.mark.parametrize("name", RECORDED)
def test_any_mark_makes_a_recording_session(name: str) -> None:
    """Each vendor's INVITE gets its 200 at once, as the only answer, never 420."""
    found = opened(RECORDED[name][0])
    assert found.answer.header("require") is None
    assert found.answer.header("content-type") == "application/sdp"
    assert all(media.port for media in found.description.media)
    assert status(found.under.receive(found.src.request("BYE"))) == 200
    assert [event.reason for event in found.under.ended] == ["bye"]


@shows("R1a")
def test_a_configured_peer_needs_no_mark() -> None:
    """Twilio's INVITE without any mark is a call like any other unless it comes from a configured peer."""
    data = whole(TWILIO, body=crlf(TWO_STREAMS), add=("Contact: <sip:198.51.100.60>", "Content-Type: application/sdp"))
    assert status(Under().receive(data)) == 488
    configured = Under(settings=ServerSettings(MEDIA_ADDRESS, peers=frozenset({UDP.remote[0]})))
    assert opened(data, configured).answer.all("record-route") == ["<sip:203.0.113.60;lr>"]


@shows("R2")
def test_cube_gets_200_and_needs_no_prack() -> None:
    """100rel is answered by what makes it needless, 200 at once; a PRACK all the same means nothing we sent: 481."""
    data = siprec(ORACLE, TWO_STREAMS, text_of(ORACLE_METADATA), drop=("require",), add=("Require: 100rel,siprec",))
    found = opened(data)
    assert found.answer.header("rseq") is None
    assert status(found.under.receive(found.src.request("PRACK", ("RAck", "1 100021 INVITE")))) == 481
    assert found.under.server.sessions == 1


@shows("R3a")
def test_cisco_nbr_is_known_by_its_header() -> None:
    """No metadata ever comes: the session is flagged, and found by the header that names the recorded party."""
    found = opened(RECORDED["Cisco NBR: its header alone"][0])
    assert found.facts("flags") == [FLAG_NO_METADATA]
    extensions = found.facts("extensions")
    assert extensions == {
        "Cisco-Guid": "0427911521-3331789291-3179475176-3642700001",
        "X-Cisco-Recording-Participant": 'sip:1000@198.51.100.2;media-index="0"',
    }


NBR = {
    "one m-line each": (('sip:1000@a;media-index="0"', 'sip:2000@b;media-index="1"'), ["sip:1000@a", "sip:2000@b"]),
    "on one line": (('sip:1000@a;media-index="1", <sip:2000@b>;media-index="0"',), ["sip:2000@b", "sip:1000@a"]),
    "audio and video": (('sip:1000@a;media-index="0 2"', 'sip:2000@b;media-index="1 3"'), ["sip:1000@a", "sip:2000@b"]),
    "two claim one": (('sip:1000@a;media-index="0 1"', 'sip:2000@b;media-index="1"'), ["sip:1000@a", None]),
    "no index": (("sip:1000@a", "sip:2000@b"), [None, None]),
    "an index that is none": (('sip:1000@a;media-index="x 999 -1"', "not an address"), [None, None]),
}


@shows("R3a", "D12")
@pytest.mark.parametrize("name", NBR)
def test_cisco_nbr_says_who_speaks(name: str) -> None:
    """Each party's header names its m-lines; a stream that two claim, or nobody, is nobody's. Metadata would win."""
    values, expected = NBR[name]
    data = whole(
        CUBE,
        body=crlf(TWO_STREAMS.replace("a=label:1\n", "").replace("a=label:2\n", "")),
        add=(
            *(f"X-Cisco-Recording-Participant: {value}" for value in values),
            "Contact: <sip:198.51.100.2:5060>",
            "Content-Type: application/sdp",
        ),
    )
    found = opened(data)
    facts = found.under.updated[-1].facts
    people = {person["participant_id"]: person["aor"] for person in facts["participants"]}
    assert [people.get(stream["participant_id"]) for stream in facts["streams"]] == expected
    assert [stream["label"] for stream in facts["streams"]] == [
        stream.label for stream in found.under.updated[-1].streams
    ]
    kind = ("Content-Type", "application/rs-metadata+xml")
    only(found.under.receive(found.src.request("UPDATE", kind, body=crlf(METADATA))))
    assert [person["participant_id"] for person in found.under.updated[-1].facts["participants"]] == ["A", "B"]


BIB_FROM = (
    "<sip:1000@198.51.100.9;x-{end}end;x-refci=27298698;x-nearendclusterid=cluster1;x-nearenddevice=SEP001;"
    "x-nearendaddr=1000;x-farendrefci=27298699;x-farenddevice=SEP002;x-farendaddr=2000>;tag={end}"
)


@shows("R3b", "S6b")
@pytest.mark.parametrize("end", ["near", "far"])
def test_cisco_bib_gets_our_offer(end: str) -> None:
    """Each end comes in a dialog of its own without an offer: our 200 offers, the ACK answers, and we know the end."""
    data = whole(
        BROADWORKS,
        body=b"",
        drop=("from", "contact", "content-type", "call-id"),
        add=(
            f"From: {BIB_FROM.format(end=end)}",
            "Contact: <sip:1000@198.51.100.9:5060>;isFocus",
            f"Call-ID: {end}-end@198.51.100.9",
        ),
    )
    found = opened(data, acknowledge=False)
    assert found.answer.body.split(b"\r\n")[2:] == [
        b"s=-",
        b"c=IN IP4 192.0.2.9",
        b"t=0 0",
        b"m=audio 20000 RTP/AVP 8 0 9 18 111 13 101",
        b"a=rtpmap:8 PCMA/8000",
        b"a=rtpmap:0 PCMU/8000",
        b"a=rtpmap:9 G722/8000",
        b"a=rtpmap:18 G729/8000",
        b"a=rtpmap:111 OPUS/48000/2",
        b"a=rtpmap:13 CN/8000",
        b"a=rtpmap:101 telephone-event/8000",
        b"a=fmtp:101 0-15",
        b"a=recvonly",
        b"",
    ]
    answer = crlf(
        "v=0\no=CCM 1 1 IN IP4 198.51.100.9\ns=SIP Call\nc=IN IP4 198.51.100.20\nt=0 0\n"
        "m=audio 24580 RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=sendonly\n"
    )
    found.under.receive(found.src.request("ACK", ("Content-Type", "application/sdp"), body=answer))
    (stream,) = found.under.updated[-1].streams
    assert stream.active
    assert [codec.name for codec in stream.codecs] == ["PCMU"]
    assert found.facts("end") == end
    extensions = found.facts("extensions")
    assert isinstance(extensions, dict)
    assert (extensions["x-refci"], extensions["x-farendrefci"]) == ("27298698", "27298699")


@shows("R3b")
@pytest.mark.parametrize(
    "sender", ["<foo:1000@cucm;x-nearend;x-refci=1>;tag=a", "<tel:1000;x-nothing>;tag=a", "<sip:1000@cucm>;tag=a"]
)
def test_a_from_that_says_nothing_of_an_end(sender: str) -> None:
    """Another scheme, or none of Cisco's marks: the session is recorded, and has no end of a call."""
    data = siprec(ORACLE, TWO_STREAMS, METADATA, drop=("from",), add=(f"From: {sender}",))
    assert opened(data).facts("end") == ""


@shows("R4a")
def test_options_keeps_us_in_service() -> None:
    """Asked outside a dialog and inside one, as every SBC does by the minute."""
    under = Under()
    answer = only(under.receive(Src(call_id="ping").request("OPTIONS")))
    assert isinstance(answer, Response)
    assert (answer.status, answer.header("allow")) == (200, "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO")
    assert answer.header("supported") == "siprec, timer, replaces"
    found = opened(whole(OPENSIPS), under)
    assert status(under.receive(found.src.request("OPTIONS"))) == 200


@shows("R4b")
@pytest.mark.parametrize("method", ["INVITE", "BYE", "UPDATE", "INFO", "OPTIONS"])
def test_an_unknown_dialog_is_answered(method: str) -> None:
    """481, so that the SBC clears what only it remembers."""
    assert status(Under().receive(Src(to_tag="nobody").request(method))) == 481


@shows("R4c", "X9")
@pytest.mark.parametrize("refused_by", ["recorder", "admission", "draining"])
def test_overload_is_answered_at_once(refused_by: str) -> None:
    """503 without Retry-After moves the call to the next recorder; the next call, with a new Call-ID, may come here."""
    under = Under(ports=refused_by != "recorder")
    if refused_by == "admission":
        under.server.admission = lambda _now: "busy"
    under.server.draining = refused_by == "draining"
    data = whole(OPENSIPS)
    answers = under.receive(data)
    if refused_by == "recorder":
        answers = under.refuse(503)
    answer = only(answers)
    assert isinstance(answer, Response)
    assert (answer.status, answer.header("retry-after")) == (503, None)
    assert under.now == 1000.0
    under.server.admission, under.server.draining, under.accepts = (lambda _now: None), False, True
    assert opened(data.replace(b"B2B.160", b"B2B.161").replace(b"a37c0001", b"a37c0002"), under)


@shows("R4b", "C3b")
def test_what_is_broken_is_answered_too() -> None:
    """Even a request that cannot be read gets its answer, and one of a method that nobody does."""
    garbled = sample(OPENSIPS).replace(b"CSeq: 2 INVITE", b"CSeq: two INVITE")
    assert status(Under().receive(garbled)) == 400
    assert status(Under().receive(Src().request("PUBLISH"))) == 405
