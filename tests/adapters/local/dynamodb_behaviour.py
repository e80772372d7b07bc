"""DynamoDB, by its API Reference and Developer Guide."""

from __future__ import annotations

from typing import Any
from unittest import mock

from moto.dynamodb.models.dynamo_type import DynamoType, Item

from tests.adapters.local.behaviour import Aws, at_once, meeting, refused, restored_by

TABLE = "things"


def make_table(aws: Aws) -> None:
    """A table with string keys and one secondary index."""
    aws.dynamodb.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "g", "h")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by_time",
                "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}, {"AttributeName": "h", "KeyType": "RANGE"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )


def item(pk: str, sk: str = "s", **more: str) -> dict[str, Any]:
    """An item of strings."""
    return {name: {"S": value} for name, value in {"pk": pk, "sk": sk, **more}.items()}


def put(pk: str, **more: str) -> dict[str, Any]:
    """A conditional put of a transaction."""
    return {"Put": {"TableName": TABLE, "Item": item(pk, **more), "ConditionExpression": "attribute_not_exists(pk)"}}


def read(aws: Aws, pk: str, sk: str = "s") -> Any:
    """An item as it is now, or None."""
    return aws.dynamodb.get_item(TableName=TABLE, Key=item(pk, sk)).get("Item")


@restored_by("dynamodb-atomic-actions")
def one_of_two_conditional_puts_wins(aws: Aws) -> None:
    """'Transaction isolation levels': single-item writes are serializable."""
    make_table(aws)

    def claim() -> Any:
        return aws.dynamodb.put_item(TableName=TABLE, Item=item("a"), ConditionExpression="attribute_not_exists(pk)")

    with meeting(Item, "__init__"):  # after the condition was read, before the item is stored
        results = at_once(claim, claim)
    assert sum(isinstance(result, Exception) for result in results) == 1


@restored_by("dynamodb-transaction-cost")
def a_transaction_copies_its_own_items_only(aws: Aws) -> None:
    """'Managing complex workflows with transactions': cost and effect are those of the items named."""
    make_table(aws)
    for number in range(50):
        aws.dynamodb.put_item(TableName=TABLE, Item=item(f"other{number}"))
    with mock.patch.object(Item, "__deepcopy__", autospec=True, side_effect=Item.__deepcopy__) as copied:
        aws.dynamodb.transact_write_items(TransactItems=[put("new")])
    assert copied.call_count < 10


@restored_by("dynamodb-client-request-token")
def a_repeated_transaction_has_one_effect(aws: Aws) -> None:
    """TransactWriteItems, ClientRequestToken: idempotent for ten minutes, IdempotentParameterMismatchException."""
    make_table(aws)
    add = {
        "Update": {
            "TableName": TABLE,
            "Key": item("counter"),
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
    }
    for _ in range(2):
        aws.dynamodb.transact_write_items(TransactItems=[add], ClientRequestToken="token-1")
    assert read(aws, "counter")["n"] == {"N": "1"}
    with refused("IdempotentParameterMismatchException"):
        aws.dynamodb.transact_write_items(TransactItems=[add, put("x")], ClientRequestToken="token-1")
    aws.dynamodb.transact_write_items(TransactItems=[add], ClientRequestToken="token-2")
    assert read(aws, "counter")["n"] == {"N": "2"}


@restored_by("dynamodb-query-cost")
def a_query_reads_its_key_only(aws: Aws) -> None:
    """'Querying tables in DynamoDB': a query finds items by partition key, in sort order."""
    make_table(aws)
    for number in range(120):
        aws.dynamodb.put_item(TableName=TABLE, Item=item(f"p{number % 40}", f"s{number:03d}", g="g", h=f"{number:03d}"))
    with mock.patch.object(DynamoType, "__lt__", autospec=True, side_effect=DynamoType.__lt__) as compared:
        found = aws.dynamodb.query(
            TableName=TABLE, KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": {"S": "p7"}}
        )
    assert [entry["sk"]["S"] for entry in found["Items"]] == ["s007", "s047", "s087"]
    assert compared.call_count < 20


@restored_by("dynamodb-consumed-capacity")
def capacity_is_counted_before_filters(aws: Aws) -> None:
    """'DynamoDB read and write operations': 4 KiB reads, half if eventually consistent, 1 KiB writes."""
    make_table(aws)
    wrote = aws.dynamodb.put_item(TableName=TABLE, Item=item("p", "1", x="x" * 2500), ReturnConsumedCapacity="TOTAL")
    assert wrote["ConsumedCapacity"]["CapacityUnits"] == 3
    for sk in ("2", "3"):
        aws.dynamodb.put_item(TableName=TABLE, Item=item("p", sk, x="x" * 2500))
    request: dict[str, Any] = {
        "TableName": TABLE,
        "KeyConditionExpression": "pk = :p",
        "FilterExpression": "sk2 = :p",
        "ProjectionExpression": "sk",
        "ExpressionAttributeValues": {":p": {"S": "p"}},
        "ReturnConsumedCapacity": "TOTAL",
    }
    found = aws.dynamodb.query(**request)
    assert (found["Count"], found["ScannedCount"]) == (0, 3)
    assert found["ConsumedCapacity"]["CapacityUnits"] == 1.0
    assert aws.dynamodb.query(**request, ConsistentRead=True)["ConsumedCapacity"]["CapacityUnits"] == 2.0
    got = aws.dynamodb.get_item(TableName=TABLE, Key=item("p", "1"), ReturnConsumedCapacity="TOTAL")
    assert got["ConsumedCapacity"]["CapacityUnits"] == 0.5
    assert "ConsumedCapacity" not in aws.dynamodb.get_item(TableName=TABLE, Key=item("p", "1"))
