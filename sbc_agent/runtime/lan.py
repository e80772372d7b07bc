"""The LAN endpoint's server: HTTPS with the agent's own certificate, for callers in the agent's network.

A connection serves one request, which has ten seconds to arrive; head, body and number of connections are bounded.
Whatever happens is answered in the API's form (RFC 9457). Nothing of a request is logged but what became of it: neither
its address, which may be a handset's secret, nor who asked.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import web

from dualtone.domain.errors import DualtoneError
from dualtone.domain.problem import MEDIA_TYPE, Problem, ProblemType
from dualtone.domain.standard_webhooks import MAX_BODY_BYTES
from sbc_agent.runtime import lan_problems
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.webhook_memory import OtherBody

MAX_CONNECTIONS: Final = 512
ARRIVE_S: Final = 10.0
_HANDSHAKE_S: Final = 5.0
_HEADER_BYTES: Final = 8_190
_BACKLOG: Final = 64
_STOP_S: Final = 1.0
_REQUEST_BYTES: Final = 8
_BODILESS: Final = frozenset({"GET", "HEAD"})
_LOWEST_REFUSAL: Final = 400

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class LanSettings:
    """Where to listen (port 0: any free one), and with which certificate; None: plain HTTP, for handsets alone."""

    listen: Endpoint
    context: ssl.SSLContext | None


class Lan:
    """The server.

    Use: ``await lan.start()``, ``await lan.close()``.

    Args:
        settings: Where and how.
        routes: What it serves.
        admit: Lets a request in or raises ``web.HTTPException`` or DualtoneError; called before the body is read.
        log: Where refusals are told.
        arrive_s: How long a request may take to arrive.
        max_connections: How many connections are open at once.
    """

    def __init__(
        self,
        settings: LanSettings,
        routes: Iterable[web.AbstractRouteDef],
        admit: Callable[[web.Request], None],
        log: Log,
        *,
        arrive_s: float = ARRIVE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._settings = settings
        self._admit = admit
        self._log = log
        self._arrive_s = arrive_s
        self._max_connections = max_connections
        self._young: set[asyncio.BaseProtocol] = set()  # connections that have not lived ``arrive_s`` yet
        self._arrived: set[asyncio.BaseProtocol] = set()  # those of them on which a request arrived
        self._server: asyncio.Server | None = None
        app = web.Application(middlewares=[self._answered, self._admitted], client_max_size=MAX_BODY_BYTES)
        app.add_routes(routes)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            auto_decompress=False,
            shutdown_timeout=_STOP_S,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )

    async def start(self) -> str:
        """Listens; returns the endpoint's address; raises OSError if it cannot be bound."""
        await self._runner.setup()
        listen, context = self._settings.listen, self._settings.context
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            listen.host,
            listen.port,
            ssl=context,
            ssl_handshake_timeout=None if context is None else _HANDSHAKE_S,
            backlog=_BACKLOG,
        )
        scheme = "http" if context is None else "https"
        return f"{scheme}://{listen.host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Takes no more connections; requests that are being served are answered."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    # -- connections ------------------------------------------------------------------------------------------------

    def _connection(self) -> asyncio.BaseProtocol:
        """A new connection: refused if there are too many, closed if no request arrives on it in time."""
        server = cast("web.Server", self._runner.server)
        shaking_hands = sum(getattr(young, "transport", None) is None for young in self._young)
        if len(server.connections) + shaking_hands >= self._max_connections:
            self._log.warning("lan_refused", reason="connections")
            return _Refused()
        protocol = server()
        self._young.add(protocol)
        asyncio.get_running_loop().call_later(self._arrive_s, self._overdue, protocol)
        return protocol

    def _overdue(self, protocol: asyncio.BaseProtocol) -> None:
        self._young.discard(protocol)
        transport = getattr(protocol, "transport", None)
        if protocol in self._arrived:
            self._arrived.remove(protocol)
        elif transport is not None:
            transport.abort()

    # -- requests ---------------------------------------------------------------------------------------------------

    @web.middleware
    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answers whatever happens in the API's form, and closes the connection."""
        where = f"urn:dualtone:request:{secrets.token_hex(_REQUEST_BYTES)}"
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = _problem(lan_problems.of_status(error, where))
        except TimeoutError:
            response = _problem(Problem(ProblemType.MALFORMED, "the request did not arrive in time", where))
        except (DualtoneError, OtherBody) as error:
            response = _problem(lan_problems.of_error(error, where))
        except (ConnectionError, web.RequestPayloadError):  # whoever asked went away, or sent no body that can be read
            response = _problem(Problem(ProblemType.MALFORMED, None, where))
        except Exception as error:  # noqa: BLE001 - the caller learns that it failed, the log where
            self._log.failure("lan_failed", error)
            response = _problem(Problem(ProblemType.INTERNAL, None, where))
        response.headers["Cache-Control"] = "no-store"
        response.force_close()
        looked = request.method in _BODILESS and response.status < _LOWEST_REFUSAL
        write = self._log.debug if looked else self._log.info  # desks look all the time
        write("lan", method=request.method, status=response.status)
        return response

    @web.middleware
    async def _admitted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Lets in who may, and reads the request."""
        self._admit(request)
        if request.method not in _BODILESS:
            if "Content-Encoding" in request.headers:  # REQ: RFC 9110 section 15.5.16
                raise web.HTTPUnsupportedMediaType
            async with asyncio.timeout(self._arrive_s):
                body = await request.read()
            if body and request.content_type != lan_problems.JSON:
                raise web.HTTPUnsupportedMediaType
        if request.protocol is not None:
            self._arrived.add(request.protocol)
        return await handler(request)


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Closes it."""
        cast("asyncio.Transport", transport).abort()


def _problem(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.type.status.value,
        text=json.dumps(problem.to_json(), separators=(",", ":")),
        content_type=MEDIA_TYPE,
        headers=problem.headers,
    )
