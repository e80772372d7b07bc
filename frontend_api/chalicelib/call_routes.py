"""Routes of calls that last: follow them, pause and resume them."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Final

from chalicelib import answers, call_answers, requests, shapes
from chalicelib.operation import Answer, Call, Operation, Source
from chalicelib.routes import Routes
from dualtone.adapters import api_wiring, wiring
from dualtone.domain import call_match
from dualtone.domain.call_command import Action
from dualtone.domain.errors import MalformedInput, NotFound
from dualtone.domain.ids import CallId, parse_call_id
from dualtone.domain.problem import ProblemType
from dualtone.domain.tenancy import Verb
from dualtone.usecases.pause_calls import Asked

routes: Final = Routes()


class Calls(shapes.OneOf):
    """All calls that are live, or the one that was asked for by its SIP Call-ID."""

    root: call_answers.LiveCalls | answers.Call


@routes.operation(
    Operation(
        method="GET",
        path="/v1/calls",
        name="list_calls",
        summary="List live calls, or follow one by its SIP Call-ID: its state, and its recording once there is one",
        verb=Verb.LIST_CALLS,
        parameters=requests.CallQuery,
        answer=Calls,
        problems=(ProblemType.NOT_FOUND,),
    )
)
def list_calls(call: Call) -> Answer:
    """Live calls, or the latest call with a Call-ID."""
    query: requests.CallQuery = call.parameters
    if query.sip_call_id is None:
        found = api_wiring.follow_calls().live(call.principal)
        shown = call_answers.LiveCalls(calls=tuple(map(call_answers.LiveCall.of, found)))
        return Answer(shown, details={"calls": len(found)})
    state = api_wiring.follow_calls().by_sip_call_id(call.principal.tenant, query.sip_call_id)
    answer = answers.Call(call_id=state.call_id, state=state.state, recording_id=state.recording_id)
    return Answer(answer, which=state.call_id)


@routes.operation(
    Operation(
        method="GET",
        path="/v1/calls/{call_id}",
        name="get_call",
        summary="Get a call with its pauses and resumes, and what became of them",
        verb=Verb.READ_CALL,
        answer=call_answers.FollowedCall,
        problems=(ProblemType.NOT_FOUND,),
    )
)
def get_call(call: Call) -> Answer:
    """While it lasts, and afterwards."""
    call_id = call_named(call)
    followed = api_wiring.follow_calls().one(call.principal, call_id)
    return Answer(call_answers.FollowedCall.of(followed), which=call_id)


@routes.operation(
    Operation(
        method="POST",
        path="/v1/calls/{call_id}/pause",
        name="pause_call",
        summary="Pause a call: nothing of it is kept until every cause is lifted",
        verb=Verb.PAUSE_CALL,
        parameters=requests.PauseBody,
        source=Source.JSON,
        answer=call_answers.Commanded,
        also=(HTTPStatus.ACCEPTED,),
        problems=(ProblemType.NOT_FOUND,),
    )
)
def pause_call(call: Call) -> Answer:
    """Waits for the agent's answer, up to three seconds; after a late pause up to ten more for the last copy's end."""
    return _by_call(call, asked(call, "pause", call.parameters))


@routes.operation(
    Operation(
        method="POST",
        path="/v1/calls/{call_id}/resume",
        name="resume_call",
        summary="Lift a cause of a call's pause; audio is kept again when none is left",
        verb=Verb.RESUME_CALL,
        parameters=requests.ResumeBody,
        source=Source.JSON,
        answer=call_answers.Commanded,
        also=(HTTPStatus.ACCEPTED,),
        problems=(ProblemType.NOT_FOUND,),
    )
)
def resume_call(call: Call) -> Answer:
    """Acts when it comes; never back-dated."""
    return _by_call(call, asked(call, "resume", call.parameters))


@routes.operation(
    Operation(
        method="POST",
        path="/v1/pauses",
        name="pause_by_name",
        summary="Pause every live call that goes by a name of the switch's; kept for 60 seconds if there is none yet",
        verb=Verb.PAUSE_CALL,
        parameters=requests.NamedPauseBody,
        source=Source.JSON,
        answer=call_answers.Commanded,
        also=(HTTPStatus.ACCEPTED,),
    )
)
def pause_by_name(call: Call) -> Answer:
    """A POST, so that no number stands in a URL, a log or a history."""
    return commanded(call, asked(call, "pause", call.parameters), call.parameters.call)


@routes.operation(
    Operation(
        method="POST",
        path="/v1/resumes",
        name="resume_by_name",
        summary="Lift a cause of every live call that goes by a name of the switch's",
        verb=Verb.RESUME_CALL,
        parameters=requests.NamedResumeBody,
        source=Source.JSON,
        answer=call_answers.Commanded,
        also=(HTTPStatus.ACCEPTED,),
    )
)
def resume_by_name(call: Call) -> Answer:
    """Also of a pause that still waits for its call."""
    return commanded(call, asked(call, "resume", call.parameters), call.parameters.call)


def asked(call: Call, action: Action, body: requests.PauseBody | requests.ResumeBody) -> Asked:
    """What a person asks for."""
    span = body if isinstance(body, requests.PauseBody) else None
    return Asked(
        tenant=call.principal.tenant,
        by=call.principal.actor,
        action=action,
        cause=body.cause,
        received_at_ms=received_at_ms(call),
        effective_at_ms=span.effective_at_ms if span else None,
        until_ms=span.until_ms if span else None,
        lease_s=span.lease_s if span else None,
    )


def commanded(call: Call, wanted: Asked, named: requests.NamedCall) -> Answer:
    """Acts on every call that goes by a name."""
    kind, value = named.name
    token = call_match.token(wiring.live_keys().of(wanted.tenant), kind, value)
    found = api_wiring.pause_calls().by_match(wanted, token, call.facts)
    return _answer(call_answers.Commanded.of(found))


def received_at_ms(call: Call) -> int:
    """When the request was received at the edge: what counts where a caller names no time."""
    at_edge = call.request.received_at_ms
    return call.facts.now_ms if at_edge is None else min(at_edge, call.facts.now_ms)


def _by_call(call: Call, wanted: Asked) -> Answer:
    call_id = call_named(call)
    found = api_wiring.pause_calls().by_call(wanted, call_id, call.facts)
    return replace(_answer(call_answers.Commanded.of(found)), which=call_id)


def _answer(outcome: call_answers.Commanded) -> Answer:
    """The command's own event was written with it; the edge's says how it ended."""
    details = {"outcome": outcome.outcome, "calls": len(outcome.calls)}
    return Answer(outcome, status=outcome.status, details=details)


def call_named(call: Call) -> CallId:
    """A malformed id names no call: it is answered like any other that does not exist."""
    try:
        return parse_call_id(call.request.path.get("call_id", ""))
    except MalformedInput as error:
        raise NotFound("no such call") from error
