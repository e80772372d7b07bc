"""Calls of an earlier run: those whose dialogs live go on, and what the journal must say so that the next run can.

A call that was being kept is adopted by the media process under its next key. One that waited for a decision begins
anew, as waiting, since nobody has its key any more; one that was not to be recorded is not. What people had chosen for
either is in the journal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from sbc_agent.media.client import MediaPort
from sbc_agent.protocol.events import SessionId, SessionUpdated
from sbc_agent.protocol.server import SipServer
from sbc_agent.runtime import stream_specs
from sbc_agent.runtime.call_fates import CallFates
from sbc_agent.runtime.decisions import Decisions
from sbc_agent.runtime.journal import Journal, Legacy, LiveCall, RestingPorts
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import PortPool
from sbc_agent.runtime.recorded_call import CallListener, RecordedCall

RESTARTED = "restarted"
"""Flag of a call that began anew because the agent did."""


class Inheritance:
    """Takes calls over, and leaves them.

    Args:
        server: The SIP core.
        media: The media process, ready.
        pool: The ports.
        fates: What becomes of calls.
        decisions: Judges calls.
        log: Where events are written.
        journal: Where calls are kept for a later run; None keeps none.
        begin: Begins to record a call under a new id.

    Attributes:
        adopted: How many calls of an earlier run went on in this one.
    """

    def __init__(
        self,
        server: SipServer,
        media: MediaPort,
        pool: PortPool,
        fates: CallFates,
        decisions: Decisions,
        log: Log,
        *,
        journal: Journal | None,
        begin: Callable[[RecordedCall, int], CallId],
    ) -> None:
        self.adopted = 0
        self._server, self._media, self._pool, self._log = server, media, pool, log
        self._fates, self._decisions, self._journal, self._begin = fates, decisions, journal, begin
        self._adopting: dict[str, RecordedCall] = {}

    # -- for the next run -------------------------------------------------------------------------------------------

    def keep(self, call: RecordedCall, live: LiveCall) -> None:
        """Writes what a later run needs of a call."""
        if self._journal is not None and self._journal.keep(live):
            call.kept = live

    def keep_fate(self, call: RecordedCall) -> None:
        """Writes what was decided of a call, or by which tokens it is found, if that is news."""
        if call.kept is not None and call.case is not None and call.call is not None:
            live = dataclasses.replace(
                call.kept, began_at_us=call.began_at_us, matches=call.matches, fate=fate_of(call)
            )  # fmt: skip
            if live != call.kept:
                self.keep(call, live)

    def forget(self, call: RecordedCall, ports: Collection[int], now: float) -> None:
        """A call is over; its ports rest."""
        if self._journal is not None and call.kept is not None:
            self._journal.end(call.kept.call, RestingPorts(now, tuple(ports)))
        call.kept = None

    def let_go(self, ports: Collection[int]) -> None:
        """The media process has no call on these ports, so nobody else will say that they are free."""
        for port in ports:
            self._pool.let_go(port)

    # -- from the run before ----------------------------------------------------------------------------------------

    def take_over(self, legacy: Legacy, calls: dict[SessionId, RecordedCall], now: float) -> None:
        """Goes on with the calls of an earlier run, and lets the media process close what else that run left.

        Args:
            legacy: What the journal says.
            calls: Where the calls are put.
            now: The time, in seconds of CLOCK_MONOTONIC.
        """
        open_ports = set(self._media.ports)
        for live in legacy.live:
            try:
                updated = self._server.restore(live.session, now)
            except MalformedInput as error:
                self._log.failure("adoption_failed", error, call=live.call)
                self.forget(RecordedCall("", kept=live), (), now)
                self._rest_unused(live.ports, now)
                continue
            call = calls[updated.session] = self._inherited(live, updated)
            if not open_ports.issuperset(live.ports):
                self._abandon(updated.session, call, now)
            else:
                self._pool.hold(call.ports)
                self._adopt(call, live.call, now)
            open_ports.difference_update(live.ports)
        for resting in legacy.resting:
            self._rest_unused(resting.ports, resting.ended_at)
        self._media.recover()

    def tell(self, listener: CallListener, call: RecordedCall) -> None:
        """Tells a listener of a call of an earlier run."""
        assert call.call is not None
        call.was_standing = call.standing
        listener.on_adopted(
            call.call,
            call.inherited,
            call.began_at_us,
            call.instead_of,
            standing=call.standing,
            causes=call.causes,
        )

    def is_adopted(self, call: str) -> bool:
        """The media process goes on with a call; returns whether that was waited for."""
        if self._adopting.pop(call, None) is None:
            return False
        self.adopted += 1
        self._log.info("call_adopted", call=call)
        return True

    def cannot_adopt(self, call: str, calls: Collection[RecordedCall]) -> bool:
        """The media process refused something; if it was to adopt a call, that is recorded as another one."""
        waiting = self._adopting.pop(call, None)
        if waiting is None:
            return False
        if any(waiting is one for one in calls):  # else its peer has ended it meanwhile
            self._log.error("adoption_failed", call=call)
            if waiting.call is not None and self._fates.listener is not None:
                self._fates.listener.on_call(waiting.call, waiting.facts, "ended", self._media.clock.now_us())
            self._begin_anew(waiting, self._media.clock.now_us())
        return True

    def _inherited(self, live: LiveCall, updated: SessionUpdated) -> RecordedCall:
        call = RecordedCall(
            live.session.dialog.call_id,
            list(live.ports),
            live.call,
            live.began_at_us,
            tuple(stream_specs.of(state) for state in updated.streams),
            updated.facts,
            live.matches,
            live.matches,
            kept=live,
            is_adopted=True,
        )
        fate = dict(live.fate or {})
        call.causes = tuple(fate.pop("causes", ()))
        call.case, call.told = self._decisions.restored(fate or None, updated.facts, live.began_at_us)
        call.profile = self._decisions.profile(call.case)
        return call

    def _adopt(self, call: RecordedCall, number: CallId, now: float) -> None:
        at_us = self._media.clock.offset_us + round(now * 1_000_000)
        if call.told != "kept":
            self._begin_anew(call, at_us)
            return
        assert call.case is not None
        self._adopting[number] = call
        self._media.adopt(number, at_us, call.streams)
        self._fates.describe(call)

    def _begin_anew(self, call: RecordedCall, at_us: int) -> None:
        """The media process has nothing of the call, or cannot read what was kept of it: it is recorded as another."""
        before, call.instead_of = call.kept, call.call
        call.flags = (*call.flags, RESTARTED)
        self._begin(call, at_us)
        if self._fates.listener is not None:  # at once: it may have to be silent from its beginning
            self.tell(self._fates.listener, call)
        if before is not None and call.call is not None and call.case is not None:
            self.keep(call, dataclasses.replace(before, call=call.call, began_at_us=at_us, fate=fate_of(call)))
            self.forget(RecordedCall("", kept=before), (), (at_us - self._media.clock.offset_us) / 1_000_000)
        call.described = {}
        self._fates.describe(call)

    def _abandon(self, session: SessionId, call: RecordedCall, now: float) -> None:
        """A call of an earlier run cannot go on, since its ports are not ours: its peer is told by BYE."""
        call.is_abandoned = True
        self._log.error("adoption_failed", call=call.call)
        self._server.end(session, "error", now)

    def _rest_unused(self, ports: Collection[int], since: float) -> None:
        """Ports of an earlier run rest, unless a call that goes on has them."""
        taken = self._pool.hold(ports)
        self._pool.rest(taken, since)
        self.let_go(taken)


def fate_of(call: RecordedCall) -> dict[str, Any] | None:
    """What the journal says of what was decided, and why a call is silent that only this process remembers."""
    fate = None if call.case is None else call.case.to_json(call.told)
    if fate is None or call.told == "kept" or not call.causes:
        return fate
    return fate | {"causes": sorted(call.causes)}
