"""What a test needs to play tenant and cloud: keys, and a call's files opened as the finaliser opens them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import canonical, media_record, part
from dualtone.domain.call_files import Manifest, Opening, OpeningFile, unbound_call_key, verified_manifest
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.part import NO_PREVIOUS, Part, RecordHead, RecordType

TENANT = TenantId("acme")
AGENT = AgentId("agt_01HZX3Q8W0ABCDEFGHJKMNPQRS")
CALL = CallId("01HZX3Q8W0ABCDEFGHJKMNPQRT")
KEY_ARN = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"


@cache
def ingest_key() -> rsa.RSAPrivateKey:
    """The tenant's ingest key, private half included: KMS in this test."""
    return rsa.generate_private_key(65537, 4096)


@cache
def agent_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_der(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def write_agent_key(path: Path) -> None:
    path.write_bytes(
        agent_key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@dataclass(frozen=True)
class OpenedCall:
    """A call's directory, every signature and the chain checked, every record opened."""

    opening: Opening
    manifest: Manifest
    parts: list[Part]
    records: list[tuple[RecordType, int, bytes]]
    openings: list[Opening]
    removed: list[RecordHead]

    @property
    def blocks(self) -> list[StreamBlock]:
        return [
            block
            for kind, _, plaintext in self.records
            if kind is RecordType.MEDIA
            for block in media_record.decode(plaintext)
        ]

    def sequences(self, stream: int) -> list[int]:
        return [int(one) for block in self.blocks if block.stream == stream for one in block.sequence]

    def arrivals_us(self, stream: int) -> list[int]:
        return [int(one) for block in self.blocks if block.stream == stream for one in block.arrival_us]

    def payload(self, stream: int) -> bytes:
        return b"".join(block.payload.tobytes() for block in self.blocks if block.stream == stream)

    @property
    def sessions(self) -> list[object]:
        return [canonical.decode(plaintext) for kind, _, plaintext in self.records if kind is RecordType.SESSION]

    @property
    def signalling(self) -> list[tuple[int, int, bytes]]:
        return [
            (int.from_bytes(plaintext[:8], "big"), plaintext[8], plaintext[9:])
            for kind, _, plaintext in self.records
            if kind is RecordType.SIGNALLING
        ]


def open_call(directory: Path, *, complete: bool = True) -> OpenedCall:
    """Opens a call as the cloud does: signatures, chain, digests, then the records, none missing if ``complete``.

    Removed records are left out; of each key epoch the records are counted anew.
    """
    agent_der = public_der(agent_key())
    manifest = verified_manifest((directory / "manifest.json").read_bytes(), agent_der)
    openings, keys = [], {}
    for epoch in manifest.epochs:
        data = (directory / f"opening-{epoch.epoch:02d}.json").read_bytes()
        assert _sha256(data) == epoch.opening_sha256
        openings.append(OpeningFile.decode(data).verified(agent_der))
        keys[epoch.epoch] = AESGCM(_call_key(OpeningFile.decode(data).wrapped_key, CallId(manifest.call)))
    assert [opening.epoch for opening in openings] == list(range(len(openings)))
    records: list[tuple[RecordType, int, bytes]] = []
    parts, removed, previous, counts = [], [], NO_PREVIOUS, dict.fromkeys(keys, 0)
    for entry in manifest.parts:
        data = (directory / f"part-{entry.epoch:02d}-{entry.index:06d}.dtp").read_bytes()
        found = part.read(data)
        assert found.digest.hex() == entry.digest
        found.verify(agent_der)
        assert (found.header.previous, len(found.records)) == (previous, entry.records)
        previous = entry.digest
        for record in found.records:
            head, count = record.head, counts[entry.epoch]
            assert head.sequence == count if complete else head.sequence >= count
            counts[entry.epoch] = head.sequence + 1
            if head.type is RecordType.REMOVED:
                removed.append(head)
            else:
                records.append((head.type, head.stream_set, part.unseal(keys[entry.epoch], found.header, record)))
        if not any(record.head.type is RecordType.REMOVED for record in found.records):
            assert len(data) == entry.size_bytes
        parts.append(found)
    return OpenedCall(openings[0], manifest, parts, records, openings, removed)


def _call_key(wrapped: bytes, call: CallId) -> bytes:
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return unbound_call_key(TENANT, call, ingest_key().decrypt(wrapped, oaep))


def _sha256(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()
