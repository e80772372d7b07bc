"""What the LAN endpoint serves to whoever has the agent's bearer token, and to payment systems.

Paths, bodies and answers are those of the cloud's API, so one client serves both.
"""

from __future__ import annotations

import json
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from sbc_agent.runtime import lan_bodies
from sbc_agent.runtime.lan_bodies import Answer
from sbc_agent.runtime.lan_orders import BEARER, LanOrders
from sbc_agent.runtime.lan_problems import JSON

_Shape = TypeVar("_Shape", bound=BaseModel)


class LanRoutes:
    """The routes.

    Args:
        orders: What they do.
    """

    def __init__(self, orders: LanOrders) -> None:
        self._orders = orders

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.get("/v1/calls", self._calls),
            web.get("/v1/calls/{call_id}", self._call),
            web.post("/v1/calls/{call_id}/pause", self._pause_call),
            web.post("/v1/calls/{call_id}/resume", self._resume_call),
            web.post("/v1/calls/{call_id}/decision", self._decide_call),
            web.post("/v1/decisions", self._decide_named),
            web.post("/v1/pauses", self._pause_named),
            web.post("/v1/resumes", self._resume_named),
            web.post("/v1/webhooks/payments/{endpoint_id}", self._webhook),
        ]

    async def _calls(self, _request: web.Request) -> web.Response:
        return told(self._orders.calls())

    async def _call(self, request: web.Request) -> web.Response:
        return told(self._orders.call(request.match_info["call_id"]))

    async def _pause_call(self, request: web.Request) -> web.Response:
        body = await read(request, lan_bodies.Pause)
        return told(await self._orders.order_call(request.match_info["call_id"], body))

    async def _resume_call(self, request: web.Request) -> web.Response:
        body = await read(request, lan_bodies.Resume)
        return told(await self._orders.order_call(request.match_info["call_id"], body))

    async def _decide_call(self, request: web.Request) -> web.Response:
        body = await read(request, lan_bodies.Decision)
        return told(await self._orders.decide_call(request.match_info["call_id"], body))

    async def _decide_named(self, request: web.Request) -> web.Response:
        return told(await self._orders.decisions.of_name(await read(request, lan_bodies.NamedDecision), BEARER))

    async def _pause_named(self, request: web.Request) -> web.Response:
        return told(await self._orders.order_match(await read(request, lan_bodies.NamedPause)))

    async def _resume_named(self, request: web.Request) -> web.Response:
        return told(await self._orders.order_match(await read(request, lan_bodies.NamedResume)))

    async def _webhook(self, request: web.Request) -> web.Response:
        header = request.headers.get
        return told(
            await self._orders.webhook(
                request.match_info["endpoint_id"],
                header("webhook-id", ""),
                header("webhook-timestamp", ""),
                header("webhook-signature", ""),
                await request.read(),
            )
        )


async def read(request: web.Request, shape: type[_Shape]) -> _Shape:
    """A request's body; raises MalformedInput, InvalidBody."""
    return lan_bodies.read(shape, await request.read())


def told(answer: Answer) -> web.Response:
    """An answer as JSON."""
    status, body = answer
    return web.Response(status=status, text=json.dumps(body, separators=(",", ":")), content_type=JSON)
