"""INTEROP, "SDP": strict in what we answer, byte for byte."""

import pytest

from sbc_agent.protocol import sdp
from sbc_agent.protocol.answer import FLAG_CODEC_RAW, FLAG_VIDEO_REFUSED
from sbc_agent.protocol.media_session import FLAG_ANSWER_MISSING, FLAG_PAUSED_BY_SRC
from sbc_agent.protocol.message import Response
from sbc_agent.protocol.sdp import Direction
from sbc_agent.protocol.server_session import FLAG_OFFER_REFUSED
from tests.agent.protocol.builders import TWO_STREAMS, Src, Under, capture, crlf, only, status, tag_of
from tests.agent.protocol.interop.lines import note, shows
from tests.agent.protocol.interop.vendors import (
    AUDIOCODES,
    AUDIOCODES_HELD,
    AUDIOCODES_MANUAL,
    AVAYA_SDP,
    CUBE,
    CUBE_BODY,
    METASWITCH_SDP,
    OPENSIPS,
    Opened,
    capture_requests,
    description_of,
    lines_of,
    opened,
    text_of,
    whole,
)

SDP = ("Content-Type", "application/sdp")


def offered(text: str) -> bytes:
    """An INVITE that offers this description."""
    return whole(
        CUBE, body=crlf(text), add=("Contact: <sip:198.51.100.2:5060>;+sip.src", "Content-Type: application/sdp")
    )


def re_offered(found: Opened, text: str, method: str = "INVITE") -> Response:
    """The answer to another offer in the dialog."""
    answer = only(found.under.receive(found.src.request(method, SDP, body=crlf(text))))
    assert isinstance(answer, Response)
    if method == "INVITE":
        found.under.receive(found.src.request("ACK"))
    return answer


def below_origin(answer: Response) -> list[str]:
    """The answer without `v=`, `o=`, `s=`, `c=` and `t=`, which are checked: they are the same in all."""
    lines = answer.body.decode().split("\r\n")
    assert lines[-1] == "", "the last line has its end too"
    assert lines[0] == "v=0"
    assert lines[1].startswith("o=dualtone ")
    assert lines[1].endswith(" IN IP4 192.0.2.9")
    assert lines[2:5] == ["s=-", "c=IN IP4 192.0.2.9", "t=0 0"]
    return lines[5:-1]


def version(answer: Response) -> int:
    return int(sdp.parse(answer.body).origin.version)


CUBE_SDP = "\n".join(lines_of(CUBE_BODY)[5:26])
CONFERENCE = "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\n" + "".join(
    f"m={kind} {6000 + 2 * index} RTP/AVP {formats}\nc=IN IP4 198.51.100.{index}\n{line}a=sendonly\na=label:{index}\n"
    for index, (kind, formats, line) in enumerate(
        [
            ("audio", "0", ""),
            ("video", "96", "a=rtpmap:96 H264/90000\n"),
            ("audio", "8", ""),
            ("audio", "18", ""),
            ("message", "*", ""),
            ("audio", "9", ""),
        ]
    )
)

ANSWERS: dict[str, tuple[bytes, list[str], tuple[str, ...]]] = {
    "AudioCodes: events under 96, labels after the codecs": (
        whole(AUDIOCODES_MANUAL),
        [
            "m=audio 20000 RTP/AVP 8 96",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:96 telephone-event/8000",
            "a=fmtp:96 0-15",
            "a=recvonly",
            "a=label:1",
            "m=audio 20002 RTP/AVP 8 96",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:96 telephone-event/8000",
            "a=fmtp:96 0-15",
            "a=recvonly",
            "a=label:2",
        ],
        ("S1a", "S1b", "S2", "S3", "S8"),
    ),
    "AudioCodes: G.711 before Opus under 111": (
        whole(AUDIOCODES),
        [
            "m=audio 20000 RTP/AVP 0 8 126",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:126 telephone-event/8000",
            "a=fmtp:126 0-15",
            "a=recvonly",
            "a=label:1",
            "m=audio 20002 RTP/AVP 0 8 126",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:126 telephone-event/8000",
            "a=fmtp:126 0-15",
            "a=recvonly",
            "a=label:2",
        ],
        ("S7", "S8"),
    ),
    "OpenSIPS: no session-level c=, label 0, RTCP on an explicit port": (
        whole(OPENSIPS),
        [
            "m=audio 20000 RTP/AVP 8 108",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:108 telephone-event/8000",
            "a=fmtp:108 0-15",
            "a=recvonly",
            "a=label:0",
            "m=audio 20002 RTP/AVP 8 108",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:108 telephone-event/8000",
            "a=fmtp:108 0-15",
            "a=recvonly",
            "a=label:1",
        ],
        ("S1a", "S7"),
    ),
    "CUBE: comfort noise under 19": (
        offered(CUBE_SDP),
        [
            "m=audio 20000 RTP/AVP 0 19",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:19 CN/8000",
            "a=recvonly",
            "a=label:1",
            "m=audio 20002 RTP/AVP 0 19",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:19 CN/8000",
            "a=recvonly",
            "a=label:2",
        ],
        ("S7", "S8"),
    ),
    "Metaswitch: one mixed m-line, type 2 first, no rtpmap, no direction": (
        offered(text_of(METASWITCH_SDP)),
        [
            "m=audio 20000 RTP/AVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-15",
            "a=recvonly",
            "a=label:1",
        ],
        ("S3", "S5", "S7", "C1e"),
    ),
    "Avaya: labels 10 and 20": (
        offered(text_of(AVAYA_SDP)),
        [
            "m=audio 20000 RTP/AVP 8 103",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:103 telephone-event/8000",
            "a=fmtp:103 0-15",
            "a=recvonly",
            "a=label:10",
            "m=audio 20002 RTP/AVP 8 103",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:103 telephone-event/8000",
            "a=fmtp:103 0-15",
            "a=recvonly",
            "a=label:20",
        ],
        ("S1a",),
    ),
    "a conference: four voices, a video and a text in their places": (
        offered(CONFERENCE),
        [
            "m=audio 20000 RTP/AVP 0",
            "a=rtpmap:0 PCMU/8000",
            "a=recvonly",
            "a=label:0",
            "m=video 0 RTP/AVP 96",
            "a=label:1",
            "m=audio 20002 RTP/AVP 8",
            "a=rtpmap:8 PCMA/8000",
            "a=recvonly",
            "a=label:2",
            "m=audio 20004 RTP/AVP 18",
            "a=rtpmap:18 G729/8000",
            "a=recvonly",
            "a=label:3",
            "m=message 0 RTP/AVP *",
            "a=label:4",
            "m=audio 20006 RTP/AVP 9",
            "a=rtpmap:9 G722/8000",
            "a=recvonly",
            "a=label:5",
        ],
        ("S1b", "S5", "S7"),
    ),
    "ICE, a=direction:both, rtcp-mux, unknown lines": (
        offered(
            "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\na=ice-lite\na=group:BUNDLE 0\n"
            "m=audio 6000 RTP/AVP 8 18 0\nc=IN IP4 198.51.100.1\nb=AS:64\na=direction:both\na=ice-ufrag:F7gI\n"
            "a=ice-pwd:x9cml/YzichV2+XlhiMu8g\na=candidate:1 1 UDP 2130706431 198.51.100.1 6000 typ host\n"
            "a=rtcp-mux\na=rtcp:6000\na=ssrc:314159 cname:x\na=X-nobody knows\na=label:1\n"
        ),
        ["m=audio 20000 RTP/AVP 8 0", "a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000", "a=recvonly", "a=label:1"],
        ("S7",),
    ),
    "Opus under 111, alone": (
        offered(
            "v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\nm=audio 6000 RTP/AVP 111\n"
            "a=rtpmap:111 opus/48000/2\na=fmtp:111 useinbandfec=1\na=label:1\n"
        ),
        ["m=audio 20000 RTP/AVP 111", "a=rtpmap:111 OPUS/48000/2", "a=recvonly", "a=label:1"],
        ("S7", "S8"),
    ),
    "events not offered are not answered": (
        offered("v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\nm=audio 6000 RTP/AVP 18\n"),
        ["m=audio 20000 RTP/AVP 18", "a=rtpmap:18 G729/8000", "a=recvonly"],
        ("S7", "S8"),
    ),
}
for _name, _case in ANSWERS.items():
    note(_case[2], _name)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer(name: str) -> None:
    """Every vendor's offer gets exactly this answer: plain SDP, each m-line in its place with its label."""
    data, expected, _ = ANSWERS[name]
    found = opened(data)
    assert below_origin(found.answer) == expected
    assert found.answer.header("content-type") == "application/sdp"
    assert found.answer.header("content-length") == str(len(found.answer.body))
    assert version(found.answer) == 1


@shows("S2", "S1b", "C2a")
def test_a_whole_200() -> None:
    """The answer to AudioCodes' INVITE, every octet of it."""
    found = opened(whole(AUDIOCODES))
    assert (
        bytes(found.answer)
        == crlf(
            "SIP/2.0 200 OK\n"
            "Via: SIP/2.0/UDP 198.51.100.242:5070;branch=z9hG4bKac1557000001;received=198.51.100.7\n"
            "From: <sip:198.51.100.45;user=phone>;tag=1c1627000001\n"
            f"To: <sip:192.0.2.32;user=phone>;tag={found.src.to_tag}\n"
            "Call-ID: 19209638320000000000001@198.51.100.242\n"
            "CSeq: 1 INVITE\n"
            "Contact: <sip:recorder@192.0.2.1:5060>;+sip.srs\n"
            "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO\n"
            "Supported: siprec, timer, replaces\n"
            "Content-Type: application/sdp\n"
            "Server: Dualtone\n"
            f"Content-Length: {len(found.answer.body)}\n"
            "\n"
        )
        + found.answer.body
    )


@shows("S8")
def test_a_codec_that_we_cannot_decode() -> None:
    """Alone on its m-line it is taken all the same, kept raw and flagged."""
    found = opened(
        offered(
            "v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\n"
            "m=audio 6000 RTP/AVP 97 98\na=rtpmap:97 AMR-WB/16000\na=rtpmap:98 EVS/16000\na=label:1\n"
        )
    )
    assert below_origin(found.answer) == [
        "m=audio 20000 RTP/AVP 97",
        "a=rtpmap:97 AMR-WB/16000",
        "a=recvonly",
        "a=label:1",
    ]
    flags = found.facts("flags")
    assert isinstance(flags, list)
    assert FLAG_CODEC_RAW in flags
    (stream,) = found.under.updated[-1].streams
    assert [codec.name for codec in stream.codecs] == ["AMR-WB", "EVS"], "the record knows both"


@shows("S5")
def test_video_alone_is_refused() -> None:
    """Where nothing of an offer is audio the answer is 488, and the shell hears why."""
    data = offered("v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\nm=video 6000 RTP/AVP 96\n")
    under = Under()
    assert status(under.receive(data)) == 488
    assert under.server.sessions == 0
    conference = opened(offered(CONFERENCE))
    flags = conference.facts("flags")
    assert isinstance(flags, list)
    assert FLAG_VIDEO_REFUSED in flags


DIRECTIONS = {
    "a=sendonly\n": ("recvonly", True),
    "a=sendrecv\n": ("recvonly", True),
    "": ("recvonly", True),
    "a=inactive\n": ("inactive", False),
    "a=recvonly\n": ("inactive", False),
}


@shows("S3", "S4")
@pytest.mark.parametrize("line", DIRECTIONS)
def test_directions(line: str) -> None:
    """We only listen: what may come is recvonly; who sends nothing is inactive."""
    direction, active = DIRECTIONS[line]
    found = opened(offered(TWO_STREAMS.replace("a=sendonly\n", line)))
    assert [media.direction.value for media in found.description.media] == [direction] * 2
    assert found.active == [active, active]


HELD = {
    "a=inactive": TWO_STREAMS.replace("a=sendonly", "a=inactive"),
    "c=0.0.0.0": TWO_STREAMS.replace("c=IN IP4 198.51.100.7", "c=IN IP4 0.0.0.0"),
    "c=0.0.0.0 with a new port": TWO_STREAMS.replace("c=IN IP4 198.51.100.7", "c=IN IP4 0.0.0.0").replace(
        "m=audio 600", "m=audio 700"
    ),
    "c=0.0.0.0 in the m-line alone": TWO_STREAMS.replace("a=label", "c=IN IP4 0.0.0.0\na=label"),
    "c=:: as c=0.0.0.0 of IPv6": TWO_STREAMS.replace("c=IN IP4 198.51.100.7", "c=IN IP6 ::"),
    "a=inactive for the session": TWO_STREAMS.replace("a=sendonly\n", "").replace("t=0 0\n", "t=0 0\na=inactive\n"),
}


@shows("S4", "S6a")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("name", HELD)
def test_hold_and_resume(name: str, method: str) -> None:
    """However a hold is spelled, what comes is not kept until the next offer says otherwise; our ports stay."""
    found = opened(offered(TWO_STREAMS))
    held = re_offered(found, HELD[name], method)
    assert held.status == 200
    assert [media.port for media in sdp.parse(held.body).media] == [20000, 20002]
    assert found.active == [False, False]
    resumed = re_offered(found, TWO_STREAMS, method)
    assert below_origin(resumed) == below_origin(found.answer)
    assert found.active == [True, True]


@shows("S4", "X4a")
def test_audiocodes_holds_by_re_invite() -> None:
    """Both m-lines inactive, as AudioCodes sends them when a recording is paused at the SBC."""
    found = opened(whole(AUDIOCODES))
    held = re_offered(found, description_of(whole(AUDIOCODES_HELD)))
    assert [media.direction for media in sdp.parse(held.body).media] == [Direction.INACTIVE] * 2
    assert found.active == [False, False]
    assert version(held) == 2


@shows("S4")
@pytest.mark.parametrize("ending", ["resume-siprec", "start-siprec"])
def test_audiocodes_pauses_by_info(ending: str) -> None:
    """`X-AC-Action` in an INFO is a hold without an offer: 200, streams inactive, until it says go on."""
    found = opened(whole(AUDIOCODES))
    pause = found.src.request("INFO", ("X-AC-Action", 'pause-siprec;recording-ip-group="SRS"'))
    assert status(found.under.receive(pause)) == 200
    assert found.active == [False, False]
    flags = found.facts("flags")
    assert isinstance(flags, list)
    assert FLAG_PAUSED_BY_SRC in flags
    assert re_offered(found, description_of(whole(AUDIOCODES))).status == 200
    assert found.active == [False, False], "an offer between does not end it"
    assert status(found.under.receive(found.src.request("INFO", ("X-AC-Action", ending)))) == 200
    assert found.active == [True, True]


@shows("S4")
def test_a_word_that_is_none_changes_nothing() -> None:
    """Another action, or the header in another request than INFO, is no pause."""
    found = opened(whole(AUDIOCODES))
    for method, action in (("INFO", "mute-siprec"), ("INFO", ""), ("UPDATE", "pause-siprec")):
        assert status(found.under.receive(found.src.request(method, ("X-AC-Action", action)))) == 200
        assert found.active == [True, True]


@shows("S6a", "X2a")
def test_versions_and_ports() -> None:
    """o= rises exactly with the answer below it, whatever the offer's o= does; ports stay for the session's life."""
    found = opened(offered(TWO_STREAMS))
    changed = TWO_STREAMS.replace("m=audio 6002 RTP/AVP 8 101", "m=audio 6002 RTP/AVP 0 101").replace(
        "a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=label:2",
        "a=rtpmap:0 PCMU/8000\na=rtpmap:101 telephone-event/8000\na=label:2",
    )
    one = TWO_STREAMS.replace("m=audio 6002", "m=audio 0")
    answers = [
        re_offered(found, TWO_STREAMS),
        re_offered(found, TWO_STREAMS.replace("o=SBC 1 1", "o=SBC 1 2"), "UPDATE"),
        re_offered(found, changed),
        re_offered(found, changed.replace("600", "700"), "UPDATE"),
        re_offered(found, one),
        re_offered(found, TWO_STREAMS),
    ]
    assert [version(answer) for answer in answers] == [1, 1, 2, 2, 3, 4]
    assert [[media.port for media in sdp.parse(answer.body).media] for answer in answers] == [
        *[[20000, 20002]] * 4,
        [20000, 0],
        [20000, 20002],
    ]
    assert {sdp.parse(answer.body).origin.session_id for answer in answers} == {found.description.origin.session_id}


@shows("S6a")
def test_an_offer_that_cannot_be_taken_changes_nothing() -> None:
    """A re-INVITE of which nothing can be recorded gets 488; the recording goes on as it was."""
    found = opened(offered(TWO_STREAMS))
    refused = re_offered(found, TWO_STREAMS.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF"))
    assert refused.status == 488
    assert found.active == [True, True]
    flags = found.facts("flags")
    assert isinstance(flags, list)
    assert FLAG_OFFER_REFUSED in flags
    assert re_offered(found, TWO_STREAMS).body == found.answer.body


@shows("S6b")
def test_a_re_invite_without_an_offer() -> None:
    """We offer what there is, ports and labels as they are; the answer in the ACK says what comes; none is flagged."""
    found = opened(offered(TWO_STREAMS))
    asked = only(found.under.receive(found.src.request("INVITE")))
    assert isinstance(asked, Response)
    assert below_origin(asked) == below_origin(found.answer)
    answer = TWO_STREAMS.replace("a=sendonly\nm=", "a=inactive\nm=")
    found.under.receive(found.src.request("ACK", SDP, body=crlf(answer)))
    assert found.active == [False, True]
    only(found.under.receive(found.src.request("INVITE")))
    found.under.receive(found.src.request("ACK"))
    flags = found.facts("flags")
    assert isinstance(flags, list)
    assert FLAG_ANSWER_MISSING in flags
    assert found.active == [False, True], "a missing answer leaves it as it was"


@shows("S6c")
def test_a_retransmission_is_no_new_offer() -> None:
    """The same octets again get the same octets, before the ACK and, for UPDATE, after the answer."""
    under, src = Under(), Src()
    invite = src.invite()
    first, copy = only(under.receive(invite)), only(under.receive(invite))
    assert bytes(first) == bytes(copy)
    src.to_tag = tag_of(first)
    under.receive(src.request("ACK"))
    update = src.request("UPDATE", SDP, body=crlf(TWO_STREAMS))
    first, copy = only(under.receive(update)), only(under.receive(update))
    assert bytes(first) == bytes(copy)
    assert len(under.updated) == 2
    assert under.receive(invite) == []


@shows("S6d")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_glare(method: str) -> None:
    """While our own offer has no answer another offer gets 491; when it has, the offer is taken."""
    found = opened(offered(TWO_STREAMS))
    only(found.under.receive(found.src.request("INVITE")))
    asked_at = found.src.cseq
    assert re_offered_status(found, method) == 491
    found.under.receive(found.src.request("ACK", SDP, cseq=asked_at, body=crlf(TWO_STREAMS)))
    assert re_offered_status(found, method) == 200


def re_offered_status(found: Opened, method: str) -> int:
    return status(found.under.receive(found.src.request(method, SDP, body=crlf(TWO_STREAMS))))


@shows("S7")
def test_a_codec_swapped_in_mid_call() -> None:
    """The captured call that changes from PCMA to PCMU: the answer follows, the ports stay."""
    first, _, second, *_ = capture_requests(capture("22")["dialogs"][0])
    found = opened(bytes(first))
    swapped = re_offered(found, description_of(bytes(second)))
    assert [line for line in below_origin(swapped) if line.startswith(("m=", "a=rtpmap:0"))] == [
        "m=audio 20000 RTP/AVP 0 101",
        "a=rtpmap:0 PCMU/8000",
        "m=audio 20002 RTP/AVP 0 101",
        "a=rtpmap:0 PCMU/8000",
    ]
