"""The control channel on the agent: which calls there are, and what becomes of every pause and resume.

Commands come from the cloud's queue and from the LAN. One that names a call goes to the media process at once; one
that names a match token goes to every call that has it, and a pause that finds no live one waits for it. What the media
process answers becomes events for the cloud: acknowledgements, cuts, leases, and the calls themselves.

Everything here happens in the event loop, so that nothing has to be locked and the order of things is the order in
which they are told. Other threads hand over by ``asyncio.run_coroutine_threadsafe``.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, cast

from dualtone.domain import call_match, call_session, ids
from dualtone.domain.agent_events import ClockOffset, CutEvent, LeaseEvent
from dualtone.domain.call_command import Cause, Command
from dualtone.domain.call_decision import Decision
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.recording_ruling import Cause as ChoiceCause
from dualtone.domain.recording_ruling import Choice, Kept, Means
from sbc_agent.media.messages import CutDone, Finished, LeaseExpired, Pause, PauseApplied, Resume, SelfPaused
from sbc_agent.media.messages import Event as MediaEvent
from sbc_agent.runtime import cloud_events
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.choices import Choices, Chooser, Expecting, Fate
from sbc_agent.runtime.clock_offset import Clock, TrueTime
from sbc_agent.runtime.live_calls import KEPT_US, KnownCall, LiveCalls, Standing
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.orders import Order, inherited_pause, issued_at, of_command, own_pause, own_resume, taken_from
from sbc_agent.runtime.pending_commands import PendingCommands
from sbc_agent.runtime.recorded_call import CallState, ChoiceOutcome
from sbc_agent.runtime.site_events import Events, SiteEvents

ANSWER_S: Final = 5.0
"""So long a command's message waits for the media process before it is left in the queue, to come again."""
RECUT_AGAIN_S: Final = 1.0
"""So long it takes at first until the uplink is asked again about a cut, if it could not be asked."""
_RECUT_CEILING_S: Final = 60.0


class CommandedMedia(Protocol):
    """What is asked of the media process here."""

    def pause(self, command: Pause) -> None:
        """Makes a call silent; raises Unavailable if the process has ended."""

    def resume(self, command: Resume) -> None:
        """Ends a cause; raises as ``pause``."""


Recut = Callable[[CallId, Iterable[str]], ThreadFuture[None]]


@dataclass(slots=True)
class Execution:
    """An order on its way through one call.

    Attributes:
        call: The call.
        order: What was asked.
        applied: What the media process answers.
        gone: Done when the agent keeps nothing of the span, and sends nothing of it, any more.
    """

    call: CallId
    order: Order
    applied: asyncio.Future[PauseApplied]
    gone: asyncio.Future[None]


@dataclass(slots=True)
class Carried:
    """What came of an order: its executions, one for each call; ``pending`` if it waits for a call."""

    order: Order
    executions: list[Execution] = field(default_factory=list)
    pending: bool = False


class Control:
    """Calls and commands. Use it in the event loop alone.

    Args:
        tenant: The agent's tenant.
        clock: The agent's clock.
        true_time: How far that is off.
        media: The media process.
        calls: The calls.
        pending: Commands for calls that are not known yet.
        events: Where events for the cloud go.
        live_key: Yields the tenant's live key, empty while there is none.
        recut: Says when no older bytes of rewritten parts can reach the cloud any more.
        log: Where it tells what happens.
        chooser: Carries out what people choose for calls.
        consents: Where choices wait that came before their calls.
        randomness: Yields random bytes, for nonces.
    """

    def __init__(
        self,
        *,
        tenant: TenantId,
        clock: Clock,
        true_time: TrueTime,
        media: CommandedMedia,
        calls: LiveCalls,
        pending: PendingCommands,
        events: Events,
        live_key: Callable[[], bytes],
        recut: Recut,
        log: Log,
        chooser: Chooser,
        consents: Expecting,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._choices = Choices(
            chooser=chooser, calls=calls, consents=consents, clock=clock, true_time=true_time, log=log
        )
        self._tenant = tenant
        self._clock = clock
        self._true_time = true_time
        self._media = media
        self._calls = calls
        self._pending = pending
        self._events = SiteEvents(events)
        self._live_key = live_key
        self._recut = recut
        self._log = log
        self._randomness = randomness
        self._executions: dict[tuple[str, str], Execution] = {}
        self._tried: dict[CallId, set[str]] = {}  # pauses by match that a live call was given already
        self._inherited: dict[CallId, frozenset[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def calls(self) -> LiveCalls:
        """The calls."""
        return self._calls

    def offset(self) -> ClockOffset:
        """How far the agent's clock is off."""
        return ClockOffset(self._true_time.offset_us, self._true_time.uncertainty_us)

    # -- the recorder's calls ---------------------------------------------------------------------------------------

    def on_call(
        self,
        call: CallId,
        facts: Mapping[str, Any],
        state: CallState,
        at_us: int,
        *,
        standing: Standing = "recorded",
        policy: Kept | None = None,
        began_us: int | None = None,
    ) -> Collection[str]:
        """A call began, is known better, was decided, or ended; see ``recorded_call.CallListener``."""
        known = self._calls.get(call) or KnownCall(call, "live", at_us)
        if state == "ended":
            self._tried.pop(call, None)
            self._inherited.pop(call, None)
            if standing != "recorded":
                self._calls.forget(call)
                self._events.forget(call)
                return known.tokens
            self._tell(self._calls.put(replace(known, state="ended", ended_us=at_us, sealed=b"")))
            return known.tokens
        live_key, tokens, sealed, links = self._live_key(), known.tokens, known.sealed, known.links
        if facts and live_key:
            links = frozenset(call_match.links(live_key, call_session.from_facts(facts)))
            tokens = call_match.of_session(live_key, facts) | self._inherited.get(call, frozenset())
            tokens = frozenset(sorted(tokens)[: call_match.MOST_TOKENS])
            sealed = call_match.seal(live_key, self._tenant, call, facts, self._randomness(call_match.NONCE_BYTES))
        known = replace(known, tokens=tokens, links=links, sealed=sealed, policy=policy)
        known = replace(known, started_us=began_us or known.started_us)
        self._stands(known, standing)
        self._catch_up(call, tokens)
        return tokens

    def on_choice(self, call: CallId, choice: Choice, command: str | None, outcome: ChoiceOutcome) -> None:
        """Somebody chose for a call that is kept; see ``recorded_call.CallListener``."""
        event = cloud_events.of_choice(call, choice, command, outcome)
        if event is not None:
            self._events.put(event)

    def on_order(self, message: Pause | Resume) -> None:
        """The recorder silences a call, or lets it be heard: what comes of that is told as of any pause."""
        self._expect(taken_from(message), CallId(message.call))

    def _stands(self, known: KnownCall, standing: Standing) -> None:
        """Nothing of a call leaves the site that is not, or not yet, recorded."""
        known = self._calls.put(replace(known, standing=standing))
        if standing != "recorded":
            self._events.hold(known.call)
            return
        held = self._events.release(known.call)
        self._tell(known)
        for event in held:
            self._events.put(event)

    def on_adopted(
        self,
        call: CallId,
        matches: Collection[str],
        began_at_us: int,
        instead_of: CallId | None = None,
        *,
        standing: Standing = "recorded",
        causes: Collection[str] = (),
    ) -> None:
        """A call of an earlier run goes on; see ``recorded_call.CallListener``."""
        known = self._calls.get(call) or KnownCall(call, "live", began_at_us)
        if instead_of is not None:
            known = replace(known, causes=tuple(sorted({*self._causes_of(instead_of), *causes})))
            self._inherit(known)
        self._inherited[call] = frozenset(matches)
        known = replace(known, state="live", tokens=known.tokens | frozenset(matches))
        self._stands(known, standing)
        self._catch_up(call, known.tokens)

    def _causes_of(self, call: CallId) -> tuple[str, ...]:
        """Why a call was silent, and what it was asked that nobody has answered yet."""
        known = self._calls.get(call)
        causes = set(known.causes) if known is not None else set()
        for execution in self._executions.values():
            if execution.call == call and not execution.applied.done():
                change = causes.add if execution.order.action == "pause" else causes.discard
                change(execution.order.cause)
        return tuple(sorted(causes))

    def _inherit(self, known: KnownCall) -> None:
        """Makes a call silent from its beginning for the causes that it has."""
        for cause in known.causes:
            now_us = self._clock.now_us()
            command = ids.ulid(now_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES))
            self._log.error("pause_inherited", call=known.call, cause=cause)
            order = inherited_pause(
                cast("Cause", cause), command=command, began_us=known.started_us, received_us=now_us
            )
            try:
                self._execute(known.call, order)
            except Unavailable as error:
                self._log.failure("pause_failed", error, call=known.call)

    def settle(self) -> None:
        """What an earlier run left and nobody adopted is over: it is being closed, or lies in the spool."""
        now_us = self._clock.now_us()
        self._calls.forget_before(now_us - KEPT_US)
        live = set(self._calls.live)
        for known in self._calls.inherited():
            if known.call not in live:
                ended_us = known.ended_us or now_us
                self._tell(self._calls.put(replace(known, state="spooled", ended_us=ended_us, sealed=b"", causes=())))

    def forget(self, call: CallId) -> None:
        """The cloud has a call, and its spool was freed."""
        self._calls.forget(call)

    # -- what people choose -----------------------------------------------------------------------------------------

    async def decide(self, call: CallId, *, keep: bool, cause: ChoiceCause, by: str, how: Means = "lan") -> Fate:
        """Keeps or discards a call; see ``choices.Choices.decide``."""
        return self._choices.decide(call, keep=keep, cause=cause, by=by, how=how)

    async def decide_by_match(
        self, token: str, *, keep: bool, cause: ChoiceCause, by: str, how: Means = "lan"
    ) -> list[tuple[CallId, ChoiceOutcome]]:
        """Keeps or discards the calls with a token; see ``choices.Choices.decide_by_match``."""
        return self._choices.decide_by_match(token, keep=keep, cause=cause, by=by, how=how)

    async def decided(self, decision: Decision) -> str:
        """Carries out a decision of the cloud; see ``choices.Choices.decided``."""
        return self._choices.decided(decision)

    # -- commands ---------------------------------------------------------------------------------------------------

    async def obey(self, command: Command) -> str:
        """Carries out a verified command of the cloud, and waits until it would survive the end of the process.

        Returns:
            ``expired``, ``pending``, or ``applied``.

        Raises:
            Unavailable: If the media process did not answer, or if a resume by match is expired by a clock that was
                never measured: the command is to be repeated. A pause counts then as if it had been issued now.
        """
        now_ms = self._true_time.now_ms()
        if command.has_expired(now_ms):
            if self._true_time.measured is not None or command.match is None:
                self._log.warning("command_expired", call=command.call, kind=command.action)
                return "expired"
            if command.action == "resume":  # silence can wait until it is known what time it is
                raise Unavailable("true time was never measured")
            command = issued_at(command, now_ms)
        order = of_command(command, received_us=self._clock.now_us(), clock=self.offset())
        if command.call is not None:
            carried = self.carry_out_on(CallId(command.call), order)
        else:
            carried = self.carry_out_by_match(str(command.match), order)
        answers = [execution.applied for execution in carried.executions]
        if answers:
            _, late = await asyncio.wait(answers, timeout=ANSWER_S)
            if late:
                raise Unavailable("the media process does not answer")
        return "pending" if carried.pending else "applied"

    def carry_out_on(self, call: CallId, order: Order) -> Carried:
        """Gives an order to one call; raises Unavailable if the media process has ended."""
        return Carried(order, [self._execute(call, order)])

    def carry_out_by_match(self, token: str, order: Order) -> Carried:
        """Gives an order to every call with a token; a pause that finds no live one waits; raises as above."""
        carried = Carried(order)
        found = self._calls.matching(token, order.from_us, order.until_us)
        live = [known for known in found if known.state == "live"]
        if order.action == "resume" or not live:  # what ended a moment ago need not be the call that is meant
            carried.pending = self._pending.put(token, order) and not found
        for known in found if order.action == "pause" else live:
            if known.state == "live":
                self._tried.setdefault(known.call, set()).add(order.command)
            carried.executions.append(self._execute(known.call, order))
        return carried

    def _catch_up(self, call: CallId, tokens: frozenset[str]) -> None:
        """Gives a call the pauses that waited for it."""
        tried = self._tried.setdefault(call, set())
        for order in self._pending.pauses(tokens, self._clock.now_us()):
            if order.command not in tried:
                tried.add(order.command)
                try:
                    self._execute(call, order)
                except Unavailable as error:
                    self._log.failure("pause_failed", error, call=call)

    def _execute(self, call: CallId, order: Order) -> Execution:
        running = self._executions.get((call, order.command))
        if running is not None:
            return running
        loop = asyncio.get_running_loop()
        execution = Execution(call, order, loop.create_future(), loop.create_future())
        self._executions[call, order.command] = execution
        message = order.message(call)
        try:
            if isinstance(message, Pause):
                self._media.pause(message)
            else:
                self._media.resume(message)
        except Unavailable:
            del self._executions[call, order.command]
            raise
        self._end_own_pause(call, order)
        return execution

    def _end_own_pause(self, call: CallId, order: Order) -> None:
        """A payment that is over ends the pause by which its card's digits had stopped the call, too."""
        known = self._calls.get(call)
        if (order.action, order.cause) == ("resume", "payment") and known is not None and "dtmf" in known.causes:
            now_us = self._clock.now_us()
            command = ids.ulid(now_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES))
            self._execute(call, own_resume(order, command=command, received_us=now_us))

    # -- what the media process tells -------------------------------------------------------------------------------

    def media_event(self, event: MediaEvent) -> None:
        """Takes an event of the media process."""
        if isinstance(event, PauseApplied):
            self._applied(event)
        elif isinstance(event, SelfPaused):
            self._self_paused(event.pause)
        elif isinstance(event, CutDone):
            task = asyncio.get_running_loop().create_task(self._cut(event), name="recut")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(event, LeaseExpired):
            self._lease_expired(event)
        elif isinstance(event, Finished):
            known = self._calls.get(CallId(event.call))
            if known is not None:
                ended_us = known.ended_us or self._clock.now_us()
                self._tell(self._calls.put(replace(known, state="spooled", ended_us=ended_us, sealed=b"", causes=())))

    def _self_paused(self, pause: Pause) -> None:
        """A call has stopped itself: what comes of that is told as of any pause."""
        call = CallId(pause.call)
        self._expect(own_pause(pause), call)
        if self._may_be_named(call):
            self._log.error("payment_without_pause", call=call)

    def _may_be_named(self, call: CallId) -> bool:
        """Whether a line of the log may name a call: of one that is not recorded nothing shall be left."""
        known = self._calls.get(call)
        return known is None or known.standing == "recorded"

    def _expect(self, order: Order, call: CallId) -> None:
        """The media process answers something that was not asked from here."""
        loop = asyncio.get_running_loop()
        self._executions[call, order.command] = Execution(call, order, loop.create_future(), loop.create_future())

    def _applied(self, event: PauseApplied) -> None:
        execution = self._executions.get((event.call, event.command))
        if execution is None:
            return
        self._events.put(cloud_events.of_answer(event, execution.order))
        if self._may_be_named(execution.call):
            told = {"kind": event.action, "cause": event.cause, "result": event.outcome, "state": event.origin}
            self._log.info("command", call=event.call, **told)
        if event.outcome == "unknown":
            self._calls.forget(CallId(event.call))
        else:
            self._causes_are(CallId(event.call), event.causes)
        if event.outcome != "too_late":
            del self._executions[event.call, event.command]
        if not execution.applied.done():
            execution.applied.set_result(event)

    async def _cut(self, event: CutDone) -> None:
        """Tells the cloud of a cut when no older bytes of the parts can reach it any more."""
        await self._nothing_older(event)
        execution = self._executions.get((event.call, event.command))
        if execution is not None:  # the cut may be done while the disk still refuses the answer
            await asyncio.wait([execution.applied])
            self._executions.pop((event.call, event.command), None)
        self._events.put(CutEvent(event.call, event.command, event.from_us, event.to_us, list(event.parts)))
        self._log.info("spool_cut", call=event.call, parts=len(event.parts))
        if execution is not None and not execution.gone.done():
            execution.gone.set_result(None)

    async def _nothing_older(self, event: CutDone) -> None:
        """Waits until no older bytes of the parts can reach the cloud, however often it takes to ask for that."""
        backoff = Backoff(random.random, first_s=RECUT_AGAIN_S, ceiling_s=_RECUT_CEILING_S)
        while True:
            try:
                await asyncio.wrap_future(await asyncio.to_thread(self._recut, CallId(event.call), event.parts))
            except Exception as error:  # noqa: BLE001 - whatever keeps it from asking, the cloud waits for the cut
                wait_s = backoff.fail(asyncio.get_running_loop().time())
                if backoff.is_news:
                    self._log.failure("recut_failed", error, call=event.call, retry_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)
            else:
                return

    def _lease_expired(self, event: LeaseExpired) -> None:
        self._events.put(LeaseEvent(event.call, event.cause, event.on_expiry, event.at_us))
        self._log.error("lease_expired", call=event.call, cause=event.cause, result=event.on_expiry)
        known = self._calls.get(CallId(event.call))
        if known is not None and event.on_expiry == "resume":
            self._causes_are(known.call, tuple(cause for cause in known.causes if cause != event.cause))

    def _causes_are(self, call: CallId, causes: tuple[str, ...]) -> None:
        known = self._calls.get(call)
        if known is not None and known.causes != causes:
            self._tell(self._calls.put(replace(known, causes=causes)))

    def _tell(self, known: KnownCall) -> None:
        self._events.put(cloud_events.of_call(known))
