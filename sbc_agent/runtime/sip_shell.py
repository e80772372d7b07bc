"""The SIP sockets: datagrams and connections in, datagrams and connections out, and the clock.

Everything that SIP means is decided in ``sbc_agent.protocol``; this moves octets, calls back in time, and hands the
core's other events to the recorder. A datagram that the kernel cannot take is dropped: SIP repeats what matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, cast

from sbc_agent.media.client import MediaPort
from sbc_agent.protocol.events import CloseFlow, Event, SendMessage
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.uas import ServerSettings
from sbc_agent.runtime.journal import Journal, Legacy
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.recorder import Recorder

MAX_DATAGRAM_BYTES: Final = 65_535
MAX_CONNECTIONS: Final = 1_024
MAX_CONNECTIONS_PER_PEER: Final = 64
MAX_UNSENT_BYTES: Final = 1 << 20
CONNECT_SECONDS: Final = 4.0
MAX_CONNECTING: Final = 64
_SOCKET_BUFFER_BYTES: Final = 8 << 20
_DATAGRAMS_AT_ONCE: Final = 64
_TOKEN_BYTES: Final = 16
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class SipSettings:
    """Where SIP is heard.

    Attributes:
        udp: Address and port for datagrams (port 0: any free one), or None.
        tcp: The same for connections.
        media_address: Our IP address for RTP.
        advertise: Host in our Contact; None takes the address that a peer reached, or the media address where the
            socket is bound to every address.
        peers: IP addresses whose INVITEs are recording sessions without any mark.
        product: Our name in Server.
    """

    media_address: str
    udp: HostPort | None = ("127.0.0.1", 5060)
    tcp: HostPort | None = ("127.0.0.1", 5060)
    advertise: str | None = None
    peers: frozenset[str] = frozenset()
    product: str = "Dualtone"


@dataclass(frozen=True, slots=True)
class SipAddresses:
    """Where SIP is heard, ports as the kernel chose them."""

    udp: HostPort | None
    tcp: HostPort | None


class SipShell:
    """SIP over UDP and TCP.

    Use: ``await shell.start()``; ``await shell.drain()`` ends all calls; ``await shell.close()`` closes the sockets.

    Args:
        settings: Where to listen.
        media: The media process, ready.
        log: Where events are written.
        has_room: Tells whether there is room for a new call in the spool.
        journal: Where live calls are kept for a later run; None keeps none.
    """

    def __init__(
        self,
        settings: SipSettings,
        media: MediaPort,
        log: Log,
        *,
        has_room: Callable[[], bool] = lambda: True,
        journal: Journal | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        core = ServerSettings(settings.media_address, settings.advertise, settings.peers, settings.product)
        self._server = SipServer(core, lambda: secrets.token_hex(_TOKEN_BYTES))
        self.recorder = Recorder(self._server, media, log, has_room=has_room, journal=journal)
        self._connections: dict[int, _Connection] = {}
        self._last_connection = 0
        self._udp: socket.socket | None = None
        self._udp_local: HostPort = ("", 0)
        self._tcp: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
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
        """
        self._loop = asyncio.get_running_loop()
        self.recorder.inherit(legacy or Legacy(), self._loop.time())
        udp = tcp = None
        if self._settings.udp is not None:
            self._udp = _datagram_socket(self._settings.udp)
            udp = _address(self._udp.getsockname())
            self._udp_local = self._reachable(udp)
            self._loop.add_reader(self._udp.fileno(), self._datagrams)
        if self._settings.tcp is not None:
            self._tcp = await self._loop.create_server(lambda: _Connection(self), *self._settings.tcp, backlog=512)
            tcp = _address(self._tcp.sockets[0].getsockname())
        self._pump()
        return SipAddresses(udp, tcp)

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
        if self._timer is not None:
            self._timer.cancel()
        if self._udp is not None:
            self._loop.remove_reader(self._udp.fileno())
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for connection in list(self._connections.values()):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tcp is not None:
            await self._tcp.wait_closed()

    # --- octets in ---------------------------------------------------------------------------------------------------

    def _datagrams(self) -> None:
        assert self._udp is not None
        try:
            for _ in range(_DATAGRAMS_AT_ONCE):
                try:
                    data, source = self._udp.recvfrom(MAX_DATAGRAM_BYTES)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # an ICMP error of an earlier datagram
                # Read anew each time: a BYE stamped before it came would cut off the speech that came just before it.
                now = self._loop.time()
                self._server.receive(data, Flow("udp", _address(source), self._udp_local), now)
        finally:
            self._pump()

    def received(self, connection: _Connection, data: bytes) -> None:
        """Octets came on a connection."""
        try:
            self._server.receive(data, connection.flow, self._loop.time())
        finally:
            self._pump()

    def connected(self, connection: _Connection, remote: HostPort, local: HostPort, *, accepted: bool) -> Flow | None:
        """A connection was made; None if there are too many already."""
        of_peer = sum(other.flow.remote[0] == remote[0] for other in self._connections.values())
        if accepted and (len(self._connections) >= MAX_CONNECTIONS or of_peer >= MAX_CONNECTIONS_PER_PEER):
            self._log.warning("connection_refused", transport="tcp")
            return None
        self._last_connection += 1
        self._connections[self._last_connection] = connection
        local = self._reachable(local)
        if not accepted and self._tcp is not None:
            # We connected: the peer shall come back to where we listen, not to this connection's own port.
            local = (local[0], _address(self._tcp.sockets[0].getsockname())[1])
        return Flow("tcp", remote, local, self._last_connection)

    def disconnected(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection.flow.connection, None)
        self._server.flow_closed(connection.flow)

    # --- events out --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Does all that the core wants done, then sets the alarm clock. Nothing leaves before the journal knows it."""
        now = self._loop.time()
        while (event := self._server.next_event()) is not None:
            if isinstance(event, SendMessage):
                self._keep(now)
                self._send(event)
            elif isinstance(event, CloseFlow):
                if (connection := self._connections.get(event.flow.connection)) is not None:
                    connection.close()
            else:
                self._record(event, now)
        self._keep(now)
        if self._server.draining and not self._server.requests_waiting:
            self._idle.set()
        at = self._server.timer()
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
        connection = self._connections.get(event.flow.connection) or next(
            (other for other in self._connections.values() if other.flow.remote == event.fallback), None
        )
        if connection is not None:
            connection.send(event.data)
        elif not self._closed and len(self._tasks) < MAX_CONNECTING:  # else SIP repeats what matters
            task = self._loop.create_task(self._connect_and_send(event), name="sip-connect")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_and_send(self, event: SendMessage) -> None:
        """REQ: RFC 3261 section 18.2.2: where the request's connection is gone, a new one takes the response."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self, accepted=False), *event.fallback
                )
        except (OSError, TimeoutError) as error:
            self._log.debug("send_failed", transport="tcp", error=type(error).__name__)
            return
        connection.send(event.data)

    def _reachable(self, local: HostPort) -> HostPort:
        return (self._settings.media_address, local[1]) if local[0] in _UNSPECIFIED else local


class _Connection(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, shell: SipShell, *, accepted: bool = True) -> None:
        self._shell = shell
        self._accepted = accepted
        self._transport: asyncio.Transport | None = None
        self.flow = Flow("tcp", ("", 0), ("", 0))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The kernel has made the connection."""
        self._transport = cast("asyncio.Transport", transport)
        remote = _address(transport.get_extra_info("peername") or ("", 0))
        local = _address(transport.get_extra_info("sockname") or ("", 0))
        flow = self._shell.connected(self, remote, local, accepted=self._accepted)
        if flow is None:
            self._transport.abort()
            return
        self.flow = flow
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """Octets came."""
        if self.flow.connection and self._transport is not None and not self._transport.is_closing():
            self._shell.received(self, data)

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection is gone."""
        if self.flow.connection:
            self._shell.disconnected(self)

    def send(self, data: bytes) -> None:
        """Sends octets; a peer that takes nothing is cut off."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()
            return
        self._transport.write(data)

    def close(self) -> None:
        """Closes the connection after what is still to be sent."""
        if self._transport is not None:
            self._transport.close()


def _datagram_socket(address: HostPort) -> socket.socket:
    family: Literal[socket.AddressFamily.AF_INET, socket.AddressFamily.AF_INET6]
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the standard library names no argument
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> HostPort:
    return name[0], name[1]
