"""Create a payment endpoint: an administrator gets a URL and a secret to give to a payment system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dualtone.domain.audit_event import AuditEvent, Outcome, RequestFacts
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import ULID_RANDOM_BYTES, EndpointId, TenantId, ulid
from dualtone.domain.tenancy import PaymentEndpoint, Principal, Verb

MOST_ENDPOINTS: Final = 20
"""Of one tenant: every agent is told all of them."""


class Endpoints(Protocol):
    """Where endpoints are kept."""

    def create(self, endpoint: PaymentEndpoint, event: AuditEvent) -> bytes:
        """Makes an endpoint and writes the event, both or none; returns its new secret."""

    def count(self, tenant: TenantId) -> int:
        """How many endpoints a tenant has."""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What the administrator is shown, once."""

    endpoint_id: EndpointId
    secret: bytes = field(repr=False)


class CreatePaymentEndpoint:
    """Creates payment endpoints."""

    def __init__(self, endpoints: Endpoints, random_bytes: Callable[[int], bytes]) -> None:
        """Takes where endpoints are kept, and a source of randomness for their ids."""
        self._endpoints = endpoints
        self._random_bytes = random_bytes

    def create(self, principal: Principal, name: str, facts: RequestFacts) -> NewEndpoint:
        """Makes an endpoint; its secret is kept sealed, and shown this once.

        Raises:
            MalformedInput: If the tenant has as many as it may have.
        """
        if self._endpoints.count(principal.tenant) >= MOST_ENDPOINTS:
            raise MalformedInput(f"a tenant has at most {MOST_ENDPOINTS} payment endpoints", http_status=422)
        endpoint_id = EndpointId("pay_" + ulid(facts.now_ms, self._random_bytes(ULID_RANDOM_BYTES)))
        event = facts.event(
            Verb.CREATE_PAYMENT_ENDPOINT,
            Outcome.GRANTED,
            tenant=principal.tenant,
            who=principal.actor,
            which=endpoint_id,
        )
        return NewEndpoint(
            endpoint_id, self._endpoints.create(PaymentEndpoint(principal.tenant, endpoint_id, name), event)
        )
