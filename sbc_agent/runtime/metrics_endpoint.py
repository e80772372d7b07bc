"""Where Prometheus scrapes: ``GET /metrics`` by plain HTTP, on loopback unless the settings say otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from sbc_agent.runtime import metrics
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.lan import Lan, LanSettings
from sbc_agent.runtime.logs import Log

_MOST_CONNECTIONS: Final = 16


class MetricsEndpoint:
    """The endpoint: ``await endpoint.start()``, ``await endpoint.close()``.

    Args:
        listen: Where.
        report: Makes the status report.
        log: Where one that cannot be opened is told.
    """

    def __init__(self, listen: Endpoint, report: Callable[[], Awaitable[dict[str, Any]]], log: Log) -> None:
        self._report = report
        self._log = log
        self._server = Lan(
            LanSettings(listen, None),
            [web.get("/metrics", self._scraped)],
            lambda _request: None,
            log,
            max_connections=_MOST_CONNECTIONS,
        )

    async def start(self) -> str | None:
        """Listens; returns the address to scrape, None (and an alarm) if it cannot be bound."""
        try:
            return f"{await self._server.start()}/metrics"
        except OSError as error:
            self._log.failure("metrics_unavailable", error)
            return None

    async def close(self) -> None:
        """Takes no more connections."""
        await self._server.close()

    async def _scraped(self, request: web.Request) -> web.Response:
        report = await self._report()
        report["processes"] = await asyncio.to_thread(metrics.processes, report["pids"])
        body, content_type = metrics.exposition(report, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})
