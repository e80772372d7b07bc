"""Openings, manifests, receipts, and the signatures on them."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualtone.domain import call_files, canonical, signing
from dualtone.domain.call_files import Manifest, Opening, OpeningFile
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId

TENANT, AGENT = TenantId("acme"), AgentId("agt_01ARYZ6S410000000000000000")
CALL = CallId("01ARYZ6S410000000000000001")


class AgentKey:
    """A P-256 key in memory, as an agent has one."""

    key_id = AGENT

    def __init__(self, secret: int) -> None:
        self._key = ec.derive_private_key(secret, ec.SECP256R1())
        self.public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))


KEY, OTHER = AgentKey(11), AgentKey(12)
WRAPPED = b"wrapped" * 20
OPENING = Opening(TENANT, AGENT, CALL, 0, "arn:key", hashlib.sha256(WRAPPED).hexdigest(), 5, 1_795_000_000_000_000)
MANIFEST = Manifest(
    tenant=TENANT,
    agent=AGENT,
    call=CALL,
    generation=1,
    epochs=[call_files.EpochEntry(0, "0" * 64)],
    parts=[call_files.PartEntry(0, 0, "1" * 64, 1000, 12)],
    streams=[call_files.StreamEntry(0, "1", [call_files.StreamFormat(8, "PCMA", 8000, 1, 0)])],
    answered_at_us=1,
    ended_at_us=2,
    end_reason="bye",
    gaps=[],
    statistics=[call_files.StreamStatistics(0, 1, 0, 0, 0, 0, 0)],
    flags=[],
    version="0.1.0",
)


def test_an_opening_reads_back_and_verifies() -> None:
    """The file is its own proof."""
    file = OpeningFile.decode(OpeningFile.sealed_by(KEY, OPENING, WRAPPED).encode())
    assert file.verified(KEY.public) == OPENING
    with pytest.raises(IntegrityError):
        file.verified(OTHER.public)
    with pytest.raises(IntegrityError):
        dataclasses.replace(file, wrapped_key=b"another").verified(KEY.public)
    with pytest.raises(ValueError, match="another wrapped key"):
        OpeningFile.sealed_by(KEY, OPENING, b"another")


def test_a_manifest_reads_back_and_verifies() -> None:
    """The manifest is signed as a whole; another key's signature and another kind's are refused."""
    data = MANIFEST.sealed_by(KEY)
    assert call_files.verified_manifest(data, KEY.public) == MANIFEST
    with pytest.raises(IntegrityError):
        call_files.verified_manifest(data, OTHER.public)
    envelope = canonical.decode(data) | {"kind": "receipt"}
    with pytest.raises(IntegrityError):
        call_files.verified_manifest(canonical.encode(envelope), KEY.public)


@pytest.mark.parametrize(
    "change",
    [{"parts": [{"epoch": 0}]}, {"generation": "1"}, {"format": 2}, {"surprise": 1}, {"parts": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_signed_manifest_of_another_form_is_malformed(change: dict[str, object]) -> None:
    """A good signature does not excuse a wrong form, and the message does not quote the content."""
    payload = canonical.encode(dataclasses.asdict(MANIFEST) | change)
    data = canonical.encode(signing.Envelope.sealed_by(KEY, "manifest", payload).to_json())
    with pytest.raises(MalformedInput, match=r"^(not a well-formed manifest|a manifest of an unknown format)$"):
        call_files.verified_manifest(data, KEY.public)


def test_a_receipt_names_the_parts_of_its_manifest() -> None:
    """Receipts are verified against the cloud's key."""
    receipt = call_files.receipt_for(MANIFEST, RecordingId("rec_" + "a" * 26))
    assert receipt.parts == ["1" * 64]
    envelope = signing.Envelope.from_json(receipt.sealed_by(KEY).to_json())
    assert call_files.verified_receipt(envelope, KEY.public) == receipt
    with pytest.raises(IntegrityError):
        call_files.verified_receipt(envelope, OTHER.public)


def test_a_call_key_is_bound_to_its_call() -> None:
    """A wrapped key that is moved to another call or tenant is refused."""
    bound = call_files.bound_call_key(TENANT, CALL, b"k" * 32)
    assert call_files.unbound_call_key(TENANT, CALL, bound) == b"k" * 32
    for tenant, call in ((TenantId("globex"), CALL), (TENANT, CallId("01ARYZ6S410000000000000002"))):
        with pytest.raises(IntegrityError):
            call_files.unbound_call_key(tenant, call, bound)


def test_ingest_keys() -> None:
    """An object key is taken apart, or refused."""
    key = call_files.ingest_prefix(TENANT, AGENT, CALL) + call_files.part_name(0, 12)
    assert key == f"acme/{AGENT}/{CALL}/part-00-000012.dtp"
    assert call_files.IngestKey.parse(key) == call_files.IngestKey(TENANT, AGENT, CALL, "part-00-000012.dtp")
    for bad in ("", "acme/x/y/z", f"acme/{AGENT}/{CALL}", f"acme/{AGENT}/{CALL}/a/b", f"../{AGENT}/{CALL}/a"):
        with pytest.raises(MalformedInput):
            call_files.IngestKey.parse(bad)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"opening":{},"wrapped_key":"!"}', b'{"opening":1,"wrapped_key":1}']
)
def test_malformed_files(data: bytes) -> None:
    """Only MalformedInput escapes."""
    with pytest.raises(MalformedInput):
        OpeningFile.decode(data)
    with pytest.raises(MalformedInput):
        call_files.verified_manifest(data, KEY.public)
