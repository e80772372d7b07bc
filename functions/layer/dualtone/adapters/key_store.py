"""The keys table: one item for each generation of a recording, without which every copy of it is unreadable.

| pk                     | sk        | what                                                               |
|------------------------|-----------|--------------------------------------------------------------------|
| `<tenant>#<recording>` | `v#<nnnn>` | the sealed node set of a generation and both shares, and its version |

An item is written once, and from then on only replaced by one of the next version that derives less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualtone.adapters.aws_errors import translated
from dualtone.domain.errors import IntegrityError, NotFound
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.kek import KeyItem

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef


class KeyStore:
    """Reads key items, and says how one is written within the transaction that commits a recording."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        """Binds to the table.

        Args:
            client: DynamoDB's low-level client.
            table: The table's name.
        """
        self._client = client
        self._table = table

    def transact_put(
        self, tenant: TenantId, recording: RecordingId, generation: int, item: KeyItem
    ) -> TransactWriteItemTypeDef:
        """One element of ``TransactItems`` for the low-level client; fails if the generation already has an item."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {**self._key(tenant, recording, generation), **_attributes(item)},
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def transact_replace(
        self, tenant: TenantId, recording: RecordingId, generation: int, item: KeyItem
    ) -> TransactWriteItemTypeDef:
        """The same for the item's next version; fails unless the version before it is there."""
        return {
            "Put": {
                "TableName": self._table,
                "Item": {**self._key(tenant, recording, generation), **_attributes(item)},
                "ConditionExpression": "#version = :before",
                "ExpressionAttributeNames": {"#version": "version"},
                "ExpressionAttributeValues": {":before": {"N": str(item.version - 1)}},
            }
        }

    def load(self, tenant: TenantId, recording: RecordingId, generation: int) -> KeyItem:
        """Reads the item of a generation, consistently: a punctured one must not come back for a moment.

        Raises:
            IntegrityError: If the item is not one.
            NotFound: If there is none, or it was destroyed.
            Unavailable: If the table does not answer.
        """
        with translated("reading a key item"):
            answer = self._client.get_item(
                TableName=self._table, Key=self._key(tenant, recording, generation), ConsistentRead=True
            )
        item = answer.get("Item")
        if item is None:
            raise NotFound("the recording has no keys")
        try:
            return KeyItem(
                version=int(item["version"]["N"]),
                nodes=bytes(item["nodes"]["B"]),
                share_a=bytes(item["share_a"]["B"]),
                share_b=bytes(item["share_b"]["B"]),
                key_a_arn=item["key_a_arn"]["S"],
                key_b_arn=item["key_b_arn"]["S"],
                created_at_ms=int(item["created_at_ms"]["N"]),
            )
        except (KeyError, ValueError) as error:
            raise IntegrityError("a key item lacks a field") from error

    @staticmethod
    def _key(tenant: TenantId, recording: RecordingId, generation: int) -> dict[str, AttributeValueTypeDef]:
        return {"pk": {"S": f"{tenant}#{recording}"}, "sk": {"S": f"v#{generation:04d}"}}


def _attributes(item: KeyItem) -> dict[str, AttributeValueTypeDef]:
    return {
        "version": {"N": str(item.version)},
        "nodes": {"B": item.nodes},
        "share_a": {"B": item.share_a},
        "share_b": {"B": item.share_b},
        "key_a_arn": {"S": item.key_a_arn},
        "key_b_arn": {"S": item.key_b_arn},
        "created_at_ms": {"N": str(item.created_at_ms)},
    }
