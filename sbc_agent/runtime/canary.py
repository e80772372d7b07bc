"""The canary: a call of its own that the agent places to itself every hour, to prove that calls are recorded.

It goes the way of every call: SIP and RTP through the sockets that the SBC uses, ring, spool, uplink, finaliser, vault.
It has sung when the cloud's signed receipt comes for it; silence is alarmed. Its recording carries the flag ``canary``,
is in no list, and holds two sweeps of sound, one up and one down, so that whoever opens it can judge both channels.
The agent knows its own canary by the Call-ID that it has just made: nobody else can have a call taken for one.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dualtone.domain.errors import DualtoneError
from dualtone.domain.ids import CallId
from sbc_agent.runtime.logs import Log

PATIENCE_S: Final = 900.0
"""So long after its call the cloud may take to send the receipt; hold-back, upload and finaliser need seconds."""

_CALL_ID_BYTES: Final = 16


class Canary:
    """Places the calls and waits for their receipts. Use it in the event loop alone.

    Args:
        place: Places a call with a Call-ID; raises DualtoneError if nobody takes it.
        every_s: How often; 0 for never.
        log: Where it is told.
        patience_s: How long a receipt may take.
        draw: Draws from [0, 1): agents that start together do not sing together.
    """

    def __init__(
        self,
        place: Callable[[str], Awaitable[object]],
        every_s: float,
        log: Log,
        *,
        patience_s: float = PATIENCE_S,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._place, self._every_s, self._log = place, every_s, log
        self._patience_s, self._draw = patience_s, draw
        self._sip_call_id = ""
        self._call: CallId | None = None
        self._receipt = asyncio.Event()
        self._tried = self._failed = 0
        self._sang_at: float | None = None

    def owns(self, sip_call_id: str) -> bool:
        """Whether a dialog is the canary that is under way."""
        said = sip_call_id.encode("utf-8", "surrogateescape")  # any octets may come
        return secrets.compare_digest(self._sip_call_id.encode(), said) and bool(said)

    def recorded_as(self, call: CallId) -> None:
        """The canary that is under way is being recorded."""
        self._call = call

    def freed(self, call: CallId) -> None:
        """The cloud has a call, by its receipt."""
        if call == self._call:
            self._receipt.set()

    def figures(self) -> dict[str, Any]:
        """What ``dualtone-agent status`` and metrics tell; ``age_s`` is null until one has sung."""
        age_s = None if self._sang_at is None else round(asyncio.get_running_loop().time() - self._sang_at)
        return {"every_s": round(self._every_s), "tried": self._tried, "failed": self._failed, "age_s": age_s}

    async def run(self, ready: asyncio.Task[None]) -> None:
        """Sings until cancelled, the first time within an hour of the agent's being ready; never if it is not to."""
        await asyncio.wait([ready])
        await asyncio.sleep(self._every_s * self._draw())
        while self._every_s:
            await self.sing()
            await asyncio.sleep(self._every_s)

    async def sing(self) -> bool:
        """Places one call and waits for its receipt; returns whether that came."""
        self._tried += 1
        self._call = None
        self._receipt.clear()
        self._sip_call_id = f"{secrets.token_hex(_CALL_ID_BYTES)}@canary.invalid"
        try:
            await self._place(self._sip_call_id)
            await asyncio.wait_for(self._receipt.wait(), self._patience_s)
        except (DualtoneError, OSError, TimeoutError) as error:
            self._failed += 1
            reason = "no_receipt" if isinstance(error, TimeoutError) else "call_failed"
            self._log.error("canary_silent", call=self._call, reason=reason)
            return False
        finally:
            self._sip_call_id = ""
        self._sang_at = asyncio.get_running_loop().time()
        self._log.info("canary_sang", call=self._call)
        return True
