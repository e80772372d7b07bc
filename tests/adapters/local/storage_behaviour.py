"""S3, SQS and Cognito, by their documentation."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus

import jwt
import requests
from moto.s3.models import S3Backend
from moto.sqs.models import Message

from tests.adapters.local.behaviour import REGION, Aws, at_once, meeting, refused, restored_by

BUCKET = "things"
NOW = datetime.now(UTC).replace(microsecond=0)


def make_bucket(aws: Aws, *, lock: bool = False) -> None:
    """A bucket, with Object Lock and so versions if asked for."""
    aws.s3.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}, ObjectLockEnabledForBucket=lock
    )


def sha256(data: bytes) -> str:
    """A SHA-256 as S3 spells it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


# ---------------------------------------------------------------- S3


@restored_by("s3-checksums")
def a_wrong_checksum_is_refused_and_a_right_one_kept(aws: Aws) -> None:
    """'Checking object integrity in Amazon S3': BadDigest; the value is stored and returned on request."""
    make_bucket(aws)
    with refused("BadDigest"):
        aws.s3.put_object(Bucket=BUCKET, Key="a", Body=b"body", ChecksumSHA256=sha256(b"other"))
    md5 = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    with refused("BadDigest"):
        aws.s3.put_object(Bucket=BUCKET, Key="a", Body=b"body", ContentMD5=md5)
    with refused("404"):
        aws.s3.head_object(Bucket=BUCKET, Key="a")
    put = aws.s3.put_object(Bucket=BUCKET, Key="a", Body=b"body", ChecksumSHA256=sha256(b"body"))
    assert put["ChecksumSHA256"] == sha256(b"body")
    head = aws.s3.head_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == sha256(b"body")
    got = aws.s3.get_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")
    assert (got["ChecksumSHA256"], got["Body"].read()) == (sha256(b"body"), b"body")


@restored_by("s3-atomic-conditional-writes")
def one_of_two_first_writers_wins(aws: Aws) -> None:
    """'How to prevent object overwrites with conditional writes': the others get 412."""
    make_bucket(aws)

    def write() -> Any:
        return aws.s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", IfNoneMatch="*")

    with meeting(S3Backend, "put_object"):
        results = at_once(write, write)
    assert sum(isinstance(result, Exception) for result in results) == 1
    with refused("PreconditionFailed"):
        write()


def _locked(aws: Aws, mode: str, days: int) -> str:
    version: str = aws.s3.put_object(Bucket=BUCKET, Key="a", Body=b"x")["VersionId"]
    _retain(aws, version, mode, days)
    return version


def _retain(aws: Aws, version: str, mode: str, days: int, **more: Any) -> None:
    retention = {"Mode": mode, "RetainUntilDate": NOW + timedelta(days=days)}
    aws.s3.put_object_retention(Bucket=BUCKET, Key="a", VersionId=version, Retention=retention, **more)


@restored_by("s3-retention-holds")
def compliance_only_grows(aws: Aws) -> None:
    """'Retention modes': in compliance mode nobody changes the mode or shortens the period."""
    make_bucket(aws, lock=True)
    version = _locked(aws, "COMPLIANCE", 30)
    for bypass in ({}, {"BypassGovernanceRetention": True}):
        with refused("AccessDenied"):
            _retain(aws, version, "COMPLIANCE", 29, **bypass)
        with refused("AccessDenied"):
            _retain(aws, version, "GOVERNANCE", 60, **bypass)
        with refused("AccessDenied"):
            aws.s3.delete_object(Bucket=BUCKET, Key="a", VersionId=version, **bypass)
    _retain(aws, version, "COMPLIANCE", 30)  # the same again: idempotent
    _retain(aws, version, "COMPLIANCE", 31)


@restored_by("s3-retention-holds")
def governance_yields_to_bypass_only(aws: Aws) -> None:
    """'Retention modes': governance needs x-amz-bypass-governance-retention to be weakened."""
    make_bucket(aws, lock=True)
    version = _locked(aws, "GOVERNANCE", 30)
    with refused("AccessDenied"):
        _retain(aws, version, "GOVERNANCE", 1)
    _retain(aws, version, "GOVERNANCE", 1, BypassGovernanceRetention=True)
    with refused("InvalidArgument"):
        _retain(aws, version, "GOVERNANCE", -1, BypassGovernanceRetention=True)


@restored_by("s3-get-retention")
def retention_can_be_read(aws: Aws) -> None:
    """GetObjectRetention, and the same by HeadObject."""
    make_bucket(aws, lock=True)
    version = _locked(aws, "COMPLIANCE", 30)
    retention = aws.s3.get_object_retention(Bucket=BUCKET, Key="a", VersionId=version)["Retention"]
    assert retention == {"Mode": "COMPLIANCE", "RetainUntilDate": NOW + timedelta(days=30)}
    head = aws.s3.head_object(Bucket=BUCKET, Key="a", VersionId=version)
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", NOW + timedelta(days=30))
    free = aws.s3.put_object(Bucket=BUCKET, Key="b", Body=b"x")["VersionId"]
    with refused("NoSuchObjectLockConfiguration"):
        aws.s3.get_object_retention(Bucket=BUCKET, Key="b", VersionId=free)


@restored_by("s3-object-lock-versioning")
def a_locked_bucket_stays_versioned(aws: Aws) -> None:
    """'Object Lock considerations': versioning cannot be suspended."""
    make_bucket(aws, lock=True)
    with refused("InvalidBucketState"):
        aws.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})


@restored_by("s3-event-records")
def an_event_names_version_and_order(aws: Aws) -> None:
    """'Event message structure': versionId, a growing sequencer, the key form-encoded; the suffix filter holds."""
    make_bucket(aws, lock=True)
    url = aws.sqs.create_queue(QueueName="q")["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    suffix = {"Key": {"FilterRules": [{"Name": "suffix", "Value": "manifest.json"}]}}
    aws.s3.put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": suffix}]
        },
    )
    aws.sqs.purge_queue(QueueUrl=url)  # the test event
    aws.s3.put_object(Bucket=BUCKET, Key="acme/part.dtp", Body=b"x")
    version = aws.s3.put_object(Bucket=BUCKET, Key="acme/a b+c/manifest.json", Body=b"x")["VersionId"]
    aws.s3.put_object(Bucket=BUCKET, Key="acme/a b+c/manifest.json", Body=b"y")
    bodies = [json.loads(message["Body"]) for message in _receive(aws, url, 10)]
    objects = [body["Records"][0]["s3"]["object"] for body in bodies]
    assert [described["key"] for described in objects] == ["acme/a+b%2Bc/manifest.json"] * 2
    assert unquote_plus(objects[0]["key"]) == "acme/a b+c/manifest.json"
    assert objects[0]["versionId"] == version
    assert objects[0]["sequencer"] < objects[1]["sequencer"]


# ---------------------------------------------------------------- SQS


def _receive(aws: Aws, url: str, count: int = 1, **more: Any) -> list[Any]:
    received: list[Any] = aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=count, **more).get("Messages", [])
    return received


@restored_by("sqs-receive")
def a_message_goes_to_one_receiver(aws: Aws) -> None:
    """'Amazon SQS visibility timeout': what one consumer received is hidden from the others."""
    url = aws.sqs.create_queue(QueueName="q")["QueueUrl"]
    aws.sqs.send_message(QueueUrl=url, MessageBody="x")
    with meeting(Message, "mark_received"):
        received = at_once(lambda: _receive(aws, url), lambda: _receive(aws, url))
    assert sorted(map(len, received)) == [0, 1]


# ---------------------------------------------------------------- Cognito


def sign_in(aws: Aws, **client: Any) -> tuple[str, str]:
    """A pool's id, and an access token of a person in the group `officer`."""
    pool = aws.cognito_idp.create_user_pool(PoolName="people")["UserPool"]["Id"]
    made = aws.cognito_idp.create_user_pool_client(UserPoolId=pool, ClientName="tenant", **client)
    app = made["UserPoolClient"]["ClientId"]
    aws.cognito_idp.create_group(UserPoolId=pool, GroupName="officer")
    aws.cognito_idp.admin_create_user(UserPoolId=pool, Username="eve", MessageAction="SUPPRESS")
    aws.cognito_idp.admin_set_user_password(UserPoolId=pool, Username="eve", Password="Secret-1-secret", Permanent=True)
    aws.cognito_idp.admin_add_user_to_group(UserPoolId=pool, Username="eve", GroupName="officer")
    answer = aws.cognito_idp.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=app,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "eve", "PASSWORD": "Secret-1-secret"},
    )
    return pool, answer["AuthenticationResult"]["AccessToken"]


@restored_by("cognito-pool-keys")
def a_pool_signs_with_its_own_key(aws: Aws) -> None:
    """'Verifying JSON web tokens': kid, JWKS of the pool, RS256; access tokens name client_id, scope and groups."""
    pool, token = sign_in(aws)
    other, _ = sign_in(aws)
    published = {}
    for name in (pool, other):
        url = f"https://cognito-idp.{REGION}.amazonaws.com/{name}/.well-known/jwks.json"
        published[name] = requests.get(url, timeout=5).json()["keys"]
    kid = jwt.get_unverified_header(token)["kid"]
    assert [key["kid"] for key in published[pool]] == [kid]
    assert kid not in [key["kid"] for key in published[other]]
    issuer = f"https://cognito-idp.{REGION}.amazonaws.com/{pool}"
    claims = jwt.decode(token, jwt.PyJWK(published[pool][0]).key, algorithms=["RS256"], issuer=issuer)
    assert claims["token_use"] == "access"
    assert claims["scope"] == "aws.cognito.signin.user.admin"
    assert claims["cognito:groups"] == ["officer"]
    assert {"client_id", "username", "sub", "jti"} <= set(claims)


@restored_by("cognito-token-lifetime")
def tokens_live_as_the_client_says(aws: Aws) -> None:
    """CreateUserPoolClient: AccessTokenValidity in TokenValidityUnits."""
    _, token = sign_in(aws, AccessTokenValidity=15, TokenValidityUnits={"AccessToken": "minutes"})
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 900
