"""What the engine must know of the agent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dualtone.domain.ids import AgentId, TenantId


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine must know of the agent.

    Attributes:
        tenant: Owner of the calls.
        agent: This agent.
        version: Of its software.
        spool_dir: Where calls' directories are made.
        hold_back_us: How long packets stay in the ring.
        tick_us: Time between ticks.
        part_us: The longest time that a part covers.
    """

    tenant: TenantId
    agent: AgentId
    version: str
    spool_dir: Path
    hold_back_us: int
    tick_us: int
    part_us: int
