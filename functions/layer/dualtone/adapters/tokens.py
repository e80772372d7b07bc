"""Search tokens: keyed hashes under which numbers and Call-IDs are found without being readable.

The key is an HMAC key that never leaves KMS, so a copy of the table cannot be searched by trying all numbers. Tokens
are bound to tenant, field and month: the same number has unrelated tokens in two tenants or two months. A token still
tells that two calls of one month share a party, so it is personal data and is treated so: never logged, never in a URL.
"""

import base64
import hashlib
from functools import lru_cache
from typing import Protocol

from dualtone.domain import canonical
from dualtone.domain.ids import TenantId

_TOKEN_CHARACTERS = 32  # 160 of the MAC's 256 bits, in base32: no accidental collision in any real index
_LONGEST_VALUE = 1024  # KMS takes messages of 4,096 bytes; a Call-ID may be longer
_CACHED = 8192
_TENANTS_KEPT = 256


class MacKeys(Protocol):
    """The part of KMS that tokens need; `adapters.kms.Kms` is one."""

    def mac(self, key: str, message: bytes) -> bytes:
        """Return HMAC-SHA-256 of at most 4,096 bytes under a KMS key named by its ARN."""
        ...


class Tokens:
    """Mints search tokens; remembers the last few thousand in memory, since GenerateMac is billed and rate-limited."""

    def __init__(self, kms: MacKeys, hmac_key: str) -> None:
        """Bind to the HMAC key.

        Args:
            kms: computes MACs.
            hmac_key: ARN of the KMS key (HMAC_256, GENERATE_VERIFY_MAC).
        """
        self._kms = kms
        self._hmac_key = hmac_key
        self._mint = lru_cache(maxsize=_CACHED)(self._compute)

    def number(self, tenant: TenantId, month: str, number: str) -> str:
        """Token of a party's number in the calls of one month.

        Args:
            tenant: whose index.
            month: `YYYY-MM`, UTC, of the recording's start.
            number: as given by `domain.numbers.normalise`.

        Returns:
            32 lower-case base32 characters.
        """
        return self._mint(tenant, "number", month, number)

    def sip_call_id(self, tenant: TenantId, sip_call_id: str) -> str:
        """Token of a SIP Call-ID (RFC 3261 section 8.1.1.4: compared byte by byte, case-sensitive).

        Args:
            tenant: whose index.
            sip_call_id: the header's value as received.

        Returns:
            32 lower-case base32 characters.
        """
        return self._mint(tenant, "sip_call_id", "", sip_call_id)

    def _compute(self, tenant: TenantId, field: str, month: str, value: str) -> str:
        raw = value.encode("utf-8", "surrogatepass")
        plain = len(raw) <= _LONGEST_VALUE and value.isprintable()
        bounded = value if plain else "sha256:" + hashlib.sha256(raw).hexdigest()
        mac = self._kms.mac(self._hmac_key, canonical.encode([tenant, field, month, bounded]))
        return base64.b32encode(mac).decode("ascii").lower()[:_TOKEN_CHARACTERS]


class LiveKeys:
    """Tenants' live keys: what cloud and agents share to name live calls (see `domain.call_match`)."""

    def __init__(self, kms: MacKeys, hmac_key: str) -> None:
        """Bind to the HMAC key, from which each tenant's live key is derived once a process."""
        self._kms = kms
        self._hmac_key = hmac_key
        self._key = lru_cache(maxsize=_TENANTS_KEPT)(self._derive)

    def of(self, tenant: TenantId) -> bytes:
        """Return a tenant's live key: 32 bytes, the same for ever."""
        return self._key(tenant)

    def _derive(self, tenant: TenantId) -> bytes:
        return self._kms.mac(self._hmac_key, canonical.encode(["live", tenant]))
