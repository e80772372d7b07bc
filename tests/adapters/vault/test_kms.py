"""KMS as the product uses it: bound to context, bound to the named key, verifiable without KMS."""

from __future__ import annotations

import hashlib
import hmac as hmac_module

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dualtone.adapters.kms import Kms, KmsSigner, TrustedSigningKeys
from dualtone.domain import keytree, signing
from dualtone.domain.errors import IntegrityError, NotFound, PolicyViolation
from dualtone.domain.kek import KeyScope
from dualtone.usecases import wrap_keys
from tests.adapters.vault.conftest import Aws
from tests.vault_samples import ACME, GLOBEX, OTHER_RECORDING, RECORDING

SCOPE = KeyScope(ACME, RECORDING)
CONTEXT = SCOPE.context("A")


def oaep_to(kms: Kms, key: str, plaintext: bytes) -> bytes:
    """Wraps as the agent does, outside of KMS."""
    public = load_der_public_key(kms.public_key_der(key))
    assert isinstance(public, rsa.RSAPublicKey)
    return public.encrypt(plaintext, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))


def test_a_data_key_opens_with_its_context(aws: Aws) -> None:
    """What GenerateDataKey wrapped, Decrypt unwraps."""
    kms = Kms(aws.kms)
    plain, wrapped = kms.generate_data_key(aws.custodian_a, CONTEXT)
    assert len(plain) == 32
    assert plain not in wrapped
    assert kms.decrypt(aws.custodian_a, wrapped, CONTEXT) == plain


@pytest.mark.parametrize(
    "context",
    [
        KeyScope(GLOBEX, RECORDING).context("A"),
        KeyScope(ACME, OTHER_RECORDING).context("A"),
        KeyScope(ACME, RECORDING, 2).context("A"),
        SCOPE.context("B"),
        {},
    ],
    ids=["tenant", "recording", "version", "custodian", "none"],
)
def test_a_data_key_of_another_context(aws: Aws, context: dict[str, str]) -> None:
    """REQ: PCI DSS 4.0 requirement 3.7.7: a wrapped key swapped between recordings or tenants is rejected."""
    kms = Kms(aws.kms)
    _, wrapped = kms.generate_data_key(aws.custodian_a, CONTEXT)
    with pytest.raises(IntegrityError, match="InvalidCiphertext"):
        kms.decrypt(aws.custodian_a, wrapped, context)


def test_decrypt_names_its_key(aws: Aws) -> None:
    """A share that another key wrapped does not open, though the caller could use that key."""
    kms = Kms(aws.kms)
    _, wrapped = kms.generate_data_key(aws.custodian_b, CONTEXT)
    with pytest.raises(IntegrityError, match="IncorrectKey"):
        kms.decrypt(aws.custodian_a, wrapped, CONTEXT)


def test_an_altered_share(aws: Aws) -> None:
    """One bit of the wrapped share."""
    kms = Kms(aws.kms)
    _, wrapped = kms.generate_data_key(aws.custodian_a, CONTEXT)
    with pytest.raises(IntegrityError):
        kms.decrypt(aws.custodian_a, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), CONTEXT)


def test_a_disabled_key_refuses(aws: Aws) -> None:
    """One custodian who disables the key stops both."""
    kms = Kms(aws.kms)
    item = wrap_keys.wrap(
        kms,
        nodes=keytree.full(bytes(32), 4),
        scope=SCOPE,
        key_a=aws.custodian_a,
        key_b=aws.custodian_b,
        nonce=bytes(12),
        created_at_ms=0,
    )
    assert wrap_keys.unwrap(kms, item, SCOPE) == keytree.full(bytes(32), 4)
    aws.kms.disable_key(KeyId=aws.custodian_b.rpartition("/")[2])
    with pytest.raises(PolicyViolation, match="Disabled"):
        wrap_keys.unwrap(kms, item, SCOPE)


def test_a_key_that_does_not_exist(aws: Aws) -> None:
    """An unknown key is not found."""
    with pytest.raises(NotFound):
        Kms(aws.kms).generate_data_key(aws.custodian_a[:-4] + "0000", CONTEXT)


def test_a_call_key_wrapped_by_an_agent(aws: Aws, ingest_key: str) -> None:
    """RSAES_OAEP_SHA_256 over 64 bytes, made without KMS, opens in KMS; altered it does not."""
    kms = Kms(aws.kms)
    plaintext = bytes(range(64))
    wrapped = oaep_to(kms, ingest_key, plaintext)
    assert kms.unwrap_call_key(ingest_key, wrapped) == plaintext
    with pytest.raises(IntegrityError):
        kms.unwrap_call_key(ingest_key, wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 100_000])
def test_a_signature_verifies_without_kms(aws: Aws, size: int) -> None:
    """Messages of any length: KMS signs their digest, and what it signs verifies offline over the message."""
    kms = Kms(aws.kms)
    signer = KmsSigner(kms, aws.signing)
    envelope = signing.Envelope.sealed_by(signer, "recording", bytes(size))
    assert signer.key_id == aws.signing
    assert envelope.verified(kms.public_key_der(aws.signing), "recording") == bytes(size)
    with pytest.raises(IntegrityError):
        signing.verify(kms.public_key_der(aws.signing), "recording", bytes(size) + b"\0", envelope.signature)


def test_only_trusted_signing_keys_are_asked_for(aws: Aws) -> None:
    """A key that only a database row names is not trusted, whoever owns it."""
    kms = Kms(aws.kms)
    keys = TrustedSigningKeys(kms, frozenset({aws.signing}))
    assert keys.public_key(aws.signing) == kms.public_key_der(aws.signing)
    other = aws.kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    with pytest.raises(IntegrityError, match="not trusted"):
        keys.public_key(other)
    aws.kms.disable_key(KeyId=aws.signing.rpartition("/")[2])
    assert keys.public_key(aws.signing)


def test_a_mac_is_repeatable_and_depends_on_the_message(aws: Aws) -> None:
    """HMAC-SHA-256 under a key that stays in KMS."""
    kms = Kms(aws.kms)
    mac = kms.mac(aws.hmac, b"message")
    assert len(mac) == hmac_module.new(b"", b"", hashlib.sha256).digest_size
    assert kms.mac(aws.hmac, b"message") == mac
    assert kms.mac(aws.hmac, b"massage") != mac
