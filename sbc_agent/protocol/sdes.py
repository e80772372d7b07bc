"""Keys of SRTP in session descriptions: `a=crypto`. Pure: randomness is an argument; standard: RFC 4568.

Suites: RFC 4568 section 6.2, RFC 6188 (AES-256 in counter mode), RFC 7714 (AES in Galois/counter mode). An offer names
the keys that its writer will send with. We choose one line of it and answer with that line's tag and suite and a key of
our own, with which nothing is ever sent: we only listen.

Tolerated (INTEROP): both spellings of AES-256-CM, lifetimes of any size, a space at the line's end, base64 without its
padding, suites repeated with other lifetimes, lines of suites that nobody should use any more; what cannot be used is
passed over, the next line may do. Not here: DTLS-SRTP (RFC 5763), MIKEY (RFC 3830), forward error correction.

Keys are never part of a `repr`.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Suite = Literal[
    "AEAD_AES_256_GCM",
    "AES_256_CM_HMAC_SHA1_80",
    "AEAD_AES_128_GCM",
    "AES_CM_128_HMAC_SHA1_80",
    "AES_256_CM_HMAC_SHA1_32",
    "AES_CM_128_HMAC_SHA1_32",
]
SrtpPolicy = Literal["allow", "require_tls", "off"]

FLAG_SRTP_REFUSED: Final = "srtp-refused"
FLAG_SRTP_NEEDS_TLS: Final = "srtp-needs-tls"
FLAG_SRTP_KEYS_VISIBLE: Final = "srtp-keys-in-clear"

# Strongest first: a tag of 32 bits comes last, a longer key before a shorter one, authenticated encryption first.
SUITES: Final[tuple[Suite, ...]] = get_args(Suite)

# Octets of master key and master salt: RFC 4568 section 6.2, RFC 6188 section 7.3, RFC 7714 section 14.2.
KEY_BYTES: Final[dict[Suite, int]] = {
    "AEAD_AES_256_GCM": 32 + 12,
    "AES_256_CM_HMAC_SHA1_80": 32 + 14,
    "AEAD_AES_128_GCM": 16 + 12,
    "AES_CM_128_HMAC_SHA1_80": 16 + 14,
    "AES_256_CM_HMAC_SHA1_32": 32 + 14,
    "AES_CM_128_HMAC_SHA1_32": 16 + 14,
}

# REQ: RFC 4568 section 9.1: a tag is one to nine digits; section 6.1: an MKI is at most 128 octets long.
MAX_LINES: Final = 64
MAX_KEYS: Final = 16
MAX_MKI_BYTES: Final = 128

_SPELLINGS: Final[dict[str, Suite]] = {
    **{suite: suite for suite in SUITES},
    "AES_CM_256_HMAC_SHA1_80": "AES_256_CM_HMAC_SHA1_80",
    "AES_CM_256_HMAC_SHA1_32": "AES_256_CM_HMAC_SHA1_32",
}
_TAG: Final = re.compile(r"[0-9]{1,9}")
_LIFETIME: Final = re.compile(r"(?:2\^)?[0-9]{1,20}")
_MKI: Final = re.compile(r"([0-9]{1,310}):([0-9]{1,3})")  # 310 digits hold 128 octets
_UNENCRYPTED_RTCP: Final = "UNENCRYPTED_SRTCP"
# Session parameters that change nothing for who only listens: how far the window of replays reaches.
_HARMLESS: Final = re.compile(r"WSH=[0-9]{1,10}|-.*", re.ASCII)


@dataclass(frozen=True, slots=True)
class SrtpTerms:
    """What becomes of offers of SRTP on one leg.

    Attributes:
        suites: what is accepted, the best first; () accepts none.
        refused: the flag of an m-line that is refused.
        taken: the flag of a session with an m-line that is accepted; None for nothing to remark.
    """

    suites: tuple[Suite, ...] = SUITES
    refused: str = FLAG_SRTP_REFUSED
    taken: str | None = None


def terms(policy: SrtpPolicy, *, over_tls: bool) -> SrtpTerms:
    """What a policy means on a leg.

    REQ: RFC 4568 section 7: keys in a session description are as secret as what carries it.

    Args:
        policy: `off` accepts no SRTP, `require_tls` none whose keys came in the clear.
        over_tls: whether the offer came over TLS.
    """
    if policy == "off":
        return SrtpTerms(())
    if over_tls:
        return SrtpTerms()
    return SrtpTerms(taken=FLAG_SRTP_KEYS_VISIBLE) if policy == "allow" else SrtpTerms((), FLAG_SRTP_NEEDS_TLS)


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A master key with its master salt, and the identifier that packets name it by (RFC 3711 section 3.1)."""

    key: bytes = field(repr=False)
    mki: bytes = b""


@dataclass(frozen=True, slots=True)
class CryptoLine:
    """An `a=crypto` line that can be used.

    Attributes:
        tag: its number, as the peer counts.
        suite: as registered.
        spelling: the suite as the peer spells it: our answer spells it likewise.
        keys: at least one; several are told apart by their MKI. Empty only where they were forgotten by a restart.
        unencrypted_rtcp: whether RTCP goes in the clear (section 6.3.2).
    """

    tag: int
    suite: Suite
    spelling: str
    keys: tuple[MasterKey, ...] = field(default=(), repr=False)
    unencrypted_rtcp: bool = False

    def without_keys(self) -> "CryptoLine":
        """The line as it may be written to a disk."""
        return CryptoLine(self.tag, self.suite, self.spelling, (), self.unencrypted_rtcp)

    def written(self, key: bytes) -> str:
        """The value of our own `a=crypto` with the same tag, suite and session parameters, and this key.

        Args:
            key: master key and master salt, as long as the suite asks for.
        """
        # REQ: RFC 4568 section 5.1.2: tag and suite are those of the offer; section 6.3: so are negotiated parameters.
        parameter = f" {_UNENCRYPTED_RTCP}" if self.unencrypted_rtcp else ""
        return f"{self.tag} {self.spelling} inline:{base64.b64encode(key).decode('ascii')}{parameter}"


def read(value: str) -> CryptoLine | None:
    """Read the value of an `a=crypto` attribute.

    Args:
        value: what stands behind `a=crypto:`.

    Returns:
        The line, or None if it cannot be used: no line of the standard, a suite or a session parameter that we do not
        do (section 6.3: an unknown one is refused with its line), or keys of another length than the suite's.
    """
    fields = value.split()
    if len(fields) < 3:  # noqa: PLR2004 - tag, suite, keys
        return None
    tag, suite_text, keys_text, *parameters = fields
    suite = _SPELLINGS.get(suite_text.upper())
    if not _TAG.fullmatch(tag) or suite is None:
        return None
    unencrypted_rtcp = False
    for parameter in parameters:
        if parameter.upper() == _UNENCRYPTED_RTCP:
            unencrypted_rtcp = True
        elif not _HARMLESS.fullmatch(parameter.upper()):
            return None
    keys = [_key(text, suite) for text in keys_text.rstrip(";").split(";")[: MAX_KEYS + 1]]
    found = tuple(key for key in keys if key is not None)
    if len(found) != len(keys) or not _told_apart(found):
        return None
    return CryptoLine(int(tag), suite, suite_text, found, unencrypted_rtcp)


def choose(values: Iterable[str], suites: Sequence[Suite] = SUITES) -> CryptoLine | None:
    """Choose the line of an offer to answer.

    Args:
        values: the values of its `a=crypto` attributes, in their order.
        suites: what can be done, the best first.

    Returns:
        The first line of the best suite (of two lines with one tag the second is none), or None if there is none.
    """
    lines: dict[int, CryptoLine] = {}
    for value in list(values)[:MAX_LINES]:
        line = read(value)
        if line is not None and line.suite in suites:
            lines.setdefault(line.tag, line)
    return min(lines.values(), key=lambda line: suites.index(line.suite), default=None)


def _key(text: str, suite: Suite) -> MasterKey | None:
    """Read one of the key parameters: `inline:` key, lifetime and MKI (section 6.1)."""
    method, _, information = text.partition(":")
    if method.lower() != "inline":
        return None
    encoded, *rest = information.split("|")
    key = _decoded(encoded)
    if key is None or len(key) != KEY_BYTES[suite]:
        return None
    if rest and _LIFETIME.fullmatch(rest[0]):
        rest = rest[1:]  # we send nothing, and packets of a key past its time open all the same
    if not rest or rest == [""]:
        return MasterKey(key)
    found = _MKI.fullmatch(rest[0])
    if found is None or len(rest) > 1:
        return None
    length = int(found[2])
    if not 0 < length <= MAX_MKI_BYTES or int(found[1]) >= 1 << (8 * length):
        return None
    return MasterKey(key, int(found[1]).to_bytes(length, "big"))


def _decoded(text: str) -> bytes | None:
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _told_apart(keys: tuple[MasterKey, ...]) -> bool:
    """REQ: RFC 4568 section 6.1: several keys of a line have different MKIs of one length."""
    if not 0 < len(keys) <= MAX_KEYS:
        return False
    return len({key.mki for key in keys}) == len(keys) and len({len(key.mki) for key in keys}) == 1
