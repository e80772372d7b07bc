"""Keys that a party pressed, as INFO requests tell them. Pure; standard: RFC 6086; the bodies are vendors' own.

They may be digits of a card: what is read here is acted on and then forgotten, the message is kept without its body
(`blanking.py`).

| type                                    | body                                                              |
|-----------------------------------------|-------------------------------------------------------------------|
| `application/dtmf-relay` (Cisco)        | `Signal=5`, `Duration=160`; 10 is *, 11 is #, 12 to 15 are A to D |
| `application/dtmf`                      | `5`, or as above                                                  |
| `application/vnd.nortelnetworks.digits` | `p=Digit-Collection`, `y=Digits`, `d=5`                           |
"""

import re
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import content_type, multipart
from sbc_agent.protocol.message import Request

MAX_DIGITS: Final = 32  # of one request

_TYPES: Final = frozenset(
    {
        "application/dtmf",
        "application/dtmf-relay",
        "application/vnd.nortelnetworks.digits",
        "application/kpml-response+xml",
        "audio/telephone-event",
    }
)
_NORTEL: Final = "application/vnd.nortelnetworks.digits"
_DIGITS: Final = frozenset("0123456789*#ABCD")
# RFC 4733 section 3.2 numbers the keys so.
_NUMBERED: Final = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}
_SIGNAL: Final = re.compile(rb"(?im)^[ \t]*signal[ \t]*[=:][ \t]*([0-9*#a-d]{1,2})[ \t]*\r?$")
_NORTEL_DIGITS: Final = re.compile(rb"(?im)(?:^|[ \t])d[ \t]*=[ \t]*([0-9*#a-d]{1,64})")
_LOOKS_SO: Final = re.compile(rb"(?i)\A\s*signal[ \t]*[=:]")


def carried_by(asked: Request) -> bool:
    """Whether a request carries keys that a party pressed: its body must never be stored.

    True for a type that is made for them, in a multipart body too, and for an INFO whose body begins like one.
    """
    if any(kind in _TYPES for kind, _ in _parts(asked)):
        return True
    return asked.method == "INFO" and _LOOKS_SO.match(asked.body) is not None


def read(asked: Request) -> str:
    """The digits that an INFO tells, in their order, each one of 0-9, *, #, A-D; "" for none."""
    if asked.method != "INFO":
        return ""
    found = "".join(_digits(kind, body) for kind, body in _parts(asked))
    return found[:MAX_DIGITS]


def _parts(asked: Request) -> list[tuple[str, bytes]]:
    """Type and octets of the body, or of its parts."""
    kind, boundary = _kind(asked.header("content-type"))
    if not kind.startswith("multipart/"):
        return [(kind, asked.body)]
    try:
        return [(_kind(part.header("content-type"))[0], part.body) for part in multipart.parse(asked.body, boundary)]
    except MalformedInput:
        return []


def _kind(text: str | None) -> tuple[str, str]:
    try:
        read = content_type.parse(text or "")
    except MalformedInput:
        return "", ""
    return read.value, read.parameters.get("boundary", "")


def _digits(kind: str, body: bytes) -> str:
    if kind == _NORTEL:
        return "".join(found.decode("ascii").upper() for found in _NORTEL_DIGITS.findall(body))
    if signal := _SIGNAL.search(body):
        return _one(signal[1])
    return _one(body.strip()) if kind == "application/dtmf" else ""


def _one(text: bytes) -> str:
    digit = text.decode("ascii", "replace").upper()
    digit = _NUMBERED.get(digit, digit)
    return digit if digit in _DIGITS else ""
