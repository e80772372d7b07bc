"""Which webhooks were received, and what they were answered: the same message twice has one effect and one answer.

REQ: Standard Webhooks specification 1.0: ``webhook-id`` is unique for a message and the same when it is sent again. A
message gets its command id and number when it is first received, and keeps them in the agent's state: one that was cut
off by a kill and comes again acts under its old number, so a resume that a newer pause has overtaken opens nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain import canonical
from dualtone.domain.errors import Unavailable
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.logs import Log

KEPT_MS: Final = 72 * 3_600_000
"""Longer than senders repeat a message."""
_MOST_IN_MEMORY: Final = 10_000

Stored = tuple[int, dict[str, object]]


@dataclass(slots=True)
class Receipt:
    """A message that was received.

    Attributes:
        body_sha256: Of its body.
        received_ms: When it came first, true time.
        number: The number of its command.
        command: The id of its command.
        answer: What it was answered, status and JSON object; None as long as it was not.
        turn: Held by whoever answers it.
    """

    body_sha256: bytes
    received_ms: int
    number: int
    command: str
    answer: Stored | None = field(default=None, repr=False)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


class OtherBody(Exception):  # noqa: N818 - what happened, in two words
    """This id was used for another body."""


class WebhookMemory:
    """Remembers messages. Only the event loop uses it.

    Args:
        state: Where it is kept.
        log: Where a disk that refuses is told.
    """

    def __init__(self, state: AgentState, log: Log) -> None:
        self._state = state
        self._log = log
        self._known: dict[tuple[str, str], Receipt] = {}

    def recall(self, endpoint: str, message_id: str, body: bytes) -> Receipt | None:
        """What is known of a message; None if it is new; raises OtherBody if its id is known with another body."""
        known = self._known.get((endpoint, message_id)) or self._read(endpoint, message_id)
        if known is not None and known.body_sha256 != hashlib.sha256(body).digest():
            raise OtherBody
        return known

    def note(
        self, endpoint: str, message_id: str, body: bytes, *, received_ms: int, number: int, command: str
    ) -> Receipt:
        """Notes a new message before it has any effect."""
        receipt = Receipt(hashlib.sha256(body).digest(), received_ms, number, command)
        if len(self._known) >= _MOST_IN_MEMORY:
            del self._known[next(iter(self._known))]
        self._known[endpoint, message_id] = receipt
        self._run(
            "INSERT OR REPLACE INTO webhook VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
            (endpoint, message_id, receipt.body_sha256, received_ms, number, command),
        )
        self._run("DELETE FROM webhook WHERE received_ms < ?", (received_ms - KEPT_MS,))
        return receipt

    def answered(
        self, endpoint: str, message_id: str, receipt: Receipt, status: int, answer: dict[str, object]
    ) -> None:
        """Keeps what a message was answered."""
        receipt.answer = (status, answer)
        self._run(
            "UPDATE webhook SET status = ?, answer = ? WHERE endpoint = ? AND id = ?",
            (status, canonical.encode(answer), endpoint, message_id),
        )

    def _read(self, endpoint: str, message_id: str) -> Receipt | None:
        columns = "body_sha256, received_ms, number, command, status, answer"
        sql = f"SELECT {columns} FROM webhook WHERE endpoint = ? AND id = ?"  # noqa: S608 - own words
        try:
            rows = self._state.run(sql, (endpoint, message_id))
        except Unavailable:
            self._log.error("webhooks_unread")
            return None
        for sha256, received_ms, number, command, status, answer in rows:
            assert isinstance(sha256, bytes)
            receipt = Receipt(sha256, int(received_ms or 0), int(number or 0), str(command))
            if isinstance(status, int) and isinstance(answer, bytes):
                receipt.answer = (status, canonical.decode(answer))
            return self._known.setdefault((endpoint, message_id), receipt)
        return None

    def _run(self, sql: str, values: tuple[int | str | bytes, ...]) -> None:
        try:
            self._state.run(sql, values)
        except Unavailable:
            self._log.error("webhook_not_kept")
