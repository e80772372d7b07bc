"""moto, mended, with the keys, the bucket and the table of the vault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import boto3
import pytest
from moto import mock_aws

from infra.local.moto_fixes import mended

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

REGION: Final = "eu-west-1"
BUCKET = "dualtone-vault"
TABLE = "dualtone-keys"


@dataclass(frozen=True)
class Aws:
    """Clients and key ARNs."""

    kms: KMSClient
    s3: S3Client
    dynamodb: DynamoDBClient
    sts: STSClient
    custodian_a: str
    custodian_b: str
    signing: str
    hmac: str


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """A fresh region."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), mended():
        kms = boto3.client("kms", region_name=REGION)
        s3 = boto3.client("s3", region_name=REGION)
        dynamodb = boto3.client("dynamodb", region_name=REGION)
        s3.create_bucket(
            Bucket=BUCKET,
            ObjectLockEnabledForBucket=True,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
        )
        yield Aws(
            kms=kms,
            s3=s3,
            dynamodb=dynamodb,
            sts=boto3.client("sts", region_name=REGION),
            custodian_a=kms.create_key()["KeyMetadata"]["Arn"],
            custodian_b=kms.create_key()["KeyMetadata"]["Arn"],
            signing=kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"],
            hmac=kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["Arn"],
        )


@pytest.fixture
def ingest_key(aws: Aws) -> str:
    """ARN of an RSA-4096 key; apart from the others because it takes a second to make."""
    return aws.kms.create_key(KeySpec="RSA_4096", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]
