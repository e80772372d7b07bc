"""Buckets, tables and queues: private, encrypted, kept, and with somewhere for failures to go."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dualtone.domain.call_files import MANIFEST_NAME, opening_name
from sbc_agent.runtime.config import UplinkSection
from tests.contract.policies import denied, listed, matches, principals, resources, statements

Json = dict[str, Any]

KEPT = [
    "AuditTable",
    "CertificateKey",
    "CustodianAKey",
    "CustodianBKey",
    "DirectoryTable",
    "HmacKey",
    "IndexTable",
    "IngestBucket",
    "IngestKey",
    "KeysTable",
    "MetadataKey",
    "SigningKey",
    "UserPool",
    "VaultBucket",
]


@pytest.mark.parametrize("name", KEPT)
def test_what_holds_evidence_outlives_the_stack(template: Json, name: str) -> None:
    """Neither deleting the stack nor replacing the resource deletes it."""
    resource = template["Resources"][name]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize("name", ["IngestBucket", "VaultBucket"])
def test_a_bucket_is_private_and_encrypted(template: Json, name: str) -> None:
    """No public access by any of its four doors, no ACLs, encryption by default."""
    bucket = template["Resources"][name]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]


def _policy_on(template: Json, name: str) -> Json:
    policies: list[Json] = [
        policy["PolicyDocument"]
        for kind, key in (("AWS::S3::BucketPolicy", "Bucket"), ("AWS::SQS::QueuePolicy", "Queues"))
        for policy in resources(template, kind).values()
        if {"Ref": name} in listed(policy[key])
    ]
    (policy,) = policies
    return policy


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("IngestBucket", "s3:GetObject"),
        ("VaultBucket", "s3:GetObject"),
        ("CutDeadLetters", "sqs:ReceiveMessage"),
        ("CutQueue", "sqs:SendMessage"),
        ("FinalizeQueue", "sqs:SendMessage"),
        ("FinalizeDeadLetters", "sqs:ReceiveMessage"),
        ("ReconcileDeadLetters", "sqs:ReceiveMessage"),
        ("SweepDeadLetters", "sqs:ReceiveMessage"),
    ],
)
def test_a_store_refuses_plain_http(template: Json, name: str, action: str) -> None:
    """Everything is denied to everyone without TLS."""
    conditions = [one["Condition"] for one in denied(_policy_on(template, name), action) if "Bool" in one["Condition"]]
    assert {"Bool": {"aws:SecureTransport": "false"}} in conditions


def test_the_ingest_bucket_keeps_no_old_versions(template: Json) -> None:
    """Deleting a part deletes it."""
    assert "VersioningConfiguration" not in template["Resources"]["IngestBucket"]["Properties"]


def test_uploads_expire_well_after_the_sweeper_has_had_its_turn(template: Json) -> None:
    """Calls that went silent are finalised after 72 hours; their parts are there for longer."""
    rules = template["Resources"]["IngestBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (days,) = [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule]
    assert days * 24 > 2 * 72


def test_uploads_expire_after_agents_have_put_them_again(template: Json) -> None:
    """Whatever an agent's setting says within its bounds, and with the day that it may take to notice."""
    rules = template["Resources"]["IngestBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (days,) = [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule]
    with pytest.raises(ValidationError):
        UplinkSection.model_validate({"api": "https://recorder.example.com", "resend_days": days - 1})


def test_an_upload_is_never_replaced(template: Json) -> None:
    """A put without If-None-Match is denied to all but the cut, which must name the object that it replaces."""
    policy, cut = _policy_on(template, "IngestBucket"), {"Fn::GetAtt": ["CutPausedSpansRole", "Arn"]}
    (everyone,) = [one for one in denied(policy, "s3:PutObject") if "Null" in one["Condition"]]
    assert everyone["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert everyone["Condition"]["ArnNotEquals"] == {"aws:PrincipalArn": cut}
    (excepted,) = [one for one in statements(policy, "Deny") if one["Principal"] == {"AWS": cut}]
    assert matches(excepted, "s3:PutObject")
    assert excepted["Condition"]["Null"] == {"s3:if-match": "true"}


def test_a_manifest_starts_the_finaliser_and_a_first_opening_the_watch(template: Json) -> None:
    """Created objects that end in one of two names, and no others, are put on the queue, which takes them."""
    bucket = template["Resources"]["IngestBucket"]
    queues = bucket["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    assert {queue["Event"] for queue in queues} == {"s3:ObjectCreated:*"}
    assert all(queue["Queue"] == {"Fn::GetAtt": ["FinalizeQueue", "Arn"]} for queue in queues)
    assert [queue["Filter"]["S3Key"]["Rules"] for queue in queues] == [
        [{"Name": "suffix", "Value": name}] for name in (MANIFEST_NAME, opening_name(0))
    ]
    assert bucket["DependsOn"] == "FinalizeQueuePolicy"
    (allow,) = statements(_policy_on(template, "FinalizeQueue"), "Allow")
    assert principals(allow) == {"s3.amazonaws.com"}
    name = bucket["Properties"]["BucketName"]["Fn::Sub"]
    assert allow["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::Sub"].endswith(f":s3:::{name}")
    assert allow["Condition"]["StringEquals"]["aws:SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_the_vault_can_lock_and_locks_nothing_by_itself(template: Json) -> None:
    """Object Lock and versions, without a default retention: attempts that lose the commit are removed."""
    vault = template["Resources"]["VaultBucket"]["Properties"]
    assert vault["ObjectLockEnabled"] is True
    assert vault["VersioningConfiguration"] == {"Status": "Enabled"}
    assert "ObjectLockConfiguration" not in vault
    assert all("Expiration" not in key for rule in vault["LifecycleConfiguration"]["Rules"] for key in rule)
    assert any(denied(_policy_on(template, "VaultBucket"), "s3:BypassGovernanceRetention"))


@pytest.mark.parametrize("name", ["AuditTable", "DirectoryTable", "IndexTable", "KeysTable"])
def test_a_table_is_on_demand_encrypted_and_protected(template: Json, name: str) -> None:
    """Cost follows use, and deletion takes two steps."""
    table = template["Resources"][name]["Properties"]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["DeletionProtectionEnabled"] is True
    assert [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]] == [("pk", "HASH"), ("sk", "RANGE")]


@pytest.mark.parametrize(
    ("name", "recoverable"),
    [("AuditTable", True), ("DirectoryTable", True), ("IndexTable", True), ("KeysTable", False)],
)
def test_only_the_vault_keys_cannot_be_recovered(template: Json, *, name: str, recoverable: bool) -> None:
    """A destroyed key must stay destroyed; everything else can be brought back."""
    recovery = template["Resources"][name]["Properties"]["PointInTimeRecoverySpecification"]
    assert recovery == {"PointInTimeRecoveryEnabled": recoverable}


def test_the_index_lists_by_time(template: Json) -> None:
    """One index, the whole item in it."""
    (index,) = template["Resources"]["IndexTable"]["Properties"]["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "by_time"
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["gsi1pk", "gsi1sk"]
    assert index["Projection"] == {"ProjectionType": "ALL"}


def test_used_assertions_are_forgotten(template: Json) -> None:
    """The directory's time to live is the attribute that the API writes beside a used assertion."""
    table = template["Resources"]["DirectoryTable"]["Properties"]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at_s", "Enabled": True}


def test_the_vault_keys_leave_their_table_by_no_stream_or_replica(template: Json) -> None:
    """One region, no stream."""
    table = template["Resources"]["KeysTable"]
    assert table["Type"] == "AWS::DynamoDB::Table"
    assert not {"StreamSpecification", "KinesisStreamSpecification", "Replicas"} & table["Properties"].keys()


@pytest.mark.parametrize(
    "action",
    [
        "BatchWriteItem",
        "CreateBackup",
        "DeleteItem",
        "EnableKinesisStreamingDestination",
        "ExportTableToPointInTime",
        "PartiQLDelete",
        "PartiQLInsert",
        "PartiQLSelect",
        "PartiQLUpdate",
        "Scan",
        "UpdateContinuousBackups",
        "UpdateItem",
        "UpdateTimeToLive",
    ],
)
def test_nobody_may(template: Json, action: str) -> None:
    """Deleting, overwriting, backing up and exporting vault keys is denied to all, without a condition."""
    policy = template["Resources"]["KeysTable"]["Properties"]["ResourcePolicy"]["PolicyDocument"]
    assert any("Condition" not in statement for statement in denied(policy, f"dynamodb:{action}"))


def test_a_vault_key_is_put_by_the_commit_and_replaced_by_the_cut_alone(template: Json) -> None:
    """Puts are denied to all but these two, and to them outside a transaction."""
    policy = template["Resources"]["KeysTable"]["Properties"]["ResourcePolicy"]["PolicyDocument"]
    finaliser, cut = ({"Fn::GetAtt": [role, "Arn"]} for role in ("FinalizeRecordingRole", "CutPausedSpansRole"))
    conditions = [statement["Condition"] for statement in denied(policy, "dynamodb:PutItem")]
    assert {"ArnNotEquals": {"aws:PrincipalArn": [finaliser, cut]}} in conditions
    assert {"StringNotEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}} in conditions
    puts = [one for one in statements(policy, "Allow") if matches(one, "dynamodb:PutItem")]
    assert [one["Principal"] for one in puts] == [{"AWS": finaliser}, {"AWS": cut}]
    within = {"StringEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}}
    assert [one["Condition"] for one in puts] == [within, within]


@pytest.mark.parametrize(
    "name",
    ["CutDeadLetters", "CutQueue", "FinalizeDeadLetters", "FinalizeQueue", "ReconcileDeadLetters", "SweepDeadLetters"],
)
def test_a_queue_is_encrypted(template: Json, name: str) -> None:
    """By SQS's own key: messages name objects and hold no content."""
    assert template["Resources"][name]["Properties"]["SqsManagedSseEnabled"] is True


def test_every_queue_is_a_dead_letter_queue_or_has_one(template: Json) -> None:
    """A message that fails again and again ends where someone looks, for as long as its parts are there."""
    queues = resources(template, "AWS::SQS::Queue")
    targets = {
        queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for queue in queues.values()
        if "RedrivePolicy" in queue
    }
    for function in resources(template, "AWS::Serverless::Function").values():
        if "DeadLetterQueue" in function:
            targets.add(function["DeadLetterQueue"]["TargetArn"]["Fn::GetAtt"][0])
    assert {name for name, queue in queues.items() if "RedrivePolicy" not in queue} == targets
    assert {queues[name]["MessageRetentionPeriod"] for name in targets} == {14 * 24 * 3600}
