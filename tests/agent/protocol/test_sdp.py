"""Session descriptions as SBCs offer them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import sdp
from sbc_agent.protocol.sdp import Codec, Direction


def media(*lines: str, session: tuple[str, ...] = ()) -> sdp.Media:
    return sdp.parse("\n".join(["v=0", *session, *lines]).encode()).media[0]


CODECS = {
    "static types need no rtpmap": ("0 8 18", (), [(0, "PCMU", 8000), (8, "PCMA", 8000), (18, "G729", 8000)]),
    "withdrawn type 2 first (Metaswitch)": ("2 0", (), [(2, "G726-32", 8000), (0, "PCMU", 8000)]),
    "type 19 is comfort noise (Cisco)": ("0 19", ("a=rtpmap:19 CN/8000",), [(0, "PCMU", 8000), (19, "CN", 8000)]),
    "names compare without case": ("96", ("a=rtpmap:96 pcma/8000",), [(96, "PCMA", 8000)]),
    "an rtpmap overrides the static type": ("8", ("a=rtpmap:8 PCMU/8000",), [(8, "PCMU", 8000)]),
    "an rtpmap that cannot be read is none": ("96 8", ("a=rtpmap:96 broken",), [(8, "PCMA", 8000)]),
    "a dynamic type without rtpmap is unknown": ("96 8", (), [(8, "PCMA", 8000)]),
    "white space at the end of an rtpmap": ("96", ("a=rtpmap:96 PCMA/8000 ",), [(96, "PCMA", 8000)]),
    "a clock rate of nought is none": ("96", ("a=rtpmap:96 X/0",), []),
    "types above 127 are none": ("200 8", ("a=rtpmap:200 X/8000",), [(8, "PCMA", 8000)]),
}


@pytest.mark.parametrize("name", CODECS)
def test_codecs(name: str) -> None:
    """Formats mean what rtpmap or RFC 3551 say, in the offer's order."""
    formats, attributes, expected = CODECS[name]
    found = media(f"m=audio 6000 RTP/AVP {formats}", *attributes)
    assert found.codecs() == [Codec(*codec) for codec in expected]


def test_opus_has_two_channels() -> None:
    """The third part of an rtpmap is the number of channels."""
    assert media("m=audio 6000 RTP/AVP 111", "a=rtpmap:111 OPUS/48000/2").codecs() == [Codec(111, "OPUS", 48000, 2)]


DIRECTIONS = {
    "none: sendrecv": ((), (), Direction.SENDRECV, False),
    "of the m-line": ((), ("a=sendonly",), Direction.SENDONLY, False),
    "of the session": (("a=inactive",), (), Direction.INACTIVE, True),
    "the m-line's goes before the session's": (("a=inactive",), ("a=sendonly",), Direction.SENDONLY, False),
    "a=direction:both is none": ((), ("a=direction:both",), Direction.SENDRECV, False),
    "recvonly: nothing comes": ((), ("a=recvonly",), Direction.RECVONLY, True),
    "no address: hold": ((), ("c=IN IP4 0.0.0.0", "a=sendonly"), Direction.SENDONLY, True),
    "no address in the session: hold": (("c=IN IP4 0.0.0.0",), ("a=sendonly",), Direction.SENDONLY, True),
    "o= with 0.0.0.0 is no hold": (
        ("o=- 1 1 IN IP4 0.0.0.0", "c=IN IP4 198.51.100.1"),
        ("a=sendonly",),
        Direction.SENDONLY,
        False,
    ),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_directions_and_hold(name: str) -> None:
    """Direction and hold follow RFC 3264 sections 5.1 and 8.4."""
    session, lines, direction, on_hold = DIRECTIONS[name]
    found = media("m=audio 6000 RTP/AVP 8", *lines, session=session)
    assert (found.direction, found.on_hold) == (direction, on_hold)


@pytest.mark.parametrize("label", ["1", "0", "771757897", "a_leg", "two words", "ü"])
def test_labels_are_exact(label: str) -> None:
    """A label is whatever stands there."""
    assert media("m=audio 6000 RTP/AVP 8", f"a=label:{label}").label == label


def test_line_ends_and_unknown_lines() -> None:
    """LF, CRLF, a byte order mark, empty lines and lines of no known type all pass."""
    text = (
        "\ufeffv=0\r\nx=?\n\ngarbage\r\nc=IN IP4 192.0.2.1/127\r\nm=audio 49170/2 RTP/AVP 0\r\na=candidate:1 1 UDP\r\n"
    )
    found = sdp.parse(text.encode())
    assert (found.media[0].port, found.media[0].connection) == (49170, "192.0.2.1")
    assert found.origin == sdp.Origin()


REFUSED = {
    "nothing": b"",
    "no v=0": b"o=- 1 1 IN IP4 h\r\n",
    "an m= line of two fields": b"v=0\r\nm=audio 5\r\n",
    "a port that is no number": b"v=0\r\nm=audio x RTP/AVP 0\r\n",
    "a port above 65535": b"v=0\r\nm=audio 70000 RTP/AVP 0\r\n",
    "more than 32 m-lines": b"v=0\r\n" + b"m=audio 1 RTP/AVP 0\r\n" * 33,
    "more than 64 formats": b"v=0\r\nm=audio 1 RTP/AVP" + b" 0" * 65,
    "more than 2048 lines": b"v=0\r\n" + b"a=x\r\n" * 2_050,
    "more than 65535 octets": b"v=0\r\n" + b"a=" + b"x" * 70_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """What cannot be read is malformed, whatever it is."""
    with pytest.raises(MalformedInput):
        sdp.parse(REFUSED[name])


@given(st.text(max_size=200))
def test_only_malformed_input_escapes(text: str) -> None:
    """No text after a true beginning raises anything else."""
    try:
        found = sdp.parse(f"v=0\r\n{text}".encode("utf-8", "replace"))
    except MalformedInput:
        return
    for section in found.media:
        section.codecs()
