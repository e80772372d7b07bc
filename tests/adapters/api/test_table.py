"""The table: values that survive, conditions that hold, and errors that mean what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, EndpointConnectionError

from dualtone.adapters import wiring
from dualtone.adapters.attribute_values import from_item, from_value, to_item
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.errors import Unavailable


@pytest.fixture
def table(cloud: object) -> Table:
    return Table(wiring.dynamodb(), wiring.settings().directory_table)


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self._content


@contextmanager
def answering(operation: str, status: int, body: dict[str, Any]) -> Iterator[None]:
    """DynamoDB answers this, as far as the client can tell."""

    def answer(request: Any, **_: object) -> Any:
        return AWSResponse(request.url, status, HTTPHeaders(), _Body(json.dumps(body).encode()))

    events: Any
    events, name = wiring.dynamodb().meta.events, f"before-send.dynamodb.{operation}"
    events.register_first(name, answer)
    try:
        yield
    finally:
        events.unregister(name, answer)


def test_values_come_back_as_they_went(table: Table) -> None:
    """Integers, decimals, bytes, lists, maps, booleans; None is absent."""
    values = {
        "pk": "values",
        "sk": "1",
        "text": "ä",
        "whole": 2**60,
        "part": Decimal("1.25"),
        "raw": b"\x00\xff",
        "many": [1, "x", [True, None]],
        "map": {"a": 1, "b": b"z"},
        "nothing": None,
    }
    table.put_new(values)
    assert table.get("values", "1") == {name: value for name, value in values.items() if value is not None}
    assert table.get("values", "2") is None


@pytest.mark.parametrize("value", [1.5, {1, 2}, object()])
def test_values_without_a_place_in_dynamodb_are_programming_errors(value: object) -> None:
    """A float's decimal value is a guess."""
    with pytest.raises(TypeError):
        to_item({"x": value})


def test_sets_are_not_used() -> None:
    """Nor read."""
    with pytest.raises(TypeError):
        from_value({"SS": ["a"]})
    assert from_item({"x": {"NULL": True}}) == {"x": None}


def test_a_new_item_is_new(table: Table) -> None:
    """The second write of a key is refused, alone and in a transaction, and then nothing of that happens."""
    table.put_new({"pk": "new", "sk": "1"})
    with pytest.raises(ConditionFailed):
        table.put_new({"pk": "new", "sk": "1"})
    with pytest.raises(ConditionFailed):
        table.transact(
            table.transact_put_new({"pk": "new", "sk": "2"}), table.transact_put_new({"pk": "new", "sk": "1"})
        )
    assert table.get("new", "2") is None


def test_an_update_sets_and_removes_if_its_condition_holds(table: Table) -> None:
    """None removes."""
    table.put_new({"pk": "update", "sk": "1", "state": "old", "name": "x"})
    change = table.transact_update(
        "update", "1", set_to={"state": "new", "name": None}, only_if="#state = :old", values={":old": "old"}
    )
    table.transact(change)
    assert table.get("update", "1") == {"pk": "update", "sk": "1", "state": "new"}
    with pytest.raises(ConditionFailed):
        table.transact(change)


ERRORS: list[tuple[str, int, dict[str, Any], type[Exception]]] = [
    ("throttled", 400, {"__type": "x#ThrottlingException"}, Unavailable),
    ("over its capacity", 400, {"__type": "x#ProvisionedThroughputExceededException"}, Unavailable),
    ("broken", 500, {"__type": "x#InternalServerError"}, Unavailable),
    ("missing", 400, {"__type": "x#ResourceNotFoundException"}, ClientError),
    ("forbidden", 400, {"__type": "x#AccessDeniedException"}, ClientError),
    ("misused", 400, {"__type": "x#ValidationException"}, ClientError),
]


@pytest.mark.parametrize(("status", "body", "expected"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_what_dynamodb_says_becomes_later_or_a_fault(
    table: Table, monkeypatch: pytest.MonkeyPatch, status: int, body: dict[str, Any], expected: type[Exception]
) -> None:
    """A missing table or a denied call is never an answer about a recording."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # botocore's pauses between its tries
    with answering("GetItem", status, body), pytest.raises(expected):
        table.get("x", "y")


def test_a_conflict_is_tried_again_later_and_a_condition_is_not(table: Table) -> None:
    """Two reasons for a cancelled transaction, told apart."""
    for code, expected in (("TransactionConflict", Unavailable), ("ConditionalCheckFailed", ConditionFailed)):
        body = {"__type": "x#TransactionCanceledException", "CancellationReasons": [{"Code": "None"}, {"Code": code}]}
        with answering("TransactWriteItems", 400, body), pytest.raises(expected):
            table.transact(table.transact_put_new({"pk": "c", "sk": "1"}))


def test_a_conflict_that_passes_is_nothing_to_tell(table: Table) -> None:
    """Another transaction was at one of the items; a moment later the same writes go through."""
    body = {"__type": "x#TransactionCanceledException", "CancellationReasons": [{"Code": "TransactionConflict"}]}
    refused: list[str] = []

    def twice(request: Any, **_: object) -> Any:
        if len(refused) == 2:
            return None
        refused.append(request.url)
        return AWSResponse(request.url, 400, HTTPHeaders(), _Body(json.dumps(body).encode()))

    events: Any = wiring.dynamodb().meta.events
    events.register_first("before-send.dynamodb.TransactWriteItems", twice)
    try:
        # moto has written it behind the first refusal already: a write without a condition does not notice.
        name = wiring.settings().directory_table
        table.transact({"Put": {"TableName": name, "Item": to_item({"pk": "conflict", "sk": "1"})}})
    finally:
        events.unregister("before-send.dynamodb.TransactWriteItems", twice)
    assert len(refused) == 2
    assert table.get("conflict", "1") == {"pk": "conflict", "sk": "1"}


@pytest.mark.parametrize("codes", [["ValidationError"], ["ConditionalCheckFailed", "ValidationError"]])
def test_a_transaction_that_is_not_well_formed_is_a_fault(table: Table, codes: list[str]) -> None:
    """It is no conflict, though DynamoDB cancels it like one: trying again would hide it for ever."""
    body = {"__type": "x#TransactionCanceledException", "CancellationReasons": [{"Code": code} for code in codes]}
    with answering("TransactWriteItems", 400, body), pytest.raises(ClientError):
        table.transact(table.transact_put_new({"pk": "c", "sk": "1"}))


def test_a_partition_is_read_as_a_whole_or_by_a_prefix(table: Table) -> None:
    """In the order of the sort keys."""
    for sk in ("cmd#1", "gen#0002", "gen#0001", "live"):
        table.put_new({"pk": "call", "sk": sk})
    assert [item["sk"] for item in table.partition("call")] == ["cmd#1", "gen#0001", "gen#0002", "live"]
    assert [item["sk"] for item in table.partition("call", "gen#")] == ["gen#0001", "gen#0002"]
    assert table.partition("call", "x") == []


def test_silence_is_unavailable(table: Table) -> None:
    """No connection."""

    def refuse(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="x")

    events = wiring.dynamodb().meta.events
    events.register("before-parameter-build.dynamodb.Query", refuse)
    try:
        with pytest.raises(Unavailable):
            table.partition("x")
    finally:
        events.unregister("before-parameter-build.dynamodb.Query", refuse)


def test_what_a_batch_leaves_is_asked_for_again_but_not_forever(table: Table) -> None:
    """A hundred keys a call; what stays unprocessed ends in Unavailable."""
    for number in range(230):
        table.put_new({"pk": "many", "sk": f"{number:03d}"})
    found = table.get_many([("many", f"{number:03d}") for number in range(240)])
    assert {item["sk"] for item in found} == {f"{number:03d}" for number in range(230)}
    name = wiring.settings().directory_table
    left = {"Responses": {name: []}, "UnprocessedKeys": {name: {"Keys": [to_item({"pk": "many", "sk": "001"})]}}}
    with answering("BatchGetItem", 200, left), pytest.raises(Unavailable):
        table.get_many([("many", "001")])
