"""Header values: each reads what peers write, and reads back what it writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address, content_type, cseq, uri, via
from sbc_agent.protocol.address import Address
from sbc_agent.protocol.via import Via

ADDRESSES = {
    "name-addr": ('"A. Bell" <sip:bell@example.com>;tag=88', "sip:bell@example.com", "A. Bell", {"tag": "88"}),
    "addr-spec: its parameters are the header's (20.10)": (
        "sip:a@example.com;tag=1",
        "sip:a@example.com",
        "",
        {"tag": "1"},
    ),
    "URI parameters stay in the brackets": ("<sip:a@h;lr;x=y>;tag=1", "sip:a@h;lr;x=y", "", {"tag": "1"}),
    "token display name": ("Bob Jones <sip:b@h>", "sip:b@h", "Bob Jones", {}),
    "no space before the bracket (BroadWorks)": (
        '"Caller"<sip:+1555@h;user=phone>;tag=x',
        "sip:+1555@h;user=phone",
        "Caller",
        {"tag": "x"},
    ),
    "semicolon and bracket in a quoted name": (
        '"a;b <c>, \\"d\\"" <sip:e@h>;tag=1',
        "sip:e@h",
        'a;b <c>, "d"',
        {"tag": "1"},
    ),
    "doubled brackets (seen with OpenSIPS)": ("<<sip:a@h>>;+sip.src", "sip:a@h", "", {"+sip.src": ""}),
    "parameter values keep their case, names do not": ("<sip:a@h>;TAG=AbC", "sip:a@h", "", {"tag": "AbC"}),
    "spaces round the parts": ("  <sip:a@h> ; tag = 1 ", "sip:a@h", "", {"tag": "1"}),
    "IPv6": ("<sip:a@[2001:db8::1]:5070>;tag=1", "sip:a@[2001:db8::1]:5070", "", {"tag": "1"}),
    "tel": ("<tel:+15551234>", "tel:+15551234", "", {}),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses(name: str) -> None:
    """Every form of From, To and Contact gives URI, display name and header parameters."""
    text, expected_uri, display_name, parameters = ADDRESSES[name]
    assert address.parse(text) == Address(expected_uri, display_name, parameters)
    assert address.parse(str(address.parse(text))) == address.parse(text)


@pytest.mark.parametrize("text", ["", "<sip:a@h", "<>", '"open <sip:a@h>', "<sip:a@h> x", "a b", ";tag=1"])
def test_addresses_that_are_none(text: str) -> None:
    """Without a URI there is no address."""
    with pytest.raises(MalformedInput):
        address.parse(text)


VIAS = {
    "usual": ("SIP/2.0/UDP h.example:5070;branch=z9hG4bKa", Via("UDP", "h.example", 5070, {"branch": "z9hG4bKa"})),
    "spaces everywhere (RFC 4475 3.1.1.1)": (
        "SIP  / 2.0\t/ TCP  h.example ;branch=1",
        Via("TCP", "h.example", None, {"branch": "1"}),
    ),
    "IPv6 (RFC 5118)": ("SIP/2.0/UDP [2001:db8::9:1]:6050;rport", Via("UDP", "[2001:db8::9:1]", 6050, {"rport": ""})),
    "transport in lower case": ("SIP/2.0/tcp h", Via("TCP", "h")),
}


@pytest.mark.parametrize("name", VIAS)
def test_vias(name: str) -> None:
    """Every form of Via gives transport, sent-by and parameters, and reads back."""
    text, expected = VIAS[name]
    assert via.parse(text) == expected
    assert via.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "SIP/1.0/UDP h", "HTTP/2.0/TCP h", "SIP/2.0/UDP", "SIP/2.0/UDP h:port", "SIP/2.0/UDP h:99999"]
)
def test_vias_that_are_none(text: str) -> None:
    """A hop that is not SIP/2.0, or has no host or no port, is refused."""
    with pytest.raises(MalformedInput):
        via.parse(text)


NOTED = {
    "same address: nothing": ("SIP/2.0/UDP 192.0.2.1:5060;branch=1", "SIP/2.0/UDP 192.0.2.1:5060;branch=1", 5060),
    "another address (3261 18.2.1)": ("SIP/2.0/UDP h", "SIP/2.0/UDP h;received=192.0.2.1", 5060),
    "a port in sent-by": ("SIP/2.0/UDP h:5070", "SIP/2.0/UDP h:5070;received=192.0.2.1", 5070),
    "rport (3581 4)": (
        "SIP/2.0/UDP 192.0.2.1;rport;b=1",
        "SIP/2.0/UDP 192.0.2.1;rport=6000;b=1;received=192.0.2.1",
        6000,
    ),
    "rport with a value is kept (AudioCodes)": (
        "SIP/2.0/UDP h;rport=5070",
        "SIP/2.0/UDP h;rport=5070;received=192.0.2.1",
        5070,
    ),
    "a received of somebody else's goes": (
        "SIP/2.0/UDP h;received=1.2.3.4;b",
        "SIP/2.0/UDP h;b;received=192.0.2.1",
        5060,
    ),
    "a branch that is no token stays as it is": (
        "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa@b/=:1",
        "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa@b/=:1",
        5060,
    ),
}


@pytest.mark.parametrize("name", NOTED)
def test_the_source_is_noted(name: str) -> None:
    """REQ: RFC 3261 section 18.2.1, RFC 3581 section 4: received and rport are noted, all else stays as written."""
    text, expected, port = NOTED[name]
    assert via.received_from(text, "192.0.2.1", 6000) == expected
    assert via.parse(expected).response_port() == port


URIS = {
    "host alone": ("sip:example.com", ("sip", "", "example.com", None, "udp")),
    "user and port": ("sip:alice@example.com:5070", ("sip", "alice", "example.com", 5070, "udp")),
    "transport": ("sip:h;transport=TCP", ("sip", "", "h", None, "tcp")),
    "sips": ("SIPS:a@h", ("sips", "a", "h", None, "tls")),
    "semicolon in the user part (RFC 4475 3.1.1.13)": (
        "sip:user;par=u%40example.net@h",
        ("sip", "user;par=u%40example.net", "h", None, "udp"),
    ),
    "IPv6": ("sip:[2001:db8::10]:5070", ("sip", "", "[2001:db8::10]", 5070, "udp")),
    "headers": ("sip:a@h?subject=x", ("sip", "a", "h", None, "udp")),
}


@pytest.mark.parametrize("name", URIS)
def test_uris(name: str) -> None:
    """Every form of SIP URI gives its parts, and reads back."""
    text, (scheme, user, host, port, transport) = URIS[name]
    found = uri.parse(text)
    assert (found.scheme, found.user, found.host, found.port, found.transport) == (scheme, user, host, port, transport)
    assert uri.parse(str(found)) == found


def test_tel_uri() -> None:
    """A tel URI has its number as user."""
    found = uri.parse("tel:+1-555;phone-context=x")
    assert (found.user, found.host, str(found)) == ("+1-555", "", "tel:+1-555;phone-context=x")


@pytest.mark.parametrize("text", ["", "http://h", "sip:", "sip:a@", "sip:h:x", "a@h"])
def test_uris_that_are_none(text: str) -> None:
    """Other schemes and missing hosts are refused, with 416 in mind for the scheme."""
    with pytest.raises(MalformedInput):
        uri.parse(text)


@pytest.mark.parametrize(
    "text", ["", "1", "INVITE", "-1 INVITE", "2147483648 INVITE", "1 INVITE x", "1 IN/VITE", "\u0661 BYE"]
)
def test_cseqs_that_are_none(text: str) -> None:
    """REQ: RFC 3261 section 8.1.1.5: a CSeq is a number below 2**31 and a method."""
    with pytest.raises(MalformedInput):
        cseq.parse(text)


@given(st.integers(0, 2**31 - 1), st.sampled_from(["INVITE", "BYE", "ACK"]))
def test_cseq_round_trip(number: int, method: str) -> None:
    """A CSeq reads back."""
    assert cseq.parse(str(cseq.CSeq(number, method))) == cseq.CSeq(number, method)


CONTENT_TYPES = {
    "bare boundary": ("multipart/mixed;boundary=foobar", "foobar"),
    "quoted boundary": ('multipart/mixed;boundary="a b;c"', "a b;c"),
    "space after the semicolon (Oracle)": ("multipart/mixed; boundary=unique-boundary-1", "unique-boundary-1"),
    "capitals": ("Multipart/Mixed;Boundary=X", "X"),
}


@pytest.mark.parametrize("name", CONTENT_TYPES)
def test_content_types(name: str) -> None:
    """Every spelling of the boundary is found."""
    text, boundary = CONTENT_TYPES[name]
    found = content_type.parse(text)
    assert (found.value, found.parameters) == ("multipart/mixed", {"boundary": boundary})
    assert content_type.parse(str(found)) == found


def test_empty_content_type() -> None:
    """No value is no content type."""
    with pytest.raises(MalformedInput):
        content_type.parse(" ;boundary=x")
