"""What happens on the site, in the words of the events that the cloud takes. Pure."""

from __future__ import annotations

import base64

from dualtone.domain import agent_events
from dualtone.domain.agent_events import AckEvent, CallEvent, DecisionEvent
from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Choice
from sbc_agent.media.messages import PauseApplied
from sbc_agent.runtime.live_calls import KnownCall
from sbc_agent.runtime.orders import Order
from sbc_agent.runtime.recorded_call import ChoiceOutcome


def of_call(known: KnownCall) -> CallEvent:
    """How a call is now."""
    return CallEvent(
        call=known.call,
        revision=known.revision,
        state=known.state,
        started_at_us=known.started_us,
        ended_at_us=known.ended_us,
        matches=sorted(known.tokens),
        sealed=base64.b64encode(known.sealed).decode("ascii"),
        causes=list(known.causes),
        policy=known.policy,
        links=sorted(known.links & known.tokens),
    )


def of_choice(call: CallId, choice: Choice, command: str | None, outcome: ChoiceOutcome) -> DecisionEvent | None:
    """What somebody chose for a call that is kept; None for what nobody is told."""
    if outcome == "discarded" or outcome == "unknown":  # noqa: PLR1714 - the type checker follows this one
        return None
    chosen = choice.chosen
    return DecisionEvent(call, command, chosen.choice, chosen.how, chosen.at_us, chosen.by, outcome)


def of_answer(event: PauseApplied, order: Order) -> AckEvent:
    """The media process's answer to an order."""
    is_pause = order.action == "pause"
    return AckEvent(
        call=event.call,
        command=event.command,
        number=event.number,
        origin=event.origin,
        action=event.action,
        cause=event.cause,
        outcome=event.outcome,
        from_us=event.from_us,
        at_us=event.at_us,
        received_at_us=order.received_us,
        silent_from=[
            agent_events.SilentFrom(found.stream, found.rtp_timestamp, found.at_us) for found in event.silent_from
        ],
        causes=list(event.causes),
        by=order.by,
        effective_at_us=order.effective_us if is_pause and order.dated else None,
        until_us=order.until_us,
        lease_s=order.lease_s if is_pause else None,
        on_expiry=order.on_expiry,
    )
