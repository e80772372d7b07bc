"""How agents are, by their own latest word: one item each, `<tenant>#agents` and the agent's id, in the index table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.agent_events import ClockOffset, HealthEvent
from dualtone.domain.ids import AgentId, TenantId
from dualtone.usecases.list_agents import AgentHealth

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class AgentHealthTable:
    """Reads and writes agents' health."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        """Takes the client and the index table's name."""
        self._table = Table(dynamodb, table)

    def take(
        self,
        tenant: TenantId,
        agent: AgentId,
        event: HealthEvent,
        *,
        sequence: int,
        clock: ClockOffset | None,
        now_ms: int,
    ) -> None:
        """Takes an agent's word; one that comes after a later one changes nothing."""
        changes: dict[str, Any] = {
            "sequence": sequence,
            "seen_at_ms": now_ms,
            "live_calls": len(event.live),
            "live": sorted(event.live),
            "spooled_calls": event.spool.calls,
            "spooled_bytes": event.spool.bytes,
            "free_bytes": event.spool.free_bytes,
            "alarms": dict(event.alarms),
            "version": event.version,
            "uplink_waiting_s": event.uplink_waiting_s,
            "clock_offset_us": clock.offset_us if clock is not None else None,
            "clock_uncertainty_us": clock.uncertainty_us if clock is not None else None,
            "not_recorded": dict(event.not_recorded),
        }
        try:
            self._table.update(
                f"{tenant}#agents",
                agent,
                set_to=changes,
                only_if="attribute_not_exists(#sequence) OR #sequence < :sequence",
                values={":sequence": sequence},
            )
        except ConditionFailed:
            return

    def of_tenant(self, tenant: TenantId) -> dict[AgentId, AgentHealth]:
        """Reads all agents' latest words; one that never said anything is missing."""
        return {AgentId(item["sk"]): _health(item) for item in self._table.partition(f"{tenant}#agents")}


def _health(item: dict[str, Any]) -> AgentHealth:
    known = "clock_offset_us" in item
    return AgentHealth(
        seen_at_ms=item["seen_at_ms"],
        live_calls=item["live_calls"],
        spooled_calls=item["spooled_calls"],
        spooled_bytes=item["spooled_bytes"],
        free_bytes=item["free_bytes"],
        alarms=item["alarms"],
        version=item["version"],
        uplink_waiting_s=item["uplink_waiting_s"],
        clock=ClockOffset(item["clock_offset_us"], item["clock_uncertainty_us"]) if known else None,
        not_recorded=item.get("not_recorded", {}),
    )
