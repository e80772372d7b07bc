"""What the LAN endpoint decides of calls: keep one that waits, discard it, or stop one that is kept, as in the cloud.

The same paths and bodies as the API's. The agent knows what became of it at once, so its answer says more than the
cloud's: ``discarded``, of which the cloud is never told anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from dualtone.domain import call_match, ids
from dualtone.domain.errors import NotFound, Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Means
from sbc_agent.runtime.clock_offset import TrueTime
from sbc_agent.runtime.control import Control
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.lan_bodies import Answer, Decision, NamedDecision

OK: Final = 200
ACCEPTED: Final = 202
# Which of several calls' outcomes whoever decided must heed: as in ``dualtone.usecases.decide_calls``.
_GRAVEST_FIRST: Final = ("ignored", "stopped", "kept", "noted", "discarded")


class LanDecisions:
    """Decides. Use it in the event loop alone.

    Args:
        control: Carries decisions out.
        facts: What the cloud told of the live key.
        true_time: What time it is, for the decisions' ids.
        randomness: Yields random bytes, likewise.
    """

    def __init__(
        self,
        control: Control,
        facts: Callable[[], ControlFacts],
        true_time: TrueTime,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._control = control
        self._facts = facts
        self._true_time = true_time
        self._randomness = randomness

    async def of_call(self, call_id: CallId, body: Decision, by: str) -> Answer:
        """Decides on one call.

        Raises:
            NotFound: If the agent has no such live call.
            PolicyViolation: In a sentence for people, if the call's rule does not leave the choice.
            Unavailable: If the media process has ended.
        """
        outcome = await self._control.decide(call_id, keep=body.decision == "keep", cause=body.cause, by=by)
        if outcome == "unknown":
            raise NotFound("no such call")
        return OK, self._told([(call_id, outcome)])

    async def of_name(self, body: NamedDecision, by: str, how: Means = "lan") -> Answer:
        """Decides on every live call that goes by a name; if there is none, on the next one within an hour.

        Raises:
            MalformedInput: If the name names nothing.
            Unavailable: If the media process has ended, or the cloud has told no live key yet.
        """
        live_key = self._facts().live_key
        if not live_key:
            raise Unavailable("the cloud has told no live key yet")
        found = await self._control.decide_by_match(
            call_match.token(live_key, body.kind, body.value),
            keep=body.decision == "keep",
            cause=body.cause,
            by=by,
            how=how,
        )
        return (OK if found else ACCEPTED), self._told(found)

    def _told(self, found: list[tuple[CallId, Any]]) -> dict[str, Any]:
        outcomes = {outcome for _call, outcome in found}
        return {
            "command": ids.ulid(self._true_time.now_ms(), self._randomness(ids.ULID_RANDOM_BYTES)),
            "outcome": next((outcome for outcome in _GRAVEST_FIRST if outcome in outcomes), "requested"),
            "calls": [{"call_id": call, "outcome": outcome} for call, outcome in found],
        }
