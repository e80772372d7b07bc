"""A chain of recordings for each line: what is recorded says which recording of its line it is, and which came before.

A recording that never arrives, or that somebody made disappear, leaves a number that no recording has, and a successor
that names it. Lines are known by tokens (``domain.call_match``); only calls of lines that the recording policy names
are chained, and only when they are kept: of others nothing may be left. All dialogs of a line are links, a call that
two SBCs sent too. Only the event loop uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Final

from dualtone.domain import call_match
from dualtone.domain.call_match import MatchKind
from dualtone.domain.call_session import LineLink
from dualtone.domain.direction import Lines
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.recording_policy import RecordingPolicy
from dualtone.domain.recording_ruling import CallFacts
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.logs import Log

REMEMBERED: Final = 256
"""Links of a line among which a call is looked for that has its number already: so many do not last at once."""


class LineChain:
    """The chains.

    Args:
        state: Where they are kept.
        log: Where a disk that refuses is told; the call goes on without a number then.
        live_key: Yields the tenant's live key.
    """

    def __init__(self, state: AgentState, log: Log, live_key: Callable[[], bytes]) -> None:
        self._state, self._log, self._live_key = state, log, live_key

    def of_call(self, call: CallId, policy: RecordingPolicy | None, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The links of a call that is kept: one for each of its lines, the same whenever it is asked.

        Args:
            call: The call.
            policy: The policy that it is kept by; None where the tenant has none.
            facts: Of its SESSION record.

        Returns:
            ``asdict`` of ``LineLink``, in the order of the parties.
        """
        live_key = self._live_key()
        if policy is None or not live_key:
            return []
        own = _lines((*policy.lines, *(pattern for patterns in policy.groups.values() for pattern in patterns)))
        numbers = dict.fromkeys(party.number for party in CallFacts.of_session(facts, 0).parties)
        tokens = [
            call_match.token(live_key, MatchKind.EXTENSION, number)
            for number in numbers
            if number is not None and own.include(number)
        ]
        try:
            return [asdict(self._link(token, call)) for token in tokens]
        except Unavailable as error:
            self._log.failure("line_chain_not_kept", error, call=call)
            return []

    def _link(self, line: str, call: CallId) -> LineLink:
        rows = self._state.run(
            "SELECT sequence, call FROM line_chain WHERE line = ? ORDER BY sequence DESC LIMIT ?",
            (line, REMEMBERED + 1),
        )
        links = [(int(sequence or 0), str(other)) for sequence, other in rows]
        for place, (sequence, other) in enumerate(links):
            if other == call:
                return LineLink(line, sequence, links[place + 1][1] if place + 1 < len(links) else "")
        sequence = links[0][0] + 1 if links else 1
        self._state.run_all(
            [
                ("INSERT INTO line_chain VALUES (?, ?, ?)", (line, sequence, call)),
                ("DELETE FROM line_chain WHERE line = ? AND sequence < ?", (line, sequence - REMEMBERED)),
            ]
        )
        return LineLink(line, sequence, links[0][1] if links else "")


@lru_cache(16)
def _lines(patterns: tuple[str, ...]) -> Lines:
    return Lines.parse(patterns)
