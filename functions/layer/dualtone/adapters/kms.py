"""KMS: data keys, unwrapping, signatures and MACs. Every Decrypt names its key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from dualtone.adapters.aws_errors import translated
from dualtone.domain.errors import IntegrityError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_DATA_KEY_BYTES: Final = 32


class Kms:
    """A KMS client's part in Dualtone. All keys are named by their ARN; nothing is cached."""

    def __init__(self, client: KMSClient) -> None:
        self._client = client

    def generate_data_key(self, key: str, context: dict[str, str]) -> tuple[bytes, bytes]:
        """Draws 32 random bytes; returns them and the same wrapped under the key, bound to the context."""
        with translated("drawing a data key"):
            answer = self._client.generate_data_key(KeyId=key, NumberOfBytes=_DATA_KEY_BYTES, EncryptionContext=context)
        return answer["Plaintext"], answer["CiphertextBlob"]

    def decrypt(self, key: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        """Unwraps what the named key wrapped under this context.

        Raises:
            IntegrityError: If another key or context wrapped it, or it was altered.
            NotFound: If there is no such key.
            PolicyViolation: If the key refuses, or is disabled.
            Unavailable: If KMS does not answer.
        """
        with translated("unwrapping a data key"):
            answer = self._client.decrypt(KeyId=key, CiphertextBlob=wrapped, EncryptionContext=context)
        return answer["Plaintext"]

    def unwrap_call_key(self, ingest_key: str, wrapped: bytes) -> bytes:
        """Unwraps what an agent wrapped to the ingest key's public half (RSAES-OAEP with SHA-256, RFC 8017).

        Args:
            ingest_key: ARN of the RSA-4096 key.
            wrapped: 512 bytes.

        Returns:
            The plaintext: call key and binding, which the caller compares.

        Raises:
            IntegrityError: If it was not wrapped to this key.
            PolicyViolation: If the key refuses.
            Unavailable: If KMS does not answer.
        """
        with translated("unwrapping a call key"):
            answer = self._client.decrypt(
                KeyId=ingest_key, CiphertextBlob=wrapped, EncryptionAlgorithm="RSAES_OAEP_SHA_256"
            )
        return answer["Plaintext"]

    def sign(self, key: str, message: bytes) -> bytes:
        """Signs a message of any length with a P-256 key; returns the DER-coded ECDSA signature over its SHA-256."""
        with translated("signing"):
            answer = self._client.sign(
                KeyId=key,
                Message=hashlib.sha256(message).digest(),
                MessageType="DIGEST",
                SigningAlgorithm="ECDSA_SHA_256",
            )
        return answer["Signature"]

    def public_key_der(self, key: str) -> bytes:
        """The public half of an asymmetric key: SubjectPublicKeyInfo in DER."""
        with translated("reading a public key"):
            return self._client.get_public_key(KeyId=key)["PublicKey"]

    def mac(self, key: str, message: bytes) -> bytes:
        """HMAC-SHA-256 of at most 4,096 bytes under a key that never leaves KMS; 32 bytes."""
        with translated("computing a MAC"):
            return self._client.generate_mac(KeyId=key, Message=message, MacAlgorithm="HMAC_SHA_256")["Mac"]


class KmsSigner:
    """A signer (``domain.signing.Signer``) whose key stays in KMS."""

    def __init__(self, kms: Kms, key: str) -> None:
        self._kms = kms
        self._key = key

    @property
    def key_id(self) -> str:
        """The key's ARN."""
        return self._key

    def sign(self, message: bytes) -> bytes:
        """Signs SHA-256 of the message; returns the DER-coded ECDSA signature."""
        return self._kms.sign(self._key, message)


class TrustedSigningKeys:
    """Public keys of the signing keys that settings name; a key that only a database names is never asked for."""

    def __init__(self, kms: Kms, keys: frozenset[str]) -> None:
        """Binds to KMS.

        Args:
            kms: Knows the public halves.
            keys: ARNs of the trusted signing keys, those of the past included.
        """
        self._kms = kms
        self._keys = keys
        self._known: dict[str, bytes] = {}

    def public_key(self, key_id: str) -> bytes:
        """SubjectPublicKeyInfo in DER, remembered; raises IntegrityError if the key is not trusted."""
        if key_id not in self._keys:
            raise IntegrityError("a signature names a key that is not trusted")
        if key_id not in self._known:
            self._known[key_id] = self._kms.public_key_der(key_id)
        return self._known[key_id]
