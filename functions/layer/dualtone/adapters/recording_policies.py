"""Tenants' recording policies in the directory table: the version in force, and every version there was.

| pk                | sk                            | what                                             |
|-------------------|-------------------------------|--------------------------------------------------|
| `tenant#<tenant>` | `recording-policy`            | the version in force: signed payload, and by whom |
| `tenant#<tenant>` | `recording-policy-v#<number>` | the same of every version there was              |

A version is never changed: recordings name the one that was in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain import recording_policy
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.ids import TenantId
from dualtone.domain.recording_policy import RecordingPolicy
from dualtone.domain.signing import Envelope
from dualtone.usecases.read_recording_policy import StoredPolicy

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_CURRENT: Final = "recording-policy"
_VERSIONS: Final = "recording-policy-v#"


class RecordingPolicies:
    """Reads and writes policies."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, outbox: AuditOutbox) -> None:
        """Takes the client, the directory table's name, and the outbox that joins each transaction."""
        self._table = Table(dynamodb, table)
        self._outbox = outbox

    def current(self, tenant: TenantId) -> StoredPolicy | None:
        """The version in force; None if the tenant has no policy."""
        return self._read(tenant, _CURRENT)

    def version(self, tenant: TenantId, version: int) -> StoredPolicy | None:
        """A version, in force or not; None if there was none."""
        return self._read(tenant, _version_sk(version))

    def envelope(self, tenant: TenantId) -> Envelope | None:
        """The version in force as it was signed, for agents; None if the tenant has no policy."""
        item = self._table.get(_pk(tenant), _CURRENT)
        return None if item is None else _envelope(item)

    def replace(
        self, policy: RecordingPolicy, envelope: Envelope, *, by: str, instead_of: int, event: AuditEvent
    ) -> bool:
        """Makes a version the current one, keeps it among all, and writes the event, all or none.

        Args:
            policy: The version.
            envelope: The same, signed.
            by: Who made it.
            instead_of: The version in force; 0 if there is none.
            event: What they did.

        Returns:
            False if another version is in force.
        """
        tenant = TenantId(policy.tenant)
        entry = {
            "version": policy.version,
            "payload": envelope.payload,
            "signature": envelope.signature,
            "key_id": envelope.key_id,
            "changed_by": by,
        }
        current = self._table.transact_update(
            _pk(tenant),
            _CURRENT,
            set_to=entry,
            only_if="#version = :instead_of" if instead_of else "attribute_not_exists(#version)",
            values={":instead_of": instead_of} if instead_of else {},
        )
        kept = self._table.transact_put_new({"pk": _pk(tenant), "sk": _version_sk(policy.version), **entry})
        try:
            self._table.transact(current, kept, self._outbox.transact_put(event))
        except ConditionFailed:
            return False
        return True

    def _read(self, tenant: TenantId, sk: str) -> StoredPolicy | None:
        item = self._table.get(_pk(tenant), sk)
        if item is None:
            return None
        envelope = _envelope(item)
        return StoredPolicy(recording_policy.read(envelope.payload), envelope, item["changed_by"])


def _pk(tenant: TenantId) -> str:
    return f"tenant#{tenant}"


def _version_sk(version: int) -> str:
    return f"{_VERSIONS}{version:010d}"


def _envelope(item: dict[str, Any]) -> Envelope:
    return Envelope(recording_policy.KIND, item["payload"], item["signature"], item["key_id"])
