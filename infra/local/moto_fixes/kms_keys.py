"""KMS keys: their states, what they may be used for, and how answers name them.

Where a mend needs a request parameter that moto's backend never sees, the response method is wrapped; otherwise the
backend is, so that a composed operation (GenerateDataKey is Encrypt, VerifyMac is GenerateMac) is covered by one
wrapper.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.kms import models as kms_models
from moto.kms.exceptions import ValidationException
from moto.kms.models import KmsBackend
from moto.kms.responses import KmsResponse

from infra.local.moto_fixes.mend import Mend, Patch

_WINDOW_DAYS = (7, 30)


def key_of(backend: KmsBackend, key_id: str) -> Any:
    """Return moto's key for an id, ARN or alias."""
    return backend.keys[backend.any_id_to_key_id(key_id)]


def refuse_unusable(key: Any) -> None:
    """Raise what KMS answers for a key that is disabled or pending deletion."""
    if key.key_state == "Disabled":
        raise JsonRESTError("DisabledException", f"{key.arn} is disabled.")
    if key.key_state == "PendingDeletion":
        raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is pending deletion.")


def refuse_other_usage(key: Any, usage: str, operation: str) -> None:
    """Raise what KMS answers for an operation that a key is not for."""
    if (key.key_usage or "ENCRYPT_DECRYPT") != usage:
        message = f"{key.arn} key usage is {key.key_usage} which is not valid for {operation}."
        raise JsonRESTError("InvalidKeyUsageException", message)


# ---------------------------------------------------------------- key state


def _checking_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def checked(self: KmsBackend, *args: Any, **kwargs: Any) -> Any:
        key_id = kwargs.get("key_id")
        if key_id is None and args and isinstance(args[0], str):
            key_id = args[0]
        if key_id is not None:
            refuse_unusable(key_of(self, key_id))
        return original(self, *args, **kwargs)

    return checked


def _decrypt_checking_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def checked(self: KmsBackend, ciphertext_blob: bytes, *args: Any, **kwargs: Any) -> Any:
        plaintext, arn = original(self, ciphertext_blob, *args, **kwargs)
        refuse_unusable(key_of(self, arn))
        return plaintext, arn

    return checked


KEY_STATE = Mend(
    name="kms-key-state",
    restores="A disabled key refuses every cryptographic operation with DisabledException, one pending deletion with "
    "KMSInvalidStateException.",
    documented="AWS KMS Developer Guide, 'Key states of AWS KMS keys'",
    patches=(
        Patch(KmsBackend, "encrypt", _checking_state),
        Patch(KmsBackend, "decrypt", _decrypt_checking_state),
        Patch(KmsBackend, "sign", _checking_state),
        Patch(KmsBackend, "verify", _checking_state),
        Patch(KmsBackend, "generate_mac", _checking_state),
        Patch(KmsBackend, "get_public_key", _checking_state),
    ),
)


def _checking_window(original: Callable[..., float]) -> Callable[..., float]:
    @wraps(original)
    def checked(self: KmsBackend, key_id: str, pending_window_in_days: int) -> float:
        first, last = _WINDOW_DAYS
        if not first <= pending_window_in_days <= last:
            raise ValidationException(f"PendingWindowInDays must be between {first} and {last} (inclusive).")
        key = key_of(self, key_id)
        if key.key_state == "PendingDeletion":
            refuse_unusable(key)
        return original(self, key.id, pending_window_in_days)

    return checked


DELETION_WINDOW = Mend(
    name="kms-deletion-window",
    restores="ScheduleKeyDeletion takes a waiting period of 7 to 30 days and refuses a key already pending deletion.",
    documented="AWS KMS API Reference, ScheduleKeyDeletion",
    patches=(Patch(KmsBackend, "schedule_key_deletion", _checking_window),),
)


def _by_any_name(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def resolved(self: KmsBackend, key_id: str) -> Any:
        return original(self, key_of(self, key_id).id)

    return resolved


ARN_ACCEPTED = Mend(
    name="kms-arn-accepted",
    restores="EnableKey, DisableKey and CancelKeyDeletion take a key's ARN as well as its id.",
    documented="AWS KMS API Reference, DisableKey: KeyId",
    patches=tuple(
        Patch(KmsBackend, name, _by_any_name) for name in ("enable_key", "disable_key", "cancel_key_deletion")
    ),
)


# ---------------------------------------------------------------- key usage


def _checking_usage(usage: str, operation: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def checked(self: KmsBackend, *args: Any, **kwargs: Any) -> Any:
            refuse_other_usage(key_of(self, kwargs["key_id"] if "key_id" in kwargs else args[0]), usage, operation)
            return original(self, *args, **kwargs)

        return checked

    return wrap


def _symmetric_data_keys(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def checked(self: KmsBackend, key_id: str, *args: Any, **kwargs: Any) -> Any:
        key = key_of(self, key_id)
        if key.key_spec != "SYMMETRIC_DEFAULT":
            raise JsonRESTError(
                "InvalidKeyUsageException", f"{key.arn} key spec is {key.key_spec}: not valid for GenerateDataKey."
            )
        return original(self, key_id, *args, **kwargs)

    return checked


KEY_USAGE = Mend(
    name="kms-key-usage",
    restores="An operation that does not fit the key's usage or spec fails with InvalidKeyUsageException.",
    documented="AWS KMS API Reference, Encrypt, Sign, GenerateDataKey: InvalidKeyUsageException",
    patches=(
        Patch(KmsBackend, "encrypt", _checking_usage("ENCRYPT_DECRYPT", "Encrypt")),
        Patch(KmsBackend, "sign", _checking_usage("SIGN_VERIFY", "Sign")),
        Patch(KmsBackend, "verify", _checking_usage("SIGN_VERIFY", "Verify")),
        Patch(KmsBackend, "generate_data_key", _symmetric_data_keys),
    ),
)


def _private_half_of_asymmetric_only(original: Callable[[str], Any]) -> Callable[[str], Any]:
    @wraps(original)
    def generate(key_spec: str) -> Any:
        return original(key_spec) if key_spec.startswith(("RSA_", "ECC_")) else None

    return generate


def _public_key_of_asymmetric_only(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def checked(self: KmsBackend, key_id: str) -> Any:
        key = key_of(self, key_id)
        if not key.key_spec.startswith(("RSA_", "ECC_")):
            raise JsonRESTError("UnsupportedOperationException", f"{key.arn} is a symmetric key: it has no public key.")
        return original(self, key_id)

    return checked


NO_PUBLIC_HALF = Mend(
    name="kms-no-public-half",
    restores="Symmetric and HMAC keys have no public key: GetPublicKey fails with UnsupportedOperationException. (moto "
    "draws an RSA pair for each of them, which also costs a tenth of a second a key.)",
    documented="AWS KMS API Reference, GetPublicKey",
    patches=(
        Patch(kms_models, "generate_private_key", _private_half_of_asymmetric_only),
        Patch(KmsBackend, "get_public_key", _public_key_of_asymmetric_only),
    ),
)


# ---------------------------------------------------------------- answers


def _answering_with_arn(original: Callable[..., str]) -> Callable[..., str]:
    @wraps(original)
    def answer(self: KmsResponse) -> str:
        body = json.loads(original(self))
        body["KeyId"] = key_of(self.kms_backend, body["KeyId"]).arn
        return json.dumps(body)

    return answer


KEY_ARN = Mend(
    name="kms-key-arn",
    restores="GetPublicKey, GenerateMac and VerifyMac answer with the key's ARN in KeyId, however it was named.",
    documented="AWS KMS API Reference, GetPublicKey and GenerateMac: Response Elements",
    patches=tuple(
        Patch(KmsResponse, name, _answering_with_arn) for name in ("get_public_key", "generate_mac", "verify_mac")
    ),
)

MENDS = (KEY_STATE, DELETION_WINDOW, ARN_ACCEPTED, KEY_USAGE, NO_PUBLIC_HALF, KEY_ARN)
