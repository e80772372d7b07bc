"""Secrets in messages that are recorded: blanked, octet by octet, so that all else stays where it was. Pure.

Blanked are keys of SRTP (RFC 4568 `a=crypto`, RFC 4567 `a=key-mgmt`, RFC 8866 `k=`) wherever they stand, and the whole
body of a request that carries pressed keys. Every octet becomes `*`; lengths, Content-Length included, stay true.
"""

import re
from typing import Final

from sbc_agent.protocol import info_digits
from sbc_agent.protocol.message import Request, split_head

# What an inline key is, and what could be one in a line that nobody can read: a long run of base64.
_KEY: Final = re.compile(rb"(?i)(?<=inline:)[^|;\s]+|[A-Za-z0-9+/]{20,}={0,2}")
_CRYPTO: Final = re.compile(rb"(?i)a[ \t]*=[ \t]*crypto")
_OTHER_KEYS: Final = re.compile(rb"(?i)((?:\A|(?<=[\r\n]))[ \t]*(?:a[ \t]*=[ \t]*key-mgmt[ \t]*:|k[ \t]*=))([^\r\n]*)")
_BEGINNINGS: Final = (b"\nk", b"\rk", b"key-mgmt")
_NOT_LINE_ENDS: Final = re.compile(rb"[^\r\n]+")


def keys(raw: bytes) -> bytes:
    """A message without keys of SRTP, as long as before.

    Args:
        raw: the octets of a message, or of any part of one.
    """
    lowered = raw.lower()  # most messages have no such line: they are not looked at line by line
    if b"crypto" in lowered:
        raw = b"\n".join(_KEY.sub(_stars, line) if _CRYPTO.search(line) else line for line in raw.split(b"\n"))
    if lowered[:1] == b"k" or any(beginning in lowered for beginning in _BEGINNINGS):
        raw = _OTHER_KEYS.sub(lambda line: line[1] + b"*" * len(line[2]), raw)
    return raw


def body(raw: bytes) -> bytes:
    """A message without what its body says, as long as before; line ends stay."""
    begin = len(raw) - len(raw.lstrip(b"\r\n"))
    _, content = split_head(raw[begin:])
    return raw[: len(raw) - len(content)] + _NOT_LINE_ENDS.sub(_stars, content)


def request(asked: Request, raw: bytes) -> bytes:
    """A request without keys, and without digits if it carries any.

    Args:
        asked: the request, read.
        raw: its octets.
    """
    return body(raw) if info_digits.carried_by(asked) else keys(raw)


def _stars(found: re.Match[bytes]) -> bytes:
    return b"*" * len(found[0])
