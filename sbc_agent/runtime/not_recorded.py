"""How many calls were not recorded, by rule of the policy: all that is left of them, counted over all runs."""

from __future__ import annotations

from dualtone.domain.agent_events import MOST_COUNTED
from dualtone.domain.errors import Unavailable
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.logs import Log


class NotRecorded:
    """The counters. Only the event loop counts; any thread may ask.

    Args:
        state: Where they are kept.
        log: Where a disk that refuses is told.
    """

    def __init__(self, state: AgentState, log: Log) -> None:
        self._state, self._log = state, log
        self._counts: dict[str, int] = {}
        try:
            rows = state.run("SELECT rule, calls FROM not_recorded")
        except Unavailable as error:
            log.failure("counters_unread", error)
        else:
            self._counts = {str(rule): int(calls or 0) for rule, calls in rows}

    @property
    def counts(self) -> dict[str, int]:
        """Calls by id of the rule; of very many rules those that count most."""
        counts = dict(self._counts)
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_COUNTED])

    def add(self, rule_id: str) -> None:
        """A call of a rule was not recorded."""
        self._counts[rule_id] = count = self._counts.get(rule_id, 0) + 1
        try:
            self._state.run("INSERT OR REPLACE INTO not_recorded VALUES (?, ?)", (rule_id, count))
        except Unavailable as error:
            self._log.failure("counter_not_kept", error)
