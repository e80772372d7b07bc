"""The SIP sockets: datagrams and connections in, datagrams and connections out, and the clock.

Everything that SIP means is decided in ``sbc_agent.protocol``; this moves octets, calls back in time, and hands the
core's other events to the recorder. A datagram that the kernel cannot take is dropped: SIP repeats what matters.
Connections are ``sip_streams``; whether a new call is taken at all is ``admission``'s to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from sbc_agent.media.client import MediaPort
from sbc_agent.protocol.counters import WireCounters
from sbc_agent.protocol.events import CloseFlow, Event, SendMessage
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.limits import SipLimits
from sbc_agent.protocol.sdes import SrtpPolicy
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.transaction_layer import Patience
from sbc_agent.protocol.uas import LONGEST_SESSION_SECONDS, ServerSettings
from sbc_agent.runtime.admission import BEAT_SECONDS, Admission, Capacity
from sbc_agent.runtime.arrival import ANCILLARY_BYTES, stamp_arrivals, waited_s
from sbc_agent.runtime.call_fates import Chain, Tally
from sbc_agent.runtime.decisions import Decisions
from sbc_agent.runtime.journal import Journal, Legacy
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.recorder import OwnCall, Recorder
from sbc_agent.runtime.sip_certificate import SipCertificate, TlsFiles
from sbc_agent.runtime.sip_streams import ConnectionLimits, SipStreams

MAX_DATAGRAM_BYTES: Final = 65_535
_SOCKET_BUFFER_BYTES: Final = 8 << 20
_DATAGRAMS_AT_ONCE: Final = 64
_TOKEN_BYTES: Final = 16
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class SipSettings:
    """Where SIP is heard, and how much of it.

    Attributes:
        udp: Address and port for datagrams (port 0: any free one), or None.
        tcp: The same for connections.
        tls: The same for connections by TLS.
        tls_files: What TLS proves itself with; wanted with ``tls``.
        media_address: Our IP address for RTP.
        advertise: Host in our Contact; None takes the address that a peer reached, or the media address where the
            socket is bound to every address.
        peers: IP addresses whose INVITEs are recording sessions without any mark.
        product: Our name in Server.
        limits: How much peers may say.
        patience: How long and how much is waited for.
        connections: How many connections there may be.
        capacity: How many calls are taken.
        srtp: Whether SRTP is accepted, whose keys stand in the session description.
        longest_session_s: After so long a session is ended by BYE, in seconds.
    """

    media_address: str
    udp: HostPort | None = ("127.0.0.1", 5060)
    tcp: HostPort | None = ("127.0.0.1", 5060)
    advertise: str | None = None
    peers: frozenset[str] = frozenset()
    product: str = "Dualtone"
    tls: HostPort | None = None
    tls_files: TlsFiles | None = None
    limits: SipLimits = field(default_factory=SipLimits)
    patience: Patience = field(default_factory=Patience)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    capacity: Capacity = field(default_factory=Capacity)
    srtp: SrtpPolicy = "allow"
    longest_session_s: float = LONGEST_SESSION_SECONDS


@dataclass(frozen=True, slots=True)
class SipAddresses:
    """Where SIP is heard, ports as the kernel chose them."""

    udp: HostPort | None
    tcp: HostPort | None
    tls: HostPort | None = None


class SipShell:
    """SIP over UDP, TCP and TLS.

    Use: ``await shell.start()``; ``await shell.drain()`` ends all calls; ``await shell.close()`` closes the sockets.

    Args:
        settings: Where to listen.
        media: The media process, ready.
        log: Where events are written.
        has_room: Tells whether there is room for a new call in the spool.
        journal: Where live calls are kept for a later run; None keeps none.
        decisions: Judges calls; by default every call is recorded.
        tally: Counts what is not recorded.
        chain: Numbers the recordings of each line.
        canary: Knows the agent's own call; None if it places none.
    """

    def __init__(
        self,
        settings: SipSettings,
        media: MediaPort,
        log: Log,
        *,
        has_room: Callable[[], bool] = lambda: True,
        journal: Journal | None = None,
        decisions: Decisions | None = None,
        tally: Tally | None = None,
        chain: Chain | None = None,
        canary: OwnCall | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        core = ServerSettings(
            settings.media_address,
            settings.advertise,
            settings.peers,
            settings.product,
            srtp=settings.srtp,
            longest_session_s=settings.longest_session_s,
            limits=settings.limits,
            patience=settings.patience,
        )
        self._server = SipServer(core, lambda: secrets.token_hex(_TOKEN_BYTES), secrets.token_bytes)
        self.recorder = Recorder(
            self._server,
            media,
            log,
            has_room=has_room,
            journal=journal,
            decisions=decisions,
            tally=tally,
            chain=chain,
            canary=canary,
        )
        self.admission = Admission(settings.capacity, lambda: self.recorder.calls)
        self._server.admission = self.admission.refusal
        self._certificate: SipCertificate | None = None
        self._streams: SipStreams | None = None
        self._udp: socket.socket | None = None
        self._udp_local: HostPort = ("", 0)
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._closed = False

    async def start(self, legacy: Legacy | None = None) -> SipAddresses:
        """Goes on with the calls of an earlier run, then opens the sockets.

        Args:
            legacy: What that run left.

        Returns:
            Their addresses.

        Raises:
            OSError: If an address cannot be bound.
            MalformedInput: If a file of TLS cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        if self._settings.tls is not None and self._settings.tls_files is not None:
            self._certificate = SipCertificate(self._settings.tls_files, self._log)
        self._streams = streams = SipStreams(
            self,
            self.counters,
            self._log,
            limits=self._settings.connections,
            certificate=self._certificate,
            reachable=self._reachable,
        )
        self.recorder.wake = lambda: self._loop.call_soon(self._due)
        self.recorder.inherit(legacy or Legacy(), self._loop.time())
        udp = tcp = tls = None
        if self._settings.udp is not None:
            self._udp = _datagram_socket(self._settings.udp)
            udp = _address(self._udp.getsockname())
            self._udp_local = self._reachable(udp)
            self._loop.add_reader(self._udp.fileno(), self._datagrams)
        if self._settings.tcp is not None:
            tcp = await streams.listen("tcp", self._settings.tcp)
        if self._settings.tls is not None and self._certificate is not None:
            tls = await streams.listen("tls", self._settings.tls)
        self._beat_at(self._loop.time())
        self._pump()
        return SipAddresses(udp, tcp, tls)

    def reload_certificate(self) -> None:
        """Reads the certificate of TLS anew, for the connections that come from now on."""
        if self._certificate is not None:
            self._certificate.reload()

    @property
    def counters(self) -> WireCounters:
        """What happened on the wire."""
        return self._server.counters

    def take_no_more(self) -> None:
        """Refuses new sessions by 503, and says so to OPTIONS; those that there are go on."""
        self._server.draining = True

    async def drain(self, grace_s: float = 4.0) -> None:
        """Takes no new sessions, ends those that there are by BYE, and waits for the peers' answers.

        Args:
            grace_s: How long to wait for the answers.
        """
        self._server.draining = True
        self._server.end_all("shutdown", self._loop.time())
        self._pump()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)

    async def close(self) -> None:
        """Closes the sockets."""
        self._closed = True
        for timer in (self._timer, self._beat):
            if timer is not None:
                timer.cancel()
        if self._udp is not None:
            self._loop.remove_reader(self._udp.fileno())
            self._udp.close()
        if self._streams is not None:
            await self._streams.close()

    # --- octets in ---------------------------------------------------------------------------------------------------

    def _datagrams(self) -> None:
        assert self._udp is not None
        try:
            for _ in range(_DATAGRAMS_AT_ONCE):
                try:
                    data, ancillary, _, source = self._udp.recvmsg(MAX_DATAGRAM_BYTES, ANCILLARY_BYTES)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # an ICMP error of an earlier datagram
                # Read anew each time: a BYE stamped before it came would cut off the speech that came just before it.
                now = self._loop.time()
                self.admission.served("sip_late", waited_s(ancillary), now)
                self._server.receive(data, Flow("udp", _address(source), self._udp_local), now)
        finally:
            self._pump()

    def opened(self, flow: Flow) -> None:
        """There is a new connection."""
        self._server.flow_opened(flow, self._loop.time())
        self._set_timer()

    def received(self, flow: Flow, data: bytes) -> float:
        """Octets came on a connection; returns for how many seconds nothing more is to be read from it."""
        now = self._loop.time()
        try:
            self._server.receive(data, flow, now)
        finally:
            self._pump()
        return self._server.hold_up(flow, now)

    def closed(self, flow: Flow) -> None:
        """A connection is gone."""
        self._server.flow_closed(flow)

    # --- events out --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Does all that the core wants done, then sets the alarm clock. Nothing leaves before the journal knows it."""
        now = self._loop.time()
        while (event := self._server.next_event()) is not None:
            if isinstance(event, SendMessage):
                self._keep(now)
                self._send(event)
            elif isinstance(event, CloseFlow):
                if self._streams is not None:
                    self._streams.close_flow(event.flow)
            else:
                self._record(event, now)
        self._keep(now)
        if self._server.draining and not self._server.requests_waiting:
            self._idle.set()
        self._set_timer()

    def _set_timer(self) -> None:
        at = min((at for at in (self._server.timer(), self.recorder.timer()) if at is not None), default=None)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None or self._closed else self._loop.call_at(at, self._due)

    def _record(self, event: Event, now: float) -> None:
        """Hands an event to the recorder; what goes wrong with one call must not hold up the answers to others."""
        try:
            self.recorder.handle(event, now)
        except Exception as error:  # noqa: BLE001 - a fault of ours is told, and the next event is served
            self._log.failure("recorder_failed", error)

    def _keep(self, now: float) -> None:
        try:
            self.recorder.keep(now)
        except Exception as error:  # noqa: BLE001 - as above: an answer is worth more than what a restart would know
            self._log.failure("journal_failed", error)

    def _due(self) -> None:
        try:
            self._server.handle_timer(self._loop.time())
            self.recorder.pass_time(self._loop.time())
        finally:
            self._pump()

    def _send(self, event: SendMessage) -> None:
        if event.flow.transport == "udp":
            if self._udp is not None:
                try:
                    self._udp.sendto(event.data, event.fallback)
                except OSError as error:
                    self._log.debug("send_failed", transport="udp", error=type(error).__name__)
            return
        if self._streams is not None:
            self._streams.send(event.data, event.flow, event.fallback)

    def _beat_at(self, due: float) -> None:
        """Looks how late this loop comes to what it planned: an answer to a peer would come as late."""
        now = self._loop.time()
        self.admission.served("loop_late", now - due, now)
        if not self._closed:
            self._beat = self._loop.call_at(now + BEAT_SECONDS, self._beat_at, now + BEAT_SECONDS)

    def _reachable(self, local: HostPort) -> HostPort:
        return (self._settings.media_address, local[1]) if local[0] in _UNSPECIFIED else local


def _datagram_socket(address: HostPort) -> socket.socket:
    family: Literal[socket.AddressFamily.AF_INET, socket.AddressFamily.AF_INET6]
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the standard library names no argument
        stamp_arrivals(opened)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> HostPort:
    return name[0], name[1]
