"""State files of tests, closed when the test is over: runs that are killed do not close theirs."""

from __future__ import annotations

from pathlib import Path

from sbc_agent.runtime.agent_state import STATE_FILE, AgentState

OPEN: list[AgentState] = []


def opened(directory: Path) -> AgentState:
    """A state file in a directory."""
    state = AgentState(directory / STATE_FILE)
    OPEN.append(state)
    return state


def close_all() -> None:
    """Closes what tests opened."""
    while OPEN:
        OPEN.pop().close()
