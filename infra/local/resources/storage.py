"""Buckets and tables."""

import json
from typing import Any

from infra.local.intrinsics import Created
from infra.local.resources.resource import Account, Maker, Resource

_BUCKET_NAME_LIMIT = 63


def bucket(account: Account, resource: Resource) -> Created:
    """Make an S3 bucket with its encryption, versioning, lock, ownership, public access block, lifecycle and events."""
    resource.account_for(
        (
            "BucketName",
            "BucketEncryption",
            "LifecycleConfiguration",
            "NotificationConfiguration",
            "ObjectLockConfiguration",
            "ObjectLockEnabled",
            "OwnershipControls",
            "PublicAccessBlockConfiguration",
            "Tags",
            "VersioningConfiguration",
        )
    )
    s3 = account.client("s3")
    wanted = resource.properties
    name = wanted.get("BucketName") or account.name(resource.logical_id, _BUCKET_NAME_LIMIT).lower()
    s3.create_bucket(
        Bucket=name,
        CreateBucketConfiguration={"LocationConstraint": account.region},
        ObjectLockEnabledForBucket=bool(wanted.get("ObjectLockEnabled", False)),
    )
    if versioning := wanted.get("VersioningConfiguration"):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
    if lock := wanted.get("ObjectLockConfiguration"):
        s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)
    if encryption := wanted.get("BucketEncryption"):
        rules = [
            {
                "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
                "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
            }
            for rule in encryption["ServerSideEncryptionConfiguration"]
        ]
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
    if block := wanted.get("PublicAccessBlockConfiguration"):
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    if ownership := wanted.get("OwnershipControls"):
        s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=ownership)
    if lifecycle := wanted.get("LifecycleConfiguration"):
        rules = [_lifecycle_rule(rule) for rule in lifecycle["Rules"]]
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    if notification := wanted.get("NotificationConfiguration"):
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=_notification(notification))
    if tags := resource.tags():
        tag_set = [{"Key": key, "Value": value} for key, value in tags.items()]
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tag_set})
    domain = f"{name}.s3.amazonaws.com"
    regional = f"{name}.s3.{account.region}.amazonaws.com"
    return Created(name, {"Arn": f"arn:aws:s3:::{name}", "DomainName": domain, "RegionalDomainName": regional})


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Spell one rule as the S3 API does: CloudFormation flattens expirations and filters."""
    days = {
        "ExpirationInDays": ("Expiration", "Days"),
        "NoncurrentVersionExpirationInDays": ("NoncurrentVersionExpiration", "NoncurrentDays"),
    }
    spelled: dict[str, Any] = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    for name, value in rule.items():
        if name in days:
            outer, inner = days[name]
            spelled[outer] = {inner: int(value)}
        elif name == "AbortIncompleteMultipartUpload":
            spelled[name] = {"DaysAfterInitiation": int(value["DaysAfterInitiation"])}
        elif name not in ("Id", "Status", "Prefix"):
            spelled[name] = value
    return spelled


def _notification(configuration: dict[str, Any]) -> dict[str, Any]:
    """Spell a notification configuration as the S3 API does; only queues are modelled."""
    queues = [
        {
            "QueueArn": entry["Queue"],
            "Events": [entry["Event"]],
            **({"Filter": {"Key": {"FilterRules": entry["Filter"]["S3Key"]["Rules"]}}} if "Filter" in entry else {}),
        }
        for entry in configuration.get("QueueConfigurations", [])
    ]
    return {"QueueConfigurations": queues}


def table(account: Account, resource: Resource) -> Created:
    """Make a DynamoDB table with its indexes, TTL, point-in-time recovery, deletion protection and resource policy.

    The resource policy is stored and returned, never enforced: moto evaluates no table policy.
    """
    resource.account_for(
        (
            "AttributeDefinitions",
            "BillingMode",
            "DeletionProtectionEnabled",
            "GlobalSecondaryIndexes",
            "KeySchema",
            "PointInTimeRecoverySpecification",
            "ResourcePolicy",
            "SSESpecification",
            "StreamSpecification",
            "TableName",
            "Tags",
            "TimeToLiveSpecification",
        )
    )
    dynamodb = account.client("dynamodb")
    wanted = dict(resource.properties)
    name = wanted.pop("TableName", None) or account.name(resource.logical_id)
    recovery = wanted.pop("PointInTimeRecoverySpecification", None)
    expiry = wanted.pop("TimeToLiveSpecification", None)
    policy = wanted.pop("ResourcePolicy", None)
    tags = resource.tags()
    wanted.pop("Tags", None)
    if encryption := wanted.pop("SSESpecification", None):
        rest = {key: value for key, value in encryption.items() if key != "SSEEnabled"}
        wanted["SSESpecification"] = {"Enabled": encryption["SSEEnabled"], **rest}
    if stream := wanted.pop("StreamSpecification", None):
        wanted["StreamSpecification"] = {"StreamEnabled": True, **stream}
    if tags:
        wanted["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    description = dynamodb.create_table(TableName=name, **wanted)["TableDescription"]
    if expiry:
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=expiry)
    if recovery:
        dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)
    if policy:
        dynamodb.put_resource_policy(ResourceArn=description["TableArn"], Policy=json.dumps(policy["PolicyDocument"]))
    attributes = {"Arn": description["TableArn"]}
    if "LatestStreamArn" in description:
        attributes["StreamArn"] = description["LatestStreamArn"]
    return Created(name, attributes)


MAKERS: dict[str, Maker] = {"AWS::S3::Bucket": bucket, "AWS::DynamoDB::Table": table}
