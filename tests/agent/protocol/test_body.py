"""Bodies: multipart and what is found in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import body, message, multipart
from sbc_agent.protocol.body import FLAG_MULTIPART_MALFORMED
from tests.agent.protocol.builders import METADATA, TWO_STREAMS

SDP = b"v=0\r\no=- 1 1 IN IP4 h\r\n"
XML = b"<?xml version='1.0'?><recording/>"
SDP_PART = b"Content-Type: application/sdp\r\n\r\n" + SDP
XML_PART = b"Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n" + XML

MULTIPART = {
    "usual": b"--x\r\n%s\r\n--x\r\n%s\r\n--x--\r\n" % (SDP_PART, XML_PART),
    "closing boundary missing (Cisco, SEMS, Sonus)": b"--x\r\n%s\r\n--x\r\n%s" % (SDP_PART, XML_PART),
    "closing boundary without a line end": b"--x\r\n%s\r\n--x\r\n%s\r\n--x--" % (SDP_PART, XML_PART),
    "text before and after": b"hello\r\n--x\r\n%s\r\n--x\r\n%s\r\n--x--\r\n--x\r\nbye" % (SDP_PART, XML_PART),
    "white space after the boundary": b"--x  \r\n%s\r\n--x\t\r\n%s\r\n--x-- \r\n" % (SDP_PART, XML_PART),
    "a line that only begins like the boundary": b"--x\r\n%s\r\n--x\r\n%s\r\n--xy\r\n--x--" % (SDP_PART, XML_PART),
    "another boundary than declared": b"--yy\r\n%s\r\n--yy\r\n%s\r\n--yy--" % (SDP_PART, XML_PART),
}


@pytest.mark.parametrize("name", MULTIPART)
def test_multipart(name: str) -> None:
    """Each tolerated form gives the two parts."""
    parts = multipart.parse(MULTIPART[name], "x")
    assert [part.header("content-type") for part in parts] == ["application/sdp", "application/rs-metadata+xml"]
    assert parts[0].body == SDP
    assert parts[1].body.startswith(XML)


def test_part_details() -> None:
    """A part may lack headers, or everything; its exact octets are kept, and a Content-Length in it is not believed."""
    parts = multipart.parse(b"--x\r\n\r\nplain\r\n--x\r\n--x\r\nContent-Length: 1\r\n\r\nabc\r\n\r\n--x--", "x")
    assert [part.body for part in parts] == [b"plain", b"", b"abc\r\n"]
    assert parts[0].headers == ()


@pytest.mark.parametrize(
    "data", [b"", b"no delimiter", b"--x--\r\n", b"--x\r\n" * 40, b"--x\r\nbad header\r\n\r\nbody"]
)
def test_multipart_that_is_none(data: bytes) -> None:
    """Without a part, with too many, or with headers that are none, it is malformed."""
    with pytest.raises(MalformedInput):
        multipart.parse(data, "x")


@given(st.lists(st.binary(max_size=60).filter(lambda data: b"--edge" not in data), min_size=1, max_size=5))
def test_parts_read_as_they_were_written(bodies: list[bytes]) -> None:
    """Any octets but the delimiter itself come through a multipart body unchanged."""
    data = b"".join(b"--edge\r\nX: y\r\n\r\n%s\r\n" % part for part in bodies) + b"--edge--\r\n"
    assert [part.body for part in multipart.parse(data, "edge")] == bodies


def read(kind: str, data: bytes, *headers: tuple[str, str]) -> body.MessageBody:
    return body.read(message.request("INVITE", "sip:a", [("Content-Type", kind), *headers] if kind else headers, data))


MIXED = "multipart/mixed;boundary=x"
BODIES = {
    "both, description first": (MIXED, b"--x\r\n%s\r\n--x\r\n%s\r\n--x--" % (SDP_PART, XML_PART)),
    "both, metadata first (Webex)": (MIXED, b"--x\r\n%s\r\n--x\r\n%s\r\n--x--" % (XML_PART, SDP_PART)),
    "a third part application/gtd (CUBE)": (
        MIXED,
        b"--x\r\n%s\r\n--x\r\nContent-Type: application/gtd\r\n\r\nIAM,<recording\r\n--x\r\n%s\r\n--x--"
        % (SDP_PART, XML_PART),
    ),
    "disposition before type": (
        MIXED,
        b"--x\r\nContent-Disposition: recording-session\r\nContent-Type:application/rs-metadata\r\n\r\n%s\r\n"
        b"--x\r\n%s\r\n--x--" % (XML, SDP_PART),
    ),
    "no type, disposition alone": (
        MIXED,
        b"--x\r\n%s\r\n--x\r\nContent-Disposition: recording-session\r\n\r\n%s\r\n--x--" % (SDP_PART, XML),
    ),
    "neither type nor disposition: sniffed": (MIXED, b"--x\r\n\r\n%s\r\n--x\r\n\r\n%s\r\n--x--" % (SDP, XML)),
    "a type of its own for XML: sniffed": (
        MIXED,
        b"--x\r\n%s\r\n--x\r\nContent-Type: text/xml\r\n\r\n%s\r\n--x--" % (SDP_PART, XML),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_both_are_found(name: str) -> None:
    """Description and metadata are found whatever their order, type and disposition."""
    found = read(*BODIES[name])
    assert found.sdp is not None
    assert found.sdp.startswith(SDP)
    assert found.metadata is not None
    assert found.metadata.strip() == XML
    assert found.flags == ()


def test_one_alone() -> None:
    """A body may be metadata alone, a description alone, or nothing."""
    assert read("application/rs-metadata+xml", XML) == body.MessageBody(None, XML)
    assert read("application/sdp", SDP) == body.MessageBody(SDP, None)
    assert read("", XML, ("Content-Disposition", "recording-session")) == body.MessageBody(None, XML)
    assert read("application/sdp", b"  \r\n") == body.MessageBody()
    assert read("application/rs-metadata-request", b"x") == body.MessageBody()


def test_lost_delimiters_are_searched_and_flagged() -> None:
    """A multipart body without any delimiter still gives both things, flagged."""
    found = read(MIXED, TWO_STREAMS.replace("\n", "\r\n").encode() + b"\r\n" + METADATA.encode())
    assert found.sdp is not None
    assert found.sdp.count(b"m=audio") == 2
    assert found.metadata == METADATA.encode()
    assert found.flags == (FLAG_MULTIPART_MALFORMED,)
    assert read(MIXED, b"garbage") == body.MessageBody(None, None, (FLAG_MULTIPART_MALFORMED,))
