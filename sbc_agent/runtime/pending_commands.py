"""Commands for calls that are not known yet: a pause waits, a resume takes it away, in whatever order they come.

A payment page may be opened before the call reaches the agent. A pause by match token that finds no call is kept for
``PENDING_S`` and applied to every call that begins, or becomes known, with that token. Of each token, origin and cause
only the command with the highest number counts, and a resume is kept as well, so that a pause which it overtook does
not come back. Kept in the agent's state; times are the agent's clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Final

from pydantic import TypeAdapter, ValidationError

from dualtone.domain import canonical
from dualtone.domain.call_command import PENDING_S
from dualtone.domain.errors import Unavailable
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.orders import Order

_ORDER: Final = TypeAdapter(Order)


class PendingCommands:
    """The commands that wait.

    Args:
        state: Where they are kept.
        log: Where a disk that refuses is told.
    """

    def __init__(self, state: AgentState, log: Log) -> None:
        self._state = state
        self._log = log
        self._waiting: dict[tuple[str, str, str], tuple[int, Order]] = {}
        self._recall()

    def put(self, token: str, order: Order) -> bool:
        """Keeps a command that found no call; returns whether it counts, as no higher number of its kind is known."""
        self._expire(order.received_us)
        key = (token, order.origin, order.cause)
        known = self._waiting.get(key)
        if known is not None and known[1].number >= order.number:
            return known[1].number == order.number
        expires_us = order.received_us + PENDING_S * 1_000_000
        self._waiting[key] = (expires_us, order)
        self._run(
            "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?)",
            (*key, order.number, expires_us, canonical.encode(asdict(order))),
        )
        return True

    def pauses(self, tokens: Collection[str], now_us: int) -> list[Order]:
        """The pauses that wait for a call with these tokens, lowest number first, each once."""
        self._expire(now_us)
        found = {
            order.command: order
            for (token, _, _), (_, order) in self._waiting.items()
            if token in tokens and order.action == "pause"
        }
        return sorted(found.values(), key=lambda order: order.number)

    def _expire(self, now_us: int) -> None:
        gone = [key for key, (expires_us, _) in self._waiting.items() if expires_us < now_us]
        for key in gone:
            del self._waiting[key]
        if gone:
            self._run("DELETE FROM pending WHERE expires_us < ?", (now_us,))

    def _run(self, sql: str, values: tuple[int | str | bytes, ...]) -> None:
        try:
            self._state.run(sql, values)
        except Unavailable:
            self._log.error("pending_not_kept")

    def _recall(self) -> None:
        try:
            rows = self._state.run("SELECT token, origin, cause, expires_us, body FROM pending")
        except Unavailable:
            return
        for token, origin, cause, expires_us, body in rows:
            try:
                order = _ORDER.validate_json(body if isinstance(body, bytes) else b"")
            except ValidationError:  # of another version of this program
                continue
            self._waiting[str(token), str(origin), str(cause)] = (int(expires_us or 0), order)
