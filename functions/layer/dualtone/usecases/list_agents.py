"""List a tenant's agents, with their latest word about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.tenancy import Agent


@dataclass(frozen=True, slots=True)
class AgentHealth:
    """How an agent was when it last said so.

    Attributes:
        seen_at_ms: When we heard it.
        live_calls: How many calls it recorded.
        spooled_calls: How many calls waited on its disk.
        spooled_bytes: How large they were.
        free_bytes: Free on its disk.
        alarms: How often each kind of alarm was raised since it started.
        version: Of its software.
        uplink_waiting_s: Age of the oldest thing that waited to be sent.
        clock: How far its clock was off; None if it could not measure that.
        not_recorded: How many calls each rule of the policy has left unrecorded, over all runs.
    """

    seen_at_ms: int
    live_calls: int
    spooled_calls: int
    spooled_bytes: int
    free_bytes: int
    alarms: Mapping[str, int]
    version: str
    uplink_waiting_s: int
    clock: ClockOffset | None
    not_recorded: Mapping[str, int] = field(default_factory=dict)


class Directory(Protocol):
    """The directory of agents."""

    def agents(self, tenant: TenantId) -> list[Agent]:
        """Reads all agents of a tenant."""


class Health(Protocol):
    """Agents' health."""

    def of_tenant(self, tenant: TenantId) -> dict[AgentId, AgentHealth]:
        """Reads what agents last said of themselves."""


class ListAgents:
    """Lists agents."""

    def __init__(self, directory: Directory, health: Health) -> None:
        """Takes the directory, and what agents say of themselves."""
        self._directory = directory
        self._health = health

    def list(self, tenant: TenantId) -> list[tuple[Agent, AgentHealth | None]]:
        """Every agent by its id, invited ones included; None for one that never said anything."""
        health = self._health.of_tenant(tenant)
        return [(agent, health.get(agent.agent_id)) for agent in self._directory.agents(tenant)]
