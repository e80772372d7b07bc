"""The lexical rules that SIP headers share (RFC 3261 section 25.1). Pure; standard: RFC 3261, RFC 5234.

Nested grammar (quoted strings, angle brackets) is scanned, never matched by one large regular expression, so that the
time taken is proportional to the length of the text whatever a peer sends.
"""

import re

from dualtone.domain.errors import MalformedInput

# The rule `token`: alphanumeric, "-", ".", "!", "%", "*", "_", "+", "`", "'" and "~".
TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+\Z")

# Only HTAB of the control characters may stand inside a header value; a bare CR or a NUL copied into our answer
# would be read differently by different peers.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_NOT_IN_HOSTS = frozenset(' \t<>"@;,')

# 2**31 - 1: RFC 3261 section 8.1.1.5 bounds a CSeq number below 2**31; ports and lengths are far smaller.
MAX_NUMBER_DIGITS = 10


def number(text: str, what: str, maximum: int) -> int:
    """A decimal number of at most `maximum`.

    Args:
        text: what the peer wrote.
        what: the field's name, for the message of the error.
        maximum: the largest value allowed.

    Returns:
        The value.

    Raises:
        MalformedInput: it is not ASCII digits, or too large.
    """
    if not text.isascii() or not text.isdigit() or len(text) > MAX_NUMBER_DIGITS or int(text) > maximum:
        raise MalformedInput(f"{what} is not a number up to {maximum}")
    return int(text)


def split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside quoted strings and angle brackets.

    Args:
        text: a header value.
        separator: one character, `,` or `;`.

    Returns:
        The stripped pieces; an unclosed quotation or bracket runs to the end.
    """
    if '"' not in text and "<" not in text:
        return [piece.strip() for piece in text.split(separator)]
    pieces, start, quoted, bracketed, escaped = [], 0, False, False, False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped = character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character == "<":
            bracketed = True
        elif character == ">":
            bracketed = False
        elif character == separator and not bracketed:
            pieces.append(text[start:position].strip())
            start = position + 1
    pieces.append(text[start:].strip())
    return pieces


def unquote(text: str) -> str:
    """The content of a quoted-string, with its escapes undone; anything else as it is."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':  # noqa: PLR2004 - two quotation marks
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def readable(text: str) -> str:
    """A header value as text that any encoding takes: octets that were not UTF-8 become U+FFFD.

    Messages are read with `surrogateescape`, so that what is echoed is echoed exactly; what is told to others is not.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def quote(text: str) -> str:
    """A quoted-string holding the text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parameters(pieces: list[str]) -> dict[str, str]:
    """Read `;name=value` pieces: names in lower case, values unquoted, "" for a flag; the first of two wins.

    Args:
        pieces: what `split` yielded after the value itself.

    Returns:
        Name to value, in the order written.
    """
    found: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.partition("=")
        if name := name.strip().lower():
            found.setdefault(name, unquote(value))
    return found


def format_parameters(values: dict[str, str]) -> str:
    """Write parameters as `;name=value`, quoting a value that is neither a token nor a host."""
    written = []
    for name, value in values.items():
        plain = not value or TOKEN.match(value.replace("[", "").replace("]", "").replace(":", ""))
        written.append(f";{name}={value if plain else quote(value)}" if value else f";{name}")
    return "".join(written)


def parse_host_port(text: str, what: str) -> tuple[str, int | None]:
    """Read `host[:port]`, the host a name, an IPv4 address or a bracketed IPv6 reference.

    Returns:
        The host as written (IPv6 with its brackets) and the port or None.

    Raises:
        MalformedInput: no host, or a port that is no number up to 65535.
    """
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
    host, rest = host.strip(), rest.strip()
    if not host or not _NOT_IN_HOSTS.isdisjoint(host):
        raise MalformedInput(f"{what} has no host")
    if not rest:
        return host, None
    if not rest.startswith(":"):
        raise MalformedInput(f"{what} has text after its host")
    return host, number(rest[1:].strip(), f"the port of {what}", 65535)
