"""What becomes of the calls: policy and choices, carried out between SIP, the media process and whoever must know.

Before a call's answer leaves, the media process is told to keep it, to let it wait sealed for nobody, or to gather
nothing. Later words change that: a call that waits is kept or discarded, one that was discarded may be kept from some
moment on, and one that is being kept falls silent when somebody refuses, for what was kept before has left the site.
Of a call that is not kept nothing is left but a count of its rule.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, Protocol

from dualtone.domain import ids
from dualtone.domain.ids import CallId
from dualtone.domain.recording_policy import RecordingPolicy
from dualtone.domain.recording_ruling import Choice
from sbc_agent.media.client import MediaPort
from sbc_agent.media.messages import Pause, Resume
from sbc_agent.runtime.decisions import Case, Decisions
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.recorded_call import CallListener, ChoiceOutcome, RecordedCall

BY_POLICY: Final = "agent:policy"
"""Who asks for the silence of a call that is not to be kept any further."""


class Tally(Protocol):
    """Counts the calls that were not recorded: ``not_recorded.NotRecorded``."""

    def add(self, rule_id: str) -> None:
        """A call of a rule was not recorded."""


class Chain(Protocol):
    """Numbers the recordings of each line: ``line_chain.LineChain``."""

    def of_call(self, call: CallId, policy: RecordingPolicy | None, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The links of a call that is kept."""


class CallFates:
    """Carries out what policy and people say.

    Args:
        media: The media process.
        decisions: Judges calls.
        log: Where decisions are told.
        tally: Counts what is not recorded; None counts nothing.
        chain: Numbers the recordings of each line; None numbers nothing.
        randomness: Yields random bytes, for command ids.

    Attributes:
        listener: Who must know which calls there are.
    """

    def __init__(
        self,
        media: MediaPort,
        decisions: Decisions,
        log: Log,
        *,
        tally: Tally | None = None,
        chain: Chain | None = None,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._media, self._decisions, self._log, self._tally = media, decisions, log, tally
        self._chain, self._randomness = chain, randomness
        self._waiting: dict[str, RecordedCall] = {}
        self._last_number = 0
        self.listener: CallListener | None = None

    def begin(self, call: RecordedCall, at_us: int) -> None:
        """Judges a new call and lets the media process begin it; raises Unavailable if that has ended."""
        assert call.call is not None
        if call.case is None:
            call.case = self._decisions.opened(call.facts, call.headers, at_us)
        case = call.case
        call.told, call.profile = case.wanted, self._decisions.profile(case)
        waits = call.told != "kept"
        self._media.begin(
            call.call, at_us, call.streams, waits=waits, silent=call.told == "silent", policy=call.profile
        )
        self._watch(call)

    def learn(self, call: RecordedCall, now_us: int) -> None:
        """Facts or headers of a call are others: it is judged anew."""
        if call.case is not None:
            self._decisions.consider(call.case, call.facts, call.headers, now_us)
            self.settle(call, now_us)

    def choose(self, call: RecordedCall, choice: Choice, command: str | None = None) -> ChoiceOutcome:
        """Somebody chose for a call.

        Args:
            call: The call, on its way.
            choice: What was chosen.
            command: Id of the cloud's decision, if it came from there.

        Returns:
            ``kept`` or ``discarded``: it waited, and that is so now. ``stopped``: it was being kept, and nothing more
            is. ``noted``: it changes nothing. ``ignored``: the rule does not leave the choice.
        """
        case = call.case
        if case is None:
            return "noted"
        before, went_on = case.wanted, case.may_go_on
        is_new = self._decisions.choose(case, choice, call.facts)
        outcome = _outcome(call, case, choice, before, went_on=went_on)
        if is_new or command is not None:  # whoever says the same again is told what holds, and nobody else is
            call.untold.append((choice, command, outcome))
        self.settle(call, choice.at_us)
        self._tell_choices(call)
        if is_new:
            told = (
                call.call if call.told == "kept" else None
            )  # of any other call a count is left, no line that names it
            self._log.info("choice", call=told, cause=choice.cause, kind=choice.decision, result=outcome)
        return outcome

    def following(self, chosen: RecordedCall, calls: Collection[RecordedCall]) -> list[RecordedCall]:
        """Those of the calls that inherit a call's choices now: they share a link with it, or with one that does."""
        left = [(call, self._links(call)) for call in calls if call is not chosen and call.case is not None]
        reached, following = self._links(chosen), list[RecordedCall]()
        while near := [(call, links) for call, links in left if not reached.isdisjoint(links)]:
            following += [call for call, _ in near]
            left = [(call, links) for call, links in left if reached.isdisjoint(links)]
            reached = reached.union(*(links for _, links in near))
        return following

    def _links(self, call: RecordedCall) -> frozenset[str]:
        return frozenset() if call.case is None else self._decisions.links(call.case, call.facts)

    def settle(self, call: RecordedCall, now_us: int) -> None:
        """Brings the media process, and whoever must know, to what is said of a call now."""
        case, number = call.case, call.call
        if case is None or number is None or call.is_abandoned:
            return
        wanted, before = case.wanted, call.told
        if before == "kept":
            self._go_on_or_stop(call, case, now_us)
        elif wanted == "kept":
            self._media.decide(number, now_us, keep=True)
            call.told = "kept"
            if before == "silent":
                call.began_at_us = max(call.began_at_us, now_us)
            self._log.info("call_kept", call=number, kind=case.kept_how)
        elif wanted == "silent" and before == "waiting":
            self._media.decide(number, now_us, keep=False)
            call.told = "silent"
        profile = self._decisions.profile(case)
        if profile != call.profile:
            call.profile = profile
            self._media.policy(number, now_us, call.profile)
        self._watch(call)
        self.describe(call)
        if (call.told, call.standing) != (before, call.was_standing):
            self.identify(call, now_us)
        self._tell_choices(call)

    def describe(self, call: RecordedCall) -> None:
        """Tells the media process the SESSION record, where it has changed and something of the call is gathered."""
        if call.case is None or call.call is None or call.told == "silent":
            return
        if not (call.is_known or call.is_adopted):
            return
        described = call.facts
        if call.told == "kept":
            links = [] if self._chain is None else self._chain.of_call(call.call, call.case.policy, call.facts)
            described = {**call.case.described(call.facts), **({"chain": links} if links else {})}
        if described != call.described:
            call.described = described
            self._media.session(call.call, described)

    def identify(self, call: RecordedCall, at_us: int) -> None:
        """Tells the listener how a call stands."""
        call.was_standing = call.standing
        if self.listener is not None and call.call is not None and call.case is not None:
            kept = call.case.kept if call.told == "kept" else None
            tokens = self.listener.on_call(
                call.call, call.facts, "live", at_us, standing=call.standing, policy=kept, began_us=call.began_at_us
            )
            call.matches = call.inherited | frozenset(tokens)

    def end(self, call: RecordedCall, at_us: int) -> None:
        """The dialog is over: the rule decides what nobody did."""
        case, number = call.case, call.call
        if case is None or number is None:
            return
        self._waiting.pop(number, None)
        if call.told != "kept":
            self._decisions.end(case, call.facts, call.headers, at_us)
            self.settle(call, at_us)
            self._waiting.pop(number, None)
        if call.told != "kept" and self._tally is not None:
            self._tally.add(case.ruling.rule.id)

    def close(self, call: RecordedCall, at_us: int) -> None:
        """Tells the listener that a call is over."""
        if self.listener is not None and call.call is not None:
            self.listener.on_call(call.call, call.facts, "ended", at_us, standing=call.standing)

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def due_us(self) -> int | None:
        """When time alone decides something; None if it never does."""
        moments = [call.case.due_us for call in self._waiting.values() if call.case is not None]
        return min((moment for moment in moments if moment is not None), default=None)

    def pass_time(self, now_us: int) -> list[RecordedCall]:
        """Decides what time decides; returns the calls of which it decided something."""
        due = []
        for call in list(self._waiting.values()):
            case = call.case
            if case is not None and case.due_us is not None and case.due_us <= now_us:
                self._decisions.pass_time(case, call.facts, call.headers, now_us)
                self.settle(call, now_us)
                due.append(call)
        return due

    def _watch(self, call: RecordedCall) -> None:
        assert call.call is not None
        if call.case is not None and call.case.due_us is not None:
            self._waiting[call.call] = call
        else:
            self._waiting.pop(call.call, None)

    # -- calls that are being kept ----------------------------------------------------------------------------------

    def _go_on_or_stop(self, call: RecordedCall, case: Case, now_us: int) -> None:
        """Nobody takes back what left the site; from now on nothing more is kept, or something is again."""
        if case.may_go_on == (not call.is_stopped):
            return
        assert call.call is not None
        call.is_stopped = not case.may_go_on
        self._last_number = max(self._last_number + 1, now_us // 1000)
        command = ids.ulid(now_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES))
        told: dict[str, object] = {
            "call": call.call,
            "at_us": now_us,
            "cause": "consent",
            "origin": "agent",
            "number": self._last_number,
            "command": command,
            "by": BY_POLICY,
        }
        if call.is_stopped:
            span = {"from_us": now_us, "effective_at_us": now_us, "lease_us": 0, "on_expiry": "silent"}
            pause = Pause.model_validate(told | span)
            self._order(pause)
            self._media.pause(pause)
        else:
            resume = Resume.model_validate(told)
            self._order(resume)
            self._media.resume(resume)

    def _order(self, message: Pause | Resume) -> None:
        if self.listener is not None:
            self.listener.on_order(message)

    def _tell_choices(self, call: RecordedCall) -> None:
        """Of a call that is kept everybody's choices are told; of any other they stay here."""
        if self.listener is None or call.call is None or call.told != "kept":
            return
        untold, call.untold = call.untold, []
        for choice, command, outcome in untold:
            self.listener.on_choice(call.call, choice, command, outcome)


def _outcome(
    call: RecordedCall, case: Case, choice: Choice, before: Literal["kept", "waiting", "silent"], *, went_on: bool
) -> ChoiceOutcome:
    if call.told == "kept":
        if went_on and not case.may_go_on:
            return "stopped"
        refused = choice.decision == "discard" and case.may_go_on
        return "ignored" if refused else "noted"
    if case.wanted == "kept":
        return "kept"
    if case.fate == "discard" and choice.decision == "discard":
        return "discarded"
    return "noted" if case.wanted == before and case.ruling.provisional else "ignored"
