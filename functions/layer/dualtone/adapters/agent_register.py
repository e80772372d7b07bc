"""How agents come into the directory and use it: invitations, enrolments, spent assertions (keys: see `directory`).

Each change is one transaction with its audit event: there is no agent that nobody is known to have invited.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.agent_assertion import Assertion
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.errors import NotFound, PolicyViolation
from dualtone.domain.ids import AgentId, TenantId, parse_agent_id, parse_tenant_id
from dualtone.domain.tenancy import Agent, AgentState
from dualtone.usecases.enrol_agent import IssuedCode, NewAgent

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOST_RETIRED_KEYS: Final = 8
"""Two years of them, at a key a quarter: no spool is as old."""


class AgentRegister:
    """Changes the directory's entries of agents."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, outbox: AuditOutbox) -> None:
        """Takes the client, the directory table's name, and the outbox that joins each transaction."""
        self._table = Table(dynamodb, table)
        self._outbox = outbox

    def invite(
        self, tenant: TenantId, agent: AgentId, *, name: str, code_sha256: str, expires_at_ms: int, event: AuditEvent
    ) -> None:
        """Writes a pending agent, its one-time code and the event, all or none.

        Args:
            tenant: Whose agent it will be.
            agent: Its new id.
            name: What people call it.
            code_sha256: Hash of the code, hexadecimal.
            expires_at_ms: When the code ends.
            event: What the administrator did.
        """
        whose = {"tenant": tenant, "agent_id": agent}
        entry = {"pk": f"tenant#{tenant}", "sk": f"agent#{agent}", **whose, "name": name, "state": AgentState.PENDING}
        code = {"pk": f"enrol#{code_sha256}", "sk": "code", **whose, "expires_at_ms": expires_at_ms, "used": False}
        self._table.transact(
            self._table.transact_put_new(entry),
            self._table.transact_put_new({"pk": f"agent#{agent}", "sk": "agent", **whose}),
            self._table.transact_put_new(code),
            self._outbox.transact_put(event),
        )

    def code(self, code_sha256: str) -> IssuedCode:
        """Reads what a code was issued for and whether it is spent; raises NotFound."""
        item = self._table.get(f"enrol#{code_sha256}", "code")
        if item is None:
            raise NotFound("no such enrolment code")
        return IssuedCode(
            parse_tenant_id(item["tenant"]), parse_agent_id(item["agent_id"]), item["expires_at_ms"], item["used"]
        )

    def enrol(self, agent: NewAgent, *, code_sha256: str, now_ms: int, event: AuditEvent) -> None:
        """Spends a code, makes its agent active and writes the event, all or none.

        Raises:
            NotFound: If the code was spent or has ended meanwhile, or the agent is no longer pending.
        """
        spend = self._table.transact_update(
            f"enrol#{code_sha256}",
            "code",
            set_to={"used": True, "used_at_ms": now_ms},
            only_if="#used = :no AND #expires_at_ms > :now",
            values={":no": False, ":now": now_ms},
        )
        activate = self._table.transact_update(
            f"tenant#{agent.tenant}",
            f"agent#{agent.agent_id}",
            set_to={
                "state": AgentState.ACTIVE,
                "public_key": agent.public_key_pem,
                "command_queue_url": agent.command_queue_url,
                "reported_name": agent.reported_name,
                "enrolled_at_ms": now_ms,
            },
            only_if="#state = :pending",
            values={":pending": AgentState.PENDING},
        )
        try:
            self._table.transact(spend, activate, self._outbox.transact_put(event))
        except ConditionFailed as error:
            raise NotFound("no such enrolment code") from error

    def revoke(self, tenant: TenantId, agent: AgentId, *, now_ms: int, event: AuditEvent) -> None:
        """Revokes an agent for good, invited or active, and writes the event, both or none.

        One that is revoked already stays as it is; the event is written all the same.
        """
        revoke = self._table.transact_update(
            f"tenant#{tenant}",
            f"agent#{agent}",
            set_to={"state": AgentState.REVOKED, "revoked_at_ms": now_ms},
            only_if="#state IN (:pending, :active)",
            values={":pending": AgentState.PENDING, ":active": AgentState.ACTIVE},
        )
        try:
            self._table.transact(revoke, self._outbox.transact_put(event))
        except ConditionFailed:
            self._outbox.write(event)

    def rotate(self, agent: Agent, new_key_pem: str, spent: Assertion, *, now_ms: int, event: AuditEvent) -> None:
        """Gives an agent its next key, retires the one it has, spends the assertion and writes the event, all or none.

        Args:
            agent: As it was read: if its key is another one meanwhile, nothing happens.
            new_key_pem: The next key.
            spent: What the present key signed.
            now_ms: The time.
            event: What the agent did.

        Raises:
            PolicyViolation: If the assertion was used before, or the agent is not as it was read.
        """
        retired = [agent.active_key(), *agent.retired_keys_pem][:MOST_RETIRED_KEYS]
        rotate = self._table.transact_update(
            f"tenant#{agent.tenant}",
            f"agent#{agent.agent_id}",
            set_to={"public_key": new_key_pem, "retired_keys": retired, "key_rotated_at_ms": now_ms},
            only_if="#public_key = :old AND #state = :active",
            values={":old": agent.active_key(), ":active": AgentState.ACTIVE},
        )
        jti = self._table.transact_put_new(_spent(agent.agent_id, spent.jti, spent.expires_at_s))
        try:
            self._table.transact(rotate, jti, self._outbox.transact_put(event))
        except ConditionFailed as error:
            raise PolicyViolation("this assertion was used before, or the agent's key is another one") from error

    def spend_assertion(self, agent: AgentId, jti: str, expires_at_s: int, *, event: AuditEvent) -> None:
        """Remembers that an assertion was used until it could not be used anyway, and writes the event, both or none.

        Args:
            agent: Who signed it.
            jti: Its id; only its hash is stored.
            expires_at_s: Unix time in seconds after which DynamoDB may forget it.
            event: What the agent did.

        Raises:
            PolicyViolation: If it was used before.
        """
        spent = self._table.transact_put_new(_spent(agent, jti, expires_at_s))
        try:
            self._table.transact(spent, self._outbox.transact_put(event))
        except ConditionFailed as error:
            raise PolicyViolation("this assertion was used before") from error


def _spent(agent: AgentId, jti: str, expires_at_s: int) -> dict[str, object]:
    digest = hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()
    return {"pk": f"jti#{agent}#{digest}", "sk": "jti", "expires_at_s": expires_at_s}
