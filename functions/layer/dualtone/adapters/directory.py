"""The directory table: tenants, the app clients bound to them, and their agents.

| pk                   | sk              | what                                                        |
|----------------------|-----------------|-------------------------------------------------------------|
| `tenant#<tenant>`    | `config`        | name, lines, retention                                      |
| `tenant#<tenant>`    | `agent#<agent>` | an agent                                                    |
| `agent#<agent>`      | `agent`         | whose agent that is: the only way from an agent to a tenant |
| `binding#<client>`   | `binding`       | whose people sign in through that app client                |
| `enrol#<sha256>`     | `code`          | a one-time code, as its hash                                |
| `jti#<agent>#<hash>` | `jti`           | an assertion that was used; TTL removes it after its expiry |
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.errors import NotFound, PolicyViolation
from dualtone.domain.ids import AgentId, TenantId, parse_agent_id, parse_tenant_id
from dualtone.domain.tenancy import DEFAULT_RETENTION_DAYS, Agent, AgentState, TenantProfile

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


class Directory:
    """Reads and changes the directory. Every read is consistent: a revoked agent is revoked at once."""

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
        )

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent of a tenant; raises NotFound, also if it is another tenant's."""
        item = self._entry(f"tenant#{tenant}", f"agent#{agent}")
        return Agent(
            tenant=tenant,
            agent_id=agent,
            name=item["name"],
            state=AgentState(item["state"]),
            public_key_pem=item.get("public_key"),
            command_queue_url=item.get("command_queue_url"),
        )

    def invite(
        self,
        tenant: TenantId,
        agent: AgentId,
        *,
        name: str,
        code_sha256: str,
        expires_at_ms: int,
        also: TransactWriteItemTypeDef,
    ) -> None:
        """Writes a pending agent and its one-time code in one transaction.

        Args:
            tenant: Whose agent it will be.
            agent: Its new id.
            name: What people call it.
            code_sha256: Hash of the code, hexadecimal.
            expires_at_ms: When the code ends.
            also: A further write of the same transaction: the audit event.
        """
        whose = {"tenant": tenant, "agent_id": agent}
        code = {**whose, "expires_at_ms": expires_at_ms, "used": False}
        self._table.transact(
            self._table.transact_put_new(
                {"pk": f"tenant#{tenant}", "sk": f"agent#{agent}", **whose, "name": name, "state": AgentState.PENDING}
            ),
            self._table.transact_put_new({"pk": f"agent#{agent}", "sk": "agent", **whose}),
            self._table.transact_put_new({"pk": f"enrol#{code_sha256}", "sk": "code", **code}),
            also,
        )

    def invited(self, code_sha256: str, now_ms: int) -> tuple[TenantId, AgentId]:
        """Tells whom a code invites; raises NotFound alike for an unknown, an expired and a used one."""
        item = self._entry(f"enrol#{code_sha256}", "code")
        if item["used"] or item["expires_at_ms"] <= now_ms:
            raise NotFound("no such enrolment code")
        return parse_tenant_id(item["tenant"]), parse_agent_id(item["agent_id"])

    def enrol(
        self,
        enrolled: Agent,
        *,
        code_sha256: str,
        reported_name: str | None,
        now_ms: int,
        also: TransactWriteItemTypeDef,
    ) -> None:
        """Spends a code and makes its agent active, in one transaction.

        Args:
            enrolled: The agent as it becomes, with key and queue.
            code_sha256: Hash of the code.
            reported_name: What the machine calls itself.
            now_ms: The current time.
            also: A further write of the same transaction: the audit event.

        Raises:
            NotFound: If the code was spent, has ended, or the agent is no longer pending.
        """
        spend = self._table.transact_update(
            f"enrol#{code_sha256}",
            "code",
            set_to={"used": True, "used_at_ms": now_ms},
            only_if="#used = :no AND #expires_at_ms > :now",
            values={":no": False, ":now": now_ms},
        )
        activate = self._table.transact_update(
            f"tenant#{enrolled.tenant}",
            f"agent#{enrolled.agent_id}",
            set_to={
                "state": AgentState.ACTIVE,
                "public_key": enrolled.public_key_pem,
                "command_queue_url": enrolled.command_queue_url,
                "enrolled_at_ms": now_ms,
                "reported_name": reported_name or enrolled.name,
            },
            only_if="#state = :pending",
            values={":pending": AgentState.PENDING},
        )
        try:
            self._table.transact(spend, activate, also)
        except ConditionFailed as error:
            raise NotFound("no such enrolment code") from error

    def spend_assertion(self, agent: AgentId, jti: str, expires_at_s: int) -> None:
        """Remembers that an assertion was used, until it could not be used anyway.

        Args:
            agent: Who signed it.
            jti: Its id; only its hash is stored.
            expires_at_s: Unix time in seconds after which DynamoDB may forget it.

        Raises:
            PolicyViolation: If it was used before.
        """
        digest = hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            self._table.put_new({"pk": f"jti#{agent}#{digest}", "sk": "jti", "expires_at_s": expires_at_s})
        except ConditionFailed as error:
            raise PolicyViolation("this assertion was used before") from error

    def _entry(self, pk: str, sk: str) -> dict[str, Any]:
        item = self._table.get(pk, sk)
        if item is None:
            raise NotFound("the directory has no such entry")
        return item
