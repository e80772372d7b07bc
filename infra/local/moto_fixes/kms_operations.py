"""KMS operations: encryption under RSA keys, encryption contexts, digests, and the errors that AWS documents."""

import base64
import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from moto.core.exceptions import JsonRESTError
from moto.kms import utils as kms_utils
from moto.kms.exceptions import AccessDeniedException, InvalidCiphertextException, ValidationException
from moto.kms.models import KmsBackend
from moto.kms.responses import KmsResponse

from infra.local.moto_fixes.kms_keys import key_of, refuse_other_usage, refuse_unusable
from infra.local.moto_fixes.mend import Mend, Patch

_OAEP: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "RSAES_OAEP_SHA_1": hashes.SHA1,
    "RSAES_OAEP_SHA_256": hashes.SHA256,
}
_DIGESTS: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "SHA_256": hashes.SHA256,
    "SHA_384": hashes.SHA384,
    "SHA_512": hashes.SHA512,
}
_RSA_CIPHERTEXT_OVERHEAD_BYTES = 2  # RFC 8017 section 7.1.1: mLen <= k - 2 hLen - 2
_MESSAGE_LIMIT_BYTES = 4096

# ---------------------------------------------------------------- encryption


def _unambiguous_context(_original: Callable[..., bytes]) -> Callable[..., bytes]:
    def serialize(encryption_context: dict[str, str]) -> bytes:
        return json.dumps(encryption_context, sort_keys=True).encode()

    return serialize


ENCRYPTION_CONTEXT = Mend(
    name="kms-encryption-context",
    restores="The encryption context on decryption must match exactly, name by name and value by value; moto runs "
    "names and values together, so that {'ab': 'c'} opens what {'a': 'bc'} sealed.",
    documented="AWS KMS Developer Guide, 'Encryption context'",
    patches=(Patch(kms_utils, "_serialize_encryption_context", _unambiguous_context),),
)


def _naming_the_wrong_key(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def decrypt(
        self: KmsBackend, ciphertext_blob: bytes, encryption_context: dict[str, str], key_id: str | None = None
    ) -> Any:
        try:
            return original(self, ciphertext_blob, encryption_context, key_id)
        except AccessDeniedException as error:
            written_under = ciphertext_blob[: kms_utils.KEY_ID_LEN].decode("ascii", "replace")
            if key_id is None or written_under not in self.keys:
                raise
            raise JsonRESTError(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ) from error

    return decrypt


INCORRECT_KEY = Mend(
    name="kms-incorrect-key",
    restores="Decrypt that names another key than the ciphertext's fails with IncorrectKeyException.",
    documented="AWS KMS API Reference, Decrypt: KeyId, IncorrectKeyException",
    patches=(Patch(KmsBackend, "decrypt", _naming_the_wrong_key),),
)


def _oaep(algorithm: str) -> padding.OAEP:
    digest = _OAEP[algorithm]
    return padding.OAEP(mgf=padding.MGF1(algorithm=digest()), algorithm=digest(), label=None)


def _rsa_request(response: KmsResponse, operation: str) -> tuple[Any, rsa.RSAPrivateKey, padding.OAEP] | None:
    """Return the key, its private half and the padding if this request is for an RSA key, else None."""
    key_id = response._get_param("KeyId")  # noqa: SLF001 - moto's own way to read a parameter
    algorithm = response._get_param("EncryptionAlgorithm", "SYMMETRIC_DEFAULT")  # noqa: SLF001 - as above
    if key_id is None:
        return None
    response._validate_key_id(key_id)  # noqa: SLF001 - as above
    key = key_of(response.kms_backend, key_id)
    if not key.key_spec.startswith("RSA_"):
        if algorithm in _OAEP:
            raise JsonRESTError("InvalidKeyUsageException", f"{algorithm} is not valid for a {key.key_spec} key.")
        return None
    refuse_unusable(key)
    refuse_other_usage(key, "ENCRYPT_DECRYPT", operation)
    if algorithm not in _OAEP:
        raise JsonRESTError("InvalidKeyUsageException", f"{algorithm} is not valid for a {key.key_spec} key.")
    if response._get_param("EncryptionContext"):  # noqa: SLF001 - as above
        raise ValidationException("An encryption context is not supported with an asymmetric key.")
    return key, key.private_key.private_key, _oaep(algorithm)


def _rsa_encrypt(original: Callable[..., str]) -> Callable[..., str]:
    @wraps(original)
    def encrypt(self: KmsResponse) -> str:
        request = _rsa_request(self, "Encrypt")
        if request is None:
            return original(self)
        key, private, oaep = request
        plaintext = self._get_param("Plaintext")
        digest_bytes = oaep.algorithm.digest_size
        if len(plaintext) > private.key_size // 8 - 2 * digest_bytes - _RSA_CIPHERTEXT_OVERHEAD_BYTES:
            raise ValidationException("The plaintext is longer than this algorithm takes under this key.")
        blob = private.public_key().encrypt(plaintext, oaep)
        return json.dumps(
            {
                "CiphertextBlob": base64.b64encode(blob).decode("ascii"),
                "KeyId": key.arn,
                "EncryptionAlgorithm": self._get_param("EncryptionAlgorithm"),
            }
        )

    return encrypt


def _rsa_decrypt(original: Callable[..., str]) -> Callable[..., str]:
    @wraps(original)
    def decrypt(self: KmsResponse) -> str:
        request = _rsa_request(self, "Decrypt")
        if request is None:
            return original(self)
        key, private, oaep = request
        try:
            plaintext = private.decrypt(self._get_param("CiphertextBlob"), oaep)
        except ValueError:
            raise InvalidCiphertextException from None
        return json.dumps(
            {
                "Plaintext": base64.b64encode(plaintext).decode("ascii"),
                "KeyId": key.arn,
                "EncryptionAlgorithm": self._get_param("EncryptionAlgorithm"),
            }
        )

    return decrypt


RSA_ENCRYPTION = Mend(
    name="kms-rsa-oaep",
    restores="Decrypt under an RSA key opens what anybody encrypted outside of KMS to its public key (RSAES_OAEP with "
    "SHA-1 or SHA-256 for hash and MGF1, empty label); Encrypt does the same inside.",
    documented="AWS KMS API Reference, Decrypt: EncryptionAlgorithm; Cryptographic details, 'RSAES_OAEP_SHA_256'",
    patches=(Patch(KmsResponse, "encrypt", _rsa_encrypt), Patch(KmsResponse, "decrypt", _rsa_decrypt)),
)


# ---------------------------------------------------------------- signatures


def _digest_request(response: KmsResponse, operation: str) -> tuple[Any, bytes, utils.Prehashed, str] | None:
    """Return key, digest, prehashed algorithm and KMS algorithm if MessageType is DIGEST, else None."""
    message = response._get_param("Message")  # noqa: SLF001 - moto's own way to read a parameter
    if response._get_param("MessageType") != "DIGEST":  # noqa: SLF001 - as above
        if len(message) > _MESSAGE_LIMIT_BYTES:
            raise ValidationException("Value at 'message' failed to satisfy constraint: length at most 4096")
        return None
    algorithm = response._get_param("SigningAlgorithm")  # noqa: SLF001 - as above
    key_id = response._get_param("KeyId")  # noqa: SLF001 - as above
    response._validate_key_id(key_id)  # noqa: SLF001 - as above
    key = key_of(response.kms_backend, key_id)
    refuse_unusable(key)
    refuse_other_usage(key, "SIGN_VERIFY", operation)
    if algorithm not in key.signing_algorithms:
        raise JsonRESTError("InvalidKeyUsageException", f"{algorithm} is not valid for a {key.key_spec} key.")
    digest = _DIGESTS[algorithm[-len("SHA_256") :]]()
    if len(message) != digest.digest_size:
        raise ValidationException(f"Digest is invalid length for algorithm {algorithm}.")
    return key, message, utils.Prehashed(digest), algorithm


def _rsa_padding(algorithm: str, digest: utils.Prehashed) -> padding.AsymmetricPadding:
    if "PSS" not in algorithm:
        return padding.PKCS1v15()
    inner = _DIGESTS[algorithm[-len("SHA_256") :]]()
    return padding.PSS(mgf=padding.MGF1(inner), salt_length=digest.digest_size)


def _sign_digest(original: Callable[..., str]) -> Callable[..., str]:
    @wraps(original)
    def sign(self: KmsResponse) -> str:
        request = _digest_request(self, "Sign")
        if request is None:
            return original(self)
        key, message, digest, algorithm = request
        private = key.private_key.private_key
        if isinstance(private, ec.EllipticCurvePrivateKey):
            signature = private.sign(message, ec.ECDSA(digest))
        else:
            signature = private.sign(message, _rsa_padding(algorithm, digest), digest)
        return json.dumps(
            {
                "KeyId": key.arn,
                "Signature": base64.b64encode(signature).decode("ascii"),
                "SigningAlgorithm": algorithm,
            }
        )

    return sign


def _verify_digest(original: Callable[..., str]) -> Callable[..., str]:
    @wraps(original)
    def verify(self: KmsResponse) -> str:
        request = _digest_request(self, "Verify")
        if request is None:
            return original(self)
        key, message, digest, algorithm = request
        public = key.private_key.private_key.public_key()
        signature = base64.b64decode(self._get_param("Signature"))
        try:
            if isinstance(public, ec.EllipticCurvePublicKey):
                public.verify(signature, message, ec.ECDSA(digest))
            else:
                public.verify(signature, message, _rsa_padding(algorithm, digest), digest)
            valid = True
        except InvalidSignature:
            valid = False
        return json.dumps({"KeyId": key.arn, "SignatureValid": valid, "SigningAlgorithm": algorithm})

    return verify


DIGEST = Mend(
    name="kms-digest",
    restores="MessageType DIGEST signs the digest given, without hashing it again: the signature verifies offline over "
    "the message. A digest of the wrong length, and a RAW message over 4,096 bytes, are refused.",
    documented="AWS KMS API Reference, Sign: MessageType",
    patches=(Patch(KmsResponse, "sign", _sign_digest), Patch(KmsResponse, "verify", _verify_digest)),
)


def _raising_on_bad_signature(original: Callable[..., str]) -> Callable[..., str]:
    @wraps(original)
    def verify(self: KmsResponse) -> str:
        answer = original(self)
        if not json.loads(answer)["SignatureValid"]:
            raise JsonRESTError("KMSInvalidSignatureException", "The signature is not valid.")
        return answer

    return verify


BAD_SIGNATURE = Mend(
    name="kms-bad-signature",
    restores="Verify answers a signature that does not verify with KMSInvalidSignatureException, never with false.",
    documented="AWS KMS API Reference, Verify",
    patches=(Patch(KmsResponse, "verify", _raising_on_bad_signature),),
)


MENDS = (ENCRYPTION_CONTEXT, INCORRECT_KEY, RSA_ENCRYPTION, DIGEST, BAD_SIGNATURE)
