"""Signed messages: what exactly is signed, and how a signature is checked.

Every signature is ECDSA on P-256 with SHA-256, DER-coded, over ``DUALTONE/v1/<kind>`` NUL payload, so that a signature
of one kind of message never passes for another. ``openssl dgst -sha256 -verify`` checks the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dualtone.domain.errors import IntegrityError, MalformedInput

_KIND: Final = re.compile(r"[a-z][a-z-]{1,40}")


class Signer(Protocol):
    """Holds a P-256 key that it does not give away: an agent's own, or one in KMS."""

    @property
    def key_id(self) -> str:
        """Names the key: a KMS ARN, or an agent's id."""

    def sign(self, message: bytes) -> bytes:
        """Signs SHA-256 of the message; returns the DER-coded ECDSA signature."""


def message(kind: str, payload: bytes) -> bytes:
    """The bytes that are signed for a payload of a kind, for example ``manifest`` or ``receipt``.

    Raises:
        ValueError: If the kind is not lower-case letters and hyphens.
    """
    if not _KIND.fullmatch(kind):
        raise ValueError("a kind of message is named in lower-case letters and hyphens")
    return b"DUALTONE/v1/" + kind.encode("ascii") + b"\0" + payload


VerifyingKeys = bytes | tuple[bytes, ...]
"""SubjectPublicKeyInfo of a P-256 key, or of several of one signer, any of which may have signed."""


def verify(public_key_der: VerifyingKeys, kind: str, payload: bytes, signature: bytes) -> None:
    """Checks a signature over a payload.

    Args:
        public_key_der: The key, or those of a signer that has rotated its key, the likeliest first.
        kind: The kind of message that is expected.
        payload: The payload as it was signed.
        signature: DER-coded ECDSA signature.

    Raises:
        IntegrityError: If the key is of another type or the signature is not this key's over this message.
    """
    keys = (public_key_der,) if isinstance(public_key_der, bytes) else public_key_der
    if not keys:
        raise IntegrityError("there is no key that could verify anything")
    for key_der in keys[:-1]:
        with contextlib.suppress(IntegrityError):
            _verify(key_der, kind, payload, signature)
            return
    _verify(keys[-1], kind, payload, signature)


def _verify(public_key_der: bytes, kind: str, payload: bytes, signature: bytes) -> None:
    try:
        key = load_der_public_key(public_key_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IntegrityError("the verifying key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IntegrityError("the verifying key is not on P-256")
    try:
        key.verify(signature, message(kind, payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise IntegrityError(f"the signature of the {kind} does not verify") from error


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signature, as stored and sent.

    Attributes:
        kind: What the payload is.
        payload: Its bytes, canonical JSON.
        signature: DER-coded ECDSA signature over ``message(kind, payload)``.
        key_id: The signer's name of its key; a hint, never a proof.
    """

    kind: str
    payload: bytes
    signature: bytes
    key_id: str

    @classmethod
    def sealed_by(cls, signer: Signer, kind: str, payload: bytes) -> Envelope:
        """Signs a payload."""
        return cls(kind, payload, signer.sign(message(kind, payload)), signer.key_id)

    def verified(self, public_key_der: VerifyingKeys, kind: str) -> bytes:
        """Returns the payload after checking kind and signature; raises IntegrityError."""
        if self.kind != kind:
            raise IntegrityError(f"a signed {kind} was expected")
        verify(public_key_der, kind, self.payload, self.signature)
        return self.payload

    def to_json(self) -> dict[str, str]:
        """The envelope as a JSON object: kind, key_id, and payload and signature in base64."""
        return {
            "kind": self.kind,
            "key_id": self.key_id,
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "signature": base64.b64encode(self.signature).decode("ascii"),
        }

    @classmethod
    def from_json(cls, value: object) -> Envelope:
        """Reads an envelope without checking its signature; raises MalformedInput."""
        if not isinstance(value, dict):
            raise MalformedInput("a signed envelope is a JSON object")
        kind, key_id = value.get("kind"), value.get("key_id")
        payload, signature = value.get("payload"), value.get("signature")
        if not (isinstance(kind, str) and isinstance(key_id, str)):
            raise MalformedInput("a signed envelope names its kind and its key")
        if not _KIND.fullmatch(kind):
            raise MalformedInput("a signed envelope of no known kind")
        if not (isinstance(payload, str) and isinstance(signature, str)):
            raise MalformedInput("a signed envelope holds a payload and a signature")
        try:
            return cls(
                kind, base64.b64decode(payload, validate=True), base64.b64decode(signature, validate=True), key_id
            )
        except (binascii.Error, ValueError) as error:
            raise MalformedInput("a signed envelope is coded in base64") from error
