"""What an agent is told beside its identity: how calls are named between us, and whose reports it takes by itself.

Both work without an uplink once they are known: an agent with them names its calls, and takes payment reports on its
LAN endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dualtone.domain.ids import EndpointId, TenantId


class LiveKeys(Protocol):
    """Tenants' live keys."""

    def of(self, tenant: TenantId) -> bytes:
        """32 bytes."""


class EndpointSecrets(Protocol):
    """Tenants' payment endpoints."""

    def secrets(self, tenant: TenantId) -> list[tuple[EndpointId, bytes]]:
        """Every endpoint with its secret."""


@dataclass(frozen=True, slots=True)
class LiveAccess:
    """What every agent of a tenant is told.

    Attributes:
        live_key: 32 bytes (see ``domain.call_match``).
        payment_endpoints: Every payment endpoint of the tenant with its secret.
    """

    live_key: bytes = field(repr=False)
    payment_endpoints: tuple[tuple[EndpointId, bytes], ...] = field(repr=False)


class GrantLiveAccess:
    """Tells agents; only after they have proved who they are."""

    def __init__(self, live_keys: LiveKeys, endpoints: EndpointSecrets) -> None:
        """Takes the live keys and the endpoints."""
        self._live_keys = live_keys
        self._endpoints = endpoints

    def to(self, tenant: TenantId) -> LiveAccess:
        """What an agent of the tenant is told."""
        return LiveAccess(self._live_keys.of(tenant), tuple(self._endpoints.secrets(tenant)))
