"""The LAN endpoint: the pause of the cloud's API on the agent itself, for when the uplink is down.

HTTPS with the agent's own certificate. Paths, bodies and problem details (RFC 9457) are those of the API. Callers send
the bearer token; payment systems sign (Standard Webhooks) and need none. A connection serves one request, which has
ten seconds to arrive; head, body and number of connections are bounded. Nothing of a request is logged but what became
of it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from aiohttp import web
from pydantic import BaseModel

from dualtone.domain.errors import DualtoneError, MalformedInput, NotFound, PolicyViolation, Unavailable
from dualtone.domain.problem import MEDIA_TYPE, Problem, ProblemType
from dualtone.domain.standard_webhooks import MAX_BODY_BYTES, SignatureRefused, TimestampRefused
from sbc_agent.runtime import lan_bodies
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.lan_bodies import InvalidBody
from sbc_agent.runtime.lan_orders import Answer, LanOrders
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.webhook_memory import OtherBody

MAX_CONNECTIONS: Final = 128
ARRIVE_S: Final = 10.0
_HANDSHAKE_S: Final = 5.0
_HEADER_BYTES: Final = 8_190
_BACKLOG: Final = 64
_STOP_S: Final = 1.0
_REQUEST_BYTES: Final = 8
_BODILESS: Final = frozenset({"GET", "HEAD"})
_OPEN_PREFIX: Final = "/v1/webhooks/"
_JSON: Final = "application/json"

_Shape = TypeVar("_Shape", bound=BaseModel)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class LanSettings:
    """Where to listen (port 0: any free one), with which certificate, and what callers send."""

    listen: Endpoint
    context: ssl.SSLContext
    token: str


class Lan:
    """The endpoint.

    Use: ``await lan.start()``, ``await lan.close()``.

    Args:
        settings: Where and how.
        desk: What it does.
        log: Where refusals are told.
        arrive_s: How long a request may take to arrive.
        max_connections: How many connections are open at once.
    """

    def __init__(
        self,
        settings: LanSettings,
        desk: LanOrders,
        log: Log,
        *,
        arrive_s: float = ARRIVE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._settings = settings
        self._desk = desk
        self._log = log
        self._arrive_s = arrive_s
        self._max_connections = max_connections
        self._young: set[asyncio.BaseProtocol] = set()  # connections that have not lived ``arrive_s`` yet
        self._arrived: set[asyncio.BaseProtocol] = set()  # those of them on which a request arrived
        self._server: asyncio.Server | None = None
        app = web.Application(middlewares=[self._answered, self._admitted], client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/v1/calls", self._calls),
                web.get("/v1/calls/{call_id}", self._call),
                web.post("/v1/calls/{call_id}/pause", self._pause_call),
                web.post("/v1/calls/{call_id}/resume", self._resume_call),
                web.post("/v1/pauses", self._pause_named),
                web.post("/v1/resumes", self._resume_named),
                web.post("/v1/webhooks/payments/{endpoint_id}", self._webhook),
            ]
        )
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            shutdown_timeout=_STOP_S,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )

    async def start(self) -> str:
        """Listens; returns the endpoint's address; raises OSError if it cannot be bound."""
        await self._runner.setup()
        listen = self._settings.listen
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            listen.host,
            listen.port,
            ssl=self._settings.context,
            ssl_handshake_timeout=_HANDSHAKE_S,
            backlog=_BACKLOG,
        )
        return f"https://{listen.host}:{self._server.sockets[0].getsockname()[1]}"

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
            response = _problem(_of_status(error, where))
        except TimeoutError:
            response = _problem(Problem(ProblemType.MALFORMED, "the request did not arrive in time", where))
        except (DualtoneError, OtherBody) as error:
            response = _problem(_of_error(error, where))
        except Exception as error:  # noqa: BLE001 - the caller learns that it failed, the log where
            self._log.failure("lan_failed", error)
            response = _problem(Problem(ProblemType.INTERNAL, None, where))
        response.headers["Cache-Control"] = "no-store"
        response.force_close()
        self._log.info("lan", method=request.method, status=response.status)
        return response

    @web.middleware
    async def _admitted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Reads the request, and lets in who has the token; webhooks prove themselves otherwise."""
        if not request.path.startswith(_OPEN_PREFIX):
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given = token.strip().encode("utf-8", "surrogateescape")  # a header may hold any octets
            is_known = hmac.compare_digest(given, self._settings.token.encode())
            if scheme.lower() != "bearer" or not is_known:
                raise web.HTTPUnauthorized
        if request.method not in _BODILESS:
            async with asyncio.timeout(self._arrive_s):
                body = await request.read()
            if body and request.content_type != _JSON:
                raise web.HTTPUnsupportedMediaType
        if request.protocol is not None:
            self._arrived.add(request.protocol)
        return await handler(request)

    async def _calls(self, _request: web.Request) -> web.Response:
        return _json(self._desk.calls())

    async def _call(self, request: web.Request) -> web.Response:
        return _json(self._desk.call(request.match_info["call_id"]))

    async def _pause_call(self, request: web.Request) -> web.Response:
        return _json(await self._desk.order_call(request.match_info["call_id"], await _read(request, lan_bodies.Pause)))

    async def _resume_call(self, request: web.Request) -> web.Response:
        return _json(
            await self._desk.order_call(request.match_info["call_id"], await _read(request, lan_bodies.Resume))
        )

    async def _pause_named(self, request: web.Request) -> web.Response:
        return _json(await self._desk.order_match(await _read(request, lan_bodies.NamedPause)))

    async def _resume_named(self, request: web.Request) -> web.Response:
        return _json(await self._desk.order_match(await _read(request, lan_bodies.NamedResume)))

    async def _webhook(self, request: web.Request) -> web.Response:
        header = request.headers.get
        return _json(
            await self._desk.webhook(
                request.match_info["endpoint_id"],
                header("webhook-id", ""),
                header("webhook-timestamp", ""),
                header("webhook-signature", ""),
                await request.read(),
            )
        )


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Closes it."""
        cast("asyncio.Transport", transport).abort()


async def _read(request: web.Request, shape: type[_Shape]) -> _Shape:
    return lan_bodies.read(shape, await request.read())


def _json(answer: Answer) -> web.Response:
    status, body = answer
    return web.Response(status=status, text=json.dumps(body, separators=(",", ":")), content_type=_JSON)


def _problem(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.type.status.value,
        text=json.dumps(problem.to_json(), separators=(",", ":")),
        content_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def _of_status(error: web.HTTPException, where: str) -> Problem:
    """A refusal of the framework, or of ``_admitted``."""
    match error:
        case web.HTTPUnauthorized():
            challenge = {"WWW-Authenticate": 'Bearer realm="dualtone-agent"'}  # REQ: RFC 9110 section 15.5.2
            return Problem(ProblemType.UNAUTHENTICATED, "send the token of this agent", where, headers=challenge)
        case web.HTTPNotFound():
            return Problem(ProblemType.NOT_FOUND, None, where)
        case web.HTTPMethodNotAllowed():
            allowed = {"Allow": ", ".join(sorted(error.allowed_methods))}  # REQ: RFC 9110 section 15.5.6
            return Problem(ProblemType.METHOD_NOT_ALLOWED, None, where, headers=allowed)
        case web.HTTPRequestEntityTooLarge():
            return Problem(ProblemType.TOO_LARGE, f"at most {MAX_BODY_BYTES} octets", where)
        case web.HTTPUnsupportedMediaType():
            return Problem(ProblemType.UNSUPPORTED_MEDIA_TYPE, f"send {_JSON}", where)
        case _:
            return Problem(ProblemType.MALFORMED, None, where)


def _of_error(error: Exception, where: str) -> Problem:  # noqa: PLR0911 - a table
    extensions: dict[str, Any] = {}
    match error:
        case InvalidBody():
            extensions["errors"] = error.errors
            return Problem(ProblemType.INVALID, "see `errors`", where, extensions)
        case MalformedInput():
            invalid = error.http_status == ProblemType.INVALID.status
            return Problem(ProblemType.INVALID if invalid else ProblemType.MALFORMED, str(error), where)
        case SignatureRefused():
            return Problem(ProblemType.SIGNATURE_REFUSED, str(error), where)
        case TimestampRefused():
            return Problem(ProblemType.TIMESTAMP_REFUSED, str(error), where)
        case OtherBody():
            return Problem(ProblemType.MESSAGE_ID_REUSED, "a new message needs a new webhook-id", where)
        case NotFound():
            return Problem(ProblemType.NOT_FOUND, None, where)
        case Unavailable():
            return Problem(ProblemType.UNAVAILABLE, None, where, headers={"Retry-After": "2"})
        case PolicyViolation():
            return Problem(ProblemType.FORBIDDEN, str(error), where)
        case _:
            return Problem(ProblemType.INTERNAL, None, where)
