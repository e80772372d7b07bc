"""From what the use cases raise to what HTTP answers: the one place where errors get a status."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError

from dualtone.domain.audit_event import Outcome, Refusal
from dualtone.domain.byte_range import RangeNotSatisfiable, RangeRequired
from dualtone.domain.errors import (
    DualtoneError,
    IntegrityError,
    MalformedInput,
    NotFound,
    PolicyViolation,
    Unavailable,
)
from dualtone.domain.problem import Problem, ProblemType
from dualtone.domain.tenancy import Unauthenticated, Verb
from dualtone.usecases.issue_agent_credentials import AgentRevoked
from dualtone.usecases.take_payment_report import MessageRefused

_RETRY_AFTER_S: Final = "2"
_BY_STATUS: Final = {kind.status.value: kind for kind in reversed(ProblemType)}


class InvalidParameters(DualtoneError):  # noqa: N818 - the name of the problem type
    """Parameters that do not have the operation's shape.

    Attributes:
        cause: Which, and why.
    """

    def __init__(self, cause: ValidationError) -> None:
        super().__init__("parameters do not have the shape that the description gives")
        self.cause = cause


def instance(request_id: str) -> str:
    """The URI of a request, as problem details name it."""
    return f"urn:dualtone:request:{request_id}"


def unavailable(request_id: str) -> Problem:
    """Something did not answer: the same request may succeed in a moment."""
    return Problem(ProblemType.UNAVAILABLE, None, instance(request_id), headers={"Retry-After": _RETRY_AFTER_S})


def from_exception(error: Exception, verb: Verb, request_id: str) -> Problem:  # noqa: C901, PLR0911 - a table
    """Maps an exception to a problem. One that nobody raised on purpose says nothing about itself."""
    where = instance(request_id)
    match error:
        case InvalidParameters():
            return Problem(ProblemType.INVALID, "see `errors`", where, {"errors": _violations(error.cause)})
        case Refusal():
            return _refusal(error, verb, where)
        case Unauthenticated():
            challenge = {"WWW-Authenticate": 'Bearer realm="dualtone"'}  # REQ: RFC 9110 section 15.5.2
            return Problem(ProblemType.UNAUTHENTICATED, str(error), where, headers=challenge)
        case RangeNotSatisfiable():
            # REQ: RFC 9110 section 15.5.17: a 416 carries Content-Range with the current length.
            return Problem(
                ProblemType.RANGE_NOT_SATISFIABLE,
                str(error),
                where,
                {"total_bytes": error.total_bytes},
                {"Content-Range": f"bytes */{error.total_bytes}", "Accept-Ranges": "bytes"},
            )
        case RangeRequired():
            sizes = {"total_bytes": error.total_bytes, "most_bytes": error.most_bytes}
            return Problem(ProblemType.RANGE_REQUIRED, str(error), where, sizes, {"Accept-Ranges": "bytes"})
        case MalformedInput():
            return Problem(_BY_STATUS.get(error.http_status, ProblemType.MALFORMED), str(error), where)
        case NotFound():
            return Problem(ProblemType.NOT_FOUND, None, where)
        case Unavailable():
            return unavailable(request_id)
        case PolicyViolation():
            return Problem(ProblemType.FORBIDDEN, str(error), where)
        case IntegrityError():
            return Problem(ProblemType.INTEGRITY, None, where)
        case _:
            return Problem(ProblemType.INTERNAL, None, where)


def _refusal(error: Refusal, verb: Verb, where: str) -> Problem:
    """A credential other than a person's token was refused."""
    if isinstance(error, MessageRefused):
        headers = {"Retry-After": "1"} if error.problem is ProblemType.MESSAGE_IN_PROGRESS else {}
        if error.problem.status is HTTPStatus.UNAUTHORIZED:
            headers = {"WWW-Authenticate": 'StandardWebhooks realm="dualtone"'}  # REQ: RFC 9110 section 15.5.2
        return Problem(error.problem, str(error), where, headers=headers)
    if isinstance(error, AgentRevoked):
        return Problem(ProblemType.AGENT_REVOKED, str(error), where, {"error": "invalid_grant"})
    if verb in {Verb.ISSUE_CREDENTIALS, Verb.ROTATE_AGENT_KEY}:
        # REQ: RFC 7523 section 3.1: an assertion that is not valid is `invalid_grant` (RFC 6749 section 5.2).
        return Problem(ProblemType.GRANT_REFUSED, str(error), where, {"error": "invalid_grant"})
    return Problem(ProblemType.CODE_REFUSED, str(error), where)


def outcome_of(error: Exception) -> Outcome:
    """How the audit event of a request that ended in this exception calls it."""
    match error:
        case NotFound():
            return Outcome.NOT_FOUND
        case Unavailable() | IntegrityError():
            return Outcome.FAILED
        case DualtoneError():
            return Outcome.REFUSED
        case _:
            return Outcome.FAILED


def _violations(error: ValidationError) -> list[dict[str, Any]]:
    """Where and what, but never the value: it may be a number or a name."""
    return [
        {
            "parameter": ".".join(map(str, violation["loc"])) or "body",
            "detail": violation["msg"].removeprefix("Value error, "),
        }
        for violation in error.errors(include_url=False, include_input=False, include_context=False)
    ]
