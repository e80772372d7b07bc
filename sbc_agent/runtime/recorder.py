"""Recording sessions become recordings: ports are handed out, and the media process is told what to keep.

The SIP core says what a peer negotiated (``sbc_agent.protocol.events``); the media process is told in the terms of
calls and streams. The SDP decides what is kept: a held m-line is an inactive stream, whatever packets still come.
What a later run needs to go on with a call is in the journal before an answer leaves that depends on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Collection
from typing import Final, Literal

from dualtone.domain import ids
from dualtone.domain.errors import MalformedInput, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.media.client import MediaPort
from sbc_agent.media.messages import Adopted, Alarm, CryptoSpec, FormatSpec, PortFree, StreamSpec
from sbc_agent.media.messages import Event as MediaEvent
from sbc_agent.protocol.events import (
    Event,
    MessageRecorded,
    OfferRefused,
    SessionEnded,
    SessionId,
    SessionOffered,
    SessionUpdated,
    StreamState,
)
from sbc_agent.protocol.sdes import CryptoLine
from sbc_agent.protocol.server import SipServer
from sbc_agent.runtime.journal import Journal, Legacy, LiveCall, RestingPorts
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import PortPool
from sbc_agent.runtime.recorded_call import CallListener, CallState, RecordedCall

_SERVICE_UNAVAILABLE: Final = 503
_END_REASONS: Final[dict[str, Literal["bye", "shutdown", "error"]]] = {"bye": "bye", "shutdown": "shutdown"}


class Recorder:
    """Serves the SIP core's sessions.

    Args:
        server: The SIP core.
        media: The media process, ready.
        log: Where events are written, Call-IDs hashed.
        journal: Where calls are kept for a later run; None keeps none.
        has_room: Tells whether there is room for a new call in the spool.
        randomness: Yields random bytes, for call ids.

    Attributes:
        adopted: How many calls of an earlier run went on in this one.
    """

    def __init__(
        self,
        server: SipServer,
        media: MediaPort,
        log: Log,
        *,
        journal: Journal | None = None,
        has_room: Callable[[], bool] = lambda: True,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.adopted = 0
        self._server = server
        self._media = media
        self._log = log
        self._journal = journal
        self._has_room = has_room
        self._randomness = randomness
        self._pool = PortPool(media.ports)
        self._calls: dict[SessionId, RecordedCall] = {}
        self._adopting: dict[str, SessionId] = {}
        self._listener: CallListener | None = None
        media.subscribe(self.media_event)

    @property
    def calls(self) -> int:
        """How many calls are being recorded."""
        return sum(call.call is not None for call in self._calls.values())

    @property
    def ports_in_use(self) -> int:
        """How many ports of the pool cannot be handed out now."""
        return self._pool.in_use

    def handle(self, event: Event, now: float) -> None:
        """Takes an event of the SIP core; what concerns sockets is not for the recorder.

        Args:
            event: The event.
            now: The time, in seconds of CLOCK_MONOTONIC.
        """
        if isinstance(event, SessionOffered):
            self._offered(event, now)
            return
        if isinstance(event, OfferRefused):
            reference = self._log.reference(event.sip_call_id)
            self._log.warning("offer_refused", sip=reference, status=event.status, reason=event.reason)
        elif isinstance(event, SessionUpdated | MessageRecorded | SessionEnded):
            try:
                self._tell(event, now)
            except Unavailable as error:
                self._log.failure("media_unavailable", error)
            except MalformedInput as error:  # a record too large to pass on: the call goes on without it
                self._log.failure("record_refused", error)

    def attach(self, listener: CallListener) -> None:
        """Tells a listener of all calls that there are, and from now on of what becomes of them."""
        self._listener = listener
        for call in self._calls.values():
            if call.call is not None and not call.is_abandoned:
                if call.is_adopted:
                    listener.on_adopted(call.call, call.inherited, call.began_at_us, call.instead_of)
                if call.is_known:
                    self._identify(call, "live", call.began_at_us)

    def media_event(self, event: MediaEvent) -> None:
        """Takes an event of the media process."""
        if isinstance(event, PortFree):
            self._pool.let_go(event.port)
        elif isinstance(event, Adopted) and self._adopting.pop(event.call, None) is not None:
            self.adopted += 1
            self._log.info("call_adopted", call=event.call)
        elif isinstance(event, Alarm) and event.kind == "command" and event.call in self._adopting:
            call = self._calls.get(self._adopting.pop(event.call))
            if call is not None:  # else its peer has ended it meanwhile
                with contextlib.suppress(Unavailable):
                    self._begin_anew(call)

    # -- what outlives this run -------------------------------------------------------------------------------------

    def keep(self, now: float) -> None:
        """Brings the journal up to date. Call it before anything is sent: what a peer knows, a later run knows too.

        Args:
            now: The time, in seconds of CLOCK_MONOTONIC.
        """
        for session, taken in self._server.changed():
            call = self._calls.get(session)
            if call is None or call.call is None:
                continue
            if taken is None:
                self._forget(call, call.ports, now)
            else:
                self._keep(call, LiveCall(call.call, call.began_at_us, taken, call.matches))

    def inherit(self, legacy: Legacy, now: float) -> None:
        """Goes on with the calls of an earlier run, and lets the media process close what else that run left.

        Args:
            legacy: What the journal says.
            now: The time, in seconds of CLOCK_MONOTONIC.
        """
        open_ports = set(self._media.ports)
        for live in legacy.live:
            try:
                updated = self._server.restore(live.session, now)
            except MalformedInput as error:
                self._log.failure("adoption_failed", error, call=live.call)
                self._forget(RecordedCall("", kept=live), (), now)
                self._rest_unused(live.ports, now)
                continue
            self._adopt(live, updated, has_ports=open_ports.issuperset(live.ports), now=now)
            open_ports.difference_update(live.ports)
        for resting in legacy.resting:
            self._rest_unused(resting.ports, resting.ended_at)
        self._media.recover()

    def _rest_unused(self, ports: Collection[int], since: float) -> None:
        """Ports of an earlier run rest, unless a call that goes on has them."""
        taken = self._pool.hold(ports)
        self._pool.rest(taken, since)
        self._let_go(taken)

    def _adopt(self, live: LiveCall, updated: SessionUpdated, *, has_ports: bool, now: float) -> None:
        call = self._calls[updated.session] = RecordedCall(
            live.session.dialog.call_id,
            list(live.ports),
            live.call,
            live.began_at_us,
            tuple(_specification(state) for state in updated.streams),
            updated.facts,
            live.matches,
            live.matches,
            kept=live,
            is_adopted=True,
        )
        if not has_ports:
            self._abandon(updated.session, now)
            return
        self._pool.hold(call.ports)
        self._adopting[live.call] = updated.session
        self._media.adopt(live.call, self._media.clock.offset_us + round(now * 1_000_000), call.streams)
        self._media.session(live.call, call.facts)

    def _abandon(self, session: SessionId, now: float) -> None:
        """A call of an earlier run cannot go on, since its ports are not ours: its peer is told by BYE."""
        call = self._calls[session]
        call.is_abandoned = True
        self._log.error("adoption_failed", call=call.call)
        self._server.end(session, "error", now)

    def _begin_anew(self, call: RecordedCall) -> None:
        """The media process knows no such call, or cannot read what was kept of it: it is recorded as another one."""
        clock = self._media.clock
        at_us = clock.now_us()
        self._log.error("adoption_failed", call=call.call)
        self._identify(call, "ended", at_us)
        before, call.instead_of = call.kept, call.call
        begun = self._begin(call, at_us)
        if self._listener is not None:  # at once: it may have to be silent from its beginning
            self._listener.on_adopted(begun, call.inherited, at_us, call.instead_of)
        if before is not None:
            self._keep(call, dataclasses.replace(before, call=begun, began_at_us=at_us))
            self._forget(RecordedCall("", kept=before), (), (at_us - clock.offset_us) / 1_000_000)
        self._media.session(begun, call.facts)

    def _keep(self, call: RecordedCall, live: LiveCall) -> None:
        if self._journal is not None and self._journal.keep(live):
            call.kept = live

    def _forget(self, call: RecordedCall, ports: Collection[int], now: float) -> None:
        if self._journal is not None and call.kept is not None:
            self._journal.end(call.kept.call, RestingPorts(now, tuple(ports)))
        call.kept = None

    # -- the SIP core's events --------------------------------------------------------------------------------------

    def _offered(self, event: SessionOffered, now: float) -> None:
        call = self._calls.setdefault(event.session, RecordedCall(event.sip_call_id))
        if event.initial and not (self._media.accepting and self._has_room()):
            # Better another recorder now than an answer that records nothing.
            why = "media_unavailable" if not self._media.accepting else "no_room_for_call"
            self._log.error(why, sip=self._log.reference(event.sip_call_id))
            self._server.refuse(event.session, _SERVICE_UNAVAILABLE, now)
            return
        ports = self._pool.take(len(event.needs_ports), now)
        if ports is None:
            self._log.error(
                "ports_exhausted", sip=self._log.reference(event.sip_call_id), streams=len(event.needs_ports)
            )
            if event.initial:
                self._server.refuse(event.session, _SERVICE_UNAVAILABLE, now)
                return
        call.ports += ports or ()
        self._server.answer(event.session, dict(zip(event.needs_ports, ports or (), strict=False)), now)

    def _tell(self, event: SessionUpdated | MessageRecorded | SessionEnded, now: float) -> None:
        call = self._calls.get(event.session)
        if call is None:
            return
        at_us = self._media.clock.offset_us + round(event.at * 1_000_000)
        if isinstance(event, SessionUpdated):
            self._updated(call, event, at_us)
        elif isinstance(event, MessageRecorded):
            if call.call is not None and not call.is_abandoned:
                self._media.signalling(call.call, at_us, event.direction, event.raw)
        else:
            self._ended(call, event, at_us, now)

    def _updated(self, call: RecordedCall, event: SessionUpdated, at_us: int) -> None:
        streams = tuple(_specification(state) for state in event.streams)
        before, call.streams = call.streams, streams
        if call.call is None:
            recorded = self._begin(call, at_us)
        else:
            recorded = call.call
            if streams != before:
                self._media.streams(recorded, at_us, streams)
        if event.facts != call.facts:
            call.facts, call.is_known = event.facts, True
            self._identify(call, "live", at_us)
            self._media.session(recorded, event.facts)

    def _begin(self, call: RecordedCall, at_us: int) -> CallId:
        call.call = begun = CallId(ids.ulid(at_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES)))
        call.began_at_us = at_us
        self._media.begin(begun, at_us, call.streams)
        reference = self._log.reference(call.sip_call_id)
        self._log.info("call_began", call=begun, sip=reference, streams=len(call.streams))
        return begun

    def _identify(self, call: RecordedCall, state: CallState, at_us: int) -> None:
        """Tells the listener, and keeps what the call can be found by."""
        if self._listener is not None and call.call is not None:
            call.matches = call.inherited | frozenset(self._listener.on_call(call.call, call.facts, state, at_us))
            if call.kept is not None and call.kept.matches != call.matches:
                self._keep(call, dataclasses.replace(call.kept, matches=call.matches))

    def _ended(self, call: RecordedCall, event: SessionEnded, at_us: int, now: float) -> None:
        del self._calls[event.session]
        if call.call is None:
            # Refused or cancelled before it was answered: nobody was told of its ports.
            self._pool.put_back(call.ports)
            return
        self._forget(call, call.ports, now)
        self._pool.rest(call.ports, now)
        if call.is_abandoned:
            self._let_go(call.ports)
            self._identify(call, "ended", at_us)
            return
        reason = _END_REASONS.get(event.reason, "error")
        self._log.info("call_ended", call=call.call, sip=self._log.reference(call.sip_call_id), reason=reason)
        flags = tuple(dict.fromkeys([*call.facts.get("flags", ()), *event.flags]))
        self._media.end(call.call, at_us, reason, flags)
        self._identify(call, "ended", at_us)

    def _let_go(self, ports: Collection[int]) -> None:
        """The media process has no call on these ports, so nobody else will say that they are free."""
        for port in ports:
            self._pool.let_go(port)


def _specification(state: StreamState) -> StreamSpec:
    return StreamSpec(
        stream=state.index,
        label=state.label,
        port=state.port,
        active=state.active,
        formats=tuple(
            FormatSpec(
                payload_type=codec.payload_type,
                codec=codec.name,
                clock_hz=codec.clock_hz,
                channels=min(codec.channels, 255),
            )
            for codec in state.codecs
        ),
        crypto=() if state.crypto is None else _keys(state.crypto),
    )


def _keys(line: CryptoLine) -> tuple[CryptoSpec, ...]:
    return tuple(
        CryptoSpec(tag=line.tag, suite=line.suite, key=key.key, mki=key.mki, unencrypted_rtcp=line.unencrypted_rtcp)
        for key in line.keys
    )
