"""Routes of the recording policy, and of decisions on single calls."""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from typing import Final, Literal

from chalicelib import policy_answers, policy_requests, requests, shapes
from chalicelib.call_routes import call_named
from chalicelib.operation import Answer, Call, Operation, Source
from chalicelib.routes import Routes
from dualtone.adapters import api_wiring, wiring
from dualtone.domain import call_match
from dualtone.domain.call_match import MatchKind
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import TenantId
from dualtone.domain.problem import ProblemType
from dualtone.domain.recording_policy import Fate
from dualtone.domain.recording_ruling import Cause
from dualtone.domain.tenancy import Verb
from dualtone.usecases.decide_calls import Wanted

routes: Final = Routes()

_ETAG: Final = re.compile(r'"([0-9]{1,15})"')


@routes.operation(
    Operation(
        method="GET",
        path="/v1/recording-policy",
        name="read_recording_policy",
        summary="Read the recording policy: which calls are kept, by which rule and on which basis",
        verb=Verb.READ_POLICY,
        parameters=policy_requests.PolicyQuery,
        answer=policy_answers.RecordingPolicy,
        problems=(ProblemType.NOT_FOUND,),
        versioned=True,
    )
)
def read_recording_policy(call: Call) -> Answer:
    """The version in force, or an earlier one: each call names the one that it was judged by."""
    query: policy_requests.PolicyQuery = call.parameters
    read, tenant = api_wiring.read_recording_policy(), call.principal.tenant
    stored = read.current(tenant) if query.version is None else read.version(tenant, query.version)
    shown = policy_answers.RecordingPolicy.of(stored)
    return Answer(shown, headers={"ETag": shown.etag}, which=_named(shown.version))


@routes.operation(
    Operation(
        method="PUT",
        path="/v1/recording-policy",
        name="change_recording_policy",
        summary="Replace the recording policy: every agent is told at once",
        verb=Verb.CHANGE_POLICY,
        parameters=policy_requests.PolicyBody,
        source=Source.JSON,
        answer=policy_answers.ChangedPolicy,
        problems=(ProblemType.VERSION_REQUIRED, ProblemType.VERSION_CHANGED),
        records_itself=True,
        versioned=True,
    )
)
def change_recording_policy(call: Call) -> Answer:
    """All rules at once, and only if the version that was read is still the one in force (RFC 9110, If-Match)."""
    body: policy_requests.PolicyBody = call.parameters
    changed = api_wiring.change_recording_policy().change(
        call.principal, body.rules, body.groups, _version_seen(call), call.facts
    )
    policy = changed.policy
    shown = policy_answers.ChangedPolicy(
        version=policy.version,
        issued_at=shapes.instant(policy.issued_at_ms),
        rules=len(policy.rules),
        agents_told=changed.agents_told,
    )
    return Answer(shown, headers={"ETag": f'"{policy.version}"'}, which=_named(policy.version))


@routes.operation(
    Operation(
        method="POST",
        path="/v1/recording-policy/preview",
        name="preview_recording_policy",
        summary="Say which rule would decide on a call, by the policy in force or by one that is not yet",
        verb=Verb.PREVIEW_POLICY,
        parameters=policy_requests.PreviewBody,
        source=Source.JSON,
        answer=policy_answers.Preview,
    )
)
def preview_recording_policy(call: Call) -> Answer:
    """A POST, so that no number stands in a URL, a log or a history."""
    body: policy_requests.PreviewBody = call.parameters
    draft = None if body.policy is None else (body.policy.rules, body.policy.groups)
    now, settled = api_wiring.read_recording_policy().preview(
        call.principal.tenant, body.call.facts(call.facts.now_ms), draft, call.facts.now_ms
    )
    shown = policy_answers.Preview(
        provisional=now.provisional,
        now=policy_answers.RulingAnswer.of(now),
        settled=policy_answers.RulingAnswer.of(settled),
    )
    return Answer(shown, which=_named(now.version), details={"rule": now.rule.id})


@routes.operation(
    Operation(
        method="POST",
        path="/v1/calls/{call_id}/decision",
        name="decide_call",
        summary="Decide on a call: keep one that waits on site, discard it, or stop one that is kept",
        verb=Verb.DECIDE_CALL,
        parameters=policy_requests.DecisionBody,
        source=Source.JSON,
        answer=policy_answers.Decided,
        also=(HTTPStatus.ACCEPTED,),
        problems=(ProblemType.NOT_FOUND,),
    )
)
def decide_call(call: Call) -> Answer:
    """Waits for the agent's answer, up to three seconds."""
    body: policy_requests.DecisionBody = call.parameters
    call_id = call_named(call)
    by = call.principal
    wanted = Wanted(by.tenant, by.actor, body.decision, body.cause, "api")
    shown = policy_answers.Decided.of(api_wiring.decide_calls().by_call(wanted, call_id, call.facts))
    return replace(_answer(shown), which=call_id)


@routes.operation(
    Operation(
        method="POST",
        path="/v1/decisions",
        name="decide_by_name",
        summary="Decide on every call that goes by a name of the switch's, now or within an hour",
        verb=Verb.DECIDE_CALL,
        parameters=policy_requests.NamedDecisionBody,
        source=Source.JSON,
        answer=policy_answers.Decided,
        also=(HTTPStatus.ACCEPTED,),
    )
)
def decide_by_name(call: Call) -> Answer:
    """A POST, so that no number stands in a URL, a log or a history."""
    body: policy_requests.NamedDecisionBody = call.parameters
    by = call.principal
    return _answer(decided(call, by.tenant, by.actor, body.decision, body.cause, body.call, how="api"))


def decided(
    call: Call,
    tenant: TenantId,
    by: str,
    decision: Fate,
    cause: Cause,
    named: requests.NamedCall,
    *,
    how: Literal["api", "webhook"],
    command: str | None = None,
) -> policy_answers.Decided:
    """Decides on every call that goes by a name, and on those that will within the hour: so no number will do."""
    kind, value = named.name
    if kind == MatchKind.EXTENSION:
        text = "a choice is one call's: name it by call_id, ucid or external_id, since a number has many calls"
        raise MalformedInput(text, http_status=HTTPStatus.UNPROCESSABLE_ENTITY)
    token = call_match.token(wiring.live_keys().of(tenant), kind, value)
    wanted = Wanted(tenant, by, decision, cause, how, command)
    return policy_answers.Decided.of(api_wiring.decide_calls().by_match(wanted, token, call.facts))


def _answer(shown: policy_answers.Decided) -> Answer:
    """The decision's own event was written before it was sent; the edge's says how it ended."""
    details: dict[str, str | int | list[int]] = {"outcome": shown.outcome, "calls": len(shown.calls)}
    return Answer(shown, status=shown.status, details=details)


def _version_seen(call: Call) -> int:
    # REQ: RFC 6585 section 3: 428 asks for a conditional request, so that no change is lost unseen.
    field = call.request.headers.get("if-match", "").strip()
    if not field:
        text = 'say which version you have read, for example `If-Match: "7"`, or `"0"` if there is none'
        raise MalformedInput(text, http_status=HTTPStatus.PRECONDITION_REQUIRED)
    found = _ETAG.fullmatch(field)
    if found is None:
        raise MalformedInput("`If-Match` holds the `ETag` of one version", http_status=HTTPStatus.PRECONDITION_FAILED)
    return int(found[1])


def _named(version: int) -> str:
    return f"recording-policy#{version}"
