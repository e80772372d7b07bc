"""Who this agent is: its P-256 key, made here and never sent, and what the cloud told it at enrolment.

``state_dir/agent.key`` is PKCS #8 PEM with mode 0600; ``state_dir/identity.json`` is the enrolment answer. The cloud's
signing key in it was checked against the one-time code and is pinned: everything that the cloud tells the agent later
(ingest keys, receipts, commands) is believed by that signature alone. What every answer of the token endpoint tells
anew (:mod:`sbc_agent.runtime.control_facts`) is kept beside it, so that pauses work for days without an uplink.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dualtone.domain import canonical, ids
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound, PolicyViolation
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.durable import write_private

KEY_FILE: Final = "agent.key"
IDENTITY_FILE: Final = "identity.json"
_INGEST_KEY_BITS: Final = 4096
_OTHERS: Final = 0o077


class AgentKey:
    """The agent's P-256 key. It signs openings, parts, manifests and assertions."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, key_id: str = "") -> None:
        self._key = key
        self._key_id = key_id

    @classmethod
    def generate(cls) -> Self:
        """Draws a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, state_dir: Path, key_id: str = "", name: str = KEY_FILE) -> Self:
        """Reads the key from its file.

        Raises:
            NotFound: If there is none.
            PolicyViolation: If others may read it.
            MalformedInput: If it is no P-256 key.
        """
        path = state_dir / name
        try:
            if path.stat().st_mode & _OTHERS:
                raise PolicyViolation(f"{path} can be read by others: run chmod 600 {path}")
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{path} does not exist: enrol this agent first") from error
        except PermissionError as error:
            raise PolicyViolation(f"{path} cannot be read: run the agent as the user that enrolled it") from error
        try:
            key = serialization.load_pem_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise MalformedInput(f"{path} holds no private key in PEM") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise MalformedInput(f"{path} holds a key that is not on P-256")
        return cls(key, key_id)

    def save(self, state_dir: Path, name: str = KEY_FILE) -> None:
        """Writes the key, mode 0600; an older key gives way."""
        write_private(state_dir / name, self.private_pem())

    def become(self, other: AgentKey) -> None:
        """Signs with another key from now on: the agent's next one."""
        self._key = other.private_key

    def private_pem(self) -> bytes:
        """The key as PKCS #8 PEM; for its file alone."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_pem(self) -> str:
        """The public half as SubjectPublicKeyInfo PEM."""
        return (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii")
        )

    def public_der(self) -> bytes:
        """The public half as SubjectPublicKeyInfo DER."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        """The agent's id."""
        return self._key_id

    def sign(self, message: bytes) -> bytes:
        """Signs SHA-256 of the message, DER-coded."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The key itself, for a library that signs with it."""
        return self._key


@dataclass(frozen=True, slots=True)
class TenantIngestKey:
    """The tenant's RSA-4096 key to which call keys are wrapped; its private half lives in KMS.

    Attributes:
        tenant: Whose key it is.
        key_arn: Its name in KMS.
        public_key_der: SubjectPublicKeyInfo.
    """

    tenant: TenantId
    key_arn: str
    public_key_der: bytes


def verified_ingest_key(envelope: object, *, tenant: TenantId, signing_key_der: bytes) -> TenantIngestKey:
    """Believes an ingest key if the cloud signed it for this tenant.

    Args:
        envelope: The signed envelope as JSON.
        tenant: The agent's own tenant.
        signing_key_der: The pinned key of the cloud.

    Raises:
        MalformedInput: If it has not the form of such a key.
        IntegrityError: If it is not signed, or is for another tenant.
    """
    payload = canonical.decode(Envelope.from_json(envelope).verified(signing_key_der, "ingest-key"))
    if not isinstance(payload, dict) or not isinstance(payload.get("key_arn"), str):
        raise MalformedInput("an ingest key names its tenant, its ARN and its public key")
    if payload.get("tenant") != tenant:
        raise IntegrityError("the ingest key belongs to another tenant")
    try:
        der = base64.b64decode(payload.get("public_key_der") or "", validate=True)
        key = serialization.load_der_public_key(der)
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedInput("the ingest key cannot be read") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _INGEST_KEY_BITS:
        raise MalformedInput("an ingest key is RSA with 4096 bits")
    return TenantIngestKey(tenant, payload["key_arn"], der)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the cloud told the agent at enrolment, plus the address that it was asked at.

    Attributes:
        api: Base address of the API, without ``/v1``.
        agent: The agent's id.
        tenant: Its tenant.
        region: AWS region of bucket and queue.
        token_url: Where assertions are exchanged for credentials; also their audience.
        ingest_bucket: Where parts go.
        prefix: The start of every key that this agent may put, ``tenant/agent/``.
        command_queue_url: Where receipts and commands wait.
        signing_public_key_der: The cloud's pinned signing key.
        signing_key_id: Its name.
        ingest_key: The newest signed envelope with the tenant's ingest key, as JSON.
        control: What the control channel needs; empty if the cloud told nothing of it.
    """

    api: str
    agent: AgentId
    tenant: TenantId
    region: str
    token_url: str
    ingest_bucket: str
    prefix: str
    command_queue_url: str
    signing_public_key_der: bytes
    signing_key_id: str
    ingest_key: dict[str, Any]
    control: ControlFacts = field(default_factory=ControlFacts)

    @classmethod
    def from_answer(cls, api: str, answer: dict[str, Any]) -> Identity:
        """Reads the enrolment answer, and checks the signature of the ingest key in it.

        Raises:
            MalformedInput: If something is missing or has the wrong form.
            IntegrityError: If the ingest key is not signed by the key beside it.
        """
        text = {name: _text(answer, name) for name in _TEXTS}
        agent, tenant = ids.parse_agent_id(text["agent_id"]), ids.parse_tenant_id(text["tenant"])
        if text["prefix"] != f"{tenant}/{agent}/":
            raise MalformedInput("the prefix of an agent is made of its tenant and its id")
        identity = cls(
            api=api,
            agent=agent,
            tenant=tenant,
            region=text["region"],
            token_url=text["token_url"],
            ingest_bucket=text["ingest_bucket"],
            prefix=text["prefix"],
            command_queue_url=text["command_queue_url"],
            signing_public_key_der=_public_der(text["signing_public_key"]),
            signing_key_id=text["signing_key_id"],
            ingest_key=answer.get("ingest_key") or {},
            control=ControlFacts.from_answer(answer),
        )
        identity.current_ingest_key()
        return identity

    def current_ingest_key(self) -> TenantIngestKey:
        """The ingest key, its signature checked against the pinned key; raises IntegrityError."""
        return verified_ingest_key(self.ingest_key, tenant=self.tenant, signing_key_der=self.signing_public_key_der)

    def with_ingest_key(self, envelope: dict[str, Any]) -> Identity:
        """This identity with a newer ingest key, if the cloud signed it; raises as :func:`verified_ingest_key`."""
        verified_ingest_key(envelope, tenant=self.tenant, signing_key_der=self.signing_public_key_der)
        return replace(self, ingest_key=envelope)

    def with_control(self, answer: dict[str, Any]) -> Identity:
        """This identity with what a token's answer says of the control channel; raises MalformedInput."""
        return replace(self, control=self.control.updated(answer))

    def to_json(self) -> dict[str, Any]:
        """The identity as written to its file: the enrolment answer and ``api``."""
        return {
            "api": self.api,
            "agent_id": self.agent,
            "tenant": self.tenant,
            "region": self.region,
            "token_url": self.token_url,
            "ingest_bucket": self.ingest_bucket,
            "prefix": self.prefix,
            "command_queue_url": self.command_queue_url,
            "signing_public_key": serialization.load_der_public_key(self.signing_public_key_der)
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii"),
            "signing_key_id": self.signing_key_id,
            "ingest_key": self.ingest_key,
            **self.control.to_json(),
        }

    def save(self, state_dir: Path) -> None:
        """Writes the identity to its file, whole or not at all."""
        write_private(state_dir / IDENTITY_FILE, json.dumps(self.to_json(), indent=2).encode() + b"\n")

    @classmethod
    def load(cls, state_dir: Path) -> Identity:
        """Reads the identity from its file.

        Raises:
            NotFound: If the agent is not enrolled.
            MalformedInput: If the file is damaged.
            IntegrityError: If the ingest key in it is not signed.
        """
        path = state_dir / IDENTITY_FILE
        try:
            value = canonical.decode(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFound("this agent is not enrolled: run dualtone-agent enrol with the code from the API") from error
        except PermissionError as error:
            raise PolicyViolation(f"{path} cannot be read: run the agent as the user that enrolled it") from error
        if not isinstance(value, dict):
            raise MalformedInput(f"{path} is damaged: enrol this agent again")
        return cls.from_answer(_text(value, "api"), value)


_TEXTS: Final = (
    "agent_id",
    "tenant",
    "region",
    "token_url",
    "ingest_bucket",
    "prefix",
    "command_queue_url",
    "signing_public_key",
    "signing_key_id",
)


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedInput(f"the enrolment lacks {name}")
    return value


def _public_der(pem: str) -> bytes:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedInput("the cloud's signing key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedInput("the cloud's signing key is not on P-256")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
