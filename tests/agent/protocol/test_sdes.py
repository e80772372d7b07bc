"""Keys of SRTP in session descriptions: RFC 4568, RFC 6188, RFC 7714."""

import base64
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.protocol import sdes
from sbc_agent.protocol.sdes import KEY_BYTES, SUITES, CryptoLine, MasterKey, Suite
from tests.agent.protocol.builders import capture, sample

KEY_30 = bytes(range(30))


def inline(suite: Suite = "AES_CM_128_HMAC_SHA1_80", first: int = 0, *, padded: bool = True) -> str:
    text = base64.b64encode(bytes(range(first, first + KEY_BYTES[suite]))).decode()
    return f"inline:{text if padded else text.rstrip('=')}"


SUITE: Final = "AES_CM_128_HMAC_SHA1_80"
READ: dict[str, tuple[str, CryptoLine | None]] = {
    "plain": (f"1 {SUITE} {inline()}", CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30),))),
    "a lifetime and a space at the end (AudioCodes)": (
        f"1 {SUITE} {inline()}|2^31 ",
        CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30),)),
    ),
    "a lifetime in decimal": (f"1 {SUITE} {inline()}|1048576", CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30),))),
    "an MKI with a lifetime": (
        f"1 {SUITE} {inline()}|2^31|1:1",
        CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30, b"\1"),)),
    ),
    "an MKI without one": (f"1 {SUITE} {inline()}|1:4", CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30, b"\0\0\0\1"),))),
    "two keys told apart by MKI": (
        f"1 {SUITE} {inline()}|2^20|1:4;{inline(first=1)}|2^20|2:4",
        CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30, b"\0\0\0\1"), MasterKey(bytes(range(1, 31)), b"\0\0\0\2"))),
    ),
    "RTCP in the clear": (
        f"1 {SUITE} {inline()}|2^48 UNENCRYPTED_SRTCP",
        CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30),), unencrypted_rtcp=True),
    ),
    "a window size, and a parameter that may be ignored": (
        f"1 {SUITE} {inline()} WSH=128 -X-ours",
        CryptoLine(1, SUITE, SUITE, (MasterKey(KEY_30),)),
    ),
    "the other spelling of AES-256-CM": (
        f"2 AES_CM_256_HMAC_SHA1_80 {inline('AES_256_CM_HMAC_SHA1_80')}",
        CryptoLine(2, "AES_256_CM_HMAC_SHA1_80", "AES_CM_256_HMAC_SHA1_80", (MasterKey(bytes(range(46))),)),
    ),
    "no padding": (
        f"3 AES_256_CM_HMAC_SHA1_80 {inline('AES_256_CM_HMAC_SHA1_80', padded=False)}",
        CryptoLine(3, "AES_256_CM_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_80", (MasterKey(bytes(range(46))),)),
    ),
    "lower case": (
        f"1 aes_cm_128_hmac_sha1_80 {inline()}",
        CryptoLine(1, SUITE, "aes_cm_128_hmac_sha1_80", (MasterKey(KEY_30),)),
    ),
    "a key too short for its suite": (f"1 AES_256_CM_HMAC_SHA1_80 {inline()}", None),
    "a key too long for its suite": (f"1 {SUITE} {inline('AES_256_CM_HMAC_SHA1_80')}", None),
    "a salt of CM where GCM has a shorter one": (f"1 AEAD_AES_128_GCM {inline()}", None),
    "an unknown suite": (f"5 AES_192_CM_HMAC_SHA1_80 {inline()}", None),
    "no encryption": (f"11 NULL_HMAC_SHA1_80 {inline()}", None),
    "media in the clear": (f"1 {SUITE} {inline()} UNENCRYPTED_SRTP", None),
    "media without authentication": (f"1 {SUITE} {inline()} UNAUTHENTICATED_SRTP", None),
    "keys derived anew as packets go": (f"1 {SUITE} {inline()} KDR=3", None),
    "a parameter that nobody knows": (f"1 {SUITE} {inline()} X-theirs", None),
    "no base64": (f"1 {SUITE} inline:!!!!", None),
    "another key method": (f"1 {SUITE} {inline().replace('inline', 'prompt')}", None),
    "two keys without MKI": (f"1 {SUITE} {inline()};{inline(first=1)}", None),
    "two keys of one MKI": (f"1 {SUITE} {inline()}|1:4;{inline(first=1)}|1:4", None),
    "MKIs of different lengths": (f"1 {SUITE} {inline()}|1:4;{inline(first=1)}|2:1", None),
    "an MKI longer than it says": (f"1 {SUITE} {inline()}|256:1", None),
    "something behind the MKI": (f"1 {SUITE} {inline()}|2^31|1:4|x", None),
    "neither lifetime nor MKI": (f"1 {SUITE} {inline()}|x", None),
    "no keys but their separator": (f"1 {SUITE} ;", None),
    "an MKI of no length": (f"1 {SUITE} {inline()}|0:0", None),
    "an MKI of 129 octets": (f"1 {SUITE} {inline()}|1:129", None),
    "a tag that is no number": (f"a {SUITE} {inline()}", None),
    "a tag of ten digits": (f"1234567890 {SUITE} {inline()}", None),
    "no key": (f"1 {SUITE}", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize("name", READ)
def test_lines(name: str) -> None:
    """A line is read as RFC 4568 section 9.1 says, with what vendors do to it; one that cannot be used is none."""
    value, expected = READ[name]
    assert sdes.read(value) == expected


def test_every_sample_can_be_used() -> None:
    """Each quirk that was seen leaves a line that can be used."""
    lines = [line for line in sample("shape_srtp_sdes_crypto_lines.txt").decode().splitlines() if line.startswith("a=")]
    found = [sdes.read(line.removeprefix("a=crypto:")) for line in lines]
    assert [line and (line.suite, len(line.keys[0].mki)) for line in found] == [
        ("AES_CM_128_HMAC_SHA1_80", 0),
        ("AES_CM_128_HMAC_SHA1_80", 0),
        ("AES_CM_128_HMAC_SHA1_80", 1),
        ("AES_CM_128_HMAC_SHA1_32", 4),
        ("AES_256_CM_HMAC_SHA1_80", 0),
        ("AES_256_CM_HMAC_SHA1_80", 0),
        ("AES_256_CM_HMAC_SHA1_80", 0),
    ]


def offered() -> list[str]:
    """The twelve lines of a real SBC's first m-line."""
    text = capture("31")["dialogs"][0]["messages"][0]["text"].split("m=audio")[1]
    return [line.removeprefix("a=crypto:") for line in text.splitlines() if line.startswith("a=crypto:")]


@pytest.mark.parametrize("count", range(1, len(SUITES) + 1))
def test_the_strongest_suite_is_chosen(count: int) -> None:
    """Of twelve lines, with suites that nobody should use, the best is taken that media can do."""
    suites = SUITES[-count:]
    chosen = sdes.choose(offered(), suites)
    assert chosen is not None
    assert chosen.suite == suites[0]
    assert chosen.written(b"k" * KEY_BYTES[chosen.suite]).startswith(f"{chosen.tag} {chosen.suite} inline:")


def test_of_equal_lines_the_first_is_chosen() -> None:
    """Suites repeated with other lifetimes: the offer's order decides; of two lines with one tag the first counts."""
    lines = [f"{tag} {SUITE} {inline()}|{life}" for tag, life in ((4, "2^31"), (2, "2^48"), (4, "2^20"))]
    assert sdes.choose(lines) == sdes.read(lines[0])
    stronger = f"4 AEAD_AES_256_GCM {inline('AEAD_AES_256_GCM')}"
    assert sdes.choose([lines[0], stronger]) == sdes.read(lines[0])
    assert sdes.choose([]) is None


@given(
    st.sampled_from(SUITES),
    st.integers(0, 999_999_999),
    st.booleans(),
    st.binary(min_size=0, max_size=4),
    st.data(),
)
def test_what_is_written_is_read(
    suite: Suite, tag: int, unencrypted_rtcp: bool, mki: bytes, data: st.DataObject
) -> None:
    """Our line names tag, suite and parameters of the offer's, with our key."""
    key = data.draw(st.binary(min_size=KEY_BYTES[suite], max_size=KEY_BYTES[suite]))
    theirs = CryptoLine(tag, suite, suite, (MasterKey(b"t" * KEY_BYTES[suite], mki),), unencrypted_rtcp)
    ours = sdes.read(theirs.written(key))
    assert ours == CryptoLine(tag, suite, suite, (MasterKey(key),), unencrypted_rtcp)


@given(st.text(max_size=200))
def test_any_text_is_read_or_passed_over(text: str) -> None:
    """No text breaks the reader; whatever it takes has keys as long as the suite's."""
    chosen = sdes.choose([text, f"1 {SUITE} {text}", f"1 {SUITE} inline:{text}", f"{text} {inline()}"])
    assert chosen is None or {len(key.key) for key in chosen.keys} == {KEY_BYTES[chosen.suite]}


def test_keys_are_not_shown() -> None:
    """Neither a line nor a key shows its secret."""
    line = sdes.read(f"1 {SUITE} {inline()}|2^31|1:1")
    assert line is not None
    shown = repr(line) + repr(line.keys) + repr(line.without_keys())
    assert "AAEC" not in shown
    assert "\\x05" not in shown
    assert line.without_keys().keys == ()
