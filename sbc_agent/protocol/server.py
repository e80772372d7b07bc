"""The recording server's SIP core. Sans-IO; standard: RFC 3261 sections 8.2, 9.2, 11.2 and 12.2.2, RFC 7866 section 6.

Octets come in by `receive`, time by `handle_timer`; `next_event` gives what to do, `timer` says when to come back. The
shell answers `SessionOffered` by `answer` or `refuse` as soon as it knows, before or after taking further events.

How a request is treated, in the order of section 8.2:

1. Read it and match a transaction (`transaction_layer.py`): what cannot be read is answered 400; copies end there.
2. Inspect the method: 405 for what we do not do. A To tag must name a dialog: else 481, never silence.
3. In a dialog (`server_session.py`): 500 for what comes late; overlapping and crossing offers get 500 or 491.
4. Inspect Require: 420, but never for siprec or 100rel. Inspect the body: 415 for an encoding we cannot undo.
5. Act by method. An INVITE that is no recording session, or of which nothing can be recorded, gets 488.

What is not here: authentication, REFER and other methods, requests of ours other than BYE, OPTIONS and UPDATE, and name
resolution: responses and requests go to the addresses from which the peer was heard.
"""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address as addresses
from sbc_agent.protocol import body as bodies
from sbc_agent.protocol import recognition, replacing, responses, snapshot
from sbc_agent.protocol.counters import WireCounters
from sbc_agent.protocol.dialogs import DialogId
from sbc_agent.protocol.events import EndReason, Event, SessionId, SessionUpdated
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.limits import HostLimits
from sbc_agent.protocol.media_session import MediaSession
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.server_session import ServerSession
from sbc_agent.protocol.snapshot import SessionSnapshot
from sbc_agent.protocol.timers import Timers
from sbc_agent.protocol.transaction_layer import Incoming, TransactionKey, TransactionLayer
from sbc_agent.protocol.uas import ServerSettings, Uas, warning

_METHODS: Final = frozenset({"INVITE", "BYE", "CANCEL", "OPTIONS", "UPDATE", "INFO"})
_BAD_EXTENSION: Final = 420
_ORIGIN_DIGITS: Final = 15  # hexadecimal; below 2**63, which any SDP parser can hold


class SipServer:
    """The core.

    Args:
        settings: what it must know.
        fresh: yields unguessable tokens of at least 20 hexadecimal digits: tags, branches.
        randomness: yields that many random octets: keys of SRTP.
    """

    def __init__(self, settings: ServerSettings, fresh: Callable[[], str], randomness: Callable[[int], bytes]) -> None:
        self.admission: Callable[[float], str | None] = lambda _now: None  # why a new session is refused by 503 now
        self.draining = False  # refuse new sessions by 503, and say so to OPTIONS
        self._events: collections.deque[Event] = collections.deque()
        self._hosts = HostLimits(settings.limits, settings.peers)
        self._layer = TransactionLayer(self, self._events.append, fresh, self._hosts, settings.patience)
        self._uas = Uas(settings, self._layer, self._events.append, fresh, randomness)
        self._sessions: dict[SessionId, ServerSession] = {}
        self._dialogs: dict[DialogId, ServerSession] = {}
        self._calls: dict[str, list[ServerSession]] = {}
        self._requests: dict[TransactionKey, ServerSession] = {}
        self._timers: Timers[SessionId] = Timers()
        self._changed: dict[SessionId, None] = {}
        self._last_session = 0

    # --- the shell's side --------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> int:
        """How many sessions are offered or answered."""
        return len(self._sessions)

    @property
    def counters(self) -> WireCounters:
        """What happened on the wire."""
        return self._layer.counters

    @property
    def requests_waiting(self) -> int:
        """How many requests of ours wait for their answer."""
        return len(self._requests)

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Octets came: one datagram, or the next of a stream."""
        self._layer.receive(data, flow, now)

    def flow_opened(self, flow: Flow, now: float) -> None:
        """There is a new connection; `CloseFlow` follows if nothing whole comes on it in time."""
        self._layer.flow_opened(flow, now)

    def hold_up(self, flow: Flow, now: float) -> float:
        """How long nothing more shall be read from a connection, in seconds."""
        return self._layer.hold_up(flow, now)

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone. Dialogs on it live on: SBCs replace connections."""
        self._layer.flow_closed(flow)

    def next_event(self) -> Event | None:
        """The next thing to do, or None."""
        return self._events.popleft() if self._events else None

    def timer(self) -> float | None:
        """When `handle_timer` wants to be called next, or None."""
        return min((at for at in (self._layer.timer(), self._timers.next()) if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._layer.handle_timer(now)
        for session_id in self._timers.due(now):
            if (session := self._sessions.get(session_id)) is not None:
                session.handle_timer(now)
                self._settle(session, now)

    def answer(self, session_id: SessionId, ports: Mapping[int, int], now: float) -> None:
        """Accept the offer that waits in a session.

        Args:
            session_id: as in `SessionOffered`.
            ports: our RTP port for each m-line, by index, that `needs_ports` named; one left out is refused.
            now: the time, in seconds.
        """
        if (session := self._sessions.get(session_id)) is not None:
            session.accept(ports, now)
            self._settle(session, now)

    def refuse(self, session_id: SessionId, status: int, now: float, reason: str = "") -> None:
        """Refuse the offer that waits in a session; a session that was never answered is forgotten.

        REQ: RFC 3261 section 21.5.4: 503 goes without Retry-After, which would take the whole recorder out of service.

        Args:
            session_id: as in `SessionOffered`.
            status: the status code.
            now: the time, in seconds.
            reason: by which word it is counted.
        """
        if reason:
            self.counters.refuse(reason)
        if (session := self._sessions.get(session_id)) is not None:
            session.refuse(status, now)
            self._settle(session, now)

    def end(self, session_id: SessionId, reason: EndReason, now: float) -> None:
        """End an answered session by BYE, or refuse one that waits."""
        if (session := self._sessions.get(session_id)) is not None:
            session.end(reason, now)
            self._settle(session, now)

    def end_all(self, reason: EndReason, now: float) -> None:
        """End every session."""
        for session_id in list(self._sessions):
            self.end(session_id, reason, now)

    # --- restarts ----------------------------------------------------------------------------------------------------

    def changed(self) -> Iterator[tuple[SessionId, SessionSnapshot | None]]:
        """The sessions that moved since last asked: as a later run must find them, None for what it need not know."""
        moved, self._changed = self._changed, {}
        for session_id in moved:
            session = self._sessions.get(session_id)
            yield session_id, None if session is None else snapshot.take(session)

    def restore(self, taken: SessionSnapshot, now: float) -> SessionUpdated:
        """Go on with a session of an earlier run.

        Args:
            taken: the last snapshot of it.
            now: the time, in seconds of the clock that the snapshot was taken by.

        Returns:
            The session as it stands; nobody is told otherwise.

        Raises:
            MalformedInput: the snapshot cannot be used, or its dialog is known already.
        """
        session = snapshot.restored(taken, SessionId(self._last_session + 1), self._uas, now)
        assert session.dialog is not None, "what is restored was answered"
        if session.dialog.dialog_id in self._dialogs:
            raise MalformedInput("two snapshots of one dialog")
        self._last_session += 1
        self._sessions[session.media.session] = session
        self._calls.setdefault(session.media.sip_call_id, []).append(session)
        self._settle(session, now)
        return SessionUpdated(session.media.session, now, session.media.streams(), session.media.facts())

    # --- the transaction layer's side --------------------------------------------------------------------------------

    def request_received(self, incoming: Incoming, now: float) -> None:
        """A request came for the first time."""
        method = incoming.request.method
        if method == "CANCEL":
            self._cancel(incoming, now)
            return
        try:
            call_id, to_tag, from_tag = _dialog_id(incoming.request)
        except MalformedInput:
            self._uas.respond(incoming, 400, now)
            return
        if method not in _METHODS:
            # A PRACK can only mean a provisional response, and we send none that is reliable.
            headers = () if method == "PRACK" else (responses.ALLOW,)
            self._uas.respond(incoming, 481 if method == "PRACK" else 405, now, headers)
        elif (session := self._dialogs.get((call_id, to_tag, from_tag))) is not None:
            session.request(incoming, now)
            self._settle(session, now)
        elif method == "INVITE" and not to_tag:
            self._invite(incoming, call_id, from_tag, now)
        elif method == "OPTIONS" and not to_tag:
            # REQ: RFC 3261 section 11.2: the status is the one that an INVITE would get.
            abilities = () if self.draining else self._uas.abilities(incoming)
            self._uas.respond(incoming, 503 if self.draining else 200, now, abilities)
        else:
            self._uas.respond(incoming, 481, now)

    def ack_received(self, incoming: Incoming, now: float) -> None:
        """An ACK came that belongs to a 2xx."""
        try:
            session = self._dialogs.get(_dialog_id(incoming.request))
        except MalformedInput:
            return
        if session is not None:
            session.acknowledged(incoming, now)
            self._settle(session, now)

    def copy_received(self, incoming: Incoming, now: float) -> None:
        """A copy of an INVITE came that was answered by a 2xx."""
        try:
            _, _, from_tag = _dialog_id(incoming.request)
        except MalformedInput:
            return
        for session in [one for one in self._of_call(incoming) if one.remote_tag == from_tag]:
            session.copied(incoming, now)
            self._settle(session, now)

    def final_received(self, key: TransactionKey, answer: Response | None, raw: bytes, now: float) -> None:
        """A request of ours was answered, or was not."""
        session = self._requests.pop(key, None)
        if session is not None and not session.ended:
            session.answered(key, answer, raw, now)
            self._settle(session, now)

    def in_use(self, flow: Flow) -> bool:
        """Whether a dialog lives on this connection."""
        return any(session.dialog is not None and session.dialog.flow == flow for session in self._sessions.values())

    # --- requests outside a dialog -----------------------------------------------------------------------------------

    def _invite(self, incoming: Incoming, call_id: str, from_tag: str, now: float) -> None:
        if begun := next((one for one in self._of_call(incoming) if one.began_with(incoming, from_tag)), None):
            begun.request(incoming, now)
            self._settle(begun, now)
            return
        if self._is_merged(incoming, from_tag):
            # REQ: RFC 3261 section 8.2.2.2: the same request over a second path.
            self._uas.respond(incoming, 482, now)
            return
        if refusal := self._uas.refusal(incoming):
            reason = "extension" if refusal[0] == _BAD_EXTENSION else "encoding"
            self._uas.refuse(incoming, refusal[0], reason, now, refusal[1])
            return
        asked = incoming.request
        body = bodies.read(asked)
        peer = incoming.flow.remote[0] in self._uas.settings.peers
        if not recognition.is_recording_session(asked, has_metadata=body.metadata is not None, configured_peer=peer):
            why = warning("only SIPREC recording sessions (RFC 7866)")
            self._uas.refuse(incoming, 488, "not-siprec", now, (why,))
            return
        if no_room := "draining" if self.draining else self.admission(now):
            # At once, never by silence, and without Retry-After (see `refuse`): the peer takes another recorder.
            self.counters.refuse(no_room)
            self._uas.refuse(incoming, 503, no_room, now)
            return
        self._last_session += 1
        media = MediaSession(SessionId(self._last_session), int(self._uas.fresh()[:_ORIGIN_DIGITS], 16), call_id)
        session = ServerSession(self._uas, media, self._uas.fresh(), from_tag, incoming.cseq.number)
        before = replacing.replaced(asked, self._dialogs)
        if before is not None and before.dialog is not None and before.dialog.flow.remote[0] == incoming.flow.remote[0]:
            session.replaces = before
        self._sessions[media.session] = session
        self._calls.setdefault(call_id, []).append(session)
        session.invited(incoming, body, now)
        self._settle(session, now)

    def _is_merged(self, incoming: Incoming, from_tag: str) -> bool:
        number = incoming.cseq.number
        return any(
            session.remote_tag == from_tag
            and number <= (session.dialog.remote_cseq if session.dialog else session.first_cseq)
            for session in self._of_call(incoming)
        )

    def _cancel(self, incoming: Incoming, now: float) -> None:
        """REQ: RFC 3261 section 9.2: 200 to the CANCEL, and 487 to the INVITE if it has no final response yet."""
        invite = self._layer.cancelled(incoming)
        self._uas.respond(incoming, 481 if invite is None else 200, now)
        for session in list(self._of_call(incoming)):
            if session.pending is not None and session.pending.incoming.key == invite:
                session.refuse(487, now)
                self._settle(session, now)

    # --- the tables --------------------------------------------------------------------------------------------------

    def _of_call(self, incoming: Incoming) -> Iterator[ServerSession]:
        return iter(self._calls.get(incoming.request.required("call-id"), ()))

    def _settle(self, session: ServerSession, now: float) -> None:
        """Enter a session in the tables as it stands now, or strike it out."""
        session_id, call_id = session.media.session, session.media.sip_call_id
        self._timers.set(session_id, session.timer())
        self._requests.update(dict.fromkeys(session.requests, session))
        session.requests.clear()
        self._changed[session_id] = None
        if session.dialog is not None and session.replaces is not None:
            before, session.replaces = session.replaces, None
            if not before.ended:
                before.replaced(now)
                self._settle(before, now)
        if not session.ended:
            if session.dialog is not None:
                self._dialogs[session.dialog.dialog_id] = session
                if session.dialog.confirmed:
                    self._hosts.know(session.dialog.flow.remote[0])
            return
        if self._sessions.pop(session_id, None) is None:
            return
        if session.dialog is not None:
            self._dialogs.pop(session.dialog.dialog_id, None)
        others = [other for other in self._calls.get(call_id, ()) if other is not session]
        if others:
            self._calls[call_id] = others
        else:
            self._calls.pop(call_id, None)


def _dialog_id(asked: Request) -> DialogId:
    """Call-ID, our tag, the peer's tag (section 12.2.2).

    Raises:
        MalformedInput: To or From cannot be read.
    """
    to, sender = addresses.parse(asked.required("to")), addresses.parse(asked.required("from"))
    return asked.required("call-id"), to.tag, sender.tag
