"""Every mend of moto: the documented behaviour is there with it, and is not there without it."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from moto import mock_aws

from infra.local.moto_fixes import MENDS, mended
from tests.adapters.local import dynamodb_behaviour, kms_behaviour, storage_behaviour
from tests.adapters.local.behaviour import BEHAVIOURS, Aws, Behaviour, at_once

assert dynamodb_behaviour, (kms_behaviour, storage_behaviour)  # importing them fills BEHAVIOURS
CASES = [pytest.param(mend, behaviour, id=behaviour.__name__) for mend, behaviour in BEHAVIOURS]

UNMET = (AssertionError, ClientError, InvalidSignature, KeyError)


@pytest.fixture(autouse=True)
def no_account_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the local cloud: DynamoDB without the account id in its host name."""
    monkeypatch.setenv("AWS_ACCOUNT_ID_ENDPOINT_MODE", "disabled")


@pytest.mark.parametrize(("mend", "behaviour"), CASES)
def test_mended(mend: str, behaviour: Behaviour) -> None:
    """moto, mended, does what AWS documents."""
    assert mend in {known.name for known in MENDS}
    with mended(), mock_aws():
        behaviour(Aws())


@pytest.mark.parametrize(("mend", "behaviour"), CASES)
def test_unmended(mend: str, behaviour: Behaviour) -> None:
    """Without that one mend the same check fails: it tests something."""
    with (
        mended(without=(mend,)),
        mock_aws(),
        pytest.raises((*UNMET, pytest.fail.Exception)),
    ):
        behaviour(Aws())


def test_every_mend_has_a_behaviour_and_says_where_it_is_documented() -> None:
    """A mend without a test, or without its reason, does not come in."""
    assert {mend.name for mend in MENDS} == {name for name, _ in BEHAVIOURS}
    assert all(mend.restores and mend.documented and mend.patches for mend in MENDS)


def test_mends_leave_moto_as_it_was() -> None:
    """After the block every attribute is the one that was there before."""
    targets = [(patch.owner, patch.name) for mend in MENDS for patch in mend.patches]

    def state() -> list[object]:
        return [owner[name] if isinstance(owner, dict) else vars(owner)[name] for owner, name in targets]

    before = state()
    with mended():
        assert all(new is not old for new, old in zip(state(), before, strict=True))
    assert all(new is old for new, old in zip(state(), before, strict=True))


def test_a_mend_that_does_not_exist_cannot_be_left_out() -> None:
    """A test of what happens without a mend must name one."""
    with pytest.raises(ValueError, match="no such mend"), mended(without=("nothing",)):
        pass


def test_a_cancelled_transaction_leaves_nothing_behind() -> None:
    """Its own puts, updates and deletes are all undone, others stay."""
    with mended(), mock_aws():
        aws = Aws()
        dynamodb_behaviour.make_table(aws)
        item, read, put = dynamodb_behaviour.item, dynamodb_behaviour.read, dynamodb_behaviour.put
        aws.dynamodb.put_item(TableName="things", Item=item("kept", x="1"))
        aws.dynamodb.put_item(TableName="things", Item=item("deleted", x="1"))
        update = {
            "TableName": "things",
            "Key": item("kept"),
            "UpdateExpression": "SET x = :v",
            "ExpressionAttributeValues": {":v": {"S": "2"}},
        }
        delete = {"TableName": "things", "Key": item("deleted")}
        fails = {"TableName": "things", "Key": item("absent"), "ConditionExpression": "attribute_exists(pk)"}
        with pytest.raises(ClientError) as caught:
            aws.dynamodb.transact_write_items(
                TransactItems=[{"Update": update}, {"Delete": delete}, put("fresh"), {"ConditionCheck": fails}]
            )
        codes = [reason["Code"] for reason in caught.value.response["CancellationReasons"]]
        assert codes == ["None", "None", "None", "ConditionalCheckFailed"]
        assert read(aws, "kept") == item("kept", x="1")
        assert read(aws, "deleted") == item("deleted", x="1")
        assert read(aws, "fresh") is None
        assert aws.dynamodb.scan(TableName="things")["Count"] == 2


def test_acknowledged_writes_survive_cancelled_transactions() -> None:
    """CLOUD_FACTS: unmended moto lost 17 of 400 writes that it had acknowledged."""
    with mended(), mock_aws():
        aws = Aws()
        dynamodb_behaviour.make_table(aws)
        aws.dynamodb.put_item(TableName="things", Item=dynamodb_behaviour.item("taken"))

        def write(worker: int) -> None:
            for number in range(25):
                aws.dynamodb.put_item(TableName="things", Item=dynamodb_behaviour.item(f"{worker}-{number}"))

        def cancel() -> None:
            for _ in range(25):
                with pytest.raises(ClientError):
                    aws.dynamodb.transact_write_items(
                        TransactItems=[dynamodb_behaviour.put("brief"), dynamodb_behaviour.put("taken")]
                    )

        results = at_once(lambda: write(1), cancel, lambda: write(2), cancel)
        assert results == [None] * 4
        assert aws.dynamodb.scan(TableName="things", Select="COUNT")["Count"] == 51


def test_a_query_by_index_pages_in_order() -> None:
    """Secondary indexes still page, filter and sort as moto does, only faster."""
    with mended(), mock_aws():
        aws = Aws()
        dynamodb_behaviour.make_table(aws)
        for number in range(30):
            entry = dynamodb_behaviour.item(f"p{number}", g=f"g{number % 2}", h=f"{number:03d}")
            aws.dynamodb.put_item(TableName="things", Item=entry)
        request = {
            "TableName": "things",
            "IndexName": "by_time",
            "KeyConditionExpression": "g = :g AND h BETWEEN :a AND :b",
            "ExpressionAttributeValues": {":g": {"S": "g1"}, ":a": {"S": "005"}, ":b": {"S": "025"}},
            "ScanIndexForward": False,
            "Limit": 4,
        }
        seen: list[str] = []
        start: dict[str, Any] = {}
        while True:
            page = aws.dynamodb.query(**request, **start)
            seen += [entry["h"]["S"] for entry in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        assert seen == [f"{number:03d}" for number in range(25, 4, -2)]
