"""The audit outbox: every event, written before its effect leaves the house.

Events of a tenant are spread over a few partitions so that a busy tenant does not wait for itself; within one they are
ordered by time. A later step reads the outbox into the tenant's transparency log.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.ids import ULID_RANDOM_BYTES, ulid

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

SHARDS: Final = 4


class AuditOutbox:
    """Writes audit events, alone or as part of the transaction that they tell of."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, random_bytes: Callable[[int], bytes]) -> None:
        """Takes the client, the table's name, and a source of randomness for the events' ids."""
        self._table = Table(dynamodb, table)
        self._random_bytes = random_bytes

    def write(self, event: AuditEvent) -> None:
        """Writes one event; when this returns it is durable."""
        self._table.put_new(self._row(event, self._random_bytes(ULID_RANDOM_BYTES)))

    def write_once(self, event: AuditEvent, identity: str) -> None:
        """Writes one event that may be told again: of one identity and one moment it is the same event.

        Args:
            event: The event.
            identity: What makes it this one and no other.
        """
        drawn = hashlib.sha256(identity.encode()).digest()[:ULID_RANDOM_BYTES]
        with contextlib.suppress(ConditionFailed):
            self._table.put_new(self._row(event, drawn))

    def transact_put(self, event: AuditEvent) -> TransactWriteItemTypeDef:
        """Makes the write of an event for a transaction: the event and its effect happen together or not at all."""
        return self._table.transact_put_new(self._row(event, self._random_bytes(ULID_RANDOM_BYTES)))

    @staticmethod
    def _row(event: AuditEvent, randomness: bytes) -> dict[str, object]:
        return {
            "pk": f"{event.tenant}#{randomness[-1] % SHARDS}",
            "sk": f"{event.when_ms:013d}#{ulid(event.when_ms, randomness)}",
            "tenant": event.tenant,
            "who": event.who,
            "what": event.what,
            "when": event.when_ms,
            "outcome": event.outcome,
            "origin": event.origin,
            "which": event.which,
            "request_id": event.request_id,
            "details": event.details,
        }
