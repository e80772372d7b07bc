"""SIP messages: RFC 3261 section 7, with cases after RFC 4475."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import message
from sbc_agent.protocol.message import Request, Response

HEAD = b"INVITE sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n"


def parsed(data: bytes) -> Request:
    found = message.parse(data)
    assert isinstance(found, Request)
    return found


READ = {
    "bare LF line ends (INTEROP)": (HEAD.replace(b"\r\n", b"\n") + b"X-Y: y\n\nbody", "x-y", "y", b"body"),
    "empty lines in front (section 7.5)": (b"\r\n\r\n" + HEAD + b"X-Y: y\r\n\r\n", "x-y", "y", b""),
    "a folded value is one line (section 7.3.1)": (HEAD + b"X-Y: a\r\n b\r\n\tc\r\n\r\n", "x-y", "a b c", b""),
    "no space after the colon (BroadWorks)": (
        HEAD + b"Content-Type:text/plain\r\n\r\n",
        "content-type",
        "text/plain",
        b"",
    ),
    "space before the colon (RFC 4475 3.1.1.1)": (HEAD + b"Content-Length   : 0\r\n\r\n", "content-length", "0", b""),
    "compact form (section 7.3.3)": (HEAD + b"i: abc\r\n\r\n", "call-id", "abc", b""),
    "compact form of a session timer (RFC 4028 section 4)": (HEAD + b"x: 90\r\n\r\n", "session-expires", "90", b""),
    "folds of nothing": (HEAD + b"X-Y: a\r\n \r\n\t\r\n b\r\n\r\n", "x-y", "a b", b""),
    "names compare without case": (HEAD + b"cALL-iD: abc\r\n\r\n", "call-id", "abc", b""),
    "an empty value": (HEAD + b"Recv-Info:\r\n\r\n", "recv-info", "", b""),
    "excess octets after the body are dropped (section 18.3)": (
        HEAD + b"l: 2\r\n\r\nabcd",
        "content-length",
        "2",
        b"ab",
    ),
    "without Content-Length a datagram is all body": (HEAD + b"X-Y: y\r\n\r\nabcd", "x-y", "y", b"abcd"),
    "equal Content-Lengths agree": (HEAD + b"l: 1\r\nContent-Length: 1\r\n\r\na", "content-length", "1", b"a"),
    "a body is exact octets": (HEAD + b"l: 4\r\n\r\n\x00\xff\r\n", "content-length", "4", b"\x00\xff\r\n"),
    "no empty line at the end": (HEAD + b"X-Y: y\r\n", "x-y", "y", b""),
    "octets outside UTF-8 survive": (HEAD + b"X-Y: \xff\r\n\r\n", "x-y", "\udcff", b""),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str) -> None:
    """Each tolerance yields the value that the peer meant and the exact body."""
    data, header, value, body = READ[name]
    found = parsed(data)
    assert found.header(header) == value
    assert found.body == body


REFUSED = {
    "nothing": (b"", 400),
    "no request line": (b"hello\r\n\r\n", 400),
    "a request line of four fields": (b"INVITE sip:a b SIP/2.0\r\n\r\n", 400),
    "another version (RFC 4475 3.1.2.16)": (b"INVITE sip:a SIP/7.0\r\n\r\n", 505),
    "a status code of four digits (RFC 4475 3.1.2.19)": (b"SIP/2.0 4294967301 better\r\n\r\n", 400),
    "a status code below 100": (b"SIP/2.0 42 x\r\n\r\n", 400),
    "a header without a colon": (HEAD + b"nonsense\r\n\r\n", 400),
    "a header without a name": (HEAD + b": x\r\n\r\n", 400),
    "a name that is no token": (HEAD + b"a b: x\r\n\r\n", 400),
    "a NUL in a value": (HEAD + b"X: a\0b\r\n\r\n", 400),
    "a bare CR in a value": (HEAD + b"X: a\rY: b\r\n\r\n", 400),
    "a negative Content-Length (RFC 4475 3.1.2.3)": (HEAD + b"l: -1\r\n\r\n", 400),
    "a Content-Length longer than the datagram (RFC 4475 3.1.2.2)": (HEAD + b"l: 9\r\n\r\nabc", 400),
    "two Content-Lengths": (HEAD + b"l: 1\r\nl: 2\r\n\r\nabc", 400),
    "more than 65535 octets": (HEAD + b"\r\n" + bytes(65_536), 513),
    "headers of more than 32 KiB": (HEAD + b"X: y\r\n" * 7_000 + b"\r\n", 513),
    "more than 256 headers": (HEAD + b"X: y\r\n" * 256 + b"\r\n", 513),
    "a line of more than 8 KiB": (HEAD + b"X: " + b"y" * 9_000 + b"\r\n\r\n", 513),
    "a folded value of more than 8 KiB": (HEAD + b"X: y" + (b"\r\n " + b"y" * 4_000) * 3 + b"\r\n\r\n", 513),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """What cannot be read says how a request is answered."""
    data, status = REFUSED[name]
    with pytest.raises(MalformedInput) as raised:
        message.parse(data)
    assert raised.value.sip_status == status


def test_folds_take_time_in_proportion() -> None:
    """As many folds of nothing as a head can hold, behind the longest value, take no longer than a moment."""
    data = HEAD.replace(b"\r\n", b"\n") + b"X-Y: " + b"y" * 8_000 + b"\n" + b" \n" * 12_000 + b"\n"
    started = time.process_time()
    assert len(parsed(data).required("x-y")) == 8_000
    assert time.process_time() - started < 0.1


def test_response_line() -> None:
    """A response gives status and reason, which may be empty or hold spaces."""
    found = message.parse(b"SIP/2.0 481 Call/Transaction Does Not Exist\r\n\r\n")
    assert isinstance(found, Response)
    assert (found.status, found.reason) == (481, "Call/Transaction Does Not Exist")
    bare = message.parse(b"SIP/2.0 200\r\n\r\n")
    assert isinstance(bare, Response)
    assert (bare.status, bare.reason) == (200, "")


def test_list_headers_join_lines_and_commas() -> None:
    """Values on one line equal values on several; commas in quotes and brackets do not part them (section 7.3.1)."""
    found = parsed(HEAD + b'Route: <sip:a;lr>,"x, y" <sip:b,c>\r\nRoute: <sip:d>\r\n\r\n')
    assert found.listed("route") == ["<sip:a;lr>", '"x, y" <sip:b,c>', "<sip:d>"]


def test_a_missing_mandatory_header_is_malformed() -> None:
    """`required` raises what the peer is answered with."""
    with pytest.raises(MalformedInput, match="cseq"):
        parsed(HEAD + b"\r\n").required("cseq")


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "a\rb", "\0"])
def test_no_header_of_ours_can_break_the_message(value: str) -> None:
    """A value with a line end is refused where a message is built, not where it is read."""
    with pytest.raises(MalformedInput):
        message.response(200, "OK", [("X", value)])
    with pytest.raises(MalformedInput):
        message.request("BYE", "sip:a", [("X", value)])


_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True).filter(
    lambda name: message.canonical_name(name) != "content-length"
)
_VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60).map(
    lambda text: " ".join(text.split(" ")).strip()
)
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES.filter(lambda v: v == v.strip())), max_size=10)


@given(_HEADERS, st.binary(max_size=200), st.sampled_from(["INVITE", "BYE", "X-y"]))
def test_a_request_reads_as_it_was_written(headers: list[tuple[str, str]], body: bytes, method: str) -> None:
    """Writing and reading a request gives the same request, Content-Length added."""
    written = message.request(method, "sip:a@b;c=d", headers, body)
    found = parsed(bytes(written))
    assert found.headers == (*written.headers, ("Content-Length", str(len(body))))
    assert (found.method, found.uri, found.body) == (method, "sip:a@b;c=d", body)


@given(st.integers(100, 699), _HEADERS, st.binary(max_size=200))
def test_a_response_reads_as_it_was_written(status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """Writing and reading a response gives the same response."""
    found = message.parse(bytes(message.response(status, "Reason here", headers, body)))
    assert isinstance(found, Response)
    assert (found.status, found.reason, found.body) == (status, "Reason here", body)


@given(st.binary(max_size=300))
def test_salvage_never_raises(data: bytes) -> None:
    """What is left of an unreadable request is found without an error."""
    message.salvage(HEAD + data)


def test_salvage_keeps_what_an_answer_needs() -> None:
    """Of a request with one broken line the others are read; ACK and responses are never answered."""
    broken = HEAD + b"nonsense\r\nFrom: <sip:a>;tag=1\r\n\r\n"
    found = message.salvage(broken)
    assert found is not None
    assert found.header("from") == "<sip:a>;tag=1"
    assert message.salvage(broken.replace(b"INVITE", b"ACK")) is None
    assert message.salvage(b"SIP/2.0 abc x\r\n\r\n") is None
