"""Who may use a KMS key, who may administer it, and that these are never the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.policies import actions, denied, matches, principals, resources, statements

Json = dict[str, Any]

ADMINISTRATION = {
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
}
"""What administration may hold at most: nothing here reads, makes or passes on what a key protects."""

API, CUT, EVENTS, FINALISER, RECONCILER, VAULT_ACCESS = (
    f'{{"Fn::GetAtt": ["{role}", "Arn"]}}'
    for role in (
        "ApiRole",
        "CutPausedSpansRole",
        "IngestAgentEventsRole",
        "FinalizeRecordingRole",
        "ReconcileRecordingsRole",
        "VaultAccessRole",
    )
)

KEYS: dict[str, tuple[str, str, dict[str, set[str]]]] = {
    "CertificateKey": (
        "ECC_NIST_P256",
        "SIGN_VERIFY",
        {"kms:GetPublicKey": {API}, "kms:Sign": {CUT, FINALISER}},
    ),
    "CustodianAKey": (
        "SYMMETRIC_DEFAULT",
        "ENCRYPT_DECRYPT",
        {"kms:Decrypt": {VAULT_ACCESS}, "kms:GenerateDataKey": {VAULT_ACCESS}},
    ),
    "CustodianBKey": (
        "SYMMETRIC_DEFAULT",
        "ENCRYPT_DECRYPT",
        {"kms:Decrypt": {VAULT_ACCESS}, "kms:GenerateDataKey": {VAULT_ACCESS}},
    ),
    "HmacKey": ("HMAC_256", "GENERATE_VERIFY_MAC", {"kms:GenerateMac": {API, FINALISER}}),
    "IngestKey": ("RSA_4096", "ENCRYPT_DECRYPT", {"kms:Decrypt": {FINALISER}, "kms:GetPublicKey": {API}}),
    "MetadataKey": (
        "SYMMETRIC_DEFAULT",
        "ENCRYPT_DECRYPT",
        {"kms:Decrypt": {API, FINALISER}, "kms:GenerateDataKey": {API, FINALISER}},
    ),
    "SigningKey": (
        "ECC_NIST_P256",
        "SIGN_VERIFY",
        {"kms:GetPublicKey": {API}, "kms:Sign": {API, EVENTS, FINALISER, RECONCILER}},
    ),
}
CUSTODIANS = [("CustodianAKey", "A"), ("CustodianBKey", "B")]


def _policy(template: Json, name: str) -> Json:
    policy: Json = template["Resources"][name]["Properties"]["KeyPolicy"]
    return policy


def test_the_keys_are_these(template: Json) -> None:
    """A new key is added to the table above on purpose."""
    assert sorted(resources(template, "AWS::KMS::Key")) == sorted(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_of_its_kind(template: Json, name: str) -> None:
    """Spec and usage, an alias, and thirty days to think before it goes."""
    key = template["Resources"][name]["Properties"]
    spec, usage, _ = KEYS[name]
    assert (key.get("KeySpec", "SYMMETRIC_DEFAULT"), key.get("KeyUsage", "ENCRYPT_DECRYPT")) == (spec, usage)
    assert key["PendingWindowInDays"] == 30
    assert key.get("MultiRegion", False) is False
    assert key.get("EnableKeyRotation", False) is (spec == "SYMMETRIC_DEFAULT")
    assert {"Ref": name} in [alias["TargetKeyId"] for alias in resources(template, "AWS::KMS::Alias").values()]


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_used_by_whom_the_table_names(template: Json, name: str) -> None:
    """Every Allow but administration's, action by action; wildcards are not in the language."""
    found: dict[str, set[str]] = {}
    for statement in statements(_policy(template, name), "Allow"):
        if statement["Sid"] == "Administration":
            continue
        for action in actions(statement):
            assert "*" not in action
            found.setdefault(action, set()).update(principals(statement))
    assert found == KEYS[name][2]


@pytest.mark.parametrize("name", KEYS)
def test_nobody_both_administers_and_uses(template: Json, name: str) -> None:
    """The account administers, named roles use, and no principal appears on both sides."""
    allowed = statements(_policy(template, name), "Allow")
    administers = {who for one in allowed if set(actions(one)) & ADMINISTRATION for who in principals(one)}
    uses = {who for one in allowed if set(actions(one)) - ADMINISTRATION for who in principals(one)}
    assert administers
    assert uses
    assert not administers & uses
    assert "*" not in administers | uses
    assert all(":root" not in who for who in uses)


@pytest.mark.parametrize("name", KEYS)
def test_use_is_denied_to_everyone_else(template: Json, name: str) -> None:
    """What the table grants is denied to all but those that it grants it to: a later Allow changes nothing."""
    for action, users in KEYS[name][2].items():
        if action == "kms:GetPublicKey":
            continue
        excepted = [
            principals({"Principal": {"AWS": one["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]}})
            for one in denied(_policy(template, name), action)
        ]
        assert excepted
        assert all(users <= names <= set().union(*KEYS[name][2].values()) for names in excepted)


@pytest.mark.parametrize("action", ["kms:CreateGrant", "kms:ReplicateKey"])
@pytest.mark.parametrize("name", KEYS)
def test_nobody_passes_a_key_on(template: Json, name: str, action: str) -> None:
    """No grants and no replicas, whoever asks."""
    assert any("Condition" not in statement for statement in denied(_policy(template, name), action))


@pytest.mark.parametrize("action", ["kms:ReEncryptFrom", "kms:ReEncryptTo"])
@pytest.mark.parametrize("name", [name for name, (_, usage, _) in KEYS.items() if usage == "ENCRYPT_DECRYPT"])
def test_nobody_moves_a_ciphertext_to_another_key(template: Json, name: str, action: str) -> None:
    """ReEncrypt is Decrypt by another name."""
    assert any("Condition" not in statement for statement in denied(_policy(template, name), action))


@pytest.mark.parametrize(("name", "custodian"), CUSTODIANS)
def test_a_custodian_serves_the_sessions_tenant_only(template: Json, name: str, custodian: str) -> None:
    """The context's tenant is the session tag's, the tag is there, and each key wraps its own custodian's share."""
    uses = [one for one in statements(_policy(template, name), "Allow") if one["Sid"] != "Administration"]
    (use,) = uses
    assert use["Condition"] == {
        "StringEquals": {
            "kms:EncryptionContext:tenant": "${aws:PrincipalTag/tenant}",
            "kms:EncryptionContext:custodian": custodian,
        },
        "Null": {"aws:PrincipalTag/tenant": "false"},
    }


def test_the_custodians_differ_in_nothing_but_their_name(template: Json) -> None:
    """Neither is the weaker one."""
    first, second = (str(_policy(template, name)) for name, _ in CUSTODIANS)
    assert first.replace("'kms:EncryptionContext:custodian': 'A'", "'kms:EncryptionContext:custodian': 'B'") == second


def test_one_account_mode_says_that_it_is_for_development(template: Json) -> None:
    """In the stack's description, in its outputs and on the keys themselves."""
    assert "DEVELOPMENT MODE" in template["Description"]
    assert template["Outputs"]["CustodyMode"]["Value"] == "one-account-development"
    for name, _ in CUSTODIANS:
        tags = template["Resources"][name]["Properties"]["Tags"]
        assert {"Key": "dualtone:custody-mode", "Value": "one-account-development"} in tags


@pytest.mark.parametrize(
    ("name", "sid", "operator", "key", "value"),
    [
        ("IngestKey", "FinaliserUnwrapsCallKeys", "StringEquals", "kms:EncryptionAlgorithm", "RSAES_OAEP_SHA_256"),
        ("SigningKey", "FunctionsSignDigests", "StringEquals", "kms:SigningAlgorithm", "ECDSA_SHA_256"),
        ("SigningKey", "FunctionsSignDigests", "StringEquals", "kms:MessageType", "DIGEST"),
        ("CertificateKey", "FunctionsSignDigests", "StringEquals", "kms:MessageType", "DIGEST"),
        ("HmacKey", "FinaliserAndApiMakeTokens", "StringEquals", "kms:MacAlgorithm", "HMAC_SHA_256"),
        ("MetadataKey", "FinaliserAndApiUnwrapThem", "StringEquals", "kms:EncryptionContext:purpose", "metadata"),
        ("MetadataKey", "ApiMakesAndOpensWebhookSecrets", "StringEquals", "kms:EncryptionContext:purpose", "webhook"),
        ("MetadataKey", "ApiMakesAndOpensWebhookSecrets", "Null", "kms:EncryptionContext:tenant", "false"),
        ("MetadataKey", "FinaliserMakesMonthlyKeys", "Null", "kms:EncryptionContext:tenant", "false"),
    ],
)
def test_a_key_is_used_in_one_way(template: Json, name: str, sid: str, operator: str, key: str, value: str) -> None:
    """Algorithms and contexts are part of the permission."""
    (statement,) = [one for one in statements(_policy(template, name), "Allow") if one["Sid"] == sid]
    assert statement["Condition"][operator][key] == value


def test_no_role_is_granted_any_key(template: Json) -> None:
    """Use is granted in key policies alone, so that they can be read as the whole truth."""
    for role in resources(template, "AWS::IAM::Role").values():
        for policy in role.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                assert not any(action.startswith(("kms:", "sts:", "*", "iam:")) for action in actions(statement))


def test_no_role_reaches_the_table_of_vault_keys(template: Json) -> None:
    """Its own policy grants access, and nothing else does."""
    roles = resources(template, "AWS::IAM::Role")
    assert "KeysTable" not in str([role.get("Policies") for role in roles.values()])
    policy = template["Resources"]["KeysTable"]["Properties"]["ResourcePolicy"]["PolicyDocument"]
    readers = [principals(one) for one in statements(policy, "Allow") if matches(one, "dynamodb:GetItem")]
    assert readers == [{API, CUT}]
