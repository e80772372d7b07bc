"""The tenant's ingest key, signed: agents wrap call keys to it on nobody's word but that of the cloud's pinned key."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Final, Protocol

from dualtone.domain import canonical
from dualtone.domain.ids import TenantId
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import TenantProfile

KIND: Final = "ingest-key"
_KEPT: Final = 256


class Profiles(Protocol):
    """What is configured for tenants."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads a tenant's profile; raises NotFound."""


class PublicKeys(Protocol):
    """Public halves of keys in KMS."""

    def public_key_der(self, key: str) -> bytes:
        """SubjectPublicKeyInfo of a key named by its ARN."""


class IngestKeys:
    """Signs tenants' ingest keys; the same key is signed once per process."""

    def __init__(self, profiles: Profiles, keys: PublicKeys, signer: Signer, default_key_arn: str) -> None:
        """Takes the profiles, the keys, the cloud's signer, and the key of tenants that have none of their own."""
        self._profiles = profiles
        self._keys = keys
        self._signer = signer
        self._default_key_arn = default_key_arn
        self._signed = lru_cache(maxsize=_KEPT)(self._sign)

    def envelope(self, tenant: TenantId) -> Envelope:
        """The tenant's current ingest key as a signed envelope: tenant, key_arn, public_key_der (base64)."""
        return self._signed(tenant, self._profiles.profile(tenant).ingest_key_arn or self._default_key_arn)

    def _sign(self, tenant: TenantId, key_arn: str) -> Envelope:
        public_key = base64.b64encode(self._keys.public_key_der(key_arn)).decode("ascii")
        payload = canonical.encode({"tenant": tenant, "key_arn": key_arn, "public_key_der": public_key})
        return Envelope.sealed_by(self._signer, KIND, payload)
