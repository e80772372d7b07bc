"""Events that wait for the cloud: on disk until the queue has taken them, coalesced, bounded.

Acknowledgements, cuts and leases are kept, every one, so that the cloud's ledger is complete however long the uplink
was away. Of a call's state only the newest is kept. Where days without an uplink fill the box, states of calls that
are over go first: their recordings tell the rest. Health is not kept at all; it is asked for when it can be sent.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from dualtone.domain.agent_events import AckEvent, CallEvent, CutEvent, Event, LeaseEvent
from dualtone.domain.errors import Unavailable
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.logs import Log

MOST_EVENTS: Final = 200_000
_TRIM_EVERY: Final = 1_000
_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that waits, under the ordinal by which it is taken out, and how long it is as JSON."""

    ordinal: int
    event: Event
    size_bytes: int


class Outbox:
    """The events that wait. Any thread may use it.

    Args:
        state: Where they are kept.
        log: Where a disk that refuses is told.
        most: How many may wait before states of calls that are over are dropped.
    """

    def __init__(self, state: AgentState, log: Log, *, most: int = MOST_EVENTS) -> None:
        self._state = state
        self._log = log
        self._most = most
        self._puts = 0
        self._lock = threading.Lock()
        self._unkept: dict[str, Waiting] = {}  # what the disk refused, with ordinals below zero
        self._last_unkept = 0

    def put(self, event: Event) -> None:
        """Takes an event; an older one of the same thing gives way."""
        key = _key(event)
        body = _EVENT.dump_json(event)
        droppable = isinstance(event, CallEvent) and event.state != "live"
        try:
            with self._lock:
                self._unkept.pop(key, None)
            self._state.run(
                "INSERT OR REPLACE INTO event (key, droppable, body) VALUES (?, ?, ?)", (key, droppable, body)
            )
            self._trim()
        except Unavailable:
            self._log.error("event_not_kept")
            with self._lock:
                if len(self._unkept) < self._most:
                    self._last_unkept -= 1
                    self._unkept[key] = Waiting(self._last_unkept, event, len(body))

    def peek(self, most: int, most_bytes: int) -> list[Waiting]:
        """The oldest events, in order, as many as fit; at least one if any waits."""
        with self._lock:
            found = list(self._unkept.values())[:most]
        rows: Sequence[tuple[object, ...]] = ()
        try:
            rows = self._state.run("SELECT ordinal, body FROM event ORDER BY ordinal LIMIT ?", (most,))
        except Unavailable:
            self._log.error("events_unread")
        for ordinal, body in rows:
            assert isinstance(ordinal, int)
            assert isinstance(body, bytes)
            try:
                found.append(Waiting(ordinal, _EVENT.validate_json(body), len(body)))
            except ValidationError:  # of another version of this program
                self._log.error("event_unreadable")
                self.done([ordinal])
        fitting: list[Waiting] = []
        size = 0
        for waiting in found[:most]:
            size += waiting.size_bytes
            if fitting and size > most_bytes:
                break
            fitting.append(waiting)
        return fitting

    def done(self, ordinals: Sequence[int]) -> None:
        """The queue has taken these; one that was replaced meanwhile has another ordinal and stays."""
        gone = set(ordinals)
        with self._lock:
            self._unkept = {key: waiting for key, waiting in self._unkept.items() if waiting.ordinal not in gone}
        try:
            self._state.run_all([("DELETE FROM event WHERE ordinal = ?", (ordinal,)) for ordinal in ordinals])
        except Unavailable:
            self._log.error("events_undeleted")  # they are sent again, and harm nobody

    def waiting(self) -> int:
        """How many events wait; those alone that the disk refused, while it does not even read."""
        with self._lock:
            unkept = len(self._unkept)
        try:
            ((count,),) = self._state.run("SELECT count(*) FROM event")
        except Unavailable:
            return unkept
        assert isinstance(count, int)
        return unkept + count

    def _trim(self) -> None:
        self._puts += 1
        if self._puts % _TRIM_EVERY:
            return
        ((count,),) = self._state.run("SELECT count(*) FROM event")
        assert isinstance(count, int)
        if count > self._most:
            oldest = "SELECT ordinal FROM event WHERE droppable ORDER BY ordinal LIMIT ?"
            self._state.run(f"DELETE FROM event WHERE ordinal IN ({oldest})", (count - self._most,))  # noqa: S608 - own words


def _key(event: Event) -> str:
    """What an event tells of: a later one about the same replaces it."""
    if isinstance(event, CallEvent):
        return f"call {event.call}"
    if isinstance(event, AckEvent):
        # A repeated delivery may be answered `superseded`; that must not replace what the first one did.
        return f"ack {event.call} {event.command} {event.outcome}"
    if isinstance(event, CutEvent):
        return f"cut {event.call} {event.command}"
    if isinstance(event, LeaseEvent):
        return f"lease {event.call} {event.cause} {event.at_us}"
    return "health"
