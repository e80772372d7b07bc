"""template.yaml, applied to moto: what the product relies on is really there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from infra.local.cloud import LocalCloud
from infra.local.onboarding import PLANS
from infra.local.resources.resource import snake_case
from infra.local.template import NOT_MODELLED
from tests.adapters.local.behaviour import refused


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    """The product's own template, nothing driven."""
    with LocalCloud(driven=False) as running:
        yield running


def test_buckets_are_as_the_template_says(cloud: LocalCloud) -> None:
    """Versioning, lock, encryption, public access block, ownership, lifecycle and events."""
    s3, ingest, vault = cloud.client("s3"), cloud.stack.ref("IngestBucket"), cloud.stack.ref("VaultBucket")
    assert "Status" not in s3.get_bucket_versioning(Bucket=ingest)
    assert s3.get_bucket_versioning(Bucket=vault)["Status"] == "Enabled"
    lock = s3.get_object_lock_configuration(Bucket=vault)["ObjectLockConfiguration"]
    assert lock["ObjectLockEnabled"] == "Enabled"
    assert not lock.get("Rule", {}).get("DefaultRetention", {}).get("Mode")
    for bucket in (ingest, vault):
        assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
        assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
        assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=ingest)["Rules"]}
    assert rules["expire-what-was-never-finalised"]["Expiration"] == {"Days": 14}
    assert rules["drop-unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    notifications = s3.get_bucket_notification_configuration(Bucket=ingest)["QueueConfigurations"]
    assert {entry["QueueArn"] for entry in notifications} == {cloud.stack.arn("FinalizeQueue")}
    assert [entry["Filter"]["Key"]["FilterRules"] for entry in notifications] == [
        [{"Name": "suffix", "Value": name}] for name in ("manifest.json", "opening-00.json")
    ]


def test_tables_are_as_the_template_says(cloud: LocalCloud) -> None:
    """Keys, index, recovery, deletion protection and the policy of the table of keys."""
    dynamodb = cloud.client("dynamodb")
    for logical_id in ("IndexTable", "KeysTable", "DirectoryTable", "AuditTable"):
        name = cloud.stack.ref(logical_id)
        table = dynamodb.describe_table(TableName=name)["Table"]
        assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]
        assert table["DeletionProtectionEnabled"] is True
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
        assert recovery == ("DISABLED" if logical_id == "KeysTable" else "ENABLED")
        indexes = [index["IndexName"] for index in table.get("GlobalSecondaryIndexes", [])]
        assert indexes == (["by_time"] if logical_id == "IndexTable" else [])
        with refused("ValidationException"):
            dynamodb.delete_table(TableName=name)
    policy = json.loads(dynamodb.get_resource_policy(ResourceArn=cloud.stack.arn("KeysTable"))["Policy"])
    assert "NobodyCopies" in {statement["Sid"] for statement in policy["Statement"]}


def test_keys_are_as_the_template_says(cloud: LocalCloud) -> None:
    """Spec, usage, alias, rotation and a policy that moto at least keeps."""
    kms = cloud.client("kms")
    wanted = {
        "CustodianAKey": ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "custodian-a"),
        "CustodianBKey": ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "custodian-b"),
        "MetadataKey": ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "metadata"),
        "IngestKey": ("RSA_4096", "ENCRYPT_DECRYPT", "ingest"),
        "SigningKey": ("ECC_NIST_P256", "SIGN_VERIFY", "signing"),
        "HmacKey": ("HMAC_256", "GENERATE_VERIFY_MAC", "hmac"),
    }
    for logical_id, (spec, usage, alias) in wanted.items():
        metadata = kms.describe_key(KeyId=f"alias/dualtone-dev-{alias}")["KeyMetadata"]
        assert metadata["Arn"] == cloud.stack.arn(logical_id)
        assert (metadata["KeySpec"], metadata["KeyUsage"]) == (spec, usage)
        rotates = kms.get_key_rotation_status(KeyId=metadata["KeyId"])["KeyRotationEnabled"]
        assert rotates is (spec == "SYMMETRIC_DEFAULT")
        assert json.loads(kms.get_key_policy(KeyId=metadata["KeyId"], PolicyName="default")["Policy"])["Statement"]


def test_queues_are_as_the_template_says(cloud: LocalCloud) -> None:
    """Visibility, retention, redrive, policy."""
    attributes = cloud.client("sqs").get_queue_attributes(
        QueueUrl=cloud.stack.ref("FinalizeQueue"), AttributeNames=["All"]
    )["Attributes"]
    assert (attributes["VisibilityTimeout"], attributes["MessageRetentionPeriod"]) == ("960", "1209600")
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive == {"deadLetterTargetArn": cloud.stack.arn("FinalizeDeadLetters"), "maxReceiveCount": 5}
    assert "IngestBucketNotifies" in attributes["Policy"]


def test_the_rest_is_there(cloud: LocalCloud) -> None:
    """Log groups with retention, alarms on dead letters, roles, groups, functions, schedule, event source, API."""
    groups = cloud.client("logs").describe_log_groups()["logGroups"]
    assert {group["retentionInDays"] for group in groups} == {30}
    alarms = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    queue = cloud.stack.created["FinalizeDeadLetters"].attributes["QueueName"]
    assert any(alarm["Dimensions"] == [{"Name": "QueueName", "Value": queue}] for alarm in alarms)
    assert all("AlarmActions" not in alarm or not alarm["AlarmActions"] for alarm in alarms)
    role = cloud.client("iam").get_role(RoleName=cloud.stack.ref("AgentRole"))["Role"]
    assert role["Arn"] == cloud.stack.arn("AgentRole")
    compute = cloud.stack.compute
    specs = {spec.logical_id: spec for spec in compute.functions.values()}
    specs_by_arn = {arn: spec.logical_id for arn, spec in compute.functions.items()}
    assert (specs["ApiFunction"].handler, specs["ApiFunction"].code.name) == ("app.app", "frontend_api")
    assert specs["FinalizeRecordingFunction"].timeout_s == 900
    sources = {(specs_by_arn[source.function_arn], source.batch_size) for source in compute.event_sources}
    assert sources == {
        ("FinalizeRecordingFunction", 1),
        ("CutPausedSpansFunction", 1),
        ("IngestAgentEventsFunction", 10),
    }
    assert all(source.partial_failures for source in compute.event_sources)
    assert {rule.expression for rule in compute.rules} == {"rate(5 minutes)"}
    assert [api.binary_media_types for api in compute.apis.values()] == [("*/*",)]
    resources = cloud.resources()
    assert {"ingest_bucket", "vault_bucket", "audit_table", "custodian_a_key", "finalize_queue"} <= set(resources)


def test_every_type_is_made_or_left_out_for_a_reason(cloud: LocalCloud) -> None:
    """Nothing of the template is dropped in silence."""
    made = {kind for kind in cloud.stack.types.values() if kind not in NOT_MODELLED}
    assert "AWS::S3::BucketPolicy" not in made
    assert len(cloud.stack.created) == len(cloud.stack.types)


def test_tenants_are_bound_to_their_clients(cloud: LocalCloud) -> None:
    """Two tenants, a client each, a person per role, whose token names client and group."""
    dynamodb, table = cloud.client("dynamodb"), cloud.stack.ref("DirectoryTable")
    assert set(cloud.tenants) == {plan.tenant for plan in PLANS}
    for plan in PLANS:
        tenant = cloud.tenants[plan.tenant]
        key = {"pk": {"S": f"binding#{tenant.client_id}"}, "sk": {"S": "binding"}}
        assert dynamodb.get_item(TableName=table, Key=key)["Item"]["tenant"] == {"S": plan.tenant}
        key = {"pk": {"S": f"tenant#{plan.tenant}"}, "sk": {"S": "config"}}
        configuration = dynamodb.get_item(TableName=table, Key=key)["Item"]
        assert [line["S"] for line in configuration["lines"]["L"]] == list(plan.lines)
        assert set(tenant.tokens) == {"administrator", "officer"}


@pytest.mark.parametrize(
    ("logical_id", "name"),
    [("IngestBucket", "ingest_bucket"), ("CustodianAKey", "custodian_a_key"), ("Api", "api")],
)
def test_names_in_the_json_line(logical_id: str, name: str) -> None:
    """Logical ids are told to other programs in snake case."""
    assert snake_case(logical_id) == name
