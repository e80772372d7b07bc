"""The keys table: written once, within a transaction; read consistently."""

from __future__ import annotations

from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from dualtone.adapters.key_store import KeyStore
from dualtone.domain.errors import IntegrityError, NotFound
from dualtone.domain.kek import KeyItem
from tests.adapters.vault.conftest import TABLE, Aws
from tests.vault_samples import ACME, GLOBEX, OTHER_RECORDING, RECORDING

ITEM = KeyItem(1, b"nodes\0", b"a\xff", b"b\xfe", "arn:a", "arn:b", 1_732_444_870_000)


def write(aws: Aws, item: KeyItem = ITEM) -> None:
    aws.dynamodb.transact_write_items(
        TransactItems=[KeyStore(aws.dynamodb, TABLE).transact_put(ACME, RECORDING, 1, item)]
    )


def test_what_was_written_is_read(aws: Aws) -> None:
    """All of an item comes back."""
    write(aws)
    assert KeyStore(aws.dynamodb, TABLE).load(ACME, RECORDING, 1) == ITEM


def test_an_item_is_never_overwritten(aws: Aws) -> None:
    """A second commit of the same recording fails as a whole, and the first keys stay."""
    write(aws)
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        write(aws, KeyItem(1, b"other", b"a", b"b", "arn:a", "arn:b", 0))
    assert KeyStore(aws.dynamodb, TABLE).load(ACME, RECORDING, 1) == ITEM


def test_keys_of_another_recording_or_tenant(aws: Aws) -> None:
    """Both are part of the key: there is none."""
    write(aws)
    store = KeyStore(aws.dynamodb, TABLE)
    for tenant, recording in ((ACME, OTHER_RECORDING), (GLOBEX, RECORDING)):
        with pytest.raises(NotFound):
            store.load(tenant, recording, 1)


def test_each_generation_has_an_item(aws: Aws) -> None:
    """The keys of one generation say nothing of another's."""
    write(aws)
    store, later = KeyStore(aws.dynamodb, TABLE), replace(ITEM, nodes=b"later")
    with pytest.raises(NotFound):
        store.load(ACME, RECORDING, 2)
    aws.dynamodb.transact_write_items(TransactItems=[store.transact_put(ACME, RECORDING, 2, later)])
    assert (store.load(ACME, RECORDING, 1), store.load(ACME, RECORDING, 2)) == (ITEM, later)


def test_an_item_is_replaced_by_its_next_version_alone(aws: Aws) -> None:
    """Neither a version twice, nor one left out, nor an item where there was none."""
    store = KeyStore(aws.dynamodb, TABLE)
    write(aws)
    second = replace(ITEM, version=2, nodes=b"fewer")
    aws.dynamodb.transact_write_items(TransactItems=[store.transact_replace(ACME, RECORDING, 1, second)])
    for version, generation in ((2, 1), (4, 1), (1, 1), (2, 2)):
        late = replace(ITEM, version=version)
        with pytest.raises(ClientError, match="ConditionalCheckFailed"):
            aws.dynamodb.transact_write_items(TransactItems=[store.transact_replace(ACME, RECORDING, generation, late)])
    assert store.load(ACME, RECORDING, 1) == second


@pytest.mark.parametrize("name", ["nodes", "share_a", "share_b", "version", "key_a_arn"])
def test_a_damaged_item(aws: Aws, name: str) -> None:
    """An item that lost a field is damaged, not absent."""
    write(aws)
    key = {"pk": {"S": f"{ACME}#{RECORDING}"}, "sk": {"S": "v#0001"}}
    aws.dynamodb.update_item(
        TableName=TABLE, Key=key, UpdateExpression="REMOVE #name", ExpressionAttributeNames={"#name": name}
    )
    with pytest.raises(IntegrityError):
        KeyStore(aws.dynamodb, TABLE).load(ACME, RECORDING, 1)


def test_a_missing_table_is_no_missing_item(aws: Aws) -> None:
    """A table that is not there is found nowhere."""
    with pytest.raises(NotFound, match="ResourceNotFound"):
        KeyStore(aws.dynamodb, "nowhere").load(ACME, RECORDING, 1)
