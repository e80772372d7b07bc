"""Which calls there are, and by which match tokens commands find them: live ones, and ended ones that still lie here.

A call that has ended stays known until its spool is freed, because a command may come after the BYE: what it makes
silent is cut from the spool. Everything is kept in the agent's state, so that a later run knows it; only tokens and
sealed parties, nothing that names anybody (``domain.call_match``). Only the event loop uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from dualtone.domain import canonical
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Kept
from sbc_agent.runtime.agent_state import AgentState, Value
from sbc_agent.runtime.logs import Log

State = Literal["live", "ended", "spooled"]
Standing = Literal["recorded", "waiting", "on_demand", "not_recorded"]

KEPT_US: Final = 80 * 3_600_000_000
"""So long after its end a call can be found: longer than the cloud waits for calls that were interrupted."""


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A call as the control channel knows it; times are the agent's clock.

    Attributes:
        call: Its id.
        state: ``live``, ``ended`` while the ring drains, ``spooled`` when its manifest is on disk.
        started_us: When it was answered.
        ended_us: When its dialog ended; None while it lasts.
        revision: Grows with every change.
        tokens: What it can be found by.
        sealed: What officers see of it.
        causes: Why nothing is kept at this moment.
        policy: By which rule it is kept; not known of a call of an earlier run until it is told anew.
        standing: ``recorded``; ``waiting`` for a decision, sealed under a key that no disk has; ``on_demand`` while
            nothing of it is gathered until somebody keeps it; ``not_recorded`` by its rule or a decision. A later run
            does not know it: only calls that are recorded outlive this one.
        links: What every dialog of its call can be found by; a later run knows it when it is told anew.
    """

    call: CallId
    state: State
    started_us: int
    ended_us: int | None = None
    revision: int = 0
    tokens: frozenset[str] = frozenset()
    sealed: bytes = b""
    causes: tuple[str, ...] = ()
    standing: Standing = "recorded"
    policy: Kept | None = None
    links: frozenset[str] = frozenset()

    def overlaps(self, from_us: int, until_us: int | None) -> bool:
        """Whether a span of time has anything of the call; a span without an end lasts."""
        begins_in_time = self.ended_us is None or from_us <= self.ended_us
        return begins_in_time and (until_us is None or until_us >= self.started_us)


class LiveCalls:
    """The calls. A disk that refuses costs what a later run knows, never what this one does.

    Args:
        state: Where they are kept.
        log: Where a disk that refuses is told.
    """

    def __init__(self, state: AgentState, log: Log) -> None:
        self._state = state
        self._log = log
        self._calls: dict[CallId, KnownCall] = {}  # all but those whose manifest is on disk
        self._by_token: dict[str, set[CallId]] = {}
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Calls ``listener`` with the tokens of each call that changes, those it had and those it has."""
        self._listeners.append(listener)

    @property
    def live(self) -> list[CallId]:
        """The calls whose dialogs live, oldest first; any thread may ask."""
        return sorted(known.call for known in list(self._calls.values()) if known.state == "live")

    @property
    def recorded(self) -> list[CallId]:
        """Those of them that are being recorded, and may be spoken of outside the site."""
        live = (known for known in list(self._calls.values()) if known.state == "live")
        return sorted(known.call for known in live if known.standing == "recorded")

    def get(self, call: CallId) -> KnownCall | None:
        """A call, or None if it is not known (any more)."""
        return self._calls.get(call) or self._read("WHERE call = ?", (call,)).get(call)

    def put(self, known: KnownCall) -> KnownCall:
        """Keeps a call as it is now; returns it with its next revision."""
        known = replace(known, revision=known.revision + 1)
        tokens = known.tokens | self._drop(known.call)
        if known.state != "spooled":
            self._calls[known.call] = known
            for token in known.tokens:
                self._by_token.setdefault(token, set()).add(known.call)
        if known.standing == "recorded":
            self._keep(known)
        self._changed(tokens)
        return known

    def forget(self, call: CallId) -> None:
        """Nothing of a call is here any more."""
        tokens = self._drop(call)
        self._run([("DELETE FROM call WHERE call = ?", (call,))])
        self._changed(tokens)

    def forget_before(self, ended_us: int) -> None:
        """Forgets calls that ended before a time."""
        self._run([("DELETE FROM call WHERE ended_us < ? AND state = 'spooled'", (ended_us,))])

    def matching(self, token: str, from_us: int, until_us: int | None) -> list[KnownCall]:
        """The calls that have a token and anything of a span, oldest first."""
        found = {call: self._calls[call] for call in self._by_token.get(token, ())}
        kept = self._read("JOIN call_token USING (call) WHERE token = ? AND ended_us >= ?", (token, from_us))
        return [known for _, known in sorted((kept | found).items()) if known.overlaps(from_us, until_us)]

    def live_with(self, tokens: Iterable[str]) -> list[KnownCall]:
        """The live calls that have any of these tokens, oldest first."""
        calls = {call for token in tokens for call in self._by_token.get(token, ())}
        return [known for known in map(self._calls.__getitem__, sorted(calls)) if known.state == "live"]

    def inherited(self) -> list[KnownCall]:
        """Calls of an earlier run that were not at their end then."""
        return list(self._read("WHERE state != 'spooled'", ()).values())

    def _drop(self, call: CallId) -> frozenset[str]:
        """Takes a call out of memory; returns the tokens it had there."""
        old = self._calls.pop(call, None)
        tokens = old.tokens if old is not None else frozenset()
        for token in tokens:
            calls = self._by_token[token]
            calls.discard(call)
            if not calls:
                del self._by_token[token]
        return tokens

    def _changed(self, tokens: frozenset[str]) -> None:
        for listener in self._listeners:
            listener(tokens)

    def _keep(self, known: KnownCall) -> None:
        row: Collection[Value] = (
            known.call,
            known.state,
            known.started_us,
            known.ended_us,
            known.revision,
            known.sealed,
            canonical.encode(known.causes).decode(),
        )
        self._run(
            [
                ("INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(row)),
                *(("INSERT INTO call_token VALUES (?, ?)", (token, known.call)) for token in known.tokens),
            ]
        )

    def _run(self, statements: list[tuple[str, tuple[Value, ...]]]) -> None:
        try:
            self._state.run_all(statements)
        except Unavailable:
            self._log.error("call_not_kept")

    def _read(self, where: str, values: tuple[Value, ...]) -> dict[CallId, KnownCall]:
        columns = "call.call, state, started_us, ended_us, revision, sealed, causes"
        tokens = "(SELECT group_concat(token) FROM call_token AS own WHERE own.call = call.call)"
        try:
            rows = self._state.run(f"SELECT {columns}, {tokens} FROM call {where}", values)  # noqa: S608 - own words
        except Unavailable:
            self._log.error("calls_unread")
            return {}
        return {known.call: known for known in map(_known, rows)}


def _known(row: tuple[Value, ...]) -> KnownCall:
    call, state, started_us, ended_us, revision, sealed, causes, tokens = row
    return KnownCall(
        CallId(str(call)),
        state,  # type: ignore[arg-type]  # written from the same type
        int(started_us or 0),
        None if ended_us is None else int(ended_us),
        int(revision or 0),
        frozenset(str(tokens).split(",")) if tokens else frozenset(),
        bytes(sealed) if isinstance(sealed, bytes) else b"",
        tuple(canonical.decode(str(causes).encode())),
    )
