"""The SIP side of a session recording client: one INVITE, its dialog, one BYE. Sans-IO; RFC 3261, RFC 7866 section 6.

Octets and ``now`` (seconds of any monotonic clock) go in; octets and events come out. The INVITE is a client
transaction of RFC 3261 figure 5 with RFC 6026's Accepted state::

    Calling --1xx--> Proceeding --2xx--> Accepted     A repeats the INVITE in Calling on UDP, B gives up
       |                 |
       +--300-699--------+--> Completed, ACK with the INVITE's own branch

A 2xx is acknowledged by a request of its own (section 13.2.2.4), again for every copy of it. The BYE is an ordinary
client transaction of ``sbc_agent.protocol``. Requests from the recorder inside the dialog are answered; one outside
gets 481.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address, cseq, message, sdp
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.transactions import T1, TIMEOUT, Outcome, Transaction, input_of
from sbc_agent.runtime import src_offer
from sbc_agent.runtime.config import Endpoint

Transport = Literal["udp", "tcp", "tls"]

_USER_AGENT: Final = "Dualtone test call"
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class AnsweredStream:
    """A stream as the recorder answered it: its label, and where RTP goes; port 0 if it was refused."""

    label: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The recorder accepted; its answer has one entry for each m-line of the offer, in order."""

    streams: tuple[AnsweredStream, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The recorder answered with an error, or accepted in a way that cannot be used (status 200)."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer to a request within 32 seconds."""

    method: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The dialog is over: ``by`` us (the BYE was answered with ``status``) or by the recorder."""

    by: Literal["us", "recorder"]
    status: int


Event = Answered | Refused | TimedOut | Ended


class _State(Enum):
    CALLING = auto()
    PROCEEDING = auto()
    ACCEPTED = auto()
    COMPLETED = auto()
    OVER = auto()


class SrcDialog:
    """One recording session, from the client's side.

    Args:
        target: The recorder.
        local: Our own transport address.
        transport: ``udp``, ``tcp`` or ``tls``.
        call_id: Call-ID of the session, never used before.
        tag: Our tag.
        branch: Draws a new branch (without its cookie).
        offer: The INVITE's body, multipart.
    """

    def __init__(
        self,
        *,
        target: Endpoint,
        local: Endpoint,
        transport: Transport,
        call_id: str,
        tag: str,
        branch: Callable[[], str],
        offer: bytes,
    ) -> None:
        self._target, self._local, self._transport = target, local, transport
        self._call_id, self._branch, self._offer = call_id, branch, offer
        over = "" if transport == "udp" else f";transport={transport}"
        self._uri = f"sip:recorder@{target}{over}"
        self._from = f"<sip:src@{local.host}>;tag={tag}"
        self._to = f"<sip:recorder@{target.host}>"
        self._contact = f"<sip:src@{local}{over}>;+sip.src"
        self._state = _State.CALLING
        self._invite_via = self._via()
        self._invite = b""
        self._ack = b""
        self._routes: list[str] = []
        self._remote_target = self._uri
        self._destination = target
        self._cseq = 1
        self._repeat_after = T1
        self._repeat_at: float | None = None
        self._give_up_at: float | None = None
        self._bye: Transaction | None = None
        self._outgoing: deque[tuple[bytes, Endpoint]] = deque()
        self._events: deque[Event] = deque()

    # -- what the shell does ----------------------------------------------------------------------------------------

    def invite(self, now: float) -> None:
        """Begins the session."""
        headers = [
            *self._headers("INVITE", self._invite_via, self._to),
            ("Contact", self._contact),
            # REQ: RFC 7866 section 6.1.1: the SRC MUST include siprec in Require, and +sip.src in Contact.
            ("Require", "siprec"),
            ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS"),
            ("Accept", "application/sdp"),
            ("Content-Type", src_offer.CONTENT_TYPE),
        ]
        self._invite = bytes(message.request("INVITE", self._uri, headers, self._offer))
        self._send(self._invite)
        self._repeat_at = now + T1 if self._transport == "udp" else None
        self._give_up_at = now + TIMEOUT

    def bye(self, now: float) -> None:
        """Ends the session; does nothing if it is over already."""
        if self._state is not _State.ACCEPTED or self._bye is not None:
            return
        self._cseq += 1
        data = bytes(message.request("BYE", self._remote_target, self._in_dialog("BYE", self._via())))
        self._bye = Transaction.client(data, reliable=self._transport != "udp", now=now)
        self._send(data)

    def receive(self, data: bytes, now: float) -> None:
        """Takes one SIP message in; one that cannot be read or belongs to no dialog of ours is passed over."""
        try:
            incoming = message.parse(data)
            if incoming.header("Call-ID") != self._call_id:
                return
            if isinstance(incoming, Request):
                self._request(incoming)
            else:
                self._response(incoming, cseq.parse(incoming.required("CSeq")), now)
        except MalformedInput:
            return

    def timer(self) -> float | None:
        """When :meth:`handle_timer` is due, or None."""
        deadlines = [self._repeat_at, self._give_up_at, self._bye.timer() if self._bye else None]
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Repeats what is unanswered, and gives up in the end."""
        if self._repeat_at is not None and self._repeat_at <= now:
            # REQ: RFC 3261 section 17.1.1.2: timer A doubles each time, and runs on unreliable transports alone.
            self._send(self._invite)
            self._repeat_after *= 2
            self._repeat_at = now + self._repeat_after
        if self._give_up_at is not None and self._give_up_at <= now:
            if self._state is _State.PROCEEDING:
                # REQ: RFC 3261 section 9.1: CANCEL only after a provisional response, with the INVITE's branch.
                self._send(
                    bytes(message.request("CANCEL", self._uri, self._headers("CANCEL", self._invite_via, self._to)))
                )
            self._finish(TimedOut("INVITE"))
        if self._bye is not None:
            for outcome in self._bye.handle_timer(now):
                if outcome is Outcome.SEND and self._bye.data is not None:
                    self._send(self._bye.data)
                elif outcome is Outcome.TIMED_OUT:
                    self._finish(TimedOut("BYE"))

    def outgoing(self) -> list[tuple[bytes, Endpoint]]:
        """Messages to send, each with where to; on TCP and TLS all go over the one connection."""
        waiting = list(self._outgoing)
        self._outgoing.clear()
        return waiting

    def next_event(self) -> Event | None:
        """The next thing that happened, or None."""
        return self._events.popleft() if self._events else None

    # -- responses --------------------------------------------------------------------------------------------------

    def _response(self, response: Response, sequence: cseq.CSeq, now: float) -> None:
        if sequence.method == "INVITE":
            self._invite_response(response)
        elif sequence.method == "BYE" and self._bye is not None:
            outcomes = self._bye.take(input_of(response.status), now)
            if Outcome.DELIVER in outcomes:
                self._finish(Ended("us", response.status))

    def _invite_response(self, response: Response) -> None:
        if response.status in _SUCCESS:
            if self._state in {_State.CALLING, _State.PROCEEDING}:
                self._accept(response)
            elif self._ack:
                self._send(self._ack)  # a copy of the 2xx: our ACK was lost
        elif response.status < _SUCCESS.start:
            if self._state is _State.CALLING:
                self._state = _State.PROCEEDING
                self._repeat_at = None
        elif self._state in {_State.CALLING, _State.PROCEEDING, _State.COMPLETED}:
            # REQ: RFC 3261 section 17.1.1.3: this ACK has the INVITE's Via and CSeq number, and the To of the response.
            acknowledged = self._headers("ACK", self._invite_via, response.required("To"))
            self._send(bytes(message.request("ACK", self._uri, acknowledged)))
            if self._state is not _State.COMPLETED:
                self._finish(Refused(response.status, response.reason), _State.COMPLETED)

    def _accept(self, response: Response) -> None:
        self._to = response.required("To")
        contact = response.header("Contact")
        if contact is not None:
            self._remote_target = address.parse(contact).uri
        # REQ: RFC 3261 section 12.1.2: the route set is the Record-Route of the response, in reverse order.
        self._routes = list(reversed(response.listed("Record-Route")))
        self._destination = self._next_hop()
        self._state = _State.ACCEPTED
        self._repeat_at = self._give_up_at = None
        self._ack = bytes(message.request("ACK", self._remote_target, self._in_dialog("ACK", self._via())))
        self._send(self._ack)
        try:
            self._events.append(Answered(_streams(response)))
        except MalformedInput as error:
            self._events.append(Refused(response.status, f"an answer that cannot be used: {error}"))

    def _next_hop(self) -> Endpoint:
        """Where requests of the dialog go: the address in the recorder's Contact, else where it was called."""
        if self._routes:
            return self._target
        try:
            uri = address.parse(f"<{self._remote_target}>").parsed_uri()
            return Endpoint(str(ipaddress.IPv4Address(uri.host)), uri.port or 5060)
        except (ValueError, MalformedInput):
            return self._target

    # -- requests of the recorder -----------------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        if request.method == "ACK":
            return
        inside = self._state is _State.ACCEPTED
        if request.method == "BYE" and inside:
            self._reply(request, 200, "OK")
            self._finish(Ended("recorder", 200))
        elif request.method in {"OPTIONS", "INFO"}:
            self._reply(request, 200, "OK")
        elif not inside:
            self._reply(request, 481, "Call/Transaction Does Not Exist")
        elif request.method in {"INVITE", "UPDATE"}:
            self._reply(request, 488, "Not Acceptable Here")
        else:
            self._reply(request, 405, "Method Not Allowed")

    def _reply(self, request: Request, status: int, reason: str) -> None:
        headers = [(name, value) for name in ("Via", "From", "To", "Call-ID", "CSeq") for value in request.all(name)]
        self._send(bytes(message.response(status, reason, headers)))

    # -- building ---------------------------------------------------------------------------------------------------

    def _via(self) -> str:
        return f"SIP/2.0/{self._transport.upper()} {self._local};branch=z9hG4bK{self._branch()};rport"

    def _headers(self, method: str, via: str, to: str) -> list[tuple[str, str]]:
        return [
            ("Via", via),
            ("Max-Forwards", "70"),
            ("From", self._from),
            ("To", to),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} {method}"),
            ("User-Agent", _USER_AGENT),
        ]

    def _in_dialog(self, method: str, via: str) -> list[tuple[str, str]]:
        return [*self._headers(method, via, self._to), *(("Route", route) for route in self._routes)]

    def _send(self, data: bytes) -> None:
        self._outgoing.append((data, self._destination))

    def _finish(self, event: Event, state: _State = _State.OVER) -> None:
        self._events.append(event)
        self._state = state
        self._repeat_at = self._give_up_at = None
        self._bye = None


def _streams(response: Response) -> tuple[AnsweredStream, ...]:
    kind = (response.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/sdp":
        raise MalformedInput("it is not application/sdp")
    answer = sdp.parse(response.body)
    return tuple(AnsweredStream(media.label or "", media.connection or "", media.port) for media in answer.media)
