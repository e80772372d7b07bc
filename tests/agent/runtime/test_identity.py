"""Key and identity on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dualtone.domain import signing
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound, PolicyViolation
from sbc_agent.runtime.identity import AgentKey, Identity
from tests.agent.runtime.spooled import AGENT, CloudKey


def test_a_saved_key_signs_as_before(tmp_path: Path) -> None:
    """What one run wrote, the next run signs with; the public half verifies it."""
    key = AgentKey.generate()
    key.save(tmp_path)
    loaded = AgentKey.load(tmp_path, AGENT)
    assert loaded.key_id == AGENT
    public = serialization.load_pem_public_key(key.public_pem().encode())
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signing.verify(der, "manifest", b"{}", loaded.sign(signing.message("manifest", b"{}")))


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """The message says which command makes it right."""
    AgentKey.generate().save(tmp_path)
    (tmp_path / "agent.key").chmod(0o640)
    with pytest.raises(PolicyViolation, match="chmod 600"):
        AgentKey.load(tmp_path)


def test_no_key_is_told(tmp_path: Path) -> None:
    """An agent that is not enrolled is told so."""
    with pytest.raises(NotFound, match="enrol this agent first"):
        AgentKey.load(tmp_path)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", _pem(ec.generate_private_key(ec.SECP384R1())), _pem(rsa.generate_private_key(65_537, 2_048))],
    ids=["empty", "noise", "P-384", "RSA"],
)
def test_another_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """Only a P-256 key in PEM will do."""
    (tmp_path / "agent.key").write_bytes(content)
    (tmp_path / "agent.key").chmod(0o600)
    with pytest.raises(MalformedInput, match=r"agent\.key"):
        AgentKey.load(tmp_path)


def test_an_identity_round_trips(tmp_path: Path) -> None:
    """What is saved is what is loaded, and the file is for this user alone."""
    identity = CloudKey().identity()
    identity.save(tmp_path)
    assert Identity.load(tmp_path) == identity
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600


def test_no_identity_says_what_to_do(tmp_path: Path) -> None:
    """A machine that is not enrolled is told how to be."""
    with pytest.raises(NotFound, match="dualtone-agent enrol"):
        Identity.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_identity_is_told(tmp_path: Path, content: bytes) -> None:
    """Half a file is no identity."""
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(MalformedInput):
        Identity.load(tmp_path)


def test_a_newer_ingest_key_is_believed_by_the_pinned_key_alone() -> None:
    """The cloud may tell a new key; nobody else may."""
    cloud = CloudKey()
    identity = cloud.identity()
    newer = cloud.ingest_key(arn="arn:aws:kms:eu-west-1:000000000000:key/newer")
    assert identity.with_ingest_key(newer).current_ingest_key().key_arn.endswith("newer")
    with pytest.raises(IntegrityError):
        identity.with_ingest_key(CloudKey().ingest_key())
    with pytest.raises(IntegrityError):
        identity.with_ingest_key(cloud.ingest_key(tenant="globex"))
