"""SIP messages: read and written. Pure; standard: RFC 3261 section 7, torture cases of RFC 4475.

A message is read as a whole; `stream.py` cuts streams into messages. Header values keep what the peer wrote except for
folding, which becomes one space (section 7.3.1); bodies are exact bytes. Values that need a grammar have a module of
their own: `via.py`, `address.py`, `cseq.py`, `content_type.py`, `uri.py`. What is not here: authentication headers.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.grammar import CONTROL, TOKEN, number, split

MAX_MESSAGE_BYTES: Final = 65_535  # the largest UDP datagram; the same for a message on a stream
MAX_HEAD_BYTES: Final = 32_768
MAX_HEADERS: Final = 256
MAX_LINE_BYTES: Final = 8_192

# RFC 3261 section 7.3.3 and 20: the compact forms.
COMPACT_FORMS: Final = {
    "c": "content-type",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "s": "subject",
    "t": "to",
    "v": "via",
    "x": "session-expires",  # RFC 4028 section 4
}


# The headers that nearly every message has, as nearly everybody spells them: most names are found here at once.
_SPELLED: Final = {
    spelling: spelling.lower()
    for spelling in (
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Contact",
        "Content-Type",
        "Content-Length",
        "Max-Forwards",
        "Route",
        "Record-Route",
        "Require",
        "Supported",
        "Allow",
        "User-Agent",
        "Server",
        "Session-Expires",
        "Min-SE",
        "Content-Disposition",
    )
}

_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\r?\n")

Headers = tuple[tuple[str, str], ...]


def canonical_name(name: str) -> str:
    """A header's full name in lower case, its compact form expanded."""
    if (known := _SPELLED.get(name)) is not None:
        return known
    lowered = name.lower()
    return COMPACT_FORMS.get(lowered, lowered)


@dataclass(frozen=True, slots=True)
class _Message:
    """What requests and responses share."""

    headers: Headers
    body: bytes = field(default=b"", repr=False)  # it may hold keys, and digits
    _values: dict[str, list[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.headers:  # once: a message is asked for its headers dozens of times
            self._values.setdefault(canonical_name(key), []).append(value)

    def header(self, name: str) -> str | None:
        """The first value of a header, by its full name, or None."""
        values = self._values.get(name.lower())
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """All values of a header as written, one an occurrence."""
        return list(self._values.get(name.lower(), ()))

    def listed(self, name: str) -> list[str]:
        """All values of a list header, several on a line told apart."""
        return [piece for value in self.all(name) for piece in split(value, ",") if piece]

    def required(self, name: str) -> str:
        """The first value of a header that must be there.

        Raises:
            MalformedInput: it is missing.
        """
        value = self.header(name)
        if value is None:
            raise MalformedInput(f"the message has no {name} header")
        return value

    def _serialise(self, start_line: str) -> bytes:
        lines = [start_line]
        lines += [f"{name}: {value}" for name, value in self.headers if canonical_name(name) != "content-length"]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + self.body


@dataclass(frozen=True, slots=True)
class Request(_Message):
    """A request (section 7.1)."""

    method: str = ""
    uri: str = ""

    def __bytes__(self) -> bytes:
        return self._serialise(f"{self.method} {self.uri} SIP/2.0")


@dataclass(frozen=True, slots=True)
class Response(_Message):
    """A response (section 7.2)."""

    status: int = 0
    reason: str = ""

    def __bytes__(self) -> bytes:
        return self._serialise(f"SIP/2.0 {self.status} {self.reason}")


def request(method: str, uri: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Request:
    """A request to be sent; Content-Length is written by itself.

    Raises:
        MalformedInput: a header would break the message (line end or other control character in it).
    """
    return Request(headers=_checked(headers), body=body, method=method, uri=uri)


def response(status: int, reason: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Response:
    """A response to be sent; Content-Length is written by itself.

    Raises:
        MalformedInput: a header would break the message (line end or other control character in it).
    """
    return Response(headers=_checked(headers), body=body, status=status, reason=reason)


def parse(data: bytes) -> Request | Response:
    """Read one whole message: a datagram, or what `stream.py` cut from a stream.

    Tolerated (INTEROP, RFC 4475): bare LF line ends, empty lines in front, folded headers, compact forms, no space
    after the colon, octets after the body that Content-Length announces.

    Args:
        data: the octets, at most `MAX_MESSAGE_BYTES`.

    Returns:
        The message.

    Raises:
        MalformedInput: it cannot be read; `sip_status` says how to answer a request (400, 505 or 513).
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedInput("the message is larger than 65535 octets", sip_status=513)
    data = data.lstrip(b"\r\n")  # REQ: RFC 3261 section 7.5: ignore CRLFs before the start line
    head, body = split_head(data)
    start_line, headers = _read_head(head)
    length = content_length(headers)
    if length is not None:
        # REQ: RFC 3261 section 18.3: excess octets are discarded, a shortage is an error.
        if length > len(body):
            raise MalformedInput("the body is shorter than Content-Length says")
        body = body[:length]
    return _message(start_line, headers, body)


def split_head(data: bytes) -> tuple[bytes, bytes]:
    """Cut at the first empty line: the head without it, the body after it (a head without one is all head)."""
    found = _BLANK_LINE.search(data)
    return (data[: found.start()], data[found.end() :]) if found else (data.rstrip(b"\r\n"), b"")


def content_length(headers: Headers) -> int | None:
    """The announced length of the body, or None where no Content-Length is given.

    Raises:
        MalformedInput: it is no number, or two of them differ.
    """
    values = {value.strip() for name, value in headers if canonical_name(name) == "content-length"}
    if len(values) > 1:
        raise MalformedInput("two Content-Length headers differ")
    return number(values.pop(), "Content-Length", MAX_MESSAGE_BYTES) if values else None


def read_headers(block: bytes) -> Headers:
    """Read header lines without a start line, as in a part of a multipart body.

    Raises:
        MalformedInput: a line is no header, or a limit is passed.
    """
    return tuple(_read_lines(_LINE_END.split(block)))


def _read_head(head: bytes) -> tuple[str, Headers]:
    if len(head) > MAX_HEAD_BYTES:
        raise MalformedInput("the headers are larger than 32768 octets", sip_status=513)
    start, *lines = _LINE_END.split(head)
    return start.decode("utf-8", "surrogateescape"), tuple(_read_lines(lines))


def _read_lines(lines: list[bytes]) -> list[tuple[str, str]]:
    """Header lines, unfolded; a value is put together once, however many lines it has."""
    names: list[str] = []
    values: list[list[str]] = []
    for line in lines:
        if len(line) > MAX_LINE_BYTES:
            raise MalformedInput("a header line is longer than 8192 octets", sip_status=513)
        text = line.decode("utf-8", "surrogateescape")
        if text[:1] in {" ", "\t"} and values:
            # REQ: RFC 3261 section 7.3.1: a folded line continues the value, the white space counts as one space.
            values[-1].append(text.strip())
            continue
        if not text.strip():
            continue
        name, colon, value = text.partition(":")
        name = name.strip()
        if not colon or not TOKEN.match(name):
            raise MalformedInput("a header line has no name")
        if len(names) == MAX_HEADERS:
            raise MalformedInput("the message has more than 256 headers", sip_status=513)
        names.append(name)
        values.append([value.strip()])
    return [(name, _value(" ".join(filter(None, pieces)))) for name, pieces in zip(names, values, strict=True)]


def _value(text: str) -> str:
    if CONTROL.search(text):
        raise MalformedInput("a header value has a control character")
    if len(text) > MAX_LINE_BYTES:
        raise MalformedInput("a header value is longer than 8192 octets", sip_status=513)
    return text


def _message(start_line: str, headers: Headers, body: bytes) -> Request | Response:
    if CONTROL.search(start_line) or len(start_line) > MAX_LINE_BYTES:
        raise MalformedInput("the start line is malformed")
    first, _, rest = start_line.partition(" ")
    if first.upper() == "SIP/2.0":
        code, _, reason = rest.strip().partition(" ")
        status = number(code, "the status code", 699)
        if status < 100:  # noqa: PLR2004 - the smallest status code
            raise MalformedInput("the status code is below 100")
        return Response(headers=headers, body=body, status=status, reason=reason.strip())
    fields = start_line.split()
    if len(fields) != 3 or not TOKEN.match(fields[0]):  # noqa: PLR2004 - method, URI, version
        raise MalformedInput("the start line is no request line and no status line")
    method, uri, version = fields
    if version.upper() != "SIP/2.0":
        raise MalformedInput("the protocol version is not SIP/2.0", sip_status=505)
    return Request(headers=headers, body=body, method=method, uri=uri)


def _checked(headers: Iterable[tuple[str, str]]) -> Headers:
    return tuple((name, _value(value)) for name, value in headers)


def salvage(data: bytes) -> Request | None:
    """What is left of a request that `parse` refused, so that its sender can be told.

    Args:
        data: the octets.

    Returns:
        A request of the start line and the header lines that can be read, without a body; None for anything else, and
        for ACK, which is never answered.
    """
    start, *lines = _LINE_END.split(data.lstrip(b"\r\n")[:MAX_HEAD_BYTES])
    fields = start.decode("utf-8", "surrogateescape").split()
    if len(fields) < 3 or not fields[-1].upper().startswith("SIP/") or not TOKEN.match(fields[0]):  # noqa: PLR2004
        return None
    if fields[0] in {"ACK", "SIP/2.0"}:
        return None
    headers: list[tuple[str, str]] = []
    for line in lines[:MAX_HEADERS]:
        if not line.strip():
            break
        try:
            headers += _read_lines([line])
        except MalformedInput:
            continue
    return Request(headers=tuple(headers), method=fields[0], uri=fields[1])
