"""DynamoDB: one action at a time, transactions that undo only what they touched, queries that read only their key.

moto keeps a table as plain dictionaries and a transaction as a copy of whole tables; under the threads of a server both
lose acknowledged writes. The lock makes every action atomic, which is what DynamoDB promises for each of them.
"""

import copy
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from types import SimpleNamespace
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb import models as dynamodb_models
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

from infra.local.moto_fixes.mend import Mend, Patch

LOCK = threading.RLock()
"""Held for the whole of every DynamoDB action, its serialisation included."""

_TOKEN_LIFETIME_S = 600.0


# ---------------------------------------------------------------- one action at a time


def _one_at_a_time(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def call_action(self: DynamoHandler) -> Any:
        with LOCK:
            return original(self)

    return call_action


ATOMIC_ACTIONS = Mend(
    name="dynamodb-atomic-actions",
    restores="Every action is atomic and every acknowledged write stays, whatever else runs at the same time.",
    documented="Amazon DynamoDB Developer Guide, 'Transaction isolation levels' (serializable, single-item operations)",
    patches=(Patch(DynamoHandler, "call_action", _one_at_a_time),),
)


# ---------------------------------------------------------------- transactions


def _key_of(table: Table, operation: str, request: dict[str, Any]) -> tuple[DynamoType, DynamoType | None] | None:
    attributes = request.get("Item" if operation == "Put" else "Key") or {}
    try:
        hash_key = DynamoType(attributes[table.hash_key_attr])
        range_key = DynamoType(attributes[table.range_key_attr]) if table.range_key_attr else None
    except KeyError:
        return None  # moto itself refuses this request; nothing to keep
    return hash_key, range_key


class _Undo:
    """What a transaction's items and streams were before it, and the way back."""

    def __init__(self, backend: DynamoDBBackend, requests: Iterable[dict[str, Any]]) -> None:
        self._items: list[tuple[Table, DynamoType, DynamoType | None, Item | None]] = []
        self._streams: dict[int, tuple[list[Any], int]] = {}
        for request in requests:
            operation, arguments = next(iter(request.items()))
            table = backend.tables.get(arguments.get("TableName", ""))
            key = _key_of(table, operation, arguments) if table else None
            if table is None or key is None:
                continue
            self._items.append((table, *key, copy.deepcopy(table.get_item(*key))))
            if table.stream_shard is not None:
                records = table.stream_shard.items
                self._streams.setdefault(id(table), (records, len(records)))

    def undo(self) -> None:
        for table, hash_key, range_key, item in reversed(self._items):
            if range_key is None:
                table.items.pop(hash_key, None)
                if item is not None:
                    table.items[hash_key] = item  # type: ignore[assignment] # without a sort key, items lie flat
            else:
                table.items[hash_key].pop(range_key, None)
                if item is not None:
                    table.items[hash_key][range_key] = item
                elif not table.items[hash_key]:
                    del table.items[hash_key]
        for records, length in self._streams.values():
            del records[length:]


def _sharing_tables(original: Any) -> Any:
    def deepcopy(value: Any, memo: Any = None) -> Any:
        return value if isinstance(value, Table) else original.deepcopy(value, memo)

    return SimpleNamespace(deepcopy=deepcopy, copy=original.copy)


def _undoing_touched_items(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        undo = _Undo(self, transact_items)
        try:
            original(self, transact_items)
        except BaseException:
            undo.undo()
            raise

    return transact_write_items


TOUCHED_ITEMS = Mend(
    name="dynamodb-transaction-cost",
    restores="A transaction's cost depends on its own items, not on the table's size; a cancelled one leaves every "
    "other item alone.",
    documented="Amazon DynamoDB Developer Guide, 'Managing complex workflows with transactions'",
    patches=(
        Patch(dynamodb_models, "copy", _sharing_tables),
        Patch(DynamoDBBackend, "transact_write_items", _undoing_touched_items),
    ),
)


def _remembering_tokens(original: Callable[..., ActionResult]) -> Callable[..., ActionResult]:
    @wraps(original)
    def transact_write_items(self: DynamoHandler) -> ActionResult:
        token = self.body.get("ClientRequestToken")
        if not token:
            return original(self)
        remembered = self.dynamodb_backend.__dict__.setdefault("client_request_tokens", {})
        now = time.monotonic()
        request = json.dumps(self.body["TransactItems"], sort_keys=True, default=repr).encode()
        digest = hashlib.sha256(request).digest()
        if (known := remembered.get(token)) and now - known[1] < _TOKEN_LIFETIME_S:
            if known[0] != digest:
                raise JsonRESTError(
                    "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException",
                    "The request uses the same client token as a previous, but non-identical request.",
                )
            return ActionResult({"ConsumedCapacity": [], "ItemCollectionMetrics": {}})
        answer = original(self)
        remembered[token] = (digest, now)
        return answer

    return transact_write_items


CLIENT_REQUEST_TOKEN = Mend(
    name="dynamodb-client-request-token",
    restores="A TransactWriteItems repeated with its ClientRequestToken within ten minutes succeeds without a second "
    "effect; the same token with other parameters fails with IdempotentParameterMismatchException.",
    documented="Amazon DynamoDB API Reference, TransactWriteItems: ClientRequestToken",
    patches=(Patch(DynamoHandler, "transact_write_items", _remembering_tokens),),
)


# ---------------------------------------------------------------- queries


def _candidates(
    table: Table, hash_key: DynamoType | None, index_name: str | None, conditions: Any
) -> list[Item] | None:
    """Return the items a query can meet, unsorted, or None where moto shall look for itself."""
    if index_name is None:
        if hash_key is None or not table.has_range_key:
            return None
        return list(table.items[hash_key].values()) if hash_key in table.items else []
    if not conditions:
        return None
    name, wanted = conditions[0]
    value = wanted.value
    everything: Iterable[Any] = (
        (item for items in table.items.values() for item in items.values())
        if table.has_range_key
        else table.items.values()
    )
    return [item for item in everything if (held := item.attrs.get(name)) is not None and held.value == value]


def _reading_one_key(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def query(
        self: Table,
        hash_key: DynamoType | None,
        range_comparison: str | None,
        range_objs: list[DynamoType],
        limit: int,
        exclusive_start_key: dict[str, Any],
        scan_index_forward: bool,  # noqa: FBT001 - moto's own signature
        projection_expressions: list[list[str]] | None,
        index_name: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        candidates = _candidates(self, hash_key, index_name, kwargs.get("hash_key_conditions"))
        if candidates is not None:
            self.__dict__["query_candidates"] = candidates
        try:
            return original(
                self,
                hash_key,
                range_comparison,
                range_objs,
                limit,
                exclusive_start_key,
                scan_index_forward,
                projection_expressions,
                index_name,
                *args,
                **kwargs,
            )
        finally:
            self.__dict__.pop("query_candidates", None)

    return query


def _only_candidates(original: Callable[[Table], list[Item]]) -> Callable[[Table], list[Item]]:
    @wraps(original)
    def all_items(self: Table) -> list[Item]:
        candidates: list[Item] | None = self.__dict__.get("query_candidates")
        return original(self) if candidates is None else candidates

    return all_items


ONE_KEY = Mend(
    name="dynamodb-query-cost",
    restores="A Query reads the items of its partition key, not the table. (For a secondary index moto's items are "
    "still passed over once, without sorting them.)",
    documented="Amazon DynamoDB Developer Guide, 'Querying tables in DynamoDB'",
    patches=(Patch(Table, "query", _reading_one_key), Patch(Table, "all_items", _only_candidates)),
)

MENDS = (ATOMIC_ACTIONS, TOUCHED_ITEMS, CLIENT_REQUEST_TOKEN, ONE_KEY)
