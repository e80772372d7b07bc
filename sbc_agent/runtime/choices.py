"""What people choose for calls, whichever way it comes: from the cloud, a desk, or a webhook in the agent's network.

A choice names a call, or a match token. One by token is given to every live call that has it; if there is none, it was
made before the call, and waits for it (``consents``). Use it in the event loop alone.
"""

from __future__ import annotations

from typing import Literal, Protocol

from dualtone.domain.call_decision import Decision
from dualtone.domain.errors import PolicyViolation
from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Cause, Choice, Means
from sbc_agent.runtime.clock_offset import Clock, TrueTime
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.recorded_call import ChoiceOutcome

Fate = Literal["kept", "discarded", "stopped", "unknown"]


class Chooser(Protocol):
    """Who carries choices out: the recorder."""

    def choose(self, call: CallId, choice: Choice, command: str | None = None) -> ChoiceOutcome:
        """Somebody chose for a call; raises Unavailable if the media process has ended."""

    def is_regulated(self, call: CallId) -> bool:
        """Whether a call is recorded whatever anybody chooses."""


class Expecting(Protocol):
    """Where choices wait that came before their calls: ``consents.Consents``."""

    def expect(self, token: str, choice: Choice) -> None:
        """A choice found no call."""


class Choices:
    """Gives choices to calls.

    Args:
        chooser: Carries them out.
        calls: The calls.
        consents: Where those wait that found no call.
        clock: The agent's clock.
        true_time: How far that is off.
        log: Where it tells what happens.
    """

    def __init__(
        self,
        *,
        chooser: Chooser,
        calls: LiveCalls,
        consents: Expecting,
        clock: Clock,
        true_time: TrueTime,
        log: Log,
    ) -> None:
        self._chooser, self._calls, self._consents = chooser, calls, consents
        self._clock, self._true_time, self._log = clock, true_time, log

    def decide(self, call: CallId, *, keep: bool, cause: Cause, by: str, how: Means) -> Fate:
        """Keeps or discards one call.

        Args:
            call: Which.
            keep: What is wished.
            cause: Why.
            by: Opaque id of who wishes it.
            how: By which way it came.

        Returns:
            What becomes of the call: also where that was so already. ``stopped``: it had been kept and stays so up to
            here.

        Raises:
            PolicyViolation: In a sentence for people, if the call's rule does not leave the choice.
            Unavailable: If the media process has ended.
        """
        outcome = self._chooser.choose(call, self._choice(keep=keep, cause=cause, by=by, how=how))
        if outcome in {"unknown", "stopped"}:
            return "unknown" if outcome == "unknown" else "stopped"
        if outcome == "ignored":
            if self._chooser.is_regulated(call):
                raise PolicyViolation("this line must be recorded: the call is kept")
            raise PolicyViolation("the rule for this line does not leave that choice: nothing has changed")
        return "kept" if outcome == "kept" or (outcome == "noted" and keep) else "discarded"

    def decide_by_match(
        self, token: str, *, keep: bool, cause: Cause, by: str, how: Means
    ) -> list[tuple[CallId, ChoiceOutcome]]:
        """Keeps or discards every live call with a token; if there is none, the next one within an hour.

        Returns:
            The calls and what came of it.

        Raises:
            Unavailable: If the media process has ended.
        """
        return self._choose_by_match(token, self._choice(keep=keep, cause=cause, by=by, how=how), None)

    def decided(self, decision: Decision) -> str:
        """Carries out a verified decision of the cloud; one that comes again changes nothing.

        Returns:
            ``expired``, ``pending``, ``applied``, or ``unknown`` where another agent has the call.

        Raises:
            Unavailable: If the media process has ended: the decision is to be repeated.
        """
        if self._true_time.measured is not None and decision.has_expired(self._true_time.now_ms()):
            self._log.warning("decision_expired", call=decision.call, kind=decision.decision)
            return "expired"
        choice = decision.choice(max(0, 1000 * decision.issued_at_ms - self._true_time.offset_us))
        if decision.call is not None:
            outcome = self._chooser.choose(CallId(decision.call), choice, decision.id)
            return "unknown" if outcome == "unknown" else "applied"
        return "applied" if self._choose_by_match(str(decision.match), choice, decision.id) else "pending"

    def _choose_by_match(self, token: str, choice: Choice, command: str | None) -> list[tuple[CallId, ChoiceOutcome]]:
        live = self._calls.live_with([token])
        if not live:
            self._consents.expect(token, choice)
        return [(known.call, self._chooser.choose(known.call, choice, command)) for known in live]

    def _choice(self, *, keep: bool, cause: Cause, by: str, how: Means) -> Choice:
        return Choice("keep" if keep else "discard", cause, how, self._clock.now_us(), by)
