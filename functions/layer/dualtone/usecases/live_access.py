"""What an agent is told beside its identity: how calls are named between us, and whose reports it takes by itself.

All of it works without an uplink once it is known: an agent with it names its calls, takes payment reports on its LAN
endpoint, and knows which calls to keep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dualtone.domain.ids import EndpointId, TenantId
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import TenantProfile


class LiveKeys(Protocol):
    """Tenants' live keys."""

    def of(self, tenant: TenantId) -> bytes:
        """32 bytes."""


class EndpointSecrets(Protocol):
    """Tenants' payment endpoints."""

    def secrets(self, tenant: TenantId) -> list[tuple[EndpointId, bytes]]:
        """Every endpoint with its secret."""


class Policies(Protocol):
    """Tenants' recording policies."""

    def envelope(self, tenant: TenantId) -> Envelope | None:
        """The version in force as it was signed; None if the tenant has no policy."""


class Profiles(Protocol):
    """Tenants' own rules."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads a tenant's profile."""


@dataclass(frozen=True, slots=True)
class LiveAccess:
    """What every agent of a tenant is told.

    Attributes:
        profile: The tenant's rules: how long a pause lasts that says nothing of it, and what then.
        live_key: 32 bytes (see ``domain.call_match``).
        payment_endpoints: Every payment endpoint of the tenant with its secret.
        recording_policy: The recording policy, signed; None if every call is recorded.
    """

    profile: TenantProfile
    live_key: bytes = field(repr=False)
    payment_endpoints: tuple[tuple[EndpointId, bytes], ...] = field(repr=False)
    recording_policy: Envelope | None = field(repr=False)


class GrantLiveAccess:
    """Tells agents; only after they have proved who they are."""

    def __init__(self, profiles: Profiles, live_keys: LiveKeys, endpoints: EndpointSecrets, policies: Policies) -> None:
        """Takes the tenants' rules, the live keys, the endpoints and the recording policies."""
        self._policies = policies
        self._profiles = profiles
        self._live_keys = live_keys
        self._endpoints = endpoints

    def to(self, tenant: TenantId) -> LiveAccess:
        """What an agent of the tenant is told."""
        endpoints = tuple(self._endpoints.secrets(tenant))
        policy = self._policies.envelope(tenant)
        return LiveAccess(self._profiles.profile(tenant), self._live_keys.of(tenant), endpoints, policy)
