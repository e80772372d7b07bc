"""Where payment systems report: endpoints, their sealed secrets, and the memory of messages that were answered.

| table     | pk                            | sk                            | what                                |
|-----------|-------------------------------|-------------------------------|-------------------------------------|
| directory | `tenant#<tenant>`             | `payment-endpoint#<endpoint>` | name, sealed secret                 |
| directory | `payment-endpoint#<endpoint>` | `payment-endpoint`            | whose it is                         |
| index     | `<tenant>#webhook#<endpoint>` | `<webhook-id>`                | a message: hash of its body, answer |

A secret *is* a data key: KMS draws it and hands it out wrapped, bound to tenant and purpose, so that nothing else ever
holds it in the clear. It is kept in memory for five minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.metadata_store import CACHED_S, DataKeys
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.errors import NotFound
from dualtone.domain.ids import EndpointId, TenantId, parse_endpoint_id, parse_tenant_id
from dualtone.domain.tenancy import PaymentEndpoint
from dualtone.usecases.take_payment_report import Message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REMEMBERED_S: Final = 7 * 86_400
_KIND: Final = "payment-endpoint"


class PaymentEndpoints:
    """The directory's entries of endpoints."""

    def __init__(
        self,
        *,
        dynamodb: DynamoDBClient,
        table: str,
        kms: DataKeys,
        metadata_key: str,
        outbox: AuditOutbox,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Takes the client, the directory table's name, KMS and the key that seals secrets, the outbox, a clock."""
        self._table = Table(dynamodb, table)
        self._kms = kms
        self._metadata_key = metadata_key
        self._outbox = outbox
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._opened: dict[EndpointId, tuple[float, bytes]] = {}

    def create(self, endpoint: PaymentEndpoint, event: AuditEvent) -> bytes:
        """Makes an endpoint with a new secret and writes the event, both or none.

        Returns:
            The secret: 32 random bytes.
        """
        tenant, endpoint_id = endpoint.tenant, endpoint.endpoint_id
        secret, wrapped = self._kms.generate_data_key(self._metadata_key, _context(tenant))
        entry = {"endpoint_id": endpoint_id, "name": endpoint.name, "secret": wrapped, "created_at_ms": event.when_ms}
        self._table.transact(
            self._table.transact_put_new({"pk": f"tenant#{tenant}", "sk": f"{_KIND}#{endpoint_id}", **entry}),
            self._table.transact_put_new({"pk": f"{_KIND}#{endpoint_id}", "sk": _KIND, "tenant": tenant}),
            self._outbox.transact_put(event),
        )
        return secret

    def endpoint(self, endpoint: EndpointId) -> tuple[PaymentEndpoint, bytes]:
        """Reads an endpoint and opens its secret; raises NotFound, or IntegrityError if the secret was moved."""
        pointer = self._table.get(f"{_KIND}#{endpoint}", _KIND)
        tenant = parse_tenant_id(pointer["tenant"]) if pointer is not None else None
        item = self._table.get(f"tenant#{tenant}", f"{_KIND}#{endpoint}")
        if tenant is None or item is None:
            raise NotFound("no such payment endpoint")
        return PaymentEndpoint(tenant, endpoint, item["name"]), self._secret(tenant, endpoint, item["secret"])

    def secrets(self, tenant: TenantId) -> list[tuple[EndpointId, bytes]]:
        """Every endpoint of a tenant with its secret: for the tenant's agents, which take reports without an uplink."""
        return [
            (endpoint := parse_endpoint_id(item["endpoint_id"]), self._secret(tenant, endpoint, item["secret"]))
            for item in self._table.partition(f"tenant#{tenant}", f"{_KIND}#")
        ]

    def count(self, tenant: TenantId) -> int:
        """How many endpoints a tenant has."""
        return len(self._table.partition(f"tenant#{tenant}", f"{_KIND}#"))

    def _secret(self, tenant: TenantId, endpoint: EndpointId, wrapped: bytes) -> bytes:
        now = self._monotonic_s()
        with self._lock:
            expires, secret = self._opened.get(endpoint, (now, b""))
        if now < expires:
            return secret
        secret = self._kms.decrypt(self._metadata_key, wrapped, _context(tenant))
        with self._lock:
            self._opened = {each: entry for each, entry in self._opened.items() if entry[0] > now}
            self._opened[endpoint] = now + CACHED_S, secret
        return secret


class MessageMemory:
    """What was answered to which message."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        """Takes the client and the index table's name."""
        self._table = Table(dynamodb, table)

    def begin(self, endpoint: PaymentEndpoint, message: Message) -> Message | None:
        """Remembers a message that is about to be acted on; returns what is known of it if it was remembered before."""
        try:
            self._table.put_new({**_key(endpoint, message.message_id), **_item(message)})
        except ConditionFailed:
            return self.find(endpoint, message.message_id)
        return None

    def find(self, endpoint: PaymentEndpoint, message_id: str) -> Message | None:
        """Reads what is known of a message."""
        place = _key(endpoint, message_id)
        item = self._table.get(place["pk"], place["sk"])
        return None if item is None else _message(item)

    def take_over(self, endpoint: PaymentEndpoint, message: Message, now_ms: int) -> bool:
        """Makes a message ours whose first attempt came to nothing; False if somebody else did."""
        return self._change(endpoint, message, {"attempt_at_ms": now_ms, "failed": None}, "#attempt_at_ms = :attempt")

    def finish(self, endpoint: PaymentEndpoint, message: Message, status: int, answer: str) -> None:
        """Remembers the answer; the first one stays."""
        self._change(endpoint, message, {"status": status, "answer": answer}, "attribute_not_exists(#answer)")

    def fail(self, endpoint: PaymentEndpoint, message: Message) -> None:
        """Notes that an attempt ended without an answer, so that the next one need not wait for it."""
        self._change(endpoint, message, {"failed": True}, "attribute_not_exists(#answer)")

    def _change(self, endpoint: PaymentEndpoint, message: Message, changes: dict[str, Any], only_if: str) -> bool:
        place = _key(endpoint, message.message_id)
        values = {":attempt": message.attempt_at_ms} if ":attempt" in only_if else {}
        try:
            self._table.update(place["pk"], place["sk"], set_to=changes, only_if=only_if, values=values)
        except ConditionFailed:
            return False
        return True


def _context(tenant: TenantId) -> dict[str, str]:
    return {"tenant": tenant, "purpose": "webhook"}


def _key(endpoint: PaymentEndpoint, message_id: str) -> dict[str, str]:
    return {"pk": f"{endpoint.tenant}#webhook#{endpoint.endpoint_id}", "sk": message_id}


def _item(message: Message) -> dict[str, object]:
    return {
        "body_sha256": message.body_sha256,
        "command": message.command,
        "received_at_ms": message.received_at_ms,
        "attempt_at_ms": message.attempt_at_ms,
        "expires_at_s": message.received_at_ms // 1000 + REMEMBERED_S,
    }


def _message(item: dict[str, Any]) -> Message:
    return Message(
        message_id=item["sk"],
        body_sha256=item["body_sha256"],
        command=item["command"],
        received_at_ms=item["received_at_ms"],
        attempt_at_ms=item["attempt_at_ms"],
        failed=item.get("failed", False),
        status=item.get("status"),
        answer=item.get("answer"),
    )
