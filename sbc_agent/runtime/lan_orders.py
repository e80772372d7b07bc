"""What the LAN endpoint does: orders get a number of origin ``lan``, are carried out, and their answers are waited for.

The rules are the cloud's own (``domain.pause_order``, ``domain.standard_webhooks``), so a payment page gets the same
answers from both. One thing only the cloud knows: when the last copy of a span that came too late was gone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from dualtone.domain import call_match, ids, pause_ledger, pause_order, standard_webhooks
from dualtone.domain.call_command import Cause, Command, next_number
from dualtone.domain.errors import MalformedInput, NotFound, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.usecases.await_answers import ANSWER_WITHIN_MS, CallAnswer, CallOutcome, SilentStream
from sbc_agent.runtime import lan_bodies
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.clock_offset import Clock, TrueTime
from sbc_agent.runtime.control import Carried, Control, Execution
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.lan_bodies import Answer, CardEntry, Decision, NamedPause, NamedResume, Pause, Resume
from sbc_agent.runtime.lan_decisions import LanDecisions
from sbc_agent.runtime.live_calls import KnownCall
from sbc_agent.runtime.orders import of_command
from sbc_agent.runtime.webhook_memory import WebhookMemory

OK: Final = 200
ACCEPTED: Final = 202
BEARER: Final = "lan:bearer"
_COUNTER: Final = "lan"
_CAUSE_OF_WEBHOOKS: Final[Cause] = "payment"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an order is known by: when it came, and its command's id and number."""

    received_ms: int
    command: str
    number: int


class LanOrders:
    """Serves callers in the agent's own network. Use it in the event loop alone.

    Args:
        tenant: The agent's tenant.
        agent: The agent.
        control: Carries orders out.
        state: Where numbers are counted.
        memory: Which webhooks were received.
        facts: What the cloud told of live key, endpoints and defaults.
        clock: The agent's clock.
        true_time: How far that is off.
        answer_within_s: How long answers of the media process are waited for.
        randomness: Yields random bytes, for command ids.
    """

    def __init__(
        self,
        *,
        tenant: TenantId,
        agent: AgentId,
        control: Control,
        state: AgentState,
        memory: WebhookMemory,
        facts: Callable[[], ControlFacts],
        clock: Clock,
        true_time: TrueTime,
        answer_within_s: float = ANSWER_WITHIN_MS / 1000,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._tenant = tenant
        self._agent = agent
        self._control = control
        self._state = state
        self._memory = memory
        self._facts = facts
        self._clock = clock
        self._true_time = true_time
        self._answer_within_s = answer_within_s
        self._randomness = randomness
        self._last_number = 0
        self.decisions = LanDecisions(control, facts, true_time, randomness)
        """Decides on calls."""

    # -- what is asked ----------------------------------------------------------------------------------------------

    def calls(self) -> Answer:
        """The live calls."""
        known = map(self._control.calls.get, self._control.calls.live)
        return OK, {"calls": [self._described(call) for call in known if call is not None]}

    def call(self, call_id: str) -> Answer:
        """One call; raises NotFound."""
        known = self._control.calls.get(_named(call_id))
        if known is None:
            raise NotFound("no such call")
        return OK, self._described(known)

    async def order_call(self, call_id: str, body: Pause | Resume, by: str = BEARER) -> Answer:
        """Pauses or resumes one call.

        Args:
            call_id: Which.
            body: What is asked.
            by: Who asks.

        Raises:
            NotFound: If the agent has no such call.
            MalformedInput: If the span cannot be.
            Unavailable: If the media process has ended.
        """
        call, stamp = _named(call_id), self._stamp()
        order = self._order(body, stamp, by, body.cause)
        command = order.for_call(self._tenant, self._agent, call, stamp.number, stamp.received_ms)
        answers = await self._carry_out(command, order)
        if not answers:
            raise NotFound("no such call")
        return _answer(answers)

    async def decide_call(self, call_id: str, body: Decision) -> Answer:
        """Keeps or discards one call; raises as ``LanDecisions.of_call``."""
        return await self.decisions.of_call(_named(call_id), body, BEARER)

    async def order_match(self, body: NamedPause | NamedResume) -> Answer:
        """Pauses or resumes every call with a name; raises MalformedInput, Unavailable."""
        stamp = self._stamp()
        return await self._order_match(body.kind, body.value, self._order(body, stamp, BEARER, body.cause), stamp)

    async def webhook(self, endpoint_id: str, message_id: str, timestamp: str, signatures: str, body: bytes) -> Answer:
        """Takes a payment system's message.

        Args:
            endpoint_id: From the path.
            message_id: ``webhook-id``.
            timestamp: ``webhook-timestamp``.
            signatures: ``webhook-signature``.
            body: As received.

        Raises:
            NotFound: If there is no such endpoint.
            SignatureRefused, TimestampRefused: If the message did not prove who sent it, or when.
            OtherBody: If its id was used for another body.
            MalformedInput, InvalidBody: If it says nothing that can be done.
            Unavailable: If the media process has ended, or the cloud has told no live key yet.
        """
        secret = self._facts().secret(endpoint_id)
        if secret is None:
            raise NotFound("no such endpoint")
        now_ms = self._true_time.now_ms()
        key = standard_webhooks.read_secret(secret)
        standard_webhooks.verify(key, message_id, timestamp, signatures, body, now_s=now_ms // 1000)
        receipt = self._memory.recall(endpoint_id, message_id, body)
        if receipt is None:
            stamp = self._stamp()
            receipt = self._memory.note(
                endpoint_id,
                message_id,
                body,
                received_ms=stamp.received_ms,
                number=stamp.number,
                command=stamp.command,
            )
        async with receipt.turn:
            if receipt.answer is None:
                stamp = Stamp(receipt.received_ms, receipt.command, receipt.number)
                status, answer = await self._reported(endpoint_id, body, stamp)
                self._memory.answered(endpoint_id, message_id, receipt, status, answer)
                return status, answer
            return receipt.answer

    async def _reported(self, endpoint_id: str, body: bytes, stamp: Stamp) -> Answer:
        message, by = lan_bodies.read(lan_bodies.Webhook, body), f"endpoint:{endpoint_id}"
        if (decision := message.decision) is not None:
            return await self.decisions.of_name(decision, by, "webhook")
        entry: CardEntry | Resume = message.data if message.type == lan_bodies.STARTED else Resume()
        order = self._order(entry, stamp, by, _CAUSE_OF_WEBHOOKS)
        return await self._order_match(message.data.kind, message.data.value, order, stamp)

    # -- how it is done ---------------------------------------------------------------------------------------------

    def _stamp(self) -> Stamp:
        received_ms = self._true_time.now_ms()
        command = ids.ulid(received_ms, self._randomness(ids.ULID_RANDOM_BYTES))
        at_least = next_number(self._last_number, received_ms)
        try:
            self._last_number = self._state.next_number(_COUNTER, at_least)
        except Unavailable:  # a full disk: time alone lets it grow over a restart
            self._last_number = at_least
        return Stamp(received_ms, command, self._last_number)

    def _order(self, body: Pause | Resume | CardEntry, stamp: Stamp, by: str, cause: Cause) -> pause_order.Order:
        if isinstance(body, Pause | CardEntry):
            facts = self._facts()
            return pause_order.pause(
                command=stamp.command,
                cause=cause,
                by=by,
                received_at_ms=stamp.received_ms,
                effective_at_ms=lan_bodies.ms(body.effective_at),
                until_ms=lan_bodies.ms(body.until),
                lease_s=facts.lease_s if body.lease_s is None else body.lease_s,
                on_expiry=facts.on_expiry,
            )
        return pause_order.resume(command=stamp.command, cause=cause, by=by, received_at_ms=stamp.received_ms)

    async def _order_match(self, kind: str, value: str, order: pause_order.Order, stamp: Stamp) -> Answer:
        live_key = self._facts().live_key
        if not live_key:
            raise Unavailable("the cloud has told no live key yet")
        token = call_match.token(live_key, kind, value)
        command = order.for_match(self._tenant, self._agent, token, stamp.number, stamp.received_ms)
        return _answer(await self._carry_out(command, order))

    async def _carry_out(self, command: Command, asked: pause_order.Order) -> list[CallAnswer]:
        order = of_command(command, received_us=self._clock.now_us(), clock=self._control.offset(), origin="lan")
        carried = (
            self._control.carry_out_by_match(command.match, order)
            if command.match is not None
            else self._control.carry_out_on(CallId(str(command.call)), order)
        )
        await self._wait(carried)
        answers = [self._answered(execution, asked) for execution in carried.executions]
        return [found for found in answers if found is not None]

    async def _wait(self, carried: Carried) -> None:
        if carried.executions:
            await asyncio.wait([one.applied for one in carried.executions], timeout=self._answer_within_s)

    def _answered(self, execution: Execution, asked: pause_order.Order) -> CallAnswer | None:
        """What became of one execution; None if the agent has no such call."""
        known = self._control.calls.get(execution.call)
        state = "spooled" if known is None else known.state
        if not execution.applied.done():
            causes = () if known is None else known.causes
            return CallAnswer(execution.call, state, asked.command, "requested", causes, None, asked.effective_at_ms)
        applied, clock = execution.applied.result(), self._control.offset()
        if applied.outcome == "unknown":
            return None
        return CallAnswer(
            call=execution.call,
            state=state,
            command=asked.command,
            outcome=cast("CallOutcome", applied.outcome),
            causes=applied.causes,
            paused=bool(applied.causes),
            effective_at_ms=asked.effective_at_ms,
            gap_started_at_ms=pause_ledger.true_ms(applied.from_us, clock) if asked.action == "pause" else None,
            silent_from=tuple(
                SilentStream(one.stream, one.rtp_timestamp, pause_ledger.true_ms(one.at_us, clock))
                for one in applied.silent_from
            ),
        )

    def _described(self, known: KnownCall) -> dict[str, Any]:
        clock = self._control.offset()
        ended_us = known.ended_us
        return {
            "call_id": known.call,
            "agent_id": self._agent,
            "state": "live" if known.state == "live" else "ended",
            "started_at": lan_bodies.instant(pause_ledger.true_ms(known.started_us, clock)),
            "ended_at": None if ended_us is None else lan_bodies.instant(pause_ledger.true_ms(ended_us, clock)),
            "causes": list(known.causes),
            "paused": bool(known.causes),
            "standing": known.standing,  # in the cloud there is none but what is recorded
            "parties": None,  # for people who sign in, in the cloud
        }


def _named(call_id: str) -> CallId:
    """A malformed id names no call: it is answered like any other that does not exist."""
    try:
        return ids.parse_call_id(call_id)
    except MalformedInput as error:
        raise NotFound("no such call") from error


def _answer(found: list[CallAnswer]) -> Answer:
    answer = lan_bodies.answer(found)
    return (ACCEPTED if answer["outcome"] in {"requested", "pending"} else OK), answer
