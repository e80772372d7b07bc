"""SIP's connections: accepted and made, plain and by TLS. They carry octets; what those mean is the core's.

What a stranger can do with a connection is bounded: how many there are, in all and of one address; how long until
something whole has come (the core's clock, from the first moment on, TLS handshake included); how much is read at once
and how fast; how much may wait for a peer that takes nothing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from sbc_agent.protocol.counters import WireCounters
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.sip_certificate import SipCertificate
from sbc_agent.runtime.tls_stream import TlsStream

CONNECT_SECONDS: Final = 4.0
MAX_CONNECTING: Final = 64
_BACKLOG: Final = 512

Kind = Literal["tcp", "tls"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be.

    Attributes:
        all: In all.
        peer: Of one IP address.
        unsent_bytes: What may wait for a peer; past it the connection is cut.
    """

    all: int = 1_024
    peer: int = 64
    unsent_bytes: int = 1 << 20


class Listener(Protocol):
    """Whom connections tell."""

    def opened(self, flow: Flow) -> None:
        """There is a new connection."""

    def received(self, flow: Flow, data: bytes) -> float:
        """The peer said something; returns for how many seconds nothing more is to be read of it."""

    def closed(self, flow: Flow) -> None:
        """A connection is gone."""


class SipStreams:
    """All connections.

    Args:
        listener: Whom they tell.
        counters: Where they count.
        log: Where they write.
        limits: How many there may be.
        certificate: What TLS proves itself with; None where there is no TLS.
        reachable: Turns our address of a connection into the one that the peer can reach.
    """

    def __init__(
        self,
        listener: Listener,
        counters: WireCounters,
        log: Log,
        *,
        limits: ConnectionLimits,
        certificate: SipCertificate | None,
        reachable: Callable[[HostPort], HostPort],
    ) -> None:
        self.listener = listener
        self.counters = counters
        self.limits = limits
        self._log = log
        self._certificate = certificate
        self._reachable = reachable
        self._connections: dict[int, Connection] = {}
        self._of_peer: collections.Counter[str] = collections.Counter()
        self._servers: dict[Kind, asyncio.Server] = {}
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def listen(self, kind: Kind, address: HostPort) -> HostPort:
        """Opens a listening socket.

        Returns:
            Its address.

        Raises:
            OSError: If it cannot be bound.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self, kind), *address, backlog=_BACKLOG)
        self._servers[kind] = server
        return _address(server.sockets[0].getsockname())

    def send(self, data: bytes, flow: Flow, fallback: HostPort) -> None:
        """Sends octets over a connection, over another to the same peer, or over a new one.

        REQ: RFC 3261 section 18.2.2: where the request's connection is gone, a new one takes the response.
        """
        connection = self._connections.get(flow.connection) or next(
            (
                other
                for other in self._connections.values()
                if other.flow.transport == flow.transport and other.flow.remote == fallback
            ),
            None,
        )
        if connection is not None:
            connection.send(data)
        elif not self._closed and len(self._tasks) < MAX_CONNECTING:  # else SIP repeats what matters
            kind: Kind = "tls" if flow.transport == "tls" else "tcp"
            task = asyncio.get_running_loop().create_task(self._connect_and_send(kind, data, fallback))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close_flow(self, flow: Flow) -> None:
        """Closes a connection of which the core has had enough."""
        if (connection := self._connections.get(flow.connection)) is not None:
            self.counters.late_handshakes += not connection.established
            connection.close()

    async def close(self) -> None:
        """Closes all sockets."""
        self._closed = True
        for server in self._servers.values():
            server.close()
        for connection in list(self._connections.values()):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.wait_closed()

    # --- the connections' side ---------------------------------------------------------------------------------------

    def admit(
        self, connection: Connection, kind: Kind, sock: tuple[HostPort, HostPort], *, accepted: bool
    ) -> Flow | None:
        """A connection was made; None if there are too many already."""
        remote, local = sock
        limits = self.limits
        if accepted and (len(self._connections) >= limits.all or self._of_peer[remote[0]] >= limits.peer):
            self.counters.connections_refused += 1
            self._log.warning("connection_refused", transport=kind)
            return None
        self._last += 1
        local = self._reachable(local)
        if not accepted and (server := self._servers.get(kind)) is not None:
            # We connected: the peer shall come back to where we listen, not to this connection's own port.
            local = (local[0], _address(server.sockets[0].getsockname())[1])
        flow = Flow(kind, remote, local, self._last)
        self._connections[self._last] = connection
        self._of_peer[remote[0]] += 1
        self.counters.connections += accepted
        self.counters.connections_open = len(self._connections)
        self.listener.opened(flow)
        return flow

    def gone(self, flow: Flow) -> None:
        """A connection is gone."""
        if self._connections.pop(flow.connection, None) is None:
            return
        self._of_peer[flow.remote[0]] -= 1
        if not self._of_peer[flow.remote[0]]:
            del self._of_peer[flow.remote[0]]
        self.counters.connections_open = len(self._connections)
        self.listener.closed(flow)

    def tls(self, *, accepted: bool) -> TlsStream:
        """A new TLS connection, with the newest certificate."""
        assert self._certificate is not None, "TLS is listened to with a certificate only"
        contexts = self._certificate.contexts
        return TlsStream(contexts.server if accepted else contexts.client, server_side=accepted)

    def handshake_failed(self) -> None:
        """A peer does not speak TLS as it must, or is not trusted."""
        self.counters.failed_handshakes += 1
        self._log.debug("handshake_failed", transport="tls")

    async def _connect_and_send(self, kind: Kind, data: bytes, address: HostPort) -> None:
        if kind == "tls" and self._certificate is None:
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, kind, accepted=False), *address
                )
        except (OSError, TimeoutError) as error:
            self._log.debug("send_failed", transport=kind, error=type(error).__name__)
            return
        connection.send(data)


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        streams: All of them.
        kind: Plain or TLS.
        accepted: Whether the peer made it.
    """

    def __init__(self, streams: SipStreams, kind: Kind, *, accepted: bool = True) -> None:
        self.flow = Flow(kind, ("", 0), ("", 0))
        self._streams = streams
        self._kind: Kind = kind
        self._accepted = accepted
        self._transport: asyncio.Transport | None = None
        self._tls: TlsStream | None = None
        self._resume: asyncio.TimerHandle | None = None

    @property
    def established(self) -> bool:
        """Whether octets of the peer's own can come: on TLS, whether the handshake is done."""
        return self._tls is None or self._tls.established

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The kernel has made the connection."""
        self._transport = cast("asyncio.Transport", transport)
        remote = _address(transport.get_extra_info("peername") or ("", 0))
        local = _address(transport.get_extra_info("sockname") or ("", 0))
        flow = self._streams.admit(self, self._kind, (remote, local), accepted=self._accepted)
        if flow is None:
            self._transport.abort()
            return
        self.flow = flow
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._kind == "tls":
            self._tls = self._streams.tls(accepted=self._accepted)
            self._flush()

    def data_received(self, data: bytes) -> None:
        """Octets came."""
        if not self.flow.connection or self._transport is None or self._transport.is_closing():
            return
        said = data if self._tls is None else self._open(self._tls, data)
        if said:
            self._hold_up(self._streams.listener.received(self.flow, said))
        if self._tls is not None and self._tls.closed:
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection is gone."""
        if self._resume is not None:
            self._resume.cancel()
        if self.flow.connection:
            self._streams.gone(self.flow)

    def send(self, data: bytes) -> None:
        """Sends octets; a peer that takes nothing is cut off."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > self._streams.limits.unsent_bytes:
            self._streams.counters.connections_cut += 1
            self._transport.abort()
        elif self._tls is None:
            self._transport.write(data)
        else:
            self._tls.send(data)
            self._flush()

    def close(self) -> None:
        """Closes the connection after what is still to be sent; one whose handshake is not done at once."""
        if self._transport is None:
            return
        if self._accepted and not self.established:
            self._transport.abort()
            return
        if self._tls is not None and not self._transport.is_closing():
            self._tls.close()
            self._flush()
        self._transport.close()

    def _open(self, tls: TlsStream, data: bytes) -> bytes:
        """What the peer said by TLS; a peer that does not speak it is told why, and cut off."""
        try:
            said = tls.receive(data)
        except ssl.SSLError:
            self._streams.handshake_failed()
            self._flush()
            if self._transport is not None:
                self._transport.close()
            return b""
        self._flush()
        return said

    def _flush(self) -> None:
        if self._tls is not None and self._transport is not None and (data := self._tls.outgoing()):
            self._transport.write(data)

    def _hold_up(self, seconds: float) -> None:
        """Reads nothing more for so long: what the peer sends fills its own buffers."""
        if seconds and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._resume = asyncio.get_running_loop().call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> HostPort:
    return name[0], name[1]
