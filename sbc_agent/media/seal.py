"""Keys of the agent: its own P-256 key, and one fresh AES-256-GCM key for each call, which never leaves this process.

The agent can seal but not open: a call key exists in memory while the call lasts, and wrapped to the tenant's ingest
key (RSAES_OAEP_SHA_256, RFC 8017 section 7.1) in the call's signed opening record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from dualtone.domain import part
from dualtone.domain.call_files import CALL_KEY_BYTES, Opening, OpeningFile, bound_call_key
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.part import RecordHead, RecordType
from dualtone.domain.signing import Signer

_MIN_RSA_BITS: Final = 4096


@dataclass(frozen=True, slots=True)
class AgentKey:
    """The agent's P-256 key; a ``Signer``."""

    key_id: str
    private_key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, path: Path, agent: AgentId) -> AgentKey:
        """Reads the key's PEM file.

        Raises:
            OSError: If it cannot be read.
            MalformedInput: If it is no P-256 key.
        """
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError):
            raise MalformedInput("the agent's key is no PEM private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise MalformedInput("the agent's key is not on P-256")
        return cls(agent, key)

    @property
    def public_key_der(self) -> bytes:
        """Its public half, SubjectPublicKeyInfo."""
        return self.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """Signs SHA-256 of the message; returns the DER-coded ECDSA signature."""
        return self.private_key.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class IngestKey:
    """The tenant's ingest key: call keys are wrapped to its public half; the private half stays in KMS."""

    key_arn: str
    public_key: rsa.RSAPublicKey

    @classmethod
    def load(cls, key_arn: str, public_key_der: bytes) -> IngestKey:
        """Reads the public half; raises MalformedInput if it is no RSA key of 4,096 bits or more."""
        try:
            key = load_der_public_key(public_key_der)
        except ValueError:
            raise MalformedInput("the ingest key cannot be read") from None
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
            raise MalformedInput("the ingest key is no RSA key of 4,096 bits")
        return cls(key_arn, key)

    def wrap(self, tenant: TenantId, call: CallId, call_key: bytes) -> bytes:
        """Wraps a call key, bound to its call."""
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        return self.public_key.encrypt(bound_call_key(tenant, call, call_key), oaep)


class CallSeal:
    """Seals a call's records under a fresh key; the nonce counts them.

    Args:
        tenant: Owner of the call.
        call: The call.
        epoch: Which key of the call this is.
        key: 32 fresh random bytes.
    """

    def __init__(self, tenant: TenantId, call: CallId, epoch: int, key: bytes) -> None:
        self.call, self.epoch = call, epoch
        self._tenant = tenant
        self._key: bytearray | None = bytearray(key)
        self._aead = AESGCM(key)
        self._sequence = 0

    @classmethod
    def fresh(cls, tenant: TenantId, call: CallId, epoch: int, randomness: Callable[[int], bytes]) -> CallSeal:
        """Draws a key."""
        return cls(tenant, call, epoch, randomness(CALL_KEY_BYTES))

    def opening(
        self, agent: AgentId, ingest: IngestKey, signer: Signer, *, sequence: int, started_at_us: int
    ) -> OpeningFile:
        """Wraps the key and signs the opening record, once; the key itself is then forgotten.

        Args:
            agent: This agent.
            ingest: What the key is wrapped to.
            signer: The agent's key.
            sequence: Counts the agent's openings.
            started_at_us: When the call began, agent's clock.
        """
        assert self._key is not None, "an opening is written once"
        wrapped = ingest.wrap(self._tenant, self.call, bytes(self._key))
        self._wipe_key()
        opening = Opening(
            tenant=self._tenant,
            agent=agent,
            call=self.call,
            epoch=self.epoch,
            key_arn=ingest.key_arn,
            wrapped_key_sha256=hashlib.sha256(wrapped).hexdigest(),
            sequence=sequence,
            started_at_us=started_at_us,
        )
        return OpeningFile.sealed_by(signer, opening, wrapped)

    def forget(self) -> None:
        """Destroys the key, which was wrapped for nobody: what it sealed never opens, and it seals nothing more.

        Our copy is overwritten and OpenSSL wipes its own; one that a library made in passing is out of reach.
        """
        self._wipe_key()
        del self._aead

    def _wipe_key(self) -> None:
        if self._key is not None:
            self._key[:] = bytes(len(self._key))
            self._key = None

    def frame(
        self, record_type: RecordType, stream_set: int, from_us: int, span_us: int, plaintext: bytes | memoryview
    ) -> bytes:
        """Seals a record.

        Args:
            record_type: What it is.
            stream_set: Which set of streams the call has now.
            from_us: When its first content arrived, agent's clock.
            span_us: How much later its last did.
            plaintext: What is sealed.

        Returns:
            The frame to append to the part.
        """
        head = RecordHead(record_type, stream_set, self._sequence, from_us, min(span_us, part.MAX_SPAN_US))
        self._sequence += 1
        return part.seal(self._aead, self.call, self.epoch, head, plaintext)
