"""Recording sessions become recordings: ports are handed out, and the media process is told what to keep.

The SIP core says what a peer negotiated (``sbc_agent.protocol.events``); the media process is told in the terms of
calls and streams. The SDP decides what is kept: a held m-line is an inactive stream, whatever packets still come.
What a later run needs to go on with a call is in the journal before an answer leaves that depends on it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from typing import Final, Literal, Protocol

from dualtone.domain import ids
from dualtone.domain.errors import MalformedInput, Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.recording_entry import CANARY
from dualtone.domain.recording_ruling import Choice
from sbc_agent.media.client import MediaPort
from sbc_agent.media.messages import Adopted, Alarm, PauseApplied, PortFree
from sbc_agent.media.messages import Choice as PressedChoice
from sbc_agent.media.messages import Event as MediaEvent
from sbc_agent.protocol.events import (
    DigitPressed,
    Event,
    MessageRecorded,
    OfferRefused,
    SessionEnded,
    SessionId,
    SessionOffered,
    SessionUpdated,
)
from sbc_agent.protocol.server import SipServer
from sbc_agent.runtime import stream_specs
from sbc_agent.runtime.call_fates import CallFates, Chain, Tally
from sbc_agent.runtime.decisions import Case, Decisions
from sbc_agent.runtime.inheritance import Inheritance, fate_of
from sbc_agent.runtime.journal import Journal, Legacy, LiveCall
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import PortPool
from sbc_agent.runtime.recorded_call import CallListener, ChoiceOutcome, RecordedCall

_SERVICE_UNAVAILABLE: Final = 503
_LOST: Final = frozenset({"records_lost", "spool_gone"})
_END_REASONS: Final[dict[str, Literal["bye", "shutdown", "error"]]] = {"bye": "bye", "shutdown": "shutdown"}


class OwnCall(Protocol):
    """The agent's own call: ``canary.Canary``."""

    def owns(self, sip_call_id: str) -> bool:
        """Whether a dialog is it."""

    def recorded_as(self, call: CallId) -> None:
        """It is being recorded."""


class Recorder:
    """Serves the SIP core's sessions.

    Args:
        server: The SIP core.
        media: The media process, ready.
        log: Where events are written, Call-IDs hashed.
        journal: Where calls are kept for a later run; None keeps none.
        has_room: Tells whether there is room for a new call in the spool.
        decisions: Judges calls; by default every call is recorded.
        tally: Counts what is not recorded.
        chain: Numbers the recordings of each line.
        canary: Knows the agent's own call; None if it places none.
        randomness: Yields random bytes, for call ids.

    Attributes:
        wake: Called when ``pass_time`` is wanted at once, though no event of the SIP core comes.
    """

    def __init__(
        self,
        server: SipServer,
        media: MediaPort,
        log: Log,
        *,
        journal: Journal | None = None,
        has_room: Callable[[], bool] = lambda: True,
        decisions: Decisions | None = None,
        tally: Tally | None = None,
        chain: Chain | None = None,
        canary: OwnCall | None = None,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._server = server
        self._media = media
        self._log = log
        self._has_room = has_room
        self._randomness = randomness
        self._canary = canary
        self._pool = PortPool(media.ports)
        self._calls: dict[SessionId, RecordedCall] = {}
        self._failing: list[SessionId] = []
        self.wake: Callable[[], object] = lambda: None
        decisions = decisions or Decisions()
        self._fates = CallFates(media, decisions, log, tally=tally, chain=chain)
        self._inheritance = Inheritance(
            server, media, self._pool, self._fates, decisions, log, journal=journal, begin=self._begin
        )
        media.subscribe(self.media_event)

    @property
    def adopted(self) -> int:
        """How many calls of an earlier run went on in this one."""
        return self._inheritance.adopted

    @property
    def calls(self) -> int:
        """How many calls there are, those included of which nothing is kept."""
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
        elif isinstance(event, SessionUpdated | MessageRecorded | SessionEnded | DigitPressed):
            try:
                self._tell(event, now)
            except Unavailable as error:
                self._log.failure("media_unavailable", error)
                self._fail(event.session, now)
            except MalformedInput as error:  # a record too large to pass on: the call goes on without it
                self._log.failure("record_refused", error)

    def attach(self, listener: CallListener) -> None:
        """Tells a listener of all calls that there are, and from now on of what becomes of them."""
        self._fates.listener = listener
        for call in self._calls.values():
            if call.call is not None and not call.is_abandoned:
                if call.is_adopted:
                    self._inheritance.tell(listener, call)
                if call.is_known:
                    self._fates.identify(call, call.began_at_us)
                    self._inheritance.keep_fate(call)

    def media_event(self, event: MediaEvent) -> None:
        """Takes an event of the media process."""
        if isinstance(event, PortFree):
            self._pool.let_go(event.port)
        elif isinstance(event, Adopted):
            self._inheritance.is_adopted(event.call)
        elif isinstance(event, PressedChoice):
            self._pressed(event)
        elif isinstance(event, PauseApplied):
            self._paused(event)
        elif isinstance(event, Alarm) and event.call is not None:
            if event.kind == "command":
                with contextlib.suppress(Unavailable):
                    self._inheritance.cannot_adopt(event.call, self._calls.values())
            elif event.kind in _LOST:
                self._lost(event.call)

    # -- what people choose -----------------------------------------------------------------------------------------

    def choose(self, call: CallId, choice: Choice, command: str | None = None) -> ChoiceOutcome:
        """Somebody chose for a call; other dialogs of the same call, now or later, inherit it.

        Args:
            call: The call.
            choice: What was chosen.
            command: Id of the cloud's decision, if it came from there.

        Raises:
            Unavailable: If the media process has ended.
        """
        chosen = self._of(call)
        if chosen is None:
            return "unknown"
        outcome = self._fates.choose(chosen, choice, command)
        self._inheritance.keep_fate(chosen)
        for other in self._fates.following(chosen, self._calls.values()):
            self._fates.learn(other, choice.at_us)
            self._inheritance.keep_fate(other)
        return outcome

    def is_regulated(self, call: CallId) -> bool:
        """Whether a call is recorded whatever anybody chooses."""
        found = self._of(call)
        return found is not None and found.case is not None and found.case.is_regulated

    def may_be_named(self, call: str) -> bool:
        """Whether a line of the log may name a call: of one that is not recorded nothing shall be left."""
        found = self._of(call)
        return found is None or found.told == "kept"

    def timer(self) -> float | None:
        """When ``pass_time`` is wanted, in seconds of CLOCK_MONOTONIC; None while nothing waits for time alone."""
        due_us = self._fates.due_us
        return None if due_us is None else (due_us - self._media.clock.offset_us) / 1_000_000

    def pass_time(self, now: float) -> None:
        """Decides what time decides, and ends what is better ended than not recorded."""
        failing, self._failing = self._failing, []
        for session in failing:
            self._fail(session, now)
        due_us = self._fates.due_us
        now_us = self._at_us(now)
        if due_us is not None and due_us <= now_us:
            try:
                for call in self._fates.pass_time(now_us):
                    self._inheritance.keep_fate(call)
            except Unavailable as error:
                self._log.failure("media_unavailable", error)

    def _of(self, number: str | None) -> RecordedCall | None:
        return next((call for call in self._calls.values() if call.call == number), None)

    def _pressed(self, event: PressedChoice) -> None:
        """A consent key was pressed."""
        call = self._of(event.call)
        if call is not None and call.case is not None and call.call is not None:
            choice = Choice.answered(call.case.ruling, event.choice, "dtmf", event.at_us)
            with contextlib.suppress(Unavailable):
                self.choose(call.call, choice)

    def _paused(self, event: PauseApplied) -> None:
        """Of a call that is not kept only this process remembers why it is silent."""
        call = self._of(event.call) if event.outcome != "unknown" else None
        if call is not None and call.told != "kept" and call.causes != event.causes:
            call.causes = event.causes
            self._inheritance.keep_fate(call)

    def _lost(self, number: str) -> None:
        """Something of a call cannot be kept: where its rule says so, it is better to have no call."""
        self._failing += [session for session, call in self._calls.items() if call.call == number]
        self.wake()

    def _fail(self, session: SessionId, now: float) -> None:
        call = self._calls.get(session)
        if call is not None and call.case is not None and call.case.fails_closed:
            self._log.error("failed_closed", call=call.call)
            self._server.end(session, "error", now)

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
                self._inheritance.forget(call, call.ports, now)
            else:
                live = LiveCall(call.call, call.began_at_us, taken, call.matches, fate_of(call))
                self._inheritance.keep(call, live)

    def inherit(self, legacy: Legacy, now: float) -> None:
        """Goes on with the calls of an earlier run, and lets the media process close what else that run left.

        Args:
            legacy: What the journal says.
            now: The time, in seconds of CLOCK_MONOTONIC.
        """
        self._inheritance.take_over(legacy, self._calls, now)

    # -- the SIP core's events --------------------------------------------------------------------------------------

    def _offered(self, event: SessionOffered, now: float) -> None:
        call = self._calls.setdefault(event.session, RecordedCall(event.sip_call_id))
        if event.initial and not (self._media.accepting and self._has_room()):
            # Better another recorder now than an answer that records nothing.
            why = "media_unavailable" if not self._media.accepting else "no_room_for_call"
            self._log.error(why, sip=self._log.reference(event.sip_call_id))
            self._server.refuse(event.session, _SERVICE_UNAVAILABLE, now, why)
            return
        ports = self._pool.take(len(event.needs_ports), now)
        if ports is None:
            self._log.error(
                "ports_exhausted", sip=self._log.reference(event.sip_call_id), streams=len(event.needs_ports)
            )
            if event.initial:
                self._server.refuse(event.session, _SERVICE_UNAVAILABLE, now, "ports_exhausted")
                return
        call.ports += ports or ()
        self._server.answer(event.session, dict(zip(event.needs_ports, ports or (), strict=False)), now)

    def _tell(self, event: SessionUpdated | MessageRecorded | SessionEnded | DigitPressed, now: float) -> None:
        call = self._calls.get(event.session)
        if call is None:
            return
        at_us = self._at_us(event.at)
        if isinstance(event, SessionUpdated):
            self._updated(call, event, at_us)
        elif isinstance(event, DigitPressed):
            if call.call is not None and not call.is_abandoned:
                self._media.digit(call.call, at_us, event.digit)
        elif isinstance(event, MessageRecorded):
            if call.call is not None and not call.is_abandoned and call.told != "silent":
                self._media.signalling(call.call, at_us, event.direction, event.raw)
        else:
            self._ended(call, event, at_us, now)

    def _updated(self, call: RecordedCall, event: SessionUpdated, at_us: int) -> None:
        streams = tuple(stream_specs.of(state) for state in event.streams)
        before, call.streams = call.streams, streams
        is_news = event.facts != call.facts
        is_said = is_news or event.headers != call.headers
        call.facts, call.headers, call.is_known = event.facts, event.headers, call.is_known or is_news
        if call.call is None:
            self._begin(call, at_us)
        else:
            if streams != before:
                self._media.streams(call.call, at_us, streams)
            if is_said:
                self._fates.learn(call, at_us)
        if is_news:
            self._fates.identify(call, at_us)
            self._inheritance.keep_fate(call)
            self._fates.describe(call)

    def _begin(self, call: RecordedCall, at_us: int) -> CallId:
        call.call = begun = CallId(ids.ulid(at_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES)))
        call.began_at_us = at_us
        if self._canary is not None and self._canary.owns(call.sip_call_id):  # no tenant's call, and no policy's
            call.case, call.flags = Case(at_us, kept_us=at_us), (*call.flags, CANARY)
            self._canary.recorded_as(begun)
        self._fates.begin(call, at_us)
        if call.told == "kept":
            reference = self._log.reference(call.sip_call_id)
            self._log.info("call_began", call=begun, sip=reference, streams=len(call.streams))
        return begun

    def _ended(self, call: RecordedCall, event: SessionEnded, at_us: int, now: float) -> None:
        del self._calls[event.session]
        if call.call is None:
            # Refused or cancelled before it was answered: nobody was told of its ports.
            self._pool.put_back(call.ports)
            return
        self._inheritance.forget(call, call.ports, now)
        self._pool.rest(call.ports, now)
        if call.is_abandoned:
            self._inheritance.let_go(call.ports)
            self._fates.close(call, at_us)
            return
        reason = _END_REASONS.get(event.reason, "error")
        self._fates.end(call, at_us)
        if call.told == "kept":
            self._log.info("call_ended", call=call.call, sip=self._log.reference(call.sip_call_id), reason=reason)
        flags = tuple(dict.fromkeys([*call.facts.get("flags", ()), *event.flags, *call.flags]))
        self._media.end(call.call, at_us, reason, flags)
        self._fates.close(call, at_us)

    def _at_us(self, at: float) -> int:
        return self._media.clock.offset_us + round(at * 1_000_000)
