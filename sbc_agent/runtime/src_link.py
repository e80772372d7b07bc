"""The transport of a recording client's dialog: a UDP socket or a TCP or TLS connection, with the dialog's timers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from dualtone.domain.errors import DualtoneError, MalformedInput
from sbc_agent.protocol.stream import StreamFramer
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.src_dialog import Event, SrcDialog, Transport
from sbc_agent.runtime.system_errors import plain

_READ_BYTES: Final = 65_536
_CONNECT_TIMEOUT_S: Final = 10.0


class CallFailed(DualtoneError):  # noqa: N818 - what the user is told
    """The recorder did not take the call, or lost it. The text says what happened."""


class SrcLink(asyncio.DatagramProtocol):
    """A dialog with its transport and its timers."""

    def __init__(self, dialog: SrcDialog) -> None:
        self.dialog = dialog
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | CallFailed] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._stream: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        target: Endpoint,
        transport: Transport,
        host: str,
        *,
        call_id: str,
        offer: bytes,
        trust: ssl.SSLContext | None = None,
    ) -> SrcLink:
        """Opens the transport and makes the dialog upon it.

        Args:
            target: The recorder.
            transport: ``udp``, ``tcp`` or ``tls``.
            host: Our own IP address.
            call_id: Call-ID of the session.
            offer: The INVITE's body.
            trust: By what the recorder proves itself on TLS, and we to it; None trusts the system's authorities.

        Raises:
            CallFailed: If no connection can be made.
        """
        loop = asyncio.get_running_loop()

        def made(address: tuple[str, int]) -> SrcLink:
            dialog = SrcDialog(
                target=target,
                local=Endpoint(*address),
                transport=transport,
                call_id=call_id,
                tag=secrets.token_hex(8),
                branch=lambda: secrets.token_hex(12),
                offer=offer,
            )
            return cls(dialog)

        if transport == "udp":
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            channel.setblocking(False)  # noqa: FBT003 - the standard library names no argument
            channel.bind((host, 0))
            link = made(channel.getsockname())
            await loop.create_datagram_endpoint(lambda: link, sock=channel)
            return link
        reader, writer = await _connect(target, transport, trust)
        return made(writer.get_extra_info("sockname")).reading(reader, writer)

    def reading(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> SrcLink:
        """Takes a connection into use."""
        self._stream = writer
        self._reading = asyncio.create_task(self._read(reader))
        return self

    def act(self, step: Callable[[float], None]) -> None:
        """Lets the dialog do something now, sends what it wants sent, and sets the timer."""
        step(self._loop.time())
        self._settle()

    async def next_event(self) -> Event:
        """Waits for the next event of the dialog; raises CallFailed if the connection is lost."""
        event = await self._events.get()
        if isinstance(event, CallFailed):
            raise event
        return event

    def waiting(self) -> bool:
        """Whether an event waits."""
        return not self._events.empty()

    async def close(self) -> None:
        """Closes the transport."""
        if self._timer:
            self._timer.cancel()
        if self._datagrams:
            self._datagrams.close()
            await self._lost
        if self._reading:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        if self._stream:
            self._stream.close()
            with contextlib.suppress(OSError):
                await self._stream.wait_closed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The UDP socket is in the loop."""
        self._datagrams = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The UDP socket is closed."""
        self._lost.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:  # noqa: ARG002 - asyncio's signature
        """A datagram came."""
        self._take(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error; the dialog's own timers decide, as RFC 3261 section 18.4 leaves it to them on UDP."""

    async def _read(self, reader: asyncio.StreamReader) -> None:
        framer = StreamFramer()
        try:
            while data := await reader.read(_READ_BYTES):
                framer.feed(data)
                while (one := framer.next_message()) is not None:
                    self._take(one)
        except (OSError, MalformedInput) as error:
            self._events.put_nowait(CallFailed(f"the connection broke: {type(error).__name__}"))
            return
        self._events.put_nowait(CallFailed("the recorder closed the connection"))

    def _take(self, data: bytes) -> None:
        self.dialog.receive(data, self._loop.time())
        self._settle()

    def _settle(self) -> None:
        for data, destination in self.dialog.outgoing():
            if self._stream is not None:
                self._stream.write(data)
            elif self._datagrams is not None and not self._datagrams.is_closing():
                self._datagrams.sendto(data, (destination.host, destination.port))
        while (event := self.dialog.next_event()) is not None:
            self._events.put_nowait(event)
        if self._timer:
            self._timer.cancel()
        due = self.dialog.timer()
        self._timer = self._loop.call_at(due, self.act, self.dialog.handle_timer) if due is not None else None


async def _connect(
    target: Endpoint, transport: Transport, trust: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    what, security = f"no {transport.upper()} connection to {target}", None
    if transport == "tls":
        security = trust or ssl.create_default_context()
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            return await asyncio.open_connection(target.host, target.port, ssl=security)
    except TimeoutError as error:
        raise CallFailed(f"{what} within {_CONNECT_TIMEOUT_S:.0f} s") from error
    except ssl.SSLCertVerificationError as error:
        raise CallFailed(f"{what}: its certificate is not trusted ({error.verify_message})") from error
    except ssl.SSLError as error:
        raise CallFailed(f"{what}: {error.reason or 'TLS failed'}") from error
    except OSError as error:
        raise CallFailed(f"{what}: {plain(error)}") from error
