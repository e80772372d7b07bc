"""moto, mended, with everything that a finaliser touches; and the finaliser as ``adapters.wiring`` makes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import boto3
import pytest
from moto import mock_aws

from infra.local.moto_fixes import mended
from tests.adapters.finalize.cloud import AUDIT, DIRECTORY, INDEX, INGEST, KEYS, REGION, VAULT, Cloud
from tests.call_samples import AgentKey

_PAIR: Final = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
_BY_TIME: Final = [{"AttributeName": "gsi1pk", "KeyType": "HASH"}, {"AttributeName": "gsi1sk", "KeyType": "RANGE"}]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A fresh region with one tenant and one enrolled agent."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), mended():
        made = _made()
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        _start_cold()
        yield made
        _start_cold()


def _made() -> Cloud:
    kms, s3, dynamodb, sqs = boto3.client("kms"), boto3.client("s3"), boto3.client("dynamodb"), boto3.client("sqs")
    location = {"LocationConstraint": REGION}
    s3.create_bucket(Bucket=INGEST, CreateBucketConfiguration=location)
    s3.create_bucket(Bucket=VAULT, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=location)
    for table in (INDEX, KEYS, DIRECTORY, AUDIT):
        indexed: dict[str, Any] = {"GlobalSecondaryIndexes": [_index()]} if table == INDEX else {}
        names = ("pk", "sk", "gsi1pk", "gsi1sk") if table == INDEX else ("pk", "sk")
        dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_PAIR,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            **indexed,
        )

    def key(**spec: Any) -> str:
        return str(kms.create_key(**spec)["KeyMetadata"]["Arn"])

    made = Cloud(
        s3=s3,
        dynamodb=dynamodb,
        sqs=sqs,
        kms=kms,
        custodian_a=key(),
        custodian_b=key(),
        ingest_key=key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT"),
        signing_key=key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"),
        metadata_key=key(),
        hmac_key=key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC"),
        queue_url=sqs.create_queue(QueueName="dualtone-commands-agent")["QueueUrl"],
        agent_key=AgentKey(),
    )
    made.enrol()
    return made


def _index() -> dict[str, object]:
    return {"IndexName": "by_time", "KeySchema": _BY_TIME, "Projection": {"ProjectionType": "ALL"}}


def _start_cold() -> None:
    """Drops what cached factories made for the cloud of another test."""
    for name, module in list(sys.modules.items()):
        if name.startswith("dualtone.adapters."):
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()
