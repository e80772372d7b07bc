"""KMS, by the AWS KMS API Reference and Developer Guide."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.adapters.local.behaviour import Aws, refused, restored_by


def make_key(aws: Aws, spec: str = "SYMMETRIC_DEFAULT", usage: str = "ENCRYPT_DECRYPT") -> str:
    """A new key's ARN."""
    arn: str = aws.kms.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"]
    return arn


@restored_by("kms-key-state")
def a_disabled_key_refuses(aws: Aws) -> None:
    """'Key states of AWS KMS keys': every cryptographic operation of a disabled key fails with DisabledException."""
    key, signing = make_key(aws), make_key(aws, "ECC_NIST_P256", "SIGN_VERIFY")
    mac = make_key(aws, "HMAC_256", "GENERATE_VERIFY_MAC")
    blob = aws.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    for arn in (key, signing, mac):
        aws.kms.disable_key(KeyId=arn)
    with refused("DisabledException"):
        aws.kms.encrypt(KeyId=key, Plaintext=b"x")
    with refused("DisabledException"):
        aws.kms.decrypt(CiphertextBlob=blob)
    with refused("DisabledException"):
        aws.kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    with refused("DisabledException"):
        aws.kms.generate_mac(KeyId=mac, Message=b"x", MacAlgorithm="HMAC_SHA_256")
    for message, kind in ((b"x", "RAW"), (bytes(32), "DIGEST")):
        with refused("DisabledException"):
            aws.kms.sign(KeyId=signing, Message=message, MessageType=kind, SigningAlgorithm="ECDSA_SHA_256")
    aws.kms.enable_key(KeyId=key)
    assert aws.kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


@restored_by("kms-key-state")
def a_key_pending_deletion_refuses(aws: Aws) -> None:
    """The same table: KMSInvalidStateException while deletion is pending."""
    key = make_key(aws)
    blob = aws.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    with refused("KMSInvalidStateException"):
        aws.kms.decrypt(CiphertextBlob=blob)
    with refused("KMSInvalidStateException"):
        aws.kms.generate_data_key(KeyId=key, KeySpec="AES_256")


@restored_by("kms-arn-accepted")
def keys_are_managed_by_arn(aws: Aws) -> None:
    """DisableKey, EnableKey, CancelKeyDeletion: KeyId is the key id or the key ARN."""
    key = make_key(aws)
    aws.kms.disable_key(KeyId=key)
    aws.kms.enable_key(KeyId=key)
    assert aws.kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
    aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    aws.kms.cancel_key_deletion(KeyId=key)
    assert aws.kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"


@restored_by("kms-deletion-window")
def deletion_waits_a_week_to_a_month(aws: Aws) -> None:
    """ScheduleKeyDeletion: PendingWindowInDays is 7 to 30."""
    key = make_key(aws)
    for days in (3, 31):
        with refused("ValidationException"):
            aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=days)
    assert aws.kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
    aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=30)
    with refused("KMSInvalidStateException"):
        aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)


@restored_by("kms-key-usage")
def a_signing_key_does_not_encrypt(aws: Aws) -> None:
    """Encrypt, Sign, GenerateDataKey: InvalidKeyUsageException."""
    signing, symmetric = make_key(aws, "ECC_NIST_P256", "SIGN_VERIFY"), make_key(aws)
    with refused("InvalidKeyUsageException"):
        aws.kms.encrypt(KeyId=signing, Plaintext=b"x")
    with refused("InvalidKeyUsageException"):
        aws.kms.sign(KeyId=symmetric, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")
    with refused("InvalidKeyUsageException"):
        aws.kms.generate_data_key(KeyId=make_key(aws, "RSA_2048"), KeySpec="AES_256")


@restored_by("kms-no-public-half")
def symmetric_keys_have_no_public_key(aws: Aws) -> None:
    """GetPublicKey: UnsupportedOperationException for anything that is not asymmetric."""
    for key in (make_key(aws), make_key(aws, "HMAC_256", "GENERATE_VERIFY_MAC")):
        with refused("UnsupportedOperationException"):
            aws.kms.get_public_key(KeyId=key)


@restored_by("kms-key-arn")
def answers_name_the_arn(aws: Aws) -> None:
    """Response Elements of GetPublicKey and GenerateMac: KeyId is the ARN, whatever the request named."""
    signing = make_key(aws, "ECC_NIST_P256", "SIGN_VERIFY")
    mac = make_key(aws, "HMAC_256", "GENERATE_VERIFY_MAC")
    aws.kms.create_alias(AliasName="alias/mac", TargetKeyId=mac)
    assert aws.kms.get_public_key(KeyId=signing.rpartition("/")[2])["KeyId"] == signing
    made = aws.kms.generate_mac(KeyId="alias/mac", Message=b"x", MacAlgorithm="HMAC_SHA_256")
    assert made["KeyId"] == mac


@restored_by("kms-encryption-context")
def the_context_must_match_pair_by_pair(aws: Aws) -> None:
    """'Encryption context': an exact, case-sensitive match of every pair."""
    key = make_key(aws)
    blob = aws.kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"a": "bc"})["CiphertextBlob"]
    with refused("InvalidCiphertextException"):
        aws.kms.decrypt(CiphertextBlob=blob, EncryptionContext={"ab": "c"})
    assert aws.kms.decrypt(CiphertextBlob=blob, EncryptionContext={"a": "bc"})["Plaintext"] == b"x"


@restored_by("kms-incorrect-key")
def naming_another_key_is_an_error_of_its_own(aws: Aws) -> None:
    """Decrypt: 'If the key ID does not identify the KMS key that encrypted it, IncorrectKeyException'."""
    key, other = make_key(aws), make_key(aws)
    blob = aws.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    with refused("IncorrectKeyException"):
        aws.kms.decrypt(CiphertextBlob=blob, KeyId=other)


@restored_by("kms-rsa-oaep")
def what_was_sealed_outside_opens(aws: Aws) -> None:
    """Decrypt: EncryptionAlgorithm RSAES_OAEP_SHA_256, a 4096-bit key whose public half was used elsewhere."""
    key = make_key(aws, "RSA_4096")
    public = load_der_public_key(aws.kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 4096
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    blob = public.encrypt(bytes(range(64)), oaep)
    opened = aws.kms.decrypt(KeyId=key, CiphertextBlob=blob, EncryptionAlgorithm="RSAES_OAEP_SHA_256")
    assert opened["Plaintext"] == bytes(range(64))
    assert opened["EncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
    broken = bytes([blob[0] ^ 1]) + blob[1:]
    with refused("InvalidCiphertextException"):
        aws.kms.decrypt(KeyId=key, CiphertextBlob=broken, EncryptionAlgorithm="RSAES_OAEP_SHA_256")
    with refused("InvalidCiphertextException"):
        aws.kms.decrypt(KeyId=key, CiphertextBlob=blob, EncryptionAlgorithm="RSAES_OAEP_SHA_1")
    with refused("InvalidKeyUsageException"):
        aws.kms.decrypt(KeyId=key, CiphertextBlob=blob)
    aws.kms.disable_key(KeyId=key)
    with refused("DisabledException"):
        aws.kms.decrypt(KeyId=key, CiphertextBlob=blob, EncryptionAlgorithm="RSAES_OAEP_SHA_256")


@restored_by("kms-rsa-oaep")
def encrypt_takes_what_the_padding_leaves(aws: Aws) -> None:
    """Encrypt: the maximum size depends on key and algorithm (190 bytes for RSA_2048 with SHA-256)."""
    key = make_key(aws, "RSA_2048")
    request = {"KeyId": key, "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    blob = aws.kms.encrypt(Plaintext=b"y" * 190, **request)["CiphertextBlob"]
    assert len(blob) == 256
    assert aws.kms.decrypt(CiphertextBlob=blob, **request)["Plaintext"] == b"y" * 190
    with refused("ValidationException"):
        aws.kms.encrypt(Plaintext=b"y" * 191, **request)


@restored_by("kms-digest")
def a_digest_is_signed_as_it_is(aws: Aws) -> None:
    """Sign: with MessageType DIGEST, KMS skips hashing; the signature verifies over the message, offline and in KMS."""
    message = b"DUALTONE/v1/test\0payload"
    digest = hashlib.sha256(message).digest()
    for spec, algorithm in (("ECC_NIST_P256", "ECDSA_SHA_256"), ("RSA_2048", "RSASSA_PSS_SHA_256")):
        key = make_key(aws, spec, "SIGN_VERIFY")
        request = {"KeyId": key, "SigningAlgorithm": algorithm}
        signature = aws.kms.sign(Message=digest, MessageType="DIGEST", **request)["Signature"]
        public = load_der_public_key(aws.kms.get_public_key(KeyId=key)["PublicKey"])
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        assert aws.kms.verify(Message=digest, MessageType="DIGEST", Signature=signature, **request)["SignatureValid"]
        if spec.startswith("ECC"):
            assert aws.kms.verify(Message=message, Signature=signature, **request)["SignatureValid"]
        with refused("ValidationException"):
            aws.kms.sign(Message=digest[:-1], MessageType="DIGEST", **request)
        with refused("ValidationException"):
            aws.kms.sign(Message=bytes(4097), **request)


@restored_by("kms-bad-signature")
def verify_never_says_false(aws: Aws) -> None:
    """Verify: KMSInvalidSignatureException, for raw messages and for digests."""
    key = make_key(aws, "ECC_NIST_P256", "SIGN_VERIFY")
    request = {"KeyId": key, "SigningAlgorithm": "ECDSA_SHA_256"}
    signature = aws.kms.sign(Message=b"one", **request)["Signature"]
    with refused("KMSInvalidSignatureException"):
        aws.kms.verify(Message=b"two", Signature=signature, **request)
    with refused("KMSInvalidSignatureException"):
        aws.kms.verify(Message=bytes(32), MessageType="DIGEST", Signature=signature, **request)
