"""Page cursors: opaque to clients, bound to tenant and query, and useless when changed.

A cursor says where the last page ended. It names no partition: those are computed again from the tenant of whoever
presents it. The MAC keeps clients from depending on the form and makes a cursor of another query or tenant an error
instead of a puzzling page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from functools import lru_cache
from typing import Any, Final

from dualtone.adapters.tokens import MacKeys
from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import TenantId

_MAC_BYTES: Final = 16
_LONGEST: Final = 1024
_TENANTS_KEPT: Final = 256


class Cursors:
    """Seals and opens cursors under a key per tenant that is derived by KMS once per process."""

    def __init__(self, kms: MacKeys, hmac_key: str) -> None:
        """Takes KMS and the ARN of the deployment's HMAC key."""
        self._kms = kms
        self._hmac_key = hmac_key
        self._key = lru_cache(maxsize=_TENANTS_KEPT)(self._derive)

    def seal(self, tenant: TenantId, scope: str, position: dict[str, Any]) -> str:
        """Writes a cursor.

        Args:
            tenant: Who may use it.
            scope: The query that it continues; not part of the cursor, but of its MAC.
            position: JSON values, without personal data.

        Returns:
            URL-safe text.
        """
        body = canonical.encode(position)
        return base64.urlsafe_b64encode(self._mac(tenant, scope, body) + body).decode("ascii").rstrip("=")

    def open(self, tenant: TenantId, scope: str, cursor: str) -> dict[str, Any]:
        """Reads a cursor; raises MalformedInput (422) if it was not sealed for this tenant and this query."""
        refusal = MalformedInput("the cursor does not belong to this query: ask again without it", http_status=422)
        if len(cursor) > _LONGEST:
            raise refusal
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise refusal from error
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(tenant, scope, body)):
            raise refusal
        position: dict[str, Any] = canonical.decode(body)
        return position

    def _mac(self, tenant: TenantId, scope: str, body: bytes) -> bytes:
        message = canonical.encode([tenant, scope]) + b"\0" + body
        return hmac.digest(self._key(tenant), message, hashlib.sha256)[:_MAC_BYTES]

    def _derive(self, tenant: TenantId) -> bytes:
        return self._kms.mac(self._hmac_key, b"DUALTONE/v1/cursor-key\0" + canonical.encode([tenant]))
