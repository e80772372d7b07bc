"""Choices that outlive the dialog in which they were made, or come before it: by match token, kept over a restart.

A caller chooses in the queue, before anybody answers; later the call is transferred, which is another dialog for the
SBC. So a choice that finds no call waits for one with its token, for an hour; and a choice that a call was given is
inherited, for four hours, by every dialog that shares a link with it (``domain.call_match.links``: Call-IDs, UCIDs,
groups, never a party's number, which many calls share). What is kept is keyed hashes and opaque ids; nothing names
anybody. Only the event loop uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, cast

from dualtone.domain import call_match, call_session
from dualtone.domain.call_decision import PENDING_S
from dualtone.domain.errors import Unavailable
from dualtone.domain.recording_ruling import Choice
from sbc_agent.runtime.agent_state import AgentState, Value
from sbc_agent.runtime.logs import Log

PENDING_US: Final = 1_000_000 * PENDING_S
INHERITED_US: Final = 4 * 3_600_000_000
_NEAR_US: Final = 60_000_000
"""By so much a choice may be forgotten early: a call that is told anew does not write its choices anew each time."""
_KEEP: Final = "INSERT OR REPLACE INTO choice VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET: Final = (
    "DELETE FROM choice WHERE token = ? AND way = ? AND decision = ? AND cause = ? AND at_us = ? AND by = ?"
)
_Way = Literal["match", "link"]
_Key = tuple[str, _Way, Choice]


class Consents:
    """The choices.

    Args:
        state: Where they are kept.
        log: Where a disk that refuses is told.
        live_key: Yields the tenant's live key, empty while there is none: then no call is found.
    """

    def __init__(self, state: AgentState, log: Log, live_key: Callable[[], bytes]) -> None:
        self._state, self._log, self._live_key = state, log, live_key
        self._known: dict[str, dict[tuple[_Way, Choice], int]] = {}
        self._next_expiry_us = 0
        self._recall()

    def expect(self, token: str, choice: Choice) -> None:
        """A choice found no call: the next one with its token has it, within an hour."""
        self._put([(token, "match", choice)], choice.at_us + PENDING_US)

    def links(self, facts: Mapping[str, Any]) -> frozenset[str]:
        """What a call shares with the dialogs that inherit its choices; empty while there is no live key."""
        live_key = self._live_key()
        return frozenset(call_match.links(live_key, call_session.from_facts(facts)) if live_key else ())

    def link(self, links: Iterable[str], choices: Iterable[Choice], now_us: int) -> None:
        """A call has these choices: dialogs that share a link with it inherit them, within four hours."""
        inherited = [replace(choice, how="inherited") for choice in choices]
        self._put([(token, "link", choice) for token in links for choice in inherited], now_us + INHERITED_US)

    def of_call(self, facts: Mapping[str, Any], now_us: int) -> list[Choice]:
        """The choices for a call, each once: those that waited for it, which nobody else gets, and inherited ones."""
        live_key = self._live_key()
        self._expire(now_us)
        if not (self._known and live_key):
            return []
        found: dict[Choice, None] = {}
        for token in call_match.of_session(live_key, facts):
            for way, choice in list(self._known.get(token, ())):
                if way == "match":
                    found[choice] = None
                    self._drop(token, way, choice)
        for token in call_match.links(live_key, call_session.from_facts(facts)):
            found |= dict.fromkeys(choice for way, choice in self._known.get(token, ()) if way == "link")
        return list(found)

    def _put(self, keys: Iterable[_Key], expires_us: int) -> None:
        """Keeps choices; one that is kept for about as long already is not written again."""
        late_us = expires_us - _NEAR_US
        new = [(token, way, choice) for token, way, choice in keys if self._expiry_us(token, way, choice) < late_us]
        for token, way, choice in new:
            self._known.setdefault(token, {})[way, choice] = expires_us
        if new:
            self._next_expiry_us = min(self._next_expiry_us or expires_us, expires_us)
            self._run([(_KEEP, _row(token, way, choice, expires_us)) for token, way, choice in new])

    def _expiry_us(self, token: str, way: _Way, choice: Choice) -> int:
        return self._known.get(token, {}).get((way, choice), 0)

    def _drop(self, token: str, way: _Way, choice: Choice) -> None:
        del self._known[token][way, choice]
        if not self._known[token]:
            del self._known[token]
        key = (token, way, choice.decision, choice.cause, choice.at_us, choice.by)
        self._run([(_FORGET, key)])

    def _expire(self, now_us: int) -> None:
        if now_us <= self._next_expiry_us:
            return
        gone = [
            (token, way, choice)
            for token, choices in self._known.items()
            for (way, choice), expires_us in choices.items()
            if expires_us < now_us
        ]
        for token, way, choice in gone:
            self._drop(token, way, choice)
        left = (expires_us for choices in self._known.values() for expires_us in choices.values())
        self._next_expiry_us = min(left, default=0)

    def _run(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> None:
        try:
            self._state.run_all(statements)
        except Unavailable:
            self._log.error("choice_not_kept")

    def _recall(self) -> None:
        try:
            rows = self._state.run("SELECT token, way, decision, cause, how, at_us, by, expires_us FROM choice")
        except Unavailable:
            self._log.error("choices_unread")
            return
        for token, way, decision, cause, how, at_us, by, expires_us in rows:
            choice = Choice(
                cast("Any", decision), cast("Any", cause), cast("Any", how), int(at_us or 0), str(by)
            )  # written from the same type
            self._known.setdefault(str(token), {})[cast("_Way", way), choice] = int(expires_us or 0)


def _row(token: str, way: _Way, choice: Choice, expires_us: int) -> tuple[Value, ...]:
    return token, way, choice.decision, choice.cause, choice.how, choice.at_us, choice.by, expires_us
