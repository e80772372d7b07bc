"""The SIP of captured calls, replayed through the core: what a real SBC sends gets the answers that it needs."""

import itertools

import pytest

from sbc_agent.protocol import body, message, sdp
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.sdp import Direction
from tests.agent.protocol.builders import Under, capture, tag_of

SBC = Flow("udp", ("127.0.0.1", 15060), ("127.0.0.1", 15090))

# Which streams are kept after each answer to an offer, in the order of the m-lines.
KEPT = {
    "01": [(True, True)],
    "06": [(True, True), (True, False), (True, True)],
    "22": [(True, True), (True, True)],
    "24": [(True, True)],
    "41": [(True, True), (False, False), (True, True)],
}


@pytest.mark.parametrize("number", KEPT)
def test_a_captured_call(number: str) -> None:
    """Every request gets its answer, every offer an answer that fits it, and the streams follow the SDP alone."""
    found = capture(number)["dialogs"][0]
    sent = {stream["mline"]: {str(p) for p in stream["payload_types"]} for stream in found["expect"]["per_stream"]}
    under, tag, origins, ports = Under(), "", [], set()
    for item in found["messages"]:
        asked = message.parse(item["text"].replace("tag=srs1", f"tag={tag}").encode())
        if not isinstance(asked, Request):
            continue
        under.now = 1000.0 + item["t"] / 1000
        answers = under.receive(bytes(asked), SBC)
        if asked.method == "ACK":
            assert answers == []
            continue
        (answer,) = answers
        assert isinstance(answer, Response)
        assert answer.status == 200
        tag = tag or tag_of(answer)
        assert tag_of(answer) == tag
        offer = body.read(asked).sdp
        if offer is None:
            continue
        assert answer.header("content-type") == "application/sdp"
        offered, answered = sdp.parse(offer), sdp.parse(answer.body)
        origins.append((answered.origin, [line for line in answer.body.split(b"\r\n") if line[:2] != b"o="]))
        for index, (want, got) in enumerate(zip(offered.media, answered.media, strict=True)):
            assert got.label == want.label
            assert got.direction is (Direction.INACTIVE if want.direction is Direction.INACTIVE else Direction.RECVONLY)
            assert set(got.formats) <= set(want.formats)
            # What the SBC goes on to send, as far as it offered it in this offer, is accepted.
            assert sent[index] & set(want.formats) <= set(got.formats)
            ports.add(got.port)
    assert [tuple(stream.active for stream in event.streams) for event in under.updated] == KEPT[number]
    assert len(ports) == 2, "ports stay"
    for (before, old), (after, new) in itertools.pairwise(origins):
        assert before.session_id == after.session_id
        assert int(after.version) - int(before.version) == (old != new)
    assert [event.reason for event in under.ended] == ["bye"]
    speakers = {stream["label"]: stream["participant_id"] for stream in under.updated[-1].facts["streams"]}
    people = {person["participant_id"]: person["aor"] for person in under.updated[-1].facts["participants"]}
    assert {label: people[speaker] for label, speaker in speakers.items()} == {
        stream["label"]: stream["participant"]["aor"] for stream in found["expect"]["per_stream"]
    }
    session = found["expect"]["sip_session_id"]
    assert [entry["sip_session_id"] for entry in under.updated[-1].facts["sessions"]] == [session]
