"""The one-time code that introduces an agent and the cloud to each other.

``DT1-<secret>-<fingerprint>``: 26 characters of base 32 that prove the agent was invited (128 bits of chance), and 16
that let the agent check the cloud: the beginning of SHA-256 over the cloud's signing public key. An administrator reads
it from one screen and types it into another. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from dualtone.domain.errors import MalformedInput

LIFETIME_MS: Final = 86_400_000
SECRET_BYTES: Final = 16
_FORM: Final = re.compile(r"DT1-[A-Z2-7]{26}-[A-Z2-7]{16}")


def make(secret: bytes, signing_public_key_der: bytes) -> str:
    """Writes a code.

    Args:
        secret: Exactly 16 random bytes.
        signing_public_key_der: SubjectPublicKeyInfo of the key with which the cloud signs.

    Raises:
        ValueError: If the secret has another size.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError("the secret of an enrolment code is 16 random bytes")
    return f"DT1-{_base32(secret)[:26]}-{fingerprint(signing_public_key_der)}"


def fingerprint(signing_public_key_der: bytes) -> str:
    """The 16 characters by which an agent recognises the cloud's signing key: 80 bits of its SHA-256."""
    return _base32(hashlib.sha256(signing_public_key_der).digest())[:16]


def parse(text: str) -> str:
    """Returns the code in its canonical spelling (capitals, no spaces around); raises MalformedInput."""
    code = text.strip().upper()
    if not _FORM.fullmatch(code):
        raise MalformedInput("an enrolment code looks like DT1-(26 letters or digits)-(16 letters or digits)")
    return code


def digest(code: str) -> str:
    """The only form in which a code is stored: SHA-256 in hexadecimal. The code's 128 random bits need no salt."""
    return hashlib.sha256(code.encode("ascii")).hexdigest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=")
