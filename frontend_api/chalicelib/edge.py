"""The edge: what every route does around its one use case. Authenticate, authorise, read, call, record, answer.

A route is declared by an `Operation`, which names the verb that it needs; without one it cannot be declared. The same
declarations make the OpenAPI description, so that it cannot say anything else than what happens.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from chalicelib import problems
from chalicelib.http_request import HttpRequest
from chalicelib.operation import SIGN_IN, Access, Answer, Call, Caller, Operation, Source, View
from dualtone.domain.audit_event import NO_TENANT, NOBODY, AuditEvent, Outcome, Refusal, RequestFacts
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import parse_call_id, parse_endpoint_id, parse_recording_id
from dualtone.domain.problem import MEDIA_TYPE, Problem
from dualtone.domain.tenancy import PaymentEndpoint, Principal, Unauthenticated, Verb

ON_EVERY_ANSWER: Final = {
    "Cache-Control": "no-store",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}


_IDS: Final[Mapping[str, Callable[[str], str]]] = {
    "recording_id": parse_recording_id,
    "call_id": parse_call_id,
    "endpoint_id": parse_endpoint_id,
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the edge itself needs.

    Attributes:
        principal_of: Verifies an access token at a Unix time in seconds; raises Unauthenticated.
        endpoint_of: Verifies who signed a message; raises MessageRefused or NotFound.
        record: Writes one audit event; when it returns the event is durable.
        failed: Counts and logs what was answered with 500 or above: the error, and facts about where it arose.
        now_ms: Unix time in milliseconds.
    """

    principal_of: Callable[[str, int], Principal]
    endpoint_of: Callable[[HttpRequest, RequestFacts], PaymentEndpoint]
    record: Callable[[AuditEvent], None]
    failed: Callable[[Exception, Mapping[str, str]], None]
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What goes back to API Gateway."""

    status: int
    headers: dict[str, str]
    body: str | bytes | dict[str, Any] = field(repr=False)


def handle(operation: Operation, view: View, event: Mapping[str, Any], surroundings: Surroundings) -> HttpAnswer:
    """Serves one call of a route, whatever happens.

    1. Who is it? 2. May they? 3. What do they ask? 4. The use case. 5. The audit event. 6. The answer.

    An answer leaves only after its event is durable; if the event cannot be written, neither can the answer be given.

    Args:
        operation: The route.
        view: Translates to and from its use case.
        event: API Gateway's proxy event.
        surroundings: What the edge needs.
    """
    context = event.get("requestContext") or {}
    origin = (context.get("identity") or {}).get("sourceIp") or ""
    facts = RequestFacts(surroundings.now_ms(), origin, context.get("requestId", ""))
    caller: Caller | None = None
    try:
        request = HttpRequest.of(event)
        if operation.access is Access.PERSON:
            caller = principal = _principal(request, surroundings, facts)
            principal.require(operation.verb)
        elif operation.access is Access.SIGNED_MESSAGE:
            caller = surroundings.endpoint_of(request, facts)
        answer = view(Call(request, facts, _parameters(operation, request), caller))
        body = answer.body.model_dump_json(by_alias=True) if isinstance(answer.body, BaseModel) else answer.body
        if operation.audited and not operation.records_itself:
            surroundings.record(_granted(operation.verb, replace(facts, now_ms=surroundings.now_ms()), caller, answer))
    except Exception as error:  # noqa: BLE001 - the edge is where every error becomes an answer
        return _refused(operation, error, facts, caller, event, surroundings)
    status = answer.status or operation.status
    return HttpAnswer(status.value, {**ON_EVERY_ANSWER, "Content-Type": answer.media_type, **answer.headers}, body)


def problem_answer(problem: Problem) -> HttpAnswer:
    """Writes a problem as an answer."""
    headers = {**ON_EVERY_ANSWER, "Content-Type": MEDIA_TYPE, **problem.headers}
    return HttpAnswer(problem.type.status.value, headers, problem.to_json())


def _principal(request: HttpRequest, surroundings: Surroundings, facts: RequestFacts) -> Principal:
    token = request.bearer_token()
    if token is None:
        raise Unauthenticated(SIGN_IN)
    return surroundings.principal_of(token, facts.now_ms // 1000)


def _parameters(operation: Operation, request: HttpRequest) -> BaseModel | None:
    if operation.parameters is None:
        return None
    match operation.source:
        case Source.QUERY:
            values: object = request.query_values()
        case Source.JSON:
            values = request.json_values()
        case Source.FORM:
            values = request.form_values()
    try:
        return operation.parameters.model_validate(values)
    except ValidationError as error:
        raise problems.InvalidParameters(error) from error


def _granted(verb: Verb, facts: RequestFacts, caller: Caller | None, answer: Answer) -> AuditEvent:
    if caller is None:
        return facts.event(verb, Outcome.GRANTED, which=answer.which, details=answer.details)
    return facts.event(
        verb,
        Outcome.GRANTED,
        tenant=caller.tenant,
        who=caller.actor,
        which=answer.which,
        details=answer.details,
    )


def _refused(
    operation: Operation,
    error: Exception,
    facts: RequestFacts,
    caller: Caller | None,
    event: Mapping[str, Any],
    surroundings: Surroundings,
) -> HttpAnswer:
    problem = problems.from_exception(error, operation.verb, facts.request_id)
    facts = replace(facts, now_ms=surroundings.now_ms())
    if operation.audited:
        tenant, who = (caller.tenant, caller.actor) if caller else (NO_TENANT, NOBODY)
        details: dict[str, Any] = {"status": problem.type.status.value, "problem": problem.type.slug}
        if isinstance(error, Refusal):
            tenant, who = error.tenant, error.who
            details["reason"] = error.reason
        which = _named_object(event)
        try:
            surroundings.record(
                facts.event(
                    operation.verb, problems.outcome_of(error), tenant=tenant, who=who, which=which, details=details
                )
            )
        except Exception as unwritten:  # noqa: BLE001 - an event that cannot be written is a failure of its own
            error, problem = unwritten, problems.unavailable(facts.request_id)
    if problem.type.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _tell(operation, error, facts, problem.type.status, surroundings)
    return problem_answer(problem)


def _named_object(event: Mapping[str, Any]) -> str:
    """What the path names, if that is an id of ours: nothing else of a caller's text is kept."""
    for name, value in (event.get("pathParameters") or {}).items():
        with contextlib.suppress(MalformedInput, KeyError):
            return _IDS[name](value)
    return ""


def _tell(
    operation: Operation, error: Exception, facts: RequestFacts, status: HTTPStatus, surroundings: Surroundings
) -> None:
    """Chalice turns errors into answers before any middleware sees them: the count of failures is kept here."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else "unknown"
    route = f"{operation.method} {operation.path}"
    surroundings.failed(
        error, {"route": route, "place": place, "request_id": facts.request_id, "status": str(status.value)}
    )
