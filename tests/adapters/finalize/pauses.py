"""Pauses as the API and the agents' events put them into the cloud's ledger."""

from __future__ import annotations

from typing import Any

from dualtone.adapters.attribute_values import to_item
from tests.adapters.finalize.cloud import INDEX, Cloud
from tests.call_samples import AGENT, ANSWERED_US, CALL, TENANT
from tests.pause_samples import at, command_id


def tell(cloud: Cloud, *commands: dict[str, Any], state: str = "spooled", call: str = CALL, **live: Any) -> None:
    """Writes a ledger as the API and the agents' events do, and raises its version."""
    key = to_item({"pk": f"{TENANT}#call#{call}", "sk": "live"})
    before = cloud.dynamodb.get_item(TableName=INDEX, Key=key).get("Item", {}).get("ledger_version", {"N": "0"})
    values = {
        "pk": f"{TENANT}#call#{call}",
        "sk": "live",
        "agent_id": AGENT,
        "state": state,
        "started_at_ms": ANSWERED_US // 1000,
        "ended_at_ms": None if state == "live" else at(12) // 1000,
        "ended_at_us": None if state == "live" else at(12),
        "revision": 3,
        "causes": [],
        "clock_offset_us": 0,
        "clock_uncertainty_us": 0,
        "ledger_version": int(before["N"]) + 1,
    }
    cloud.dynamodb.put_item(TableName=INDEX, Item=to_item(values | live))
    for command in commands:
        cloud.dynamodb.put_item(TableName=INDEX, Item=to_item({"pk": f"{TENANT}#call#{call}", **command}))


def command(
    from_s: float,
    to_s: float | None,
    *,
    number: int = 1,
    cause: str = "payment",
    outcome: str | None = "too_late",
    **more: Any,
) -> dict[str, Any]:
    """A pause in the ledger: the gap begins at ``from_s``, the agent acted when it was over."""
    return {
        "sk": f"cmd#cloud#{number:020d}",
        "command": command_id(number),
        "origin": "cloud",
        "number": number,
        "action": "pause",
        "cause": cause,
        "by": "endpoint:pay_1",
        "received_at_ms": at(to_s or 12) // 1000,
        "effective_at_ms": at(from_s + 0.25) // 1000,
        "until_ms": None if to_s is None else at(to_s) // 1000,
        "lease_s": 900,
        "on_expiry": "silent",
        "outcome": outcome,
        "from_us": at(from_s),
        "at_us": at(12.5),
        "silent_from": [],
    } | more
