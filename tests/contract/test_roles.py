"""Least privilege: what each role may do, where, and who may become it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.policies import actions, listed, principals, resources, statements

Json = dict[str, Any]

TAGLESS = {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}
"""Actions for which AWS knows no resource."""


def _grants(template: Json, role: str) -> dict[str, list[Any]]:
    """Action -> resources that the role's own policies grant."""
    grants: dict[str, list[Any]] = {}
    for policy in template["Resources"][role]["Properties"].get("Policies", []):
        for statement in statements(policy["PolicyDocument"], "Allow"):
            for action in actions(statement):
                grants.setdefault(action, []).extend(listed(statement["Resource"]))
    return grants


def test_no_permission_is_a_wildcard(template: Json) -> None:
    """Every action is spelled out, and every resource but X-Ray's named."""
    for name in resources(template, "AWS::IAM::Role"):
        for action, places in _grants(template, name).items():
            assert "*" not in action, name
            assert ("*" not in places) or action in TAGLESS, (name, action)


@pytest.mark.parametrize(
    ("role", "action"),
    [
        pytest.param("ApiRole", "s3:PutObject", id="the API writes no object"),
        pytest.param("ApiRole", "s3:DeleteObjectVersion", id="the API deletes no recording"),
        pytest.param("ApiRole", "dynamodb:DeleteItem", id="the API deletes no item"),
        pytest.param("ApiRole", "dynamodb:Scan", id="the API scans nothing"),
        pytest.param("FinalizeRecordingRole", "s3:DeleteObjectVersion", id="the finaliser removes no version"),
        pytest.param("CutPausedSpansRole", "s3:DeleteObject", id="the cut deletes no upload"),
        pytest.param("CutPausedSpansRole", "s3:GetObjectVersion", id="the cut reads no recording"),
        pytest.param("CutPausedSpansRole", "dynamodb:DeleteItem", id="the cut deletes no item"),
        pytest.param("ReconcileRecordingsRole", "s3:PutObject", id="the reconciler makes no recording"),
        pytest.param("ReconcileRecordingsRole", "dynamodb:PutItem", id="the reconciler adds no item"),
        pytest.param("ReconcileRecordingsRole", "s3:GetObject", id="the reconciler reads no upload"),
        pytest.param("SweepCallsRole", "s3:GetObject", id="the sweeper reads no upload"),
        pytest.param("SweepCallsRole", "s3:DeleteObject", id="the sweeper deletes no upload"),
        pytest.param("SweepCallsRole", "dynamodb:Scan", id="the sweeper scans nothing"),
        pytest.param("ApiRole", "s3:GetObject", id="the API reads no version but the one committed"),
        pytest.param("AgentRole", "s3:GetObject", id="an agent reads nothing back"),
        pytest.param("AgentRole", "s3:ListBucket", id="an agent lists nothing"),
        pytest.param("AgentRole", "s3:DeleteObject", id="an agent deletes nothing"),
        pytest.param("AgentRole", "sqs:SetQueueAttributes", id="an agent changes no queue"),
        pytest.param("IngestAgentEventsRole", "s3:GetObject", id="what takes reports reads no upload"),
        pytest.param("IngestAgentEventsRole", "dynamodb:DeleteItem", id="what takes reports deletes no item"),
        pytest.param("IngestAgentEventsRole", "dynamodb:Scan", id="what takes reports scans nothing"),
    ],
)
def test_a_role_may_not(template: Json, role: str, action: str) -> None:
    """What a role has no business doing it is not granted."""
    assert action not in _grants(template, role)


@pytest.mark.parametrize(
    ("role", "action", "keys"),
    [
        ("FinalizeRecordingRole", "dynamodb:DeleteItem", ["attempts#?", "*#num#*"]),
        ("ReconcileRecordingsRole", "dynamodb:DeleteItem", "attempts#?"),
        ("ReconcileRecordingsRole", "dynamodb:Query", "attempts#?"),
        ("ReconcileRecordingsRole", "dynamodb:UpdateItem", "attempts#?"),
        ("SweepCallsRole", "dynamodb:DeleteItem", "*#call#*"),
        ("SweepCallsRole", "dynamodb:UpdateItem", "*#call#*"),
    ],
)
def test_recordings_are_beyond_reach_of_what_tidies_up(
    template: Json, role: str, action: str, keys: str | list[str]
) -> None:
    """In the index, only items of these partitions are changed or deleted."""
    (policy,) = template["Resources"][role]["Properties"]["Policies"]
    granting = [one for one in statements(policy["PolicyDocument"], "Allow") if action in actions(one)]
    assert [one["Condition"] for one in granting] == [{"ForAllValues:StringLike": {"dynamodb:LeadingKeys": keys}}]


@pytest.mark.parametrize(
    ("action", "ending"),
    [
        ("s3:PutObject", "/${!aws:PrincipalTag/tenant}/${!aws:PrincipalTag/agent}/*"),
        ("sqs:ReceiveMessage", ":dualtone-commands-${!aws:PrincipalTag/agent}"),
        ("sqs:DeleteMessage", ":dualtone-commands-${!aws:PrincipalTag/agent}"),
    ],
)
def test_an_agent_stays_below_its_own_prefix(template: Json, action: str, ending: str) -> None:
    """The session's tags, which it cannot choose, are part of every name that it can reach."""
    (place,) = _grants(template, "AgentRole")[action]
    assert place["Fn::Sub"].endswith(ending)


def test_an_agent_reports_and_commands_nobody(template: Json) -> None:
    """Of all queues it may send to the one that the cloud reads."""
    assert _grants(template, "AgentRole")["sqs:SendMessage"] == [{"Fn::GetAtt": ["AgentEventsQueue", "Arn"]}]


@pytest.mark.parametrize(
    ("role", "partitions"),
    [
        ("ApiRole", ["*#call#*", "*#match#*", "*#webhook#*"]),
        ("IngestAgentEventsRole", ["*#call#*", "*#match#*", "*#agents"]),
    ],
)
def test_what_commands_calls_writes_no_recording(template: Json, role: str, partitions: list[str]) -> None:
    """In the index, its writes reach calls and what finds them."""
    (policy,) = template["Resources"][role]["Properties"]["Policies"]
    index = {"Fn::GetAtt": ["IndexTable", "Arn"]}
    granting = [
        one
        for one in statements(policy["PolicyDocument"], "Allow")
        if index in listed(one["Resource"]) and {"dynamodb:PutItem", "dynamodb:UpdateItem"} & set(actions(one))
    ]
    assert [one["Condition"] for one in granting] == [{"ForAllValues:StringLike": {"dynamodb:LeadingKeys": partitions}}]


@pytest.mark.parametrize(
    ("role", "by", "tags"),
    [
        ("AgentRole", ["ApiRole"], ["tenant", "agent"]),
        ("VaultAccessRole", ["FinalizeRecordingRole", "ApiRole", "CutPausedSpansRole"], ["tenant"]),
    ],
)
def test_a_role_is_assumed_with_its_tags_or_not_at_all(
    template: Json, role: str, by: list[str], tags: list[str]
) -> None:
    """Named roles assume it; every tag must be there, and no other may be."""
    properties = template["Resources"][role]["Properties"]
    (trust,) = properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"]["AWS"] in (
        [{"Fn::GetAtt": [name, "Arn"]} for name in by],
        {"Fn::GetAtt": [by[0], "Arn"]},
    )
    assert set(actions(trust)) == {"sts:AssumeRole", "sts:TagSession"}
    assert trust["Condition"]["ForAllValues:StringEquals"] == {"aws:TagKeys": tags}
    assert set(trust["Condition"]["StringLike"]) == {f"aws:RequestTag/{tag}" for tag in tags}
    assert all("?" in pattern for pattern in trust["Condition"]["StringLike"].values())
    assert properties["MaxSessionDuration"] <= 3600


@pytest.mark.parametrize(
    "role",
    [
        "ApiRole",
        "CutPausedSpansRole",
        "FinalizeRecordingRole",
        "ReconcileRecordingsRole",
        "SweepCallsRole",
        "IngestAgentEventsRole",
    ],
)
def test_a_functions_role_is_for_lambda_alone(template: Json, role: str) -> None:
    """Nobody else becomes it."""
    (trust,) = template["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert principals(trust) == {"lambda.amazonaws.com"}


def test_the_vault_access_role_can_do_nothing_by_itself(template: Json) -> None:
    """The custodians' key policies grant it what it has."""
    properties = template["Resources"]["VaultAccessRole"]["Properties"]
    assert not {"Policies", "ManagedPolicyArns"} & properties.keys()


def test_who_denies_revoked_agents_cannot_widen_their_role(template: Json) -> None:
    """Policies of the agents' role are written only while its boundary is there, which is what the role has anyway."""
    agents = template["Resources"]["AgentRole"]["Properties"]
    assert agents["PermissionsBoundary"] == {"Ref": "AgentBoundary"}
    (own,) = agents["Policies"]
    boundary = template["Resources"]["AgentBoundary"]["Properties"]["PolicyDocument"]
    assert boundary == own["PolicyDocument"]
    (name,) = resources(template, "AWS::IAM::Policy")
    policy = template["Resources"][name]["Properties"]
    assert policy["Roles"] == [{"Ref": "ApiRole"}]
    writing = [one for one in statements(policy["PolicyDocument"], "Allow") if "iam:PutRolePolicy" in actions(one)]
    for statement in statements(policy["PolicyDocument"], "Allow"):
        assert listed(statement["Resource"]) == [{"Fn::GetAtt": ["AgentRole", "Arn"]}]
        assert set(actions(statement)) <= {"iam:ListRolePolicies", "iam:PutRolePolicy", "iam:DeleteRolePolicy"}
    bounded = {"StringEquals": {"iam:PermissionsBoundary": {"Ref": "AgentBoundary"}}}
    assert [one["Condition"] for one in writing] == [bounded]
