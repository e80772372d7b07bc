"""Multipart bodies. Pure; standard: RFC 2046 section 5.1, RFC 5621.

Tolerated (INTEROP): a missing closing boundary, bare LF line ends, a part without headers, headers in any order and
spelling, a Content-Length in a part (it is not believed: the boundary decides), text before and after the parts.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.message import MAX_MESSAGE_BYTES, Headers, canonical_name, read_headers

MAX_PARTS: Final = 16
MAX_BOUNDARY_CHARACTERS: Final = 200  # RFC 2046 allows 70

_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n")
_FIRST_DELIMITER: Final = re.compile(rb"(?:\A|\n)--([^\r\n]{1,200}?)[ \t]*\r?\n")


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its headers and its exact octets."""

    headers: Headers
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """The first value of a header, by its full name, or None."""
        wanted = name.lower()
        return next((value for key, value in self.headers if canonical_name(key) == wanted), None)


def parse(body: bytes, boundary: str) -> list[Part]:
    """Cut a body into its parts.

    Args:
        body: the body of the message, at most 65,535 octets.
        boundary: the boundary parameter; where it is "" or found nowhere, the first line that begins with two
            hyphens is taken for the delimiter.

    Returns:
        The parts in their order, at least one.

    Raises:
        MalformedInput: there is no delimiter, a part's headers cannot be read, or a limit is passed.
    """
    if len(body) > MAX_MESSAGE_BYTES or len(boundary) > MAX_BOUNDARY_CHARACTERS:
        raise MalformedInput("a multipart body passes a limit", sip_status=513)
    delimiter = boundary.strip().encode("utf-8", "surrogateescape")
    delimiters = (delimiter and _delimiters(body, delimiter)) or _delimiters(body, _guess(body))
    ends = [start for start, _, _ in delimiters[1:]] + [len(body)]
    parts = [
        _part(body[begin : max(begin, end)])
        for (_, begin, closing), end in zip(delimiters, ends, strict=True)
        if not closing
    ]
    if not parts:
        raise MalformedInput("a multipart body has no part")
    return parts


def _delimiters(body: bytes, delimiter: bytes) -> list[tuple[int, int, bool]]:
    """Where delimiters begin and end, and whether they close the body; nothing after a closing one."""
    # REQ: RFC 2046 section 5.1.1: a delimiter stands at the beginning of a line, and the line end before it is its own.
    pattern = re.compile(rb"(?:\A|\r?\n)--" + re.escape(delimiter) + rb"(--)?[ \t]*(?:\r?\n|\Z)")
    found: list[tuple[int, int, bool]] = []
    position = 0
    while match := pattern.search(body, position):
        found.append((match.start(), match.end(), match[1] is not None))
        if match[1] is not None:
            break
        if len(found) > MAX_PARTS:
            raise MalformedInput("a multipart body has more than 16 parts", sip_status=513)
        # The line end after this delimiter is also the one before the next, if the part between them is empty.
        position = match.end() - 1
    return found


def _guess(body: bytes) -> bytes:
    found = _FIRST_DELIMITER.search(body)
    if found is None:
        raise MalformedInput("a multipart body has no boundary")
    return found[1]


def _part(data: bytes) -> Part:
    if data[:1] == b"\n" or data[:2] == b"\r\n":  # no headers: the part begins with the empty line
        return Part((), data[data.index(b"\n") + 1 :])
    found = _BLANK_LINE.search(data)
    if found is None:
        return Part(read_headers(data.rstrip(b"\r\n")), b"")
    return Part(read_headers(data[: found.start()]), data[found.end() :])
