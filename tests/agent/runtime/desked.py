"""A site with desks: the LAN endpoint over real sockets, a media process in memory, decisions that are noted."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import aiohttp

from dualtone.domain.errors import PolicyViolation
from dualtone.domain.ids import CallId
from sbc_agent.runtime import desks
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.desk_calls import Decision, DecisionCause, DeskCalls
from sbc_agent.runtime.desk_routes import DeskRoutes
from sbc_agent.runtime.desks import Desks, NewDesk
from sbc_agent.runtime.lan import Lan, LanSettings
from sbc_agent.runtime.lan_admission import Admission
from sbc_agent.runtime.lan_credentials import bearer_token, server_context
from sbc_agent.runtime.lan_orders import LanOrders
from sbc_agent.runtime.lan_routes import LanRoutes
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.phone_routes import PhoneRoutes
from sbc_agent.runtime.rate_limit import RateLimit
from sbc_agent.runtime.webhook_memory import WebhookMemory
from tests.agent.runtime.controlled import START_US, Desk, facts
from tests.agent.runtime.spooled import AGENT, TENANT

NOW_S = START_US / 1_000_000
REGULATED = "the line is regulated: its calls are always recorded"
_UCID = 0x00FA08001880_0000_0000_00


@dataclass
class NotedDecisions:
    """Implements `desk_calls.Decisions`: a decision is noted, and the call stands as it says.

    Attributes:
        calls: The calls.
        regulated: Those of a line whose rule allows no discard.
        taken: Every decision that was carried out.
    """

    calls: LiveCalls
    regulated: set[CallId] = field(default_factory=set)
    taken: list[tuple[CallId, bool, str, str]] = field(default_factory=list)

    async def decide(self, call: CallId, *, keep: bool, cause: DecisionCause, by: str) -> Decision:
        known = self.calls.get(call)
        if known is None:
            return "unknown"
        if call in self.regulated and not keep:
            raise PolicyViolation(REGULATED)
        self.taken.append((call, keep, cause, by))
        self.calls.put(replace(known, standing="recorded" if keep else "not_recorded"))
        return "kept" if keep else "discarded"


class DeskSite:
    """An agent's endpoint with desks, HTTPS and plain HTTP, and a client that trusts its certificate alone.

    Args:
        directory: The agent's state directory.
        of_desk: How often a desk may ask.
        of_stranger: How often an unknown address may.
        most_watchers: How many may wait for news.
    """

    def __init__(
        self,
        directory: Path,
        *,
        of_desk: RateLimit | None = None,
        of_stranger: RateLimit | None = None,
        most_watchers: int = 8,
    ) -> None:
        self.directory = directory
        self.agent = Desk(directory)
        self.token = bearer_token(directory)
        self.mono_s = 0.0
        control, log = self.agent.control, self.agent.lines.log
        self.decisions = NotedDecisions(control.calls)
        orders = LanOrders(
            tenant=TENANT,
            agent=AGENT,
            control=control,
            state=self.agent.state,
            memory=WebhookMemory(self.agent.state, log),
            facts=lambda: self.agent.facts,
            clock=self.agent.time,
            true_time=self.agent.true_time,
            answer_within_s=0.05,
        )
        self.calls = DeskCalls(
            orders=orders,
            decisions=self.decisions,
            calls=control.calls,
            live_key=lambda: self.agent.facts.live_key,
            offset=control.offset,
            most_watchers=most_watchers,
        )
        admission = Admission(
            self.token,
            Desks(directory, log),
            of_desk=of_desk,
            of_stranger=of_stranger,
            clock=lambda: self.mono_s,
        )
        phones = PhoneRoutes(self.calls, admission, self.agent.time.now_us).routes()
        routes = [*LanRoutes(orders).routes(), *DeskRoutes(self.calls).routes(), *phones]
        context = server_context(directory, "127.0.0.1", NOW_S)
        self._https = Lan(LanSettings(Endpoint("127.0.0.1", 0), context), routes, admission.admit, log)
        self._http = Lan(LanSettings(Endpoint("127.0.0.1", 0), None), phones, admission.admit, log)

    async def __aenter__(self) -> Self:
        self.url, self.plain_url = await self._https.start(), await self._http.start()
        trust = ssl.create_default_context(cafile=str(self.directory / "lan.crt"))
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self._https.close()
        await self._http.close()

    def add(self, name: str = "Reception", *lines: str) -> NewDesk:
        """A desk; its line is 1001 if none is given."""
        return desks.add(self.directory, name, lines or ("1001",), now_ms=START_US // 1000)

    def begin(self, number: int = 1, extension: str = "1001") -> CallId:
        """A call of an extension."""
        return self.agent.begin(number, facts(f"{_UCID + number:016X}", extension))

    async def ask(
        self, token: str, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """A request with a token: status, JSON and headers of the answer."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | headers
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else {}, response.headers


def serve(directory: Path, scenario: Callable[[DeskSite], Awaitable[None]], **options: Any) -> DeskSite:
    """Runs a scenario against a site."""
    sites: list[DeskSite] = []

    async def run() -> None:
        async with DeskSite(directory, **options) as site:
            sites.append(site)
            await scenario(site)

    asyncio.run(run())
    return sites[0]
