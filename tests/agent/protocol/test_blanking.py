"""Secrets in recorded messages: blanked at their length, all else untouched."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.protocol import blanking, message
from tests.agent.protocol.builders import SAMPLE_MESSAGES, sample_message

KEY = base64.b64encode(bytes(range(30))).decode()
LINES = {
    f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}": f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{'*' * 40}",
    f"a=crypto:1 S inline:{KEY}|2^31|1:4": f"a=crypto:1 S inline:{'*' * 40}|2^31|1:4",
    f"a=crypto:1 S inline:{KEY}|1:4;inline:{KEY}|2:4 WSH=64": (
        f"a=crypto:1 S inline:{'*' * 40}|1:4;inline:{'*' * 40}|2:4 WSH=64"
    ),
    f"A = CRYPTO : 1 S INLINE:{KEY}": f"A = CRYPTO : 1 S INLINE:{'*' * 40}",
    f"a=crypto:1 S inline: {KEY}": f"a=crypto:1 S inline: {'*' * 40}",
    f"a=crypto:1 S secret:{KEY}": f"a=crypto:1 S secret:{'*' * 40}",
    f"a=key-mgmt:mikey {KEY}": f"a=key-mgmt:{'*' * 46}",
    f"k=base64:{KEY}": f"k={'*' * 47}",
    "k=clear:x": "k=*******",
    "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:x": "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:*",
    "a=rtpmap:8 PCMA/8000": "a=rtpmap:8 PCMA/8000",
    "k: timer, replaces": "k: timer, replaces",  # the compact form of Supported
    f"X-Crypto: {KEY}": f"X-Crypto: {KEY}",
    f"a=fingerprint:sha-256 {KEY}": f"a=fingerprint:sha-256 {KEY}",
    f"a=candidate {KEY}": f"a=candidate {KEY}",
}


@pytest.mark.parametrize("line", LINES)
def test_lines(line: str) -> None:
    """What is a key, or could be one in a line of keys, is blanked; suites, lifetimes, MKIs and other lines stay."""
    text = f"v=0\r\n{line}\r\nm=audio 6000 RTP/SAVP 8"
    assert blanking.keys(text.encode()).decode() == f"v=0\r\n{LINES[line]}\r\nm=audio 6000 RTP/SAVP 8"


@pytest.mark.parametrize("name", SAMPLE_MESSAGES)
def test_a_message_without_secrets_is_left_as_it_is(name: str) -> None:
    """Octet by octet."""
    data = sample_message(name)
    read = message.parse(data)
    assert isinstance(read, message.Request)
    assert blanking.request(read, data) == data


@given(st.binary(max_size=500))
def test_length_and_lines_stay(data: bytes) -> None:
    """Whatever the octets are, as many remain, in as many lines."""
    for blanked in (blanking.keys(data), blanking.body(data)):
        assert len(blanked) == len(data)
        assert [len(line) for line in blanked.split(b"\n")] == [len(line) for line in data.split(b"\n")]


@pytest.mark.parametrize("lead", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_body_is_found_behind_what_stands_before_it(lead: bytes, end: bytes) -> None:
    """A keep-alive before the start line is no body, and the body is not taken for a head."""
    data = lead + end.join([b"INFO sip:a SIP/2.0", b"CSeq: 1 INFO", b"", b"Signal=5"])
    assert blanking.body(data) == data[: -len(b"Signal=5")] + b"*" * 8
    assert blanking.body(data[: -len(b"Signal=5") - 2 * len(end)]) == data[: -len(b"Signal=5") - 2 * len(end)]
