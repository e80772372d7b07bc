"""Who may do what on the LAN endpoint: the agent's bearer token all of the API, a desk's token its own calls.

Payment systems sign their messages, and handsets, which can send no token, are known by their address: both prove
themselves where they are served. Tokens are compared in constant time and told nowhere.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from dualtone.domain.errors import PolicyViolation
from sbc_agent.runtime.desks import Desk, Desks
from sbc_agent.runtime.rate_limit import RateLimit

DESK: Final = web.RequestKey("desk", Desk)
"""Where a request carries the desk that sent it."""
DESK_PREFIX: Final = "/v1/desk/"
PHONE_PREFIX: Final = "/phone/"
_WEBHOOK_PREFIX: Final = "/v1/webhooks/"


class Admission:
    """Decides who is let in. Only the event loop uses it.

    Args:
        token: The agent's bearer token.
        desks: The desks.
        of_desk: How often one desk may ask.
        of_stranger: How often one address may try without being known.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        token: str,
        desks: Desks,
        *,
        of_desk: RateLimit | None = None,
        of_stranger: RateLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token.encode()
        self._desks = desks
        self._of_desk = of_desk or RateLimit(burst=30, per_s=5)
        self._of_stranger = of_stranger or RateLimit(burst=20, per_s=0.5)
        self._clock = clock

    def admit(self, request: web.Request) -> None:
        """Lets a request in.

        Raises:
            HTTPUnauthorized: Without a token that is known.
            PolicyViolation: If its token is for something else.
            TooMany: If a desk or an unknown caller asks too often.
        """
        if request.path.startswith((_WEBHOOK_PREFIX, PHONE_PREFIX)):
            return
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        token = rest.strip() if scheme.lower() == "bearer" else ""
        is_agents = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)  # any octets may come
        desk = self._desks.with_token(token)
        if not is_agents and desk is None:
            self.stranger(request)
            raise web.HTTPUnauthorized
        if request.path.startswith(DESK_PREFIX) != (desk is not None):
            raise PolicyViolation(
                f"a desk's token is good for {DESK_PREFIX} alone" if desk else "send the token of the desk"
            )
        if desk is not None:
            self._welcome(request, desk)

    def handset(self, request: web.Request, secret: str) -> Desk:
        """The desk whose handset asks.

        Raises:
            HTTPNotFound: If there is none of that address.
            TooMany: If it, or an unknown caller, asks too often.
        """
        desk = self._desks.with_phone(secret)
        if desk is None:
            self.stranger(request)
            raise web.HTTPNotFound
        self._welcome(request, desk)
        return desk

    def stranger(self, request: web.Request) -> None:
        """Counts an attempt of somebody who is not known; raises TooMany."""
        self._of_stranger.take(request.remote or "", self._clock())

    def _welcome(self, request: web.Request, desk: Desk) -> None:
        self._of_desk.take(desk.id, self._clock())
        request[DESK] = desk
