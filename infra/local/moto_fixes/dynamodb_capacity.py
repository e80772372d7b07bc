"""DynamoDB: ConsumedCapacity as DynamoDB reckons it, so that a test can tell what an access pattern costs.

Only the table's (or the queried index's) own units: what a write costs in secondary indexes is not added.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.core.responses import ActionResult
from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

from infra.local.moto_fixes.mend import Mend, Patch

_READ_UNIT_BYTES = 4096
_WRITE_UNIT_BYTES = 1024
_EVENTUAL = 0.5


def _read_units(size_bytes: int, *, consistent: bool) -> float:
    return max(1, math.ceil(size_bytes / _READ_UNIT_BYTES)) * (1.0 if consistent else _EVENTUAL)


def _write_units(size_bytes: int) -> float:
    return float(max(1, math.ceil(size_bytes / _WRITE_UNIT_BYTES)))


def _report(answer: ActionResult, handler: DynamoHandler, units: float) -> None:
    """Put the units into an answer in the detail that was asked for."""
    body: Any = answer.result
    detail = handler.body.get("ReturnConsumedCapacity", "NONE")
    body.pop("ConsumedCapacity", None)
    if detail not in ("TOTAL", "INDEXES"):
        return
    capacity: dict[str, Any] = {"TableName": handler.body["TableName"], "CapacityUnits": units}
    if detail == "INDEXES":
        index = handler.body.get("IndexName")
        capacity["Table"] = {"CapacityUnits": 0.0 if index else units}
        if index:
            capacity["GlobalSecondaryIndexes"] = {index: {"CapacityUnits": units}}
    body["ConsumedCapacity"] = capacity


def _weighing_before_filters(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def query(self: Table, *args: Any, **kwargs: Any) -> Any:
        # moto's positional order: ..., projection_expressions, index_name, consistent_read, filter_expression
        arguments = list(args)
        projection, arguments[6] = arguments[6], None
        keep = None
        if len(arguments) > 9:  # noqa: PLR2004 - the tenth is filter_expression
            keep, arguments[9] = arguments[9], None
        else:
            keep = kwargs.pop("filter_expression", None)
        items, scanned, last = original(self, *arguments, **kwargs)
        self.__dict__["evaluated_bytes"] = sum(item.size() for item in items)
        if keep is not None:
            items = [item for item in items if keep.expr(item)]
        if projection:
            items = [item.project(projection) for item in items]
        return items, scanned, last

    return query


def _reporting_query(original: Callable[..., ActionResult]) -> Callable[..., ActionResult]:
    @wraps(original)
    def query(self: DynamoHandler) -> ActionResult:
        answer = original(self)
        table = self.dynamodb_backend.get_table(self.body["TableName"])
        size_bytes = table.__dict__.pop("evaluated_bytes", 0)
        _report(answer, self, _read_units(size_bytes, consistent=self.body.get("ConsistentRead", False)))
        return answer

    return query


def _reporting_get(original: Callable[..., ActionResult]) -> Callable[..., ActionResult]:
    @wraps(original)
    def get_item(self: DynamoHandler) -> ActionResult:
        answer = original(self)
        item = self.dynamodb_backend.get_item(self.body["TableName"], self.body["Key"])
        units = _read_units(item.size() if item else 0, consistent=self.body.get("ConsistentRead", False))
        _report(answer, self, units)
        return answer

    return get_item


def _stored(handler: DynamoHandler) -> Item | None:
    table = handler.dynamodb_backend.get_table(handler.body["TableName"])
    attributes = handler.body.get("Key") or handler.body["Item"]
    keys = {name: attributes[name] for name in table.table_key_attrs if name in attributes}
    return handler.dynamodb_backend.get_item(table.name, keys) if len(keys) == len(table.table_key_attrs) else None


def _reporting_write(original: Callable[..., ActionResult]) -> Callable[..., ActionResult]:
    @wraps(original)
    def write(self: DynamoHandler) -> ActionResult:
        before = _stored(self)
        size_before = before.size() if before else 0
        answer = original(self)
        after = _stored(self)
        _report(answer, self, _write_units(max(size_before, after.size() if after else 0)))
        return answer

    return write


CAPACITY = Mend(
    name="dynamodb-consumed-capacity",
    restores="Reads consume a unit per 4 KiB of what was evaluated before filters and projections (half when "
    "eventually consistent), writes one per 1 KiB of the larger of the old and the new item; nothing is reported "
    "unless asked for.",
    documented="Amazon DynamoDB Developer Guide, 'DynamoDB read and write operations'",
    patches=(
        Patch(Table, "query", _weighing_before_filters),
        Patch(DynamoHandler, "query", _reporting_query),
        Patch(DynamoHandler, "get_item", _reporting_get),
        Patch(DynamoHandler, "put_item", _reporting_write),
        Patch(DynamoHandler, "update_item", _reporting_write),
        Patch(DynamoHandler, "delete_item", _reporting_write),
    ),
)

MENDS = (CAPACITY,)
