"""Octets to requests and back: connections, framing, transactions. Sans-IO; standard: RFC 3261 sections 17 and 18.

The layer owns every transaction and every stream's framer; `core` is what it serves. One request reaches the core once,
whatever the network repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import cseq as cseqs
from sbc_agent.protocol import message, responses
from sbc_agent.protocol import via as vias
from sbc_agent.protocol.counters import WireCounters
from sbc_agent.protocol.cseq import CSeq
from sbc_agent.protocol.events import CloseFlow, Event, SendMessage
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.grammar import split
from sbc_agent.protocol.limits import COST_BYTES, HostLimits
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.stream import StreamFramer
from sbc_agent.protocol.timers import Timers
from sbc_agent.protocol.transactions import Input, Outcome, Transaction, input_of

MAX_TRANSACTIONS: Final = 50_000
MAX_HELD_BYTES: Final = 128 << 20
_FINAL: Final = 200

TransactionKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came: read, with its octets, its CSeq, its flow, and the key of its transaction."""

    request: Request
    raw: bytes = field(repr=False)
    cseq: CSeq
    flow: Flow
    fallback: HostPort
    key: TransactionKey


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how much the layer waits for.

    Attributes:
        message_s: within how many seconds a message on a stream must be whole, the first one counted from the
            connection's beginning.
        idle_s: after how many seconds a connection is closed on which nothing comes and no dialog lives.
        transactions: how many transactions there may be.
        held_bytes: how many octets of messages they may keep; a flood of large ones must not fill the memory.
    """

    message_s: float = 15.0
    idle_s: float = 900.0
    transactions: int = MAX_TRANSACTIONS
    held_bytes: int = MAX_HELD_BYTES


class Core(Protocol):
    """What the layer serves."""

    def request_received(self, incoming: Incoming, now: float) -> None:
        """A request, not an ACK, came for the first time."""

    def ack_received(self, incoming: Incoming, now: float) -> None:
        """An ACK came that belongs to a 2xx."""

    def copy_received(self, incoming: Incoming, now: float) -> None:
        """A copy of an INVITE came that was answered by a 2xx."""

    def final_received(self, key: TransactionKey, answer: Response | None, raw: bytes, now: float) -> None:
        """A request of ours was answered; None: it was not, in time."""

    def in_use(self, flow: Flow) -> bool:
        """Whether a dialog lives on this connection."""


@dataclass(slots=True)
class _Entry:
    """A transaction and where its messages go.

    Attributes:
        transaction: the transaction.
        flow: where its messages go.
        fallback: where they go if the flow is gone.
        is_server: whether the peer began it.
        incoming: its request, until it is answered: for half a minute after that the answer is enough.
        held_bytes: what it keeps of messages.
    """

    transaction: Transaction
    flow: Flow
    fallback: HostPort
    is_server: bool = False
    incoming: Incoming | None = None
    held_bytes: int = 0


@dataclass(slots=True)
class _Connection:
    """A stream: its framer, when it was heard, and since when a message on it has been unfinished."""

    framer: StreamFramer
    heard_at: float
    partial_since: float | None = None

    def deadline(self, patience: Patience) -> float:
        idle_until = self.heard_at + patience.idle_s
        return idle_until if self.partial_since is None else min(idle_until, self.partial_since + patience.message_s)


class TransactionLayer:
    """The layer.

    Args:
        core: what is served.
        emit: takes the events that it makes.
        fresh: yields unguessable tokens, for the To tags of answers to what cannot be read.
        hosts: how much each sender may say.
        patience: how long and how much it waits for.

    Attributes:
        counters: what happened on the wire.
    """

    def __init__(
        self,
        core: Core,
        emit: Callable[[Event], None],
        fresh: Callable[[], str],
        hosts: HostLimits,
        patience: Patience | None = None,
    ) -> None:
        self.counters = WireCounters()
        self._hosts = hosts
        self._core = core
        self._emit = emit
        self._fresh = fresh
        self._patience = patience or Patience()
        self._entries: dict[TransactionKey, _Entry] = {}
        self._held_bytes = 0
        self._connections: dict[Flow, _Connection] = {}
        self._timers: Timers[TransactionKey | Flow] = Timers()

    @property
    def transactions(self) -> int:
        """How many transactions there are."""
        return len(self._entries)

    def flow_opened(self, flow: Flow, now: float) -> None:
        """There is a new connection: its first message must be whole in time, whatever comes before it."""
        connection = self._connections[flow] = _Connection(StreamFramer(), now, now)
        self._timers.set(flow, connection.deadline(self._patience))

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Octets came: one datagram, or the next of a stream."""
        if not flow.reliable:
            self._receive_datagram(data, flow, now)
            return
        self._hosts.take(flow.remote[0], len(data) / COST_BYTES, now)
        connection = self._connections.setdefault(flow, _Connection(StreamFramer(), now))
        connection.framer.feed(data)
        connection.heard_at = now
        try:
            while (whole := connection.framer.next_message()) is not None:
                connection.partial_since = None
                self._hosts.take(flow.remote[0], 1, now)
                self._receive_message(whole, flow, now)
        except MalformedInput:
            self.counters.malformed += 1
            self.flow_closed(flow)
            self._emit(CloseFlow(flow))
            return
        for _ in range(connection.framer.take_pings()):
            self._emit(SendMessage(b"\r\n", flow, flow.remote))
        if not connection.framer.partial:
            connection.partial_since = None
        elif connection.partial_since is None:
            connection.partial_since = now
        self._timers.set(flow, connection.deadline(self._patience))

    def hold_up(self, flow: Flow, now: float) -> float:
        """How long nothing more shall be read from a connection, in seconds: its host has said enough for now."""
        wait_s = self._hosts.wait(flow.remote[0], now)
        self.counters.held_up += wait_s > 0
        return wait_s

    def flow_closed(self, flow: Flow) -> None:
        """A connection is gone; responses that still go to it will use their fallback."""
        self._connections.pop(flow, None)
        self._timers.set(flow, None)

    def timer(self) -> float | None:
        """The next deadline, or None."""
        return self._timers.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        for key in self._timers.due(now):
            if isinstance(key, Flow):
                self._connection_due(key, now)
            elif (entry := self._entries.get(key)) is not None:
                self._perform(key, entry, entry.transaction.handle_timer(now), now)

    def respond(self, incoming: Incoming, answer: Response, now: float) -> bytes:
        """Answer a request; later copies of it get the same.

        Returns:
            The octets of the answer.
        """
        data = bytes(answer)
        entry = self._entries.get(incoming.key)
        if entry is None:
            self._emit(SendMessage(data, incoming.flow, incoming.fallback))
        else:
            self._perform(incoming.key, entry, entry.transaction.respond(answer.status, data, now), now)
            if answer.status >= _FINAL and not entry.transaction.terminated:
                self._hold(entry, None, len(data))
        return data

    def request(self, asked: Request, flow: Flow, fallback: HostPort, now: float) -> TransactionKey:
        """Send a request of ours, not an INVITE; `Core.final_received` will tell how it ended.

        Returns:
            The key by which it will be told.
        """
        data = bytes(asked)
        key = ("client", vias.parse(asked.required("via")).branch, asked.method)
        entry = _Entry(Transaction.client(data, reliable=flow.reliable, now=now), flow, fallback)
        self._entries[key] = entry
        self._emit(SendMessage(data, flow, fallback))
        self._timers.set(key, entry.transaction.timer())
        return key

    def cancelled(self, incoming: Incoming) -> TransactionKey | None:
        """The transaction of the INVITE that a CANCEL means (section 9.2), or None if there is none."""
        key = (*incoming.key[:-1], "INVITE")
        return key if key in self._entries else None

    def _receive_datagram(self, data: bytes, flow: Flow, now: float) -> None:
        self.counters.datagrams += 1
        if not self._hosts.admits(flow.remote[0], len(data), now):
            self.counters.limited += 1
        elif data.strip(b"\r\n\0 "):  # else a keep-alive
            self._receive_message(data, flow, now)

    def _receive_message(self, data: bytes, flow: Flow, now: float) -> None:
        try:
            read = message.parse(data)
            if isinstance(read, Response):
                self.counters.responses += 1
                self._receive_response(read, data, now)
                return
            incoming = _incoming(read, data, flow)
        except MalformedInput as error:
            self.counters.malformed += 1
            self._refuse(data, flow, error.sip_status)
            return
        self._receive_request(incoming, now)

    def _receive_request(self, incoming: Incoming, now: float) -> None:
        entry = self._entries.get(incoming.key)
        is_ack = incoming.request.method == "ACK"
        if entry is not None:
            self.counters.copies += not is_ack
            event = Input.ACK if is_ack else Input.COPY
            self._perform(incoming.key, entry, entry.transaction.take(event, now), now, incoming)
        elif is_ack:
            # REQ: RFC 3261 section 13.2.2.4: the ACK of a 2xx has a branch of its own: the core finds its dialog.
            self._core.ack_received(incoming, now)
        elif self._is_full(len(incoming.raw)):
            self.counters.shed += 1
            self._emit_response(incoming, 503)
        else:
            self.counters.requests += 1
            start = Transaction.invite_server if incoming.request.method == "INVITE" else Transaction.server
            transaction = start(reliable=incoming.flow.reliable, now=now)
            entry = self._entries[incoming.key] = _Entry(transaction, incoming.flow, incoming.fallback, is_server=True)
            self._hold(entry, incoming, len(incoming.raw))
            self._timers.set(incoming.key, transaction.timer())
            self._core.request_received(incoming, now)

    def _is_full(self, more_bytes: int) -> bool:
        patience = self._patience
        return len(self._entries) >= patience.transactions or self._held_bytes + more_bytes > patience.held_bytes

    def _hold(self, entry: _Entry, incoming: Incoming | None, size_bytes: int) -> None:
        """Notes what a transaction keeps from now on."""
        self._held_bytes += size_bytes - entry.held_bytes
        entry.incoming, entry.held_bytes = incoming, size_bytes

    def _receive_response(self, answer: Response, data: bytes, now: float) -> None:
        branch = vias.parse(split(answer.required("via"), ",")[0]).branch
        key = ("client", branch, cseqs.parse(answer.required("cseq")).method)
        entry = self._entries.get(key)
        if entry is not None:  # REQ: RFC 6026 section 8.9: a stray response is dropped
            outcomes = entry.transaction.take(input_of(answer.status), now)
            self._perform(key, entry, outcomes, now, answer=answer, raw=data)

    def _perform(
        self,
        key: TransactionKey,
        entry: _Entry,
        outcomes: tuple[Outcome, ...],
        now: float,
        incoming: Incoming | None = None,
        *,
        answer: Response | None = None,
        raw: bytes = b"",
    ) -> None:
        """Do what a transaction asks, then note its next deadline or forget it."""
        transaction = entry.transaction
        if transaction.terminated and self._entries.pop(key, None) is not None:
            self._hold(entry, None, 0)
        self._timers.set(key, transaction.timer())
        # A copy that came over a new connection is answered there: the old one may be gone.
        flow, fallback = (incoming.flow, incoming.fallback) if incoming else (entry.flow, entry.fallback)
        for outcome in outcomes:
            if outcome is Outcome.SEND and transaction.data is not None:
                self._emit(SendMessage(transaction.data, flow, fallback))
            elif outcome is Outcome.TRYING and entry.incoming is not None:
                trying = responses.build(entry.incoming.request, 100, flow=entry.flow)
                self.respond(entry.incoming, trying, now)
            elif outcome is Outcome.COPY and incoming is not None:
                self._core.copy_received(incoming, now)
            elif outcome is Outcome.ACK and incoming is not None:
                self._core.ack_received(incoming, now)
            elif outcome is Outcome.DELIVER or (outcome is Outcome.TIMED_OUT and not entry.is_server):
                self._core.final_received(key, answer, raw, now)

    def _connection_due(self, flow: Flow, now: float) -> None:
        connection = self._connections.get(flow)
        if connection is None:
            return
        if connection.partial_since is None and self._core.in_use(flow):
            connection.heard_at = now  # idle, but a dialog lives on it
        if connection.deadline(self._patience) > now:
            self._timers.set(flow, connection.deadline(self._patience))
            return
        if connection.partial_since is None:
            self.counters.idle_connections += 1
        else:
            self.counters.late_messages += 1
        self.flow_closed(flow)
        self._emit(CloseFlow(flow))

    def _refuse(self, data: bytes, flow: Flow, status: int) -> None:
        """Tell the sender of what cannot be read, if it says whom to tell; without a transaction."""
        asked = message.salvage(data)
        if asked is None:
            return
        try:
            fallback = responses.destination(asked, flow)
            code = status if status in responses.REASONS else 400
            answer = responses.build(asked, code, to_tag=self._fresh(), flow=flow)
        except MalformedInput:
            return
        self._emit(SendMessage(bytes(answer), flow, fallback))

    def _emit_response(self, incoming: Incoming, status: int) -> None:
        answer = responses.build(incoming.request, status, to_tag=self._fresh(), flow=incoming.flow)
        self._emit(SendMessage(bytes(answer), incoming.flow, incoming.fallback))


def _incoming(asked: Request, raw: bytes, flow: Flow) -> Incoming:
    """Check what section 8.1.1 makes mandatory and name the transaction (section 17.2.3).

    Raises:
        MalformedInput: a mandatory header is missing or cannot be read.
    """
    top = vias.parse(split(asked.required("via"), ",")[0])
    cseq = cseqs.parse(asked.required("cseq"))
    if cseq.method != asked.method:
        raise MalformedInput("CSeq and start line name different methods")
    for name in ("from", "to", "call-id"):
        asked.required(name)
    method = "INVITE" if asked.method == "ACK" else asked.method
    if top.branch.lower().startswith(vias.MAGIC_COOKIE.lower()):
        key: TransactionKey = ("server", top.branch, top.sent_by, method)
    else:
        # A peer of RFC 2543: no branch to trust, so all that an ACK or a copy repeats must agree.
        identity = (asked.required("call-id"), asked.required("from"), str(cseq.number), str(top))
        key = ("server-2543", *identity, method)
    return Incoming(asked, raw, cseq, flow, responses.destination(asked, flow), key)
