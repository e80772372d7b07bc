"""One DynamoDB table: string keys ``pk`` and ``sk``, plain values in and out, and errors that mean what they say.

A missing table or a denied call is a fault of the deployment, never an answer about a recording: such errors pass
through as they are and become a 500, while throttling and silence become Unavailable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from dualtone.adapters.attribute_values import from_item, to_item
from dualtone.adapters.aws_errors import error_code, translated
from dualtone.domain.errors import DualtoneError, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import QueryInputTypeDef, TransactWriteItemTypeDef

_BATCH: Final = 100
_BATCH_ATTEMPTS: Final = 8
_CONFLICT_TRIES: Final = 4
_EXPECTED: Final = frozenset(
    {"ConditionalCheckFailed", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}
)
"""Why DynamoDB may cancel a transaction that is well formed."""


class ConditionFailed(DualtoneError):  # noqa: N818 - DynamoDB's own word
    """A write did not happen because its condition, or that of another write in its transaction, did not hold."""


class _Conflict(Unavailable):
    """Another transaction touched one of the items at the same time."""


class Table:
    """A table, for the adapters that know what its keys mean."""

    def __init__(self, dynamodb: DynamoDBClient, name: str) -> None:
        """Takes the low-level client and the table's name."""
        self._dynamodb = dynamodb
        self._name = name

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """Reads an item, consistently; None if there is none."""
        with _answered("reading an item"):
            answer = self._dynamodb.get_item(
                TableName=self._name, Key=to_item({"pk": pk, "sk": sk}), ConsistentRead=True
            )
        return from_item(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[tuple[str, str]], *, consistent: bool = False) -> list[dict[str, Any]]:
        """Reads many items in any order; missing ones are left out.

        Args:
            keys: Partition and sort key of each.
            consistent: Whether what was written a moment ago must show.

        Raises:
            Unavailable: If DynamoDB keeps leaving keys unprocessed.
        """
        items: list[dict[str, Any]] = []
        for start in range(0, len(keys), _BATCH):
            pending: Sequence[Any] = [to_item({"pk": pk, "sk": sk}) for pk, sk in keys[start : start + _BATCH]]
            for _attempt in range(_BATCH_ATTEMPTS):
                with _answered("reading items"):
                    answer = self._dynamodb.batch_get_item(
                        RequestItems={self._name: {"Keys": pending, "ConsistentRead": consistent}}
                    )
                items += map(from_item, answer["Responses"].get(self._name, []))
                left = answer.get("UnprocessedKeys", {}).get(self._name)
                if left is None:
                    break
                pending = left["Keys"]
            else:
                raise Unavailable("reading items: throttled")
        return items

    def partition(self, pk: str, prefix: str = "") -> list[dict[str, Any]]:
        """Reads the items of a small partition whose sort keys begin with a prefix, consistently and in their order."""
        if not prefix:
            return self._rows({"KeyConditionExpression": "pk = :pk", "ConsistentRead": True}, {":pk": pk}, limit=None)
        request = {"KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)", "ConsistentRead": True}
        return self._rows(request, {":pk": pk, ":prefix": prefix}, limit=None)

    def newest(
        self,
        pk: str,
        between: tuple[str, str],
        *,
        after: Mapping[str, str] | None,
        limit: int,
        index: str | None = None,
    ) -> list[dict[str, Any]]:
        """Reads items of a partition in descending order of their sort keys.

        Args:
            pk: The partition.
            between: Bounds of the sort key, both included.
            after: The whole key of the item after which to begin, or None.
            limit: At most so many.
            index: A global secondary index whose keys are ``gsi1pk`` and ``gsi1sk``, or None for the table.
        """
        prefix = "gsi1" if index else ""
        request: dict[str, Any] = {
            "KeyConditionExpression": f"{prefix}pk = :pk AND {prefix}sk BETWEEN :low AND :high",
            "ScanIndexForward": False,
        }
        # A global index has no consistent reads.
        request |= {"IndexName": index} if index else {"ConsistentRead": True}
        if after is not None:
            request["ExclusiveStartKey"] = to_item(after)
        return self._rows(request, {":pk": pk, ":low": between[0], ":high": between[1]}, limit=limit)

    def oldest(self, pk: str, until: str, *, limit: int, index: str) -> list[dict[str, Any]]:
        """Reads items of a partition of an index in ascending order of their sort keys.

        Args:
            pk: The partition.
            until: Bound of the sort key, included.
            limit: At most so many.
            index: A global secondary index whose keys are ``gsi1pk`` and ``gsi1sk``.
        """
        request = {"KeyConditionExpression": "gsi1pk = :pk AND gsi1sk <= :until", "IndexName": index}
        return self._rows(request, {":pk": pk, ":until": until}, limit=limit)

    def put_new(self, values: Mapping[str, object]) -> None:
        """Writes an item that must not exist yet; raises ConditionFailed if it does."""
        with _answered("writing an item"):
            self._dynamodb.put_item(**self.transact_put_new(values)["Put"])

    def transact_put_new(self, values: Mapping[str, object]) -> TransactWriteItemTypeDef:
        """Makes ``put_new`` as part of a transaction."""
        condition = "attribute_not_exists(pk)"
        return {"Put": {"TableName": self._name, "Item": to_item(values), "ConditionExpression": condition}}

    def transact_delete(self, pk: str, sk: str) -> TransactWriteItemTypeDef:
        """Makes the removal of an item, if it is there, as part of a transaction."""
        return {"Delete": {"TableName": self._name, "Key": to_item({"pk": pk, "sk": sk})}}

    def transact_update(
        self,
        pk: str,
        sk: str,
        *,
        set_to: Mapping[str, object],
        only_if: str,
        values: Mapping[str, object],
        add_to: Mapping[str, int] | None = None,
    ) -> TransactWriteItemTypeDef:
        """Makes an update as part of a transaction; it makes the item, unless the condition wants one.

        Args:
            pk: Partition key.
            sk: Sort key.
            set_to: Attributes and their new values; None removes one.
            only_if: The condition; names in it are written ``#name``. Empty for none.
            values: What the condition's ``:placeholders`` stand for.
            add_to: Numbers, and by how much they grow; one that does not exist is 0.
        """
        add_to = add_to or {}
        named = (word for word in only_if.replace("(", " ").replace(")", " ").split() if word.startswith("#"))
        names = {f"#{name}": name for name in (*set_to, *add_to)} | {word: word[1:] for word in named}
        clauses = {
            "SET": [f"#{name} = :set_{name}" for name, value in set_to.items() if value is not None],
            "REMOVE": [f"#{name}" for name, value in set_to.items() if value is None],
            "ADD": [f"#{name} :add_{name}" for name in add_to],
        }
        placeholders: dict[str, object] = {f":set_{name}": value for name, value in set_to.items()}
        placeholders |= {f":add_{name}": value for name, value in add_to.items()}
        condition = {"ConditionExpression": only_if} if only_if else {}
        return {
            "Update": {
                "TableName": self._name,
                "Key": to_item({"pk": pk, "sk": sk}),
                "UpdateExpression": " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses.items() if parts),
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": to_item(placeholders | dict(values)),
                **condition,  # type: ignore[typeddict-item]
            }
        }

    def update(
        self,
        pk: str,
        sk: str,
        *,
        set_to: Mapping[str, object],
        only_if: str,
        values: Mapping[str, object],
        add_to: Mapping[str, int] | None = None,
    ) -> None:
        """Updates one item, as ``transact_update`` says; raises ConditionFailed."""
        update = self.transact_update(pk, sk, set_to=set_to, only_if=only_if, values=values, add_to=add_to)["Update"]
        with _answered("updating an item"):
            self._dynamodb.update_item(**update)

    def put(self, values: Mapping[str, object]) -> None:
        """Writes an item, whatever was there."""
        with _answered("writing an item"):
            self._dynamodb.put_item(TableName=self._name, Item=to_item(values))

    def delete(self, pk: str, sk: str, *, where: Mapping[str, object] | None = None) -> None:
        """Removes an item, if it is there.

        Args:
            pk: Partition key.
            sk: Sort key.
            where: Attributes and the values that they must have; raises ConditionFailed if the item is another.
        """
        condition: dict[str, Any] = {}
        if where:
            condition["ConditionExpression"] = " AND ".join(f"#{name} = :{name}" for name in where)
            condition["ExpressionAttributeNames"] = {f"#{name}": name for name in where}
            condition["ExpressionAttributeValues"] = to_item({f":{name}": value for name, value in where.items()})
        with _answered("removing an item"):
            self._dynamodb.delete_item(TableName=self._name, Key=to_item({"pk": pk, "sk": sk}), **condition)

    def transact(self, *writes: TransactWriteItemTypeDef) -> None:
        """Does all writes, which may concern other tables too, or none; raises ConditionFailed.

        A conflict with another transaction is over in milliseconds, so it is tried again at once before it is told:
        what a message brought would wait for its queue's visibility timeout otherwise.
        """
        for _try in range(_CONFLICT_TRIES - 1):
            try:
                return self._transact_once(writes)
            except _Conflict:
                continue
        return self._transact_once(writes)

    def _transact_once(self, writes: Sequence[TransactWriteItemTypeDef]) -> None:
        with _answered("writing items"):
            self._dynamodb.transact_write_items(TransactItems=writes)

    def _rows(self, query: dict[str, Any], values: dict[str, str], limit: int | None) -> list[dict[str, Any]]:
        request: QueryInputTypeDef = {"TableName": self._name, "ExpressionAttributeValues": to_item(values), **query}  # type: ignore[typeddict-item]
        rows: list[dict[str, Any]] = []
        while limit is None or len(rows) < limit:
            if limit is not None:
                request["Limit"] = limit - len(rows)
            with _answered("querying"):
                answer = self._dynamodb.query(**request)
            rows += map(from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                break
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return rows


@contextmanager
def _answered(action: str) -> Iterator[None]:
    """Lets Unavailable and ConditionFailed out, and faults of the deployment as AWS reported them."""
    try:
        with translated(action):
            yield
    except Unavailable:
        raise
    except DualtoneError as error:
        cause = error.__cause__
        raise cause if cause is not None else error from None
    except ClientError as error:
        match _cancellations(error):
            case []:
                raise
            case reasons if not _EXPECTED.issuperset(reasons):
                raise  # such as ValidationError: written in vain however often
            case reasons if "ConditionalCheckFailed" in reasons:
                raise ConditionFailed(action) from error
            case _:
                raise _Conflict(f"{action}: in conflict with another transaction") from error


def _cancellations(error: ClientError) -> list[str]:
    """Why a write was refused; a single write has the one reason that a transaction would give for it."""
    match error_code(error):
        case "ConditionalCheckFailedException":
            return ["ConditionalCheckFailed"]
        case "TransactionCanceledException":
            reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
            return [code for reason in reasons if (code := reason.get("Code", "None")) != "None"]
        case "TransactionConflictException":
            return ["TransactionConflict"]
        case _:
            return []
