"""SIP's smaller grammars: keys of SRTP, addresses, types, pressed keys, and what of a message may be stored."""

import re
from collections.abc import Sequence
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import (
    address,
    answer,
    blanking,
    content_type,
    cseq,
    info_digits,
    message,
    recognition,
    replacing,
    sdes,
    sdp,
    session_timer,
    uri,
    via,
)
from sbc_agent.protocol.message import Request
from tests.fuzz.target import Target, kept

_CRYPTO: Final = re.compile(rb"\r\na=crypto:([^\r\n]+)")


def _text(data: bytes) -> str:
    """As a header's value comes out of a message: it has no line ends and no control characters."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(character for character in text if character >= " " or character == "\t")


def _crypto(data: bytes) -> None:
    lines = [_text(line) for line in data.splitlines()]
    found = sdes.choose(lines)
    for line in lines:
        read = sdes.read(line)
        assert read is None or "inline" not in repr(read), "a key is part of no repr"
    if found is None:
        raise MalformedInput("no line that could be used")
    for key in found.keys:
        assert len(key.key) == sdes.KEY_BYTES[found.suite]
    sdes.read(found.written(bytes(sdes.KEY_BYTES[found.suite])))


def _secure_description(data: bytes) -> None:
    """An offer with keys, answered under each policy."""
    offer = sdp.parse(data)
    for policy in ("allow", "require_tls", "off"):
        answer.plan(offer, sdes.terms(policy, over_tls=True))


def _value(data: bytes) -> None:
    """One header value under every grammar that there is: any of them may refuse, one must read."""
    text, read = _text(data), 0
    for parse in (via.parse, address.parse, cseq.parse, content_type.parse, uri.parse):
        try:
            parse(text)
            read += 1
        except MalformedInput:
            continue
    if not read:
        raise MalformedInput("no grammar reads it")


def _request(data: bytes) -> None:
    """What a request is recognised by, its pressed keys, and what of it may be stored: no key of SRTP, no digit."""
    asked = message.parse(data)
    if not isinstance(asked, Request):
        raise MalformedInput("a response")
    recognition.is_recording_session(asked, has_metadata=False, configured_peer=False)
    recognition.unsupported(asked)
    session_timer.negotiate(asked)
    replacing.named_by(asked)
    assert len(info_digits.read(asked)) <= info_digits.MAX_DIGITS
    stored = blanking.request(asked, data)
    assert len(stored) == len(data), "what is blanked keeps its length"


def targets(messages: Sequence[bytes]) -> dict[str, Target]:
    """All of these, by name."""
    crypto = [b"\r\n".join(_CRYPTO.findall(data)) for data in messages if _CRYPTO.search(data)]
    offers = [data[data.index(b"v=0") :].partition(b"\r\n--")[0] for data in messages if _CRYPTO.search(data)]
    return {
        "crypto": Target(crypto, _crypto),
        "secure-sdp": Target(offers, _secure_description),
        "header-value": Target(kept("header-value"), _value),
        "request": Target([data for data in messages if not data.startswith(b"SIP/")], _request),
    }
