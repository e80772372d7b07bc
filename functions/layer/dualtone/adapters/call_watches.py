"""Watched calls in the index table: one item a call, found by when it is due.

| pk                     | sk      | gsi1pk          | gsi1sk                      | what                             |
|------------------------|---------|-----------------|-----------------------------|----------------------------------|
| `<tenant>#call#<call>` | `watch` | `sweep#<shard>` | `<due ms>#<tenant>#<call>`  | when to look at the call again   |

The index may lag behind the table: what is read from it is only where to look. Every write names the moment at which
the call was due, so that of two runs one acts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.call_watch import Watch
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.usecases.sweep_calls import AgentWord

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

SHARDS: Final = 4
INTERRUPTED: Final = "interrupted"

_WATCH: Final = "watch"
_LIVE: Final = "live"
_KEPT: Final = frozenset({"ended", "spooled"})


class CallWatches:
    """The index table, for watched calls."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, audit: AuditOutbox) -> None:
        """Takes the client, the table's name, and the outbox that joins transactions."""
        self._table = Table(dynamodb, table)
        self._audit = audit

    @property
    def shards(self) -> int:
        """Over how many partitions of the index the calls are spread."""
        return SHARDS

    def begin(self, watch: Watch) -> None:
        """Begins to watch a call; one that is watched already goes on as it is."""
        with contextlib.suppress(ConditionFailed):
            self._table.put_new(_item(watch))

    def due(self, shard: int, now_ms: int, most: int) -> list[Watch]:
        """Reads calls of a shard whose time has come, the longest due first."""
        rows = self._table.oldest(f"sweep#{shard}", f"{now_ms:013d}~", limit=most, index="by_time")
        return [_watch(row) for row in rows]

    def word(self, tenant: TenantId, agent: AgentId) -> AgentWord | None:
        """Reads an agent's latest health report; None if it never sent one."""
        item = self._table.get(f"{tenant}#agents", agent)
        return None if item is None else AgentWord(item["seen_at_ms"], frozenset(item["live"]))

    def is_kept(self, watch: Watch) -> bool:
        """Whether the last event of the call was that it ended."""
        live = self._table.get(_pk(watch), _LIVE)
        return live is not None and live.get("state") in _KEPT

    def renew(self, before: Watch, after: Watch) -> bool:
        """Notes when to look again; False if another run was first."""
        try:
            self._table.update(_pk(before), _WATCH, **_change(before, after))
        except ConditionFailed:
            return False
        return True

    def interrupt(self, before: Watch, after: Watch, event: AuditEvent) -> bool:
        """Marks a call as interrupted and takes it off the list of live calls; False if another run was first."""
        live = self._table.get(_pk(before), _LIVE)
        marked = []
        if live is not None and live.get("state") == _LIVE:
            gone = {"state": INTERRUPTED, "gsi1pk": None, "gsi1sk": None}
            marked = [self._from_state(before, _LIVE, gone)]
        return self._written(self._changed(before, after), *marked, self._audit.transact_put(event))

    def hear_again(self, before: Watch, after: Watch, event: AuditEvent) -> bool:
        """Takes the mark back, and puts the call on the list of live calls again; False if another run was first."""
        live = self._table.get(_pk(before), _LIVE)
        marked = []
        if live is not None and live.get("state") == INTERRUPTED:
            place = {"gsi1pk": f"{before.tenant}#live", "gsi1sk": f"{live['started_at_ms']:013d}#{before.call}"}
            marked = [self._from_state(before, INTERRUPTED, {"state": _LIVE, **place})]
        return self._written(self._changed(before, after), *marked, self._audit.transact_put(event))

    def forget(self, watch: Watch) -> None:
        """Ends the watch, unless it changed meanwhile."""
        with contextlib.suppress(ConditionFailed):
            self._table.delete(_pk(watch), _WATCH, where={"due_at_ms": watch.due_at_ms})

    def _changed(self, before: Watch, after: Watch) -> TransactWriteItemTypeDef:
        return self._table.transact_update(_pk(before), _WATCH, **_change(before, after))

    def _from_state(self, watch: Watch, state: str, changes: Mapping[str, object]) -> TransactWriteItemTypeDef:
        return self._table.transact_update(
            _pk(watch), _LIVE, set_to=changes, only_if="#state = :before", values={":before": state}
        )

    def _written(self, *writes: TransactWriteItemTypeDef) -> bool:
        try:
            self._table.transact(*writes)
        except ConditionFailed:
            return False
        return True


def _pk(watch: Watch) -> str:
    return f"{watch.tenant}#call#{watch.call}"


def _change(before: Watch, after: Watch) -> dict[str, Any]:
    """A change of a watch that was not changed meanwhile."""
    return {"set_to": _values(after), "only_if": "#due_at_ms = :due", "values": {":due": before.due_at_ms}}


def _item(watch: Watch) -> dict[str, object]:
    return {"pk": _pk(watch), "sk": _WATCH, **_values(watch)}


def _values(watch: Watch) -> dict[str, object]:
    return {
        "gsi1pk": f"sweep#{sum(watch.call.encode()) % SHARDS}",
        "gsi1sk": f"{watch.due_at_ms:013d}#{watch.tenant}#{watch.call}",
        "tenant": watch.tenant,
        "agent_id": watch.agent,
        "call_id": watch.call,
        "heard_at_ms": watch.heard_at_ms,
        "due_at_ms": watch.due_at_ms,
        "interrupted_at_ms": watch.interrupted_at_ms,
        "asked_for_ms": watch.asked_for_ms,
        "lasted_until_ms": watch.lasted_until_ms,
    }


def _watch(item: Mapping[str, Any]) -> Watch:
    return Watch(
        tenant=TenantId(item["tenant"]),
        agent=AgentId(item["agent_id"]),
        call=CallId(item["call_id"]),
        heard_at_ms=item["heard_at_ms"],
        due_at_ms=item["due_at_ms"],
        interrupted_at_ms=item.get("interrupted_at_ms"),
        asked_for_ms=item.get("asked_for_ms"),
        lasted_until_ms=item.get("lasted_until_ms"),
    )
