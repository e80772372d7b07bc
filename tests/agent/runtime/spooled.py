"""Calls as the media process leaves them in the spool, with the agent's and the cloud's keys that sign them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import canonical, ids, part
from dualtone.domain.call_files import Receipt
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.part import PartHeader, RecordHead, RecordType
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.identity import Identity
from sbc_agent.runtime.logs import Log

TENANT = TenantId("acme")
AGENT = AgentId("agt_01K00000000000000000000000")
BUCKET = "ingest"


@cache
def _ingest_der() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class CloudKey:
    """The cloud's signing key."""

    key_id = "arn:aws:kms:eu-west-1:000000000000:key/signing"

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    @property
    def der(self) -> bytes:
        return self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def pem(self) -> str:
        return (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    def ingest_key(
        self, tenant: str = TENANT, arn: str = "arn:aws:kms:eu-west-1:000000000000:key/ingest"
    ) -> dict[str, str]:
        """A signed envelope with an ingest key."""
        payload = {"tenant": tenant, "key_arn": arn, "public_key_der": base64.b64encode(_ingest_der()).decode()}
        return Envelope.sealed_by(self, "ingest-key", canonical.encode(payload)).to_json()

    def enrolment(self, **changes: object) -> dict[str, object]:
        """An enrolment answer."""
        return {
            "agent_id": AGENT,
            "tenant": TENANT,
            "region": "eu-west-1",
            "token_url": "http://127.0.0.1:1/v1/token",
            "ingest_bucket": BUCKET,
            "prefix": f"{TENANT}/{AGENT}/",
            "command_queue_url": "http://127.0.0.1:1/000000000000/commands",
            "signing_public_key": self.pem,
            "signing_key_id": self.key_id,
            "ingest_key": self.ingest_key(),
        } | changes

    def identity(self, **changes: object) -> Identity:
        return Identity.from_answer("http://127.0.0.1:1", self.enrolment(**changes))


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Lines:
    """A log that is kept."""

    stream: io.StringIO = field(default_factory=io.StringIO)

    @property
    def log(self) -> Log:
        return Log(stream=self.stream, level="debug")

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def named(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.events() if line["event"] == event]


def call_id(now_ms: int, number: int = 0) -> CallId:
    return CallId(ids.ulid(now_ms, number.to_bytes(10, "big")))


def write_call(spool_dir: Path, call: CallId, *, parts: int = 2, finished: bool = True, size: int = 2_000) -> list[str]:
    """Writes a call's files; returns the digests of its parts in hex."""
    directory = spool_dir / call
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "opening-00.json").write_bytes(canonical.encode({"call": call}))
    digests = []
    for index in range(parts):
        data = part.encode_header(PartHeader(TenantId(TENANT), AgentId(AGENT), call, 0, index, part.NO_PREVIOUS))
        head = RecordHead(RecordType.MEDIA, 0, index, index * 60_000_000, 59_999_999)
        sealed = hashlib.shake_256(f"{call}{index}".encode()).digest(size)
        data += part.seal(AESGCM(bytes(32)), call, 0, head, sealed) + part.encode_trailer(b"signed", 1)
        (directory / f"part-00-{index:06d}.dtp").write_bytes(data)
        digests.append(part.read(data).digest.hex())
    if finished:
        (directory / "manifest.json").write_bytes(canonical.encode({"call": call, "parts": digests}))
    else:
        (directory / f"part-00-{parts:06d}.dtp.open").write_bytes(b"unfinished")
    return digests


def receipt(key: CloudKey, call: CallId, parts: list[str], **changes: str) -> dict[str, str]:
    """A receipt as it lies in the queue."""
    facts = {"tenant": TENANT, "agent": AGENT} | changes
    made = Receipt(facts["tenant"], facts["agent"], call, 1, "rec_" + "a" * 26, parts)
    return made.sealed_by(key).to_json()
