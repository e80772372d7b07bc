"""What handsets ask for: ``/phone/<secret>/cisco`` and ``/phone/<secret>/yealink``, and a verb behind it for each key.

A handset sends no header of ours, so its desk is known by the secret in the address; and it can only GET, so a GET
acts. The address of each key names the call that the person saw when it was pressed: a key that comes late acts on that
call or on none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web

from dualtone.domain.errors import DualtoneError, PolicyViolation, Unavailable
from sbc_agent.runtime import phone_pages
from sbc_agent.runtime.desk_calls import DeskCalls, NoLiveCall, SeveralLiveCalls, Verb
from sbc_agent.runtime.desks import Desk
from sbc_agent.runtime.lan_admission import PHONE_PREFIX, Admission
from sbc_agent.runtime.lan_bodies import Answer
from sbc_agent.runtime.phone_pages import Dialect

REFRESH_S: Final = 5
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_PAGE: Final = f"{PHONE_PREFIX}{{secret:[0-9a-f]{{64}}}}/{{dialect:cisco|yealink}}"
_VERBS: Final = "pause|resume|keep|personal"
_SAID: Final = {
    "acknowledged": "Done.",
    "requested": "Asked for, but not confirmed yet: press Refresh.",
    "pending": "Asked for, but not confirmed yet: press Refresh.",
    "superseded": "Something newer was there first.",
    "too_late": "Paused. What had been kept of it is being removed.",
    "kept": "This call is kept.",
    "discarded": "Nothing of this call is kept.",
    "stopped": "From now on nothing more of this call is kept.",
}


class PhoneRoutes:
    """The routes.

    Args:
        calls: What desks see and do.
        admission: Knows whose handset asks.
        now_us: Microseconds of the agent's clock, in which calls are timed.
    """

    def __init__(self, calls: DeskCalls, admission: Admission, now_us: Callable[[], int]) -> None:
        self._calls = calls
        self._admission = admission
        self._now_us = now_us

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each. HEAD is not among them: it must not press a key."""
        return [
            web.get(_PAGE, self._shown, allow_head=False),
            web.get(f"{_PAGE}/{{verb:{_VERBS}}}", self._pressed, allow_head=False),
        ]

    async def _shown(self, request: web.Request) -> web.Response:
        desk = self._admission.handset(request, request.match_info["secret"])
        return self._page(request, desk, "")

    async def _pressed(self, request: web.Request) -> web.Response:
        desk = self._admission.handset(request, request.match_info["secret"])
        verb = cast("Verb", request.match_info["verb"])
        try:
            said = _said(verb, await self._calls.act(desk, verb, request.query.get("call")))
        except (NoLiveCall, SeveralLiveCalls, PolicyViolation) as error:
            said = f"{str(error)[:1].upper()}{str(error)[1:]}."
        except Unavailable:
            said = "That is not possible right now: try again in a moment."
        return self._page(request, desk, said)

    def _page(self, request: web.Request, desk: Desk, said: str) -> web.Response:
        dialect = cast("Dialect", request.match_info["dialect"])
        base = f"{_origin(request)}{PHONE_PREFIX}{request.match_info['secret']}/{dialect}"
        try:
            live = self._calls.live(desk)
        except DualtoneError:
            live, said = [], "The agent has not heard from the cloud yet."
        wanted = request.query.get("call")
        chosen = [known for known in live if known.call == wanted] or live
        calls: list[dict[str, Any]] = [
            self._calls.described(known) | {"started_s": known.started_us / 1e6} for known in chosen
        ]
        shown = phone_pages.page(desk.name, calls, base, now_s=self._now_us() / 1e6, said=said)
        again = base if len(chosen) != 1 else f"{base}?call={chosen[0].call}"
        return web.Response(
            body=phone_pages.written(shown, dialect),
            content_type=phone_pages.CONTENT_TYPE,
            charset="UTF-8",
            headers={"Refresh": f"{REFRESH_S}; url={again}", "Referrer-Policy": "no-referrer"},
        )


def _said(verb: Verb, answer: Answer) -> str:
    _status, body = answer
    still = next((call["causes"] for call in body["calls"] if verb == "resume" and call["causes"]), None)
    if still:
        return f"Still paused for another reason: {', '.join(still)}."
    return _SAID[body["outcome"]]


def _origin(request: web.Request) -> str:
    """Scheme and host by which the handset reached us; ``request.host`` would ask the DNS where no Host was sent."""
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        address, port = request.get_extra_info("sockname")[:2]
        host = f"{address}:{port}"
    return f"{request.scheme}://{host}"
