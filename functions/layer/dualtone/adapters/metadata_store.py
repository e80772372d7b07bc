"""Sealed metadata: numbers, names and Call-IDs of a recording, under a key of its own.

The recording's key is wrapped (AES-KW, RFC 3394) under the tenant's key of the month, which KMS wraps under the
metadata key, bound to tenant, purpose and month. A month's key is unwrapped once and kept for five minutes: a list of
recordings costs at most one KMS call a month shown. Vault keys play no part.

| pk             | sk        | what                                        |
|----------------|-----------|---------------------------------------------|
| `<tenant>#kek` | `YYYY-MM` | `wrapped`: the month's key, wrapped by KMS  |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain import canonical
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import RecordingId, TenantId

CACHED_S: Final = 300

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class DataKeys(Protocol):
    """The part of KMS that the months' keys need."""

    def generate_data_key(self, key: str, context: dict[str, str]) -> tuple[bytes, bytes]:
        """Draws 32 random bytes; returns them and the same wrapped."""

    def decrypt(self, key: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        """Unwraps; raises IntegrityError."""


class MetadataStore:
    """Seals and opens metadata."""

    def __init__(
        self,
        *,
        table: Table,
        kms: DataKeys,
        metadata_key: str,
        monotonic_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Takes the index table, KMS, and the ARN of the metadata key; time for the cache, randomness for the keys."""
        self._table = table
        self._kms = kms
        self._metadata_key = metadata_key
        self._monotonic_s = monotonic_s
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._months: dict[tuple[TenantId, str], tuple[float, bytes]] = {}

    def seal(self, tenant: TenantId, recording: RecordingId, month: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Seals metadata under a fresh key.

        Args:
            tenant: Whose.
            recording: Of which recording.
            month: ``YYYY-MM``, the recording's start.
            metadata: What canonical JSON can spell.

        Returns:
            Attributes of the metadata item: wrapped_key, kek_month, sealed.

        Raises:
            Unavailable: If KMS or the table do not answer.
        """
        key, nonce = self._random_bytes(_KEY_BYTES), self._random_bytes(_NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, canonical.encode(metadata), _aad(tenant, recording))
        return {
            "wrapped_key": aes_key_wrap(self._month_key(tenant, month, make=True), key),
            "kek_month": month,
            "sealed": nonce + sealed,
        }

    def open(self, tenant: TenantId, recording: RecordingId, item: Mapping[str, Any]) -> dict[str, Any]:
        """Opens metadata.

        Raises:
            IntegrityError: If it is not what was sealed for this recording of this tenant.
            Unavailable: If KMS or the table do not answer.
        """
        try:
            wrapped, month, sealed = item["wrapped_key"], item["kek_month"], item["sealed"]
        except KeyError as error:
            raise IntegrityError("a metadata item lacks a field") from error
        try:
            key = aes_key_unwrap(self._month_key(tenant, month, make=False), wrapped)
            plain = AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _aad(tenant, recording))
            value = canonical.decode(plain)
        except (InvalidUnwrap, InvalidTag, MalformedInput, TypeError, ValueError) as error:
            raise IntegrityError("the metadata of a recording does not open") from error
        if not isinstance(value, dict):
            raise IntegrityError("the metadata of a recording is no object")
        return value

    def _month_key(self, tenant: TenantId, month: str, *, make: bool) -> bytes:
        with self._lock:
            now = self._monotonic_s()
            expires, key = self._months.get((tenant, month), (now, b""))
            if now < expires:
                return key
            self._months = {place: entry for place, entry in self._months.items() if entry[0] > now}
            key = self._fetched(tenant, month, make=make)
            self._months[tenant, month] = now + CACHED_S, key
            return key

    def _fetched(self, tenant: TenantId, month: str, *, make: bool) -> bytes:
        context = {"tenant": tenant, "purpose": "metadata", "month": month}
        pk = f"{tenant}#kek"
        item = self._table.get(pk, month)
        if item is None and make:
            key, wrapped = self._kms.generate_data_key(self._metadata_key, context)
            try:
                self._table.put_new({"pk": pk, "sk": month, "wrapped": wrapped})
            except ConditionFailed:
                item = self._table.get(pk, month)  # another finaliser was first
            else:
                return key
        if item is None:
            raise IntegrityError("the month of a recording's metadata has no key")
        return self._kms.decrypt(self._metadata_key, item["wrapped"], context)


def _aad(tenant: TenantId, recording: RecordingId) -> bytes:
    return canonical.encode([tenant, recording, "meta"])
