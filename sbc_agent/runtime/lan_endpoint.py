"""The LAN endpoint put together: whom it serves, on which sockets, and its certificate renewed in time.

An endpoint that cannot be opened is an alarm; calls are recorded all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from dualtone.domain.agent_events import ClockOffset
from sbc_agent.runtime.clock_offset import Clock, TrueTime
from sbc_agent.runtime.config import LanSection
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.desk_calls import Decisions, DeskCalls
from sbc_agent.runtime.desk_routes import DeskRoutes
from sbc_agent.runtime.desks import Desks
from sbc_agent.runtime.lan import Lan, LanSettings
from sbc_agent.runtime.lan_admission import Admission
from sbc_agent.runtime.lan_credentials import bearer_token, renew, server_context
from sbc_agent.runtime.lan_orders import LanOrders
from sbc_agent.runtime.lan_routes import LanRoutes
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.phone_routes import PhoneRoutes

LOOK_EVERY_S: Final = 3_600.0


class ServedControl(Decisions, Protocol):
    """What desks need of ``control.Control``."""

    @property
    def calls(self) -> LiveCalls:
        """The calls."""

    def offset(self) -> ClockOffset:
        """How far the agent's clock is off."""


class LanEndpoint:
    """The endpoint. Use it in the event loop alone: ``await endpoint.start()``, ``await endpoint.close()``.

    Args:
        settings: ``[lan]``.
        state_dir: Where token, certificate and desks lie.
        orders: Carries pauses and resumes out.
        control: Knows the calls and carries decisions out.
        facts: Yields what the cloud told.
        clock: The agent's clock.
        true_time: How far that is off.
        log: Where it tells what happens.
    """

    def __init__(
        self,
        *,
        settings: LanSection,
        state_dir: Path,
        orders: LanOrders,
        control: ServedControl,
        facts: Callable[[], ControlFacts],
        clock: Clock,
        true_time: TrueTime,
        log: Log,
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._orders = orders
        self._true_time = true_time
        self._log = log
        self._calls = DeskCalls(
            orders=orders,
            decisions=control,
            calls=control.calls,
            live_key=lambda: facts().live_key,
            offset=control.offset,
        )
        self._clock = clock
        self._servers: list[Lan] = []
        self._looking: asyncio.Task[None] | None = None
        self.address: str | None = None
        """Where the API is served; None while it is not."""
        self.phones: str | None = None
        """Where handsets are served by plain HTTP; None where they are not."""

    @property
    def watchers(self) -> int:
        """How many desks wait for news."""
        return self._calls.watching

    async def start(self) -> None:
        """Opens what the settings name."""
        listen, phones_http = self._settings.listen, self._settings.phones_http
        if listen is None and phones_http is None:
            return
        try:
            admission = Admission(bearer_token(self._state_dir), Desks(self._state_dir, self._log))
        except OSError as error:
            self._log.failure("lan_unavailable", error)
            return
        phones = PhoneRoutes(self._calls, admission, self._clock.now_us).routes()
        routes = [*LanRoutes(self._orders).routes(), *DeskRoutes(self._calls).routes(), *phones]
        if listen is not None:
            with self._told():
                context = server_context(self._state_dir, listen.host, self._now_s())
                self.address = await self._serve(Lan(LanSettings(listen, context), routes, admission.admit, self._log))
                self._looking = asyncio.create_task(self._look_after_certificate(context, listen.host))
        if phones_http is not None:
            with self._told():
                settings = LanSettings(phones_http, None)
                self.phones = await self._serve(Lan(settings, phones, admission.admit, self._log))

    async def close(self) -> None:
        """Takes no more connections; requests that are being served are answered."""
        if self._looking is not None:
            self._looking.cancel()
        for server in self._servers:
            await server.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._log.failure("lan_unavailable", error)

    async def _serve(self, server: Lan) -> str:
        address = await server.start()
        self._servers.append(server)
        return address

    async def _look_after_certificate(self, context: ssl.SSLContext, host: str) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if renew(context, self._state_dir, host, self._now_s()):
                    self._log.warning("lan_certificate_renewed")
            except OSError as error:
                self._log.failure("lan_certificate_not_renewed", error)

    def _now_s(self) -> float:
        return self._true_time.now_us() / 1_000_000
