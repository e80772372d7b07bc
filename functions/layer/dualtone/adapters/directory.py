"""The directory table: tenants, the app clients bound to them, and their agents.

| pk                   | sk              | what                                                        |
|----------------------|-----------------|-------------------------------------------------------------|
| `tenant#<tenant>`    | `config`        | name, lines, retention                                      |
| `tenant#<tenant>`    | `agent#<agent>` | an agent                                                    |
| `tenant#<tenant>`    | `payment-e...`  | a payment endpoint: see `payment_endpoints`                 |
| `agent#<agent>`      | `agent`         | whose agent that is: the only way from an agent to a tenant |
| `binding#<client>`   | `binding`       | whose people sign in through that app client                |
| `enrol#<sha256>`     | `code`          | a one-time code, as its hash                                |
| `jti#<agent>#<hash>` | `jti`           | an assertion that was used; TTL removes it after its expiry |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualtone.adapters.table import Table
from dualtone.domain.call_command import DEFAULT_LEASE_S
from dualtone.domain.errors import NotFound
from dualtone.domain.ids import AgentId, TenantId, parse_tenant_id
from dualtone.domain.tenancy import DEFAULT_RETENTION_DAYS, Agent, AgentState, TenantProfile

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Directory:
    """Reads the directory. Every read is consistent: a revoked agent is revoked at once."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        """Takes the client and the table's name."""
        self._table = Table(dynamodb, table)

    def tenant_of_client(self, client_id: str) -> TenantId:
        """Tells to which tenant an app client was bound at onboarding; raises NotFound."""
        return parse_tenant_id(self._entry(f"binding#{client_id}", "binding")["tenant"])

    def tenant_of_agent(self, agent: AgentId) -> TenantId:
        """Tells whose agent that is; raises NotFound."""
        return parse_tenant_id(self._entry(f"agent#{agent}", "agent")["tenant"])

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads what is configured for a tenant; raises NotFound."""
        item = self._entry(f"tenant#{tenant}", "config")
        return TenantProfile(
            tenant=tenant,
            name=item.get("name", tenant),
            lines=tuple(item.get("lines", ())),
            retention_days=item.get("retention_days", DEFAULT_RETENTION_DAYS),
            ingest_key_arn=item.get("ingest_key_arn"),
            pause_lease_s=item.get("pause_lease_s", DEFAULT_LEASE_S),
            pause_on_expiry=item.get("pause_on_expiry", "silent"),
        )

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent of a tenant; raises NotFound, also if it is another tenant's."""
        return _agent(tenant, self._entry(f"tenant#{tenant}", f"agent#{agent}"))

    def agents(self, tenant: TenantId) -> list[Agent]:
        """Reads all agents of a tenant, in the order of their ids."""
        return [_agent(tenant, item) for item in self._table.partition(f"tenant#{tenant}", "agent#")]

    def _entry(self, pk: str, sk: str) -> dict[str, Any]:
        item = self._table.get(pk, sk)
        if item is None:
            raise NotFound("the directory has no such entry")
        return item


def _agent(tenant: TenantId, item: dict[str, Any]) -> Agent:
    return Agent(
        tenant=tenant,
        agent_id=AgentId(item["agent_id"]),
        name=item["name"],
        state=AgentState(item["state"]),
        public_key_pem=item.get("public_key"),
        command_queue_url=item.get("command_queue_url"),
        retired_keys_pem=tuple(item.get("retired_keys", ())),
    )
