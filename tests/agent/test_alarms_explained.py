"""Whoever is woken by an alarm finds in the documentation what it means and what to do."""

from __future__ import annotations

import ast
from pathlib import Path

AGENT = Path(__file__).parents[2] / "sbc_agent"
ALARMS = {"error", "failure"}


def _alarms(path: Path) -> set[str]:
    """The events that a module writes at level error: ``log.error("...")``, ``self._log.failure("...", error)``."""
    calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ALARMS
        and ast.unparse(call.func.value).rpartition(".")[2] in {"log", "_log"}
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_every_alarm_is_explained() -> None:
    """A row of the table of events, by its name."""
    rows = [line for line in (AGENT / "docs" / "README.md").read_text().splitlines() if line.startswith("| `")]
    explained = " ".join(row.split(" | ")[0] for row in rows)
    found = {event for path in AGENT.rglob("*.py") for event in _alarms(path)}
    assert len(found) > 30
    assert [event for event in sorted(found) if f"`{event}`" not in explained] == []
