"""Roles, the user pool, its clients and groups."""

import json
from typing import Any

from infra.local.intrinsics import Created
from infra.local.resources.resource import Account, Maker, Resource

_MANAGED_POLICIES = "moto knows only some of AWS's managed policies, and enforces none of them"


def role(account: Account, resource: Resource) -> Created:
    """Make an IAM role with its trust policy and inline policies; moto enforces none of them."""
    resource.account_for(
        (
            "AssumeRolePolicyDocument",
            "Description",
            "MaxSessionDuration",
            "Path",
            "PermissionsBoundary",
            "Policies",
            "RoleName",
            "Tags",
        ),
        {"ManagedPolicyArns": _MANAGED_POLICIES},
    )
    iam = account.client("iam")
    wanted = resource.properties
    name = wanted.get("RoleName") or account.name(resource.logical_id)
    created = iam.create_role(
        RoleName=name,
        Path=wanted.get("Path", "/"),
        Description=wanted.get("Description", ""),
        MaxSessionDuration=int(wanted.get("MaxSessionDuration", 3600)),
        AssumeRolePolicyDocument=json.dumps(wanted["AssumeRolePolicyDocument"]),
        Tags=[{"Key": key, "Value": value} for key, value in resource.tags().items()],
        **({"PermissionsBoundary": wanted["PermissionsBoundary"]} if "PermissionsBoundary" in wanted else {}),
    )["Role"]
    for policy in wanted.get("Policies", []):
        document = json.dumps(policy["PolicyDocument"])
        iam.put_role_policy(RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=document)
    return Created(name, {"Arn": created["Arn"], "RoleId": created["RoleId"]})


def managed_policy(account: Account, resource: Resource) -> Created:
    """Make a customer-managed policy; its reference is its ARN."""
    resource.account_for(("Description", "ManagedPolicyName", "PolicyDocument"))
    wanted = resource.properties
    created = account.client("iam").create_policy(
        PolicyName=wanted.get("ManagedPolicyName") or account.name(resource.logical_id),
        Description=wanted.get("Description", ""),
        PolicyDocument=json.dumps(wanted["PolicyDocument"]),
    )["Policy"]
    return Created(created["Arn"], {"PolicyArn": created["Arn"], "PolicyId": created["PolicyId"]})


def policy(account: Account, resource: Resource) -> Created:
    """Add an inline policy to roles that are made elsewhere in the template."""
    resource.account_for(("PolicyDocument", "PolicyName", "Roles"))
    wanted = resource.properties
    for name in wanted["Roles"]:
        account.client("iam").put_role_policy(
            RoleName=name, PolicyName=wanted["PolicyName"], PolicyDocument=json.dumps(wanted["PolicyDocument"])
        )
    return Created(wanted["PolicyName"], {})


def user_pool(account: Account, resource: Resource) -> Created:
    """Make a Cognito user pool."""
    resource.account_for(
        (
            "AccountRecoverySetting",
            "AdminCreateUserConfig",
            "AliasAttributes",
            "AutoVerifiedAttributes",
            "DeletionProtection",
            "EnabledMfas",
            "MfaConfiguration",
            "Policies",
            "Schema",
            "UserPoolAddOns",
            "UserPoolName",
            "UserPoolTags",
            "UsernameAttributes",
            "UsernameConfiguration",
        ),
        {"UserPoolTier": "a price list: moto has every feature or none, whatever the tier"},
    )
    cognito = account.client("cognito-idp")
    wanted = {name: value for name, value in resource.properties.items() if name not in ("UserPoolName", "EnabledMfas")}
    name = resource.properties.get("UserPoolName") or account.name(resource.logical_id)
    pool = cognito.create_user_pool(PoolName=name, **_numbers(wanted))["UserPool"]
    if "SOFTWARE_TOKEN_MFA" in resource.properties.get("EnabledMfas", []):
        cognito.set_user_pool_mfa_config(
            UserPoolId=pool["Id"],
            SoftwareTokenMfaConfiguration={"Enabled": True},
            MfaConfiguration=wanted.get("MfaConfiguration", "OFF"),
        )
    provider = f"cognito-idp.{account.region}.amazonaws.com/{pool['Id']}"
    return Created(
        pool["Id"],
        {
            "Arn": pool["Arn"],
            "ProviderName": provider,
            "ProviderURL": f"https://{provider}",
            "UserPoolId": pool["Id"],
        },
    )


def _numbers(value: Any) -> Any:
    """Turn the decimal strings that CloudFormation allows for numbers into numbers, as the Cognito API wants them."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def user_pool_client(account: Account, resource: Resource) -> Created:
    """Make an app client; which authentication flows it allows is stored and not enforced by moto."""
    wanted = dict(resource.properties)
    wanted.setdefault("ClientName", account.name(resource.logical_id))
    client = account.client("cognito-idp").create_user_pool_client(**_numbers(wanted))["UserPoolClient"]
    return Created(client["ClientId"], {"ClientId": client["ClientId"], "Name": client["ClientName"]})


def user_pool_group(account: Account, resource: Resource) -> Created:
    """Make a group of a user pool."""
    resource.account_for(("Description", "GroupName", "Precedence", "RoleArn", "UserPoolId"))
    account.client("cognito-idp").create_group(**resource.properties)
    return Created(resource.properties["GroupName"])


MAKERS: dict[str, Maker] = {
    "AWS::IAM::ManagedPolicy": managed_policy,
    "AWS::IAM::Policy": policy,
    "AWS::IAM::Role": role,
    "AWS::Cognito::UserPool": user_pool,
    "AWS::Cognito::UserPoolClient": user_pool_client,
    "AWS::Cognito::UserPoolGroup": user_pool_group,
}
