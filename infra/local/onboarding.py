"""Two tenants, as onboarding would leave them: app client and its binding, configuration, group, a person per role."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from boto3.dynamodb.types import TypeSerializer

from dualtone.domain.ids import TenantId
from dualtone.usecases.authenticate import members_of

ROLES = ("administrator", "officer")
_TOKEN_HOURS = 24  # the longest that Cognito allows: a local cloud may run all day


class Clients(Protocol):
    """Makes boto3 clients of the account that the template was deployed to."""

    def client(self, service: str) -> Any:
        """Return the client of a service."""


class Deployed(Protocol):
    """The template, deployed: here or in the second emulator."""

    @property
    def account(self) -> Clients:
        """Where."""

    def ref(self, logical_id: str) -> str:
        """Return the physical id of a resource."""


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """What a tenant is to be.

    Attributes:
        tenant: its id.
        name: for people.
        lines: its own numbers; a trailing asterisk stands for any ending.
        retention_days: how long recordings are locked.
    """

    tenant: str
    name: str
    lines: tuple[str, ...]
    retention_days: int


PLANS = (
    TenantPlan("acme", "Acme Brokers", ("+4420*", "+44123*"), 365),
    TenantPlan("globex", "Globex Bank", ("+1212*",), 365),
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant that was onboarded.

    Attributes:
        tenant: its id.
        client_id: its app client.
        tokens: an access token per role.
    """

    tenant: str
    client_id: str
    tokens: Mapping[str, str]


def onboard(stack: Deployed, plan: TenantPlan) -> Tenant:
    """Make a tenant in the stack's user pool and directory.

    Args:
        stack: the applied template.
        plan: what to make.

    Returns:
        The tenant, with a fresh access token for the one person in each role.
    """
    cognito, pool_id = stack.account.client("cognito-idp"), stack.ref("UserPool")
    client_id = cognito.create_user_pool_client(
        UserPoolId=pool_id,
        ClientName=f"tenant-{plan.tenant}",
        ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        PreventUserExistenceErrors="ENABLED",
        AccessTokenValidity=_TOKEN_HOURS,
        IdTokenValidity=_TOKEN_HOURS,
        TokenValidityUnits={"AccessToken": "hours", "IdToken": "hours"},
    )["UserPoolClient"]["ClientId"]
    _bind(stack, plan, client_id)
    members = members_of(TenantId(plan.tenant))
    cognito.create_group(UserPoolId=pool_id, GroupName=members, Description=f"People of {plan.name}")
    tokens = {
        role: _person(cognito, pool_id, client_id, f"{plan.tenant}-{role}", groups=(role, members)) for role in ROLES
    }
    return Tenant(plan.tenant, client_id, tokens)


def _bind(stack: Deployed, plan: TenantPlan, client_id: str) -> None:
    """Write the tenant's configuration and the server-side binding of its app client."""
    dynamodb, table = stack.account.client("dynamodb"), stack.ref("DirectoryTable")
    configuration = {
        "pk": f"tenant#{plan.tenant}",
        "sk": "config",
        "name": plan.name,
        "lines": list(plan.lines),
        "retention_days": plan.retention_days,
    }
    binding = {"pk": f"binding#{client_id}", "sk": "binding", "tenant": plan.tenant}
    serialize = TypeSerializer().serialize
    for item in (configuration, binding):
        dynamodb.put_item(
            TableName=table,
            Item={name: serialize(value) for name, value in item.items()},
            ConditionExpression="attribute_not_exists(pk)",
        )


def _person(cognito: Any, pool_id: str, client_id: str, username: str, *, groups: tuple[str, ...]) -> str:
    """Make a person in groups and return their access token; nobody keeps the password."""
    password = f"aA1!{secrets.token_urlsafe(24)}"
    cognito.admin_create_user(
        UserPoolId=pool_id,
        Username=username,
        MessageAction="SUPPRESS",
        TemporaryPassword=password,  # one that is left to ministack does not conform to the pool's policy
        UserAttributes=[
            {"Name": "email", "Value": f"{username}@example.com"},
            {"Name": "email_verified", "Value": "true"},
        ],
    )
    cognito.admin_set_user_password(UserPoolId=pool_id, Username=username, Password=password, Permanent=True)
    for group in groups:
        cognito.admin_add_user_to_group(UserPoolId=pool_id, Username=username, GroupName=group)
    answer = cognito.admin_initiate_auth(
        UserPoolId=pool_id,
        ClientId=client_id,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": username, "PASSWORD": password},
    )
    token: str = answer["AuthenticationResult"]["AccessToken"]
    return token
