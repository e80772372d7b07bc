"""Which problem detail (RFC 9457) each error of the LAN endpoint becomes, as in the cloud's API. Pure."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from dualtone.domain.errors import MalformedInput, NotFound, PolicyViolation, Unavailable
from dualtone.domain.problem import Problem, ProblemType
from dualtone.domain.standard_webhooks import MAX_BODY_BYTES, SignatureRefused, TimestampRefused
from sbc_agent.runtime.desk_calls import NoLiveCall, SeveralLiveCalls
from sbc_agent.runtime.lan_bodies import InvalidBody
from sbc_agent.runtime.rate_limit import TooMany
from sbc_agent.runtime.webhook_memory import OtherBody

JSON: Final = "application/json"


def of_status(error: web.HTTPException, where: str) -> Problem:
    """The problem of a refusal by the framework or of who calls.

    Args:
        error: The refusal.
        where: The URI of this occurrence.
    """
    match error:
        case web.HTTPUnauthorized():
            challenge = {"WWW-Authenticate": 'Bearer realm="dualtone-agent"'}  # REQ: RFC 9110 section 15.5.2
            return Problem(ProblemType.UNAUTHENTICATED, "send the token of this agent", where, headers=challenge)
        case web.HTTPNotFound():
            return Problem(ProblemType.NOT_FOUND, None, where)
        case web.HTTPMethodNotAllowed():
            allowed = {"Allow": ", ".join(sorted(error.allowed_methods))}  # REQ: RFC 9110 section 15.5.6
            return Problem(ProblemType.METHOD_NOT_ALLOWED, None, where, headers=allowed)
        case web.HTTPRequestEntityTooLarge():
            return Problem(ProblemType.TOO_LARGE, f"at most {MAX_BODY_BYTES} octets", where)
        case web.HTTPUnsupportedMediaType():
            return Problem(ProblemType.UNSUPPORTED_MEDIA_TYPE, f"send {JSON}", where)
        case _:
            return Problem(ProblemType.MALFORMED, None, where)


def of_error(error: Exception, where: str) -> Problem:  # noqa: C901, PLR0911 - a table
    """The problem of an error that was raised on purpose.

    Args:
        error: The error.
        where: The URI of this occurrence.
    """
    extensions: dict[str, Any] = {}
    match error:
        case InvalidBody():
            extensions["errors"] = error.errors
            return Problem(ProblemType.INVALID, "see `errors`", where, extensions)
        case MalformedInput():
            invalid = error.http_status == ProblemType.INVALID.status
            return Problem(ProblemType.INVALID if invalid else ProblemType.MALFORMED, str(error), where)
        case SignatureRefused():
            return Problem(ProblemType.SIGNATURE_REFUSED, str(error), where)
        case TimestampRefused():
            return Problem(ProblemType.TIMESTAMP_REFUSED, str(error), where)
        case OtherBody():
            return Problem(ProblemType.MESSAGE_ID_REUSED, "a new message needs a new webhook-id", where)
        case SeveralLiveCalls():
            extensions["calls"] = list(error.calls)
            return Problem(ProblemType.SEVERAL_CALLS, str(error), where, extensions)
        case TooMany():
            return Problem(ProblemType.TOO_MANY_REQUESTS, None, where, headers={"Retry-After": str(error.wait_s)})
        case NotFound():
            return Problem(ProblemType.NOT_FOUND, str(error) if isinstance(error, NoLiveCall) else None, where)
        case Unavailable():
            return Problem(ProblemType.UNAVAILABLE, None, where, headers={"Retry-After": "2"})
        case PolicyViolation():
            return Problem(ProblemType.FORBIDDEN, str(error), where)
        case _:
            return Problem(ProblemType.INTERNAL, None, where)
