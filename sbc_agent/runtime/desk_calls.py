"""What a desk sees and does: its own live calls, and nothing else. Works without an uplink.

A call is a desk's own if one of its lines takes part, by the same match tokens that webhooks find calls by
(``domain.call_match``). What a desk does goes the ways that everybody else's orders go: pauses through ``LanOrders``,
decisions through the control.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from dualtone.domain import call_match, pause_ledger
from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.errors import DualtoneError, NotFound, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.runtime import lan_bodies
from sbc_agent.runtime.desks import Desk
from sbc_agent.runtime.lan_bodies import Answer, Pause, Resume
from sbc_agent.runtime.live_calls import KnownCall, LiveCalls

OK: Final = 200
LONGEST_WAIT_S: Final = 25.0
"""So long a watcher waits for news at most: proxies end what is silent for half a minute."""
MOST_WATCHERS: Final = 256
_TAG_CHARACTERS: Final = 16

Verb = Literal["pause", "resume", "keep", "personal"]
DeskState = Literal["recording", "paused", "waiting", "not_recorded"]
DecisionCause = Literal["consent", "personal", "on_demand"]
Decision = Literal["kept", "discarded", "stopped", "unknown"]


class NoLiveCall(NotFound):
    """No call is live on the desk's lines, or not the one that was named."""


class SeveralLiveCalls(DualtoneError):  # noqa: N818 - what happened, in three words
    """The desk has several live calls, and which is meant was not said.

    Attributes:
        calls: Their ids.
    """

    def __init__(self, calls: tuple[CallId, ...]) -> None:
        super().__init__(f"{len(calls)} calls are live on this desk's lines: say which by call_id")
        self.calls = calls


class Orders(Protocol):
    """Pauses and resumes of one call: ``lan_orders.LanOrders``."""

    async def order_call(self, call_id: str, body: Pause | Resume, by: str) -> Answer:
        """Carries one out and says what became of it."""


class Decisions(Protocol):
    """What becomes of calls that wait for a decision: ``control.Control``."""

    async def decide(self, call: CallId, *, keep: bool, cause: DecisionCause, by: str) -> Decision:
        """Keeps a call, forgets it, or, if something of it is kept already, keeps nothing more.

        Raises:
            PolicyViolation: In a sentence for people, if the line's rule does not allow it.
            Unavailable: If the media process has ended or does not answer.
        """


def state_of(known: KnownCall) -> DeskState:
    """What a person at the desk wants to know of a call."""
    if known.standing == "not_recorded":
        return "not_recorded"
    if known.causes:
        return "paused"
    return "recording" if known.standing == "recorded" else "waiting"


class DeskCalls:
    """The calls of desks.

    Args:
        orders: Carries pauses out.
        decisions: Carries decisions out.
        calls: The calls.
        live_key: Yields the tenant's live key, empty while there is none.
        offset: Yields how far the agent's clock is off.
        most_watchers: How many may wait for news at once.
    """

    def __init__(
        self,
        *,
        orders: Orders,
        decisions: Decisions,
        calls: LiveCalls,
        live_key: Callable[[], bytes],
        offset: Callable[[], ClockOffset],
        most_watchers: int = MOST_WATCHERS,
    ) -> None:
        self._orders = orders
        self._decisions = decisions
        self._calls = calls
        self._live_key = live_key
        self._offset = offset
        self._most_watchers = most_watchers
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._watching = 0
        calls.subscribe(self._changed)

    @property
    def watching(self) -> int:
        """How many watchers wait for news."""
        return self._watching

    def live(self, desk: Desk) -> list[KnownCall]:
        """The desk's live calls, oldest first; raises Unavailable while the cloud has told no live key."""
        return self._calls.live_with(self._tokens(desk))

    def described(self, known: KnownCall) -> dict[str, Any]:
        """A call as a desk is told of it."""
        started_ms = pause_ledger.true_ms(known.started_us, self._offset())
        return {
            "call_id": known.call,
            "state": state_of(known),
            "started_at": lan_bodies.instant(started_ms),
            "causes": list(known.causes),
        }

    def listed(self, desk: Desk) -> dict[str, Any]:
        """The desk and its live calls; raises Unavailable while the cloud has told no live key."""
        return {"desk": desk.name, "calls": [self.described(known) for known in self.live(desk)]}

    async def news(self, desk: Desk, tag: str, wait_s: float) -> dict[str, Any]:
        """The desk's calls when they are other than those that ``tag`` stands for, or when the time is over.

        Args:
            desk: Whose.
            tag: :func:`tag_of` of what the watcher knows; empty to be answered at once.
            wait_s: How long to wait, at most 25 s; with too many watchers nobody waits.
        """
        found = self.listed(desk)
        if not tag or tag_of(found) != tag or self._watching >= self._most_watchers:
            return found
        tokens, event = self._tokens(desk), asyncio.Event()
        for token in tokens:
            self._watchers.setdefault(token, set()).add(event)
        self._watching += 1
        try:
            async with asyncio.timeout(min(max(0.0, wait_s), LONGEST_WAIT_S)):
                while tag_of(found := self.listed(desk)) == tag:
                    event.clear()
                    await event.wait()
        except TimeoutError:
            pass
        finally:
            self._watching -= 1
            for token in tokens:
                self._watchers[token].discard(event)
                if not self._watchers[token]:
                    del self._watchers[token]
        return found

    async def act(self, desk: Desk, verb: Verb, call_id: str | None = None) -> Answer:
        """Does something with one of the desk's live calls.

        Args:
            desk: Whose.
            verb: What.
            call_id: Which call; None: its one live call.

        Raises:
            NoLiveCall: If there is none, or it is not this desk's.
            SeveralLiveCalls: If there are several and none was named.
            PolicyViolation: In a sentence for people, if the line's rule does not allow it.
            Unavailable: If the media process has ended, or the cloud has told no live key yet.
        """
        known, by = self._meant(desk, call_id), f"desk:{desk.id}"
        if verb == "pause":
            return await self._orders.order_call(known.call, Pause(), by)
        if verb == "resume":
            return await self._orders.order_call(known.call, Resume(), by)
        keep = verb == "keep"
        outcome = await self._decisions.decide(known.call, keep=keep, cause="on_demand" if keep else "personal", by=by)
        if outcome == "unknown":
            raise NoLiveCall("the call has ended")
        now = self._calls.get(known.call)
        return OK, {"outcome": outcome, "calls": [] if now is None else [self.described(now)]}

    def _meant(self, desk: Desk, call_id: str | None) -> KnownCall:
        live = self.live(desk)
        if call_id is not None:
            live = [known for known in live if known.call == call_id]
        if not live:
            raise NoLiveCall("no call is live on this desk's lines" if call_id is None else "no such call is live here")
        if len(live) > 1:
            raise SeveralLiveCalls(tuple(known.call for known in live))
        return live[0]

    def _tokens(self, desk: Desk) -> list[str]:
        live_key = self._live_key()
        if not live_key:
            raise Unavailable("the cloud has told no live key yet")
        return [call_match.token(live_key, call_match.MatchKind.EXTENSION, line) for line in desk.lines]

    def _changed(self, tokens: frozenset[str]) -> None:
        for token in tokens & self._watchers.keys():
            for event in self._watchers[token]:
                event.set()


def tag_of(listed: dict[str, Any]) -> str:
    """A short name of a state of things, by which a watcher says what it knows."""
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()[:_TAG_CHARACTERS]
