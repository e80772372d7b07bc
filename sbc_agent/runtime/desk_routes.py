"""What the LAN endpoint serves to a desk that sends its token.

``GET /v1/desk/calls`` tells the desk's live calls under an entity tag. Asked again with ``If-None-Match`` and
``Prefer: wait=25`` (RFC 7240 section 4.3) it answers when something has changed, or 304 when the time is over.
``POST /v1/desk/{pause,resume,keep,personal}`` acts on the one live call, or on the one that ``call_id`` names.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, cast

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from sbc_agent.runtime.desk_calls import OK, DeskCalls, Verb, tag_of
from sbc_agent.runtime.lan_admission import DESK, DESK_PREFIX
from sbc_agent.runtime.lan_routes import read, told

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,4})", re.ASCII | re.IGNORECASE)
_VERBS: Final = ("pause", "resume", "keep", "personal")


class Which(BaseModel):
    """Which call is meant; none: the one that is live."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    call_id: Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")] | None = None


class DeskRoutes:
    """The routes.

    Args:
        calls: What desks see and do.
    """

    def __init__(self, calls: DeskCalls) -> None:
        self._calls = calls

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.get(f"{DESK_PREFIX}calls", self._listed),
            web.post(f"{DESK_PREFIX}{{verb:{'|'.join(_VERBS)}}}", self._act),
        ]

    async def _listed(self, request: web.Request) -> web.Response:
        asked = _WAIT.search(request.headers.get("Prefer", ""))
        known = request.headers.get("If-None-Match", "").removeprefix("W/").strip('"')
        found = await self._calls.news(request[DESK], known if asked else "", float(asked[1]) if asked else 0.0)
        tag = tag_of(found)
        response = told((OK, found)) if tag != known else web.Response(status=304)
        response.headers["ETag"] = f'"{tag}"'  # REQ: RFC 9110 section 15.4.5: a 304 carries it too
        return response

    async def _act(self, request: web.Request) -> web.Response:
        which = await read(request, Which)
        verb = cast("Verb", request.match_info["verb"])
        return told(await self._calls.act(request[DESK], verb, which.call_id))
