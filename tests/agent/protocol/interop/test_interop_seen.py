"""INTEROP, "Seen with a real SBC": captured calls of OpenSIPS, message by message."""

import pytest

from sbc_agent.protocol import sdp
from sbc_agent.protocol.message import Request, Response, response
from tests.agent.protocol.builders import TWO_STREAMS, Src, Under, capture, crlf, only, status, tag_of
from tests.agent.protocol.interop.lines import shows
from tests.agent.protocol.interop.vendors import capture_requests, description_of, opened, siprec
from tests.agent.protocol.test_server import ok

SDP = ("Content-Type", "application/sdp")
ORACLE = "shape_oracle_invite_headers_boundary_space.txt"


def requests(number: str) -> list[Request]:
    return capture_requests(capture(number)["dialogs"][0])


@shows("X1")
@pytest.mark.parametrize("number", ["01", "06", "22", "24", "31", "41"])
def test_who_speaks(number: str) -> None:
    """Label 1 may come before label 0: the answer keeps the order, and the metadata alone says whose voice it is."""
    found = opened(bytes(requests(number)[0]))
    expected = capture(number)["dialogs"][0]["expect"]["per_stream"]
    assert [media.label for media in found.description.media] == [stream["label"] for stream in expected]
    facts = found.under.updated[-1].facts
    people = {person["participant_id"]: person["aor"] for person in facts["participants"]}
    assert {stream["label"]: people[stream["participant_id"]] for stream in facts["streams"]} == {
        stream["label"]: stream["participant"]["aor"] for stream in expected
    }
    assert {person["role"] for person in facts["participants"]} == {"unknown"}


@shows("X2a", "X4a", "S4")
@pytest.mark.parametrize(
    ("number", "kept"),
    [("06", [[True, True], [True, False], [True, True]]), ("41", [[True, True], [False, False], [True, True]])],
)
def test_hold_as_captured(number: str, kept: list[list[bool]]) -> None:
    """The held party's m-line alone is inactive; our version rises with our answer, whatever that of the offer does."""
    first, *others = requests(number)
    found = opened(bytes(first))
    answers = [found.answer]
    for asked in others:
        if asked.method == "INVITE":
            again = found.src.request("INVITE", SDP, body=description_of(bytes(asked)).encode())
            answer = only(found.under.receive(again))
            assert isinstance(answer, Response)
            answers.append(answer)
            found.under.receive(found.src.request("ACK"))
    assert [[stream.active for stream in event.streams] for event in found.under.updated] == kept
    assert [sdp.parse(answer.body).origin.version for answer in answers] == ["1", "2", "3"]
    assert len({tuple(media.port for media in sdp.parse(answer.body).media) for answer in answers}) == 1


@shows("X2a")
def test_an_offers_version_proves_nothing() -> None:
    """The same `o=` over another description: what it says is done all the same."""
    found = opened(bytes(requests("01")[0]))
    held = description_of(bytes(requests("01")[0])).replace("a=sendonly", "a=inactive", 1)
    only(found.under.receive(found.src.request("INVITE", SDP, body=held.encode())))
    assert found.active == [False, True]


@shows("X2b")
def test_dummy_ports() -> None:
    """A relay that writes the discard port into its offer is recorded: media is learned from what comes."""
    found = opened(
        bytes(requests("01")[0]).replace(b"m=audio 30032", b"m=audio 00009").replace(b"m=audio 30046", b"m=audio 00009")
    )
    assert [media.port for media in found.description.media] == [20000, 20002]
    assert found.active == [True, True]


@shows("X3", "S6c")
def test_overlapping_re_invites() -> None:
    """A second re-INVITE while the first one's 200 has no ACK is answered; the ACK of the second settles both."""
    found = opened(bytes(requests("06")[0]))
    held = TWO_STREAMS.replace("a=sendonly", "a=inactive")
    first = only(found.under.receive(found.src.request("INVITE", SDP, body=crlf(held))))
    second = only(found.under.receive(found.src.request("INVITE", SDP, body=crlf(TWO_STREAMS))))
    assert [status([answer]) for answer in (first, second)] == [200, 200]
    repeated = {bytes(copy) for copy in found.under.advance(2.0)}
    assert repeated == {bytes(first), bytes(second)}
    found.under.receive(found.src.request("ACK"))
    assert found.under.advance(31.0) == []
    assert found.active == [True, True]
    assert found.under.updated[-1].facts["flags"] == []


@shows("X3")
def test_a_re_invite_while_the_shell_looks_for_ports() -> None:
    """REQ: RFC 3261 section 14.2: 500 with Retry-After, and the first goes on."""
    under, src = Under(), Src()
    under.call(src)
    under.accepts = False
    under.receive(src.invite(sdp=TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\n"))
    second = only(under.receive(src.invite()))
    assert isinstance(second, Response)
    assert (second.status, second.header("retry-after")) == (500, "3")
    assert status(under.answer()) == 200


@shows("X4b", "X5b")
def test_the_description_decides() -> None:
    """After an offer of inactive the streams are inactive until another offer, however long and whatever comes."""
    found = opened(bytes(requests("06")[0]))
    held = TWO_STREAMS.replace("a=sendonly", "a=inactive")
    only(found.under.receive(found.src.request("INVITE", SDP, body=crlf(held))))
    found.under.receive(found.src.request("ACK"))
    found.under.advance(600)
    assert [event.streams[0].active for event in found.under.updated] == [True, False]


@shows("X5a")
def test_bye_answered_405() -> None:
    """An SBC that knows no BYE of ours, as OpenSIPS' module did, has its session ended all the same; no second BYE."""
    found = opened(bytes(requests("01")[0]))
    found.under.server.end(found.under.updated[-1].session, "shutdown", found.under.now)
    (bye,) = found.under.pump()
    assert isinstance(bye, Request)
    assert bye.method == "BYE"
    assert found.under.receive(ok(found.under, code=405)) == []
    assert found.under.advance(100) == []
    assert [event.reason for event in found.under.ended] == ["shutdown"]
    assert found.under.server.sessions == 0
    assert found.under.server.requests_waiting == 0


@shows("X5a")
def test_a_bye_nobody_answers_is_given_up() -> None:
    """Repeated for 64*T1, then forgotten; the SBC's own BYE for it gets 481, so that it can clear its side."""
    found = opened(bytes(requests("01")[0]))
    found.under.server.end(found.under.updated[-1].session, "shutdown", found.under.now)
    found.under.pump()
    copies = found.under.advance(100)
    assert {item.method for item in copies if isinstance(item, Request)} == {"BYE"}
    assert found.under.server.timer() is None
    assert status(found.under.receive(found.src.request("BYE"))) == 481


VIDEO = TWO_STREAMS + (
    "m=video 6004 RTP/AVP 96\na=rtpmap:96 H264/90000\na=label:3\na=sendonly\n"
    "m=video 6006 RTP/AVP 96\na=rtpmap:96 H264/90000\na=label:4\na=sendonly\n"
)
VIDEO_METADATA = """<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns='urn:ietf:params:xml:ns:recording:1'>
  <datamode>complete</datamode>
  <session session_id="rDY1K4YZSj6vzI7LzNuqgA=="><start-time>2026-11-22T01:03:04+0000</start-time></session>
  <participant participant_id="WqRLaRzkSBeL0uVZHlzCKQ=="><nameID aor="sip:alice@127.0.0.1"/></participant>
  <stream stream_id="DuQIS4+VSZ2DEHDP3LKUGQ=="><label>3</label></stream>
  <participantstreamassoc participant_id="WqRLaRzkSBeL0uVZHlzCKQ=="><send>DuQIS4+VSZ2DEHDP3LKUGQ==</send>
  </participantstreamassoc>
</recording>
"""


@shows("X8", "S5")
def test_metadata_that_names_the_video_alone() -> None:
    """The voices are recorded though nobody says whose they are; the video is refused in its place."""
    found = opened(siprec(ORACLE, VIDEO, VIDEO_METADATA))
    assert [(media.label, media.port) for media in found.description.media] == [
        ("1", 20000),
        ("2", 20002),
        ("3", 0),
        ("4", 0),
    ]
    assert found.active == [True, True]
    assert found.facts("streams") == [
        {"label": "3", "stream_id": "DuQIS4+VSZ2DEHDP3LKUGQ==", "participant_id": "WqRLaRzkSBeL0uVZHlzCKQ=="}
    ]


@shows("X10")
@pytest.mark.parametrize("after_s", [0.0, 0.05, 3.0])
def test_busy_after_early_media(after_s: float) -> None:
    """INVITE ... BYE with nothing between, or no ACK at all: a session that began and ended, and nothing left over."""
    under, src = Under(), Src()
    answer = only(under.receive(src.invite()))
    src.to_tag = tag_of(answer)
    if after_s:
        under.receive(src.request("ACK"))
    under.advance(after_s)
    assert status(under.receive(src.request("BYE"))) == 200
    under.advance(100)
    assert [event.reason for event in under.ended] == ["bye"]
    assert under.server.timer() is None
    assert (
        under.receive(bytes(response(200, "OK", [("Via", "SIP/2.0/UDP x;branch=z9hG4bKx"), ("CSeq", "1 BYE")]))) == []
    )


@shows("X9", "R4c")
def test_a_moved_call_is_a_new_call() -> None:
    """The call that a full recorder refused comes to the next one under a new Call-ID: recorded as any other."""
    full, next_one = Under(ports=False), Under()
    invite = bytes(requests("01")[0])
    full.receive(invite)
    assert status(full.refuse(503)) == 503
    moved = invite.replace(b"B2B.", b"B2C.")
    assert opened(moved, next_one).active == [True, True]
    assert next_one.updated[0].facts["sip_call_id"].startswith("B2C.")
