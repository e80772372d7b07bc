"""What people chose for calls that are kept, as their agents tell it: in the index table, with the call.

| pk                     | sk                             | what                                                  |
|------------------------|--------------------------------|-------------------------------------------------------|
| `<tenant>#call#<call>` | `choice#<time>#<how>#<choice>` | a choice: who, when, how, and what became of the call |

They stay with the call's entry, whatever becomes of its recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.call_ledger import LIVE, MINE, call_pk
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain import pause_ledger
from dualtone.domain.agent_events import ClockOffset, DecisionEvent
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.usecases.decide_calls import DecisionOutcome
from dualtone.usecases.follow_calls import ToldChoice

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_CHOICES: Final = "choice#"


class CallChoices:
    """Reads and writes choices."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, audit: AuditOutbox) -> None:
        """Takes the client, the index table's name, and the outbox that joins each transaction."""
        self._table = Table(dynamodb, table)
        self._audit = audit

    def take(
        self, tenant: TenantId, agent: AgentId, told: DecisionEvent, *, clock: ClockOffset, event: AuditEvent
    ) -> bool:
        """Takes what an agent tells of a choice, with its event; False if it was told before.

        Raises:
            IntegrityError: If the call is another agent's.
        """
        pk = call_pk(tenant, CallId(told.call))
        row = {
            "pk": pk,
            "sk": f"{_CHOICES}{told.at_us:016d}#{told.how}#{told.choice}",
            "choice": told.choice,
            "how": told.how,
            "by": told.by,
            "at_ms": pause_ledger.true_ms(told.at_us, clock),
            "command": told.command,
            "outcome": told.outcome,
        }
        mine = self._table.transact_update(pk, LIVE, set_to={"agent_id": agent}, only_if=MINE, values={":agent": agent})
        try:
            self._table.transact(self._table.transact_put_new(row), mine, self._audit.transact_put(event))
        except ConditionFailed:
            known = self._table.get(pk, LIVE)
            if known is not None and known.get("agent_id", agent) != agent:
                raise IntegrityError("an agent speaks of another agent's call") from None
            return False
        return True

    def of_call(self, tenant: TenantId, call: CallId) -> list[ToldChoice]:
        """The choices that were made for a call, in the order of their times."""
        return [_choice(item) for item in self._table.partition(call_pk(tenant, call), _CHOICES)]

    def outcome(self, tenant: TenantId, call: CallId, command: str) -> DecisionOutcome | None:
        """What became of a decision of the cloud's for a call; None while its agent has not said."""
        rows = self._table.partition(call_pk(tenant, call), _CHOICES)
        return next((item["outcome"] for item in rows if item.get("command") == command), None)


def _choice(item: dict[str, Any]) -> ToldChoice:
    return ToldChoice(item["choice"], item["how"], item["by"], item["at_ms"], item["outcome"])
