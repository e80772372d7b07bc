"""Builds the API's definition (OpenAPI 3.0.1 with API Gateway's extensions) from the app's routes. Pure.

Chalice finds a view by the exact template of the path that API Gateway matched, so each route stands here as the app
spells it; `{proxy+}` would make every call a 405. All routes share one integration and one permission.

API Gateway closes every route with the template's default authorizer. The few that are open are named here, beside the
reason, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from dualtone.domain.problem import MEDIA_TYPE, Problem, ProblemType

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """One method of one path, as the app spells it (`/v1/recordings/{recording_id}`)."""

    path: str
    method: str


OPEN_ROUTES: Final[dict[Route, str]] = {
    Route("/v1/health", "GET"): "load balancers and monitors have no account",
    Route("/v1/openapi.json", "GET"): "the description of the API is public",
    Route("/v1/agents/enrol", "POST"): "the one-time code in the body is the credential",
    Route("/v1/agents/key", "POST"): "the assertion signed by the present key in the body is the credential",
    Route("/v1/token", "POST"): "the signed assertion in the body is the credential",
    Route("/v1/webhooks/payments/{endpoint_id}", "POST"): "the signature over the body is the credential",
}

_INTEGRATION: Final[Json] = {
    "type": "aws_proxy",
    "httpMethod": "POST",
    "uri": {
        "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path"
        "/2015-03-31/functions/${ApiFunction.Arn}/invocations"
    },
}

# What API Gateway answers before, or instead of, our code, in the words that our code uses for the same. The names are
# API Gateway's. An unknown path is to it a 403 "Missing Authentication Token": here it is what it is.
_GATEWAY_RESPONSES: Final[dict[str, ProblemType]] = {
    "ACCESS_DENIED": ProblemType.FORBIDDEN,
    "API_CONFIGURATION_ERROR": ProblemType.INTERNAL,
    "AUTHORIZER_CONFIGURATION_ERROR": ProblemType.INTERNAL,
    "AUTHORIZER_FAILURE": ProblemType.INTERNAL,
    "BAD_REQUEST_BODY": ProblemType.MALFORMED,
    "BAD_REQUEST_PARAMETERS": ProblemType.MALFORMED,
    "EXPIRED_TOKEN": ProblemType.UNAUTHENTICATED,
    "INTEGRATION_FAILURE": ProblemType.INTERNAL,
    "INTEGRATION_TIMEOUT": ProblemType.UNAVAILABLE,
    "INVALID_SIGNATURE": ProblemType.UNAUTHENTICATED,
    "MISSING_AUTHENTICATION_TOKEN": ProblemType.NOT_FOUND,
    "REQUEST_TOO_LARGE": ProblemType.TOO_LARGE,
    "RESOURCE_NOT_FOUND": ProblemType.NOT_FOUND,
    "UNAUTHORIZED": ProblemType.UNAUTHENTICATED,
    "UNSUPPORTED_MEDIA_TYPE": ProblemType.UNSUPPORTED_MEDIA_TYPE,
}
_INSTANCE: Final = "urn:dualtone:request:$context.requestId"


def build(routes: Iterable[Route]) -> Json:
    """The definition of the whole API.

    Args:
        routes: Every route of the app.

    Returns:
        An OpenAPI 3.0.1 document with CloudFormation's intrinsic functions in their long form.

    Raises:
        ValueError: A route named as open is not one of the app's: the list above has grown stale.
    """
    wanted = sorted(set(routes))
    stale = OPEN_ROUTES.keys() - set(wanted)
    if stale:
        raise ValueError(f"OPEN_ROUTES names routes that the app does not have: {sorted(stale)}")
    paths: Json = {}
    for route in wanted:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.0.1",
        "info": {"title": "Dualtone", "version": "1"},
        "x-amazon-apigateway-gateway-responses": _gateway_responses(),
        "paths": paths,
    }


def _operation(route: Route) -> Json:
    operation: Json = {}
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route in OPEN_ROUTES:
        operation["security"] = [{"NONE": []}]  # SAM's way to leave out the default authorizer
    operation["responses"] = {"default": {"description": "As /v1/openapi.json says"}}
    operation["x-amazon-apigateway-integration"] = _INTEGRATION
    return operation


def _gateway_responses() -> Json:
    """Problem details (RFC 9457) for all that API Gateway answers by itself."""
    responses: Json = {}
    for name, kind in _GATEWAY_RESPONSES.items():
        problem = Problem(kind, None, _INSTANCE).to_json()
        responses[name] = {"statusCode": str(kind.status.value)} | _answer(problem)
        if kind is ProblemType.UNAUTHENTICATED:  # REQ: RFC 9110 section 11.6.1: a 401 names a challenge
            responses[name]["responseParameters"]["gatewayresponse.header.WWW-Authenticate"] = "'Bearer'"
    too_many = HTTPStatus.TOO_MANY_REQUESTS
    problem = {"type": "about:blank", "title": too_many.phrase, "status": too_many.value, "instance": _INSTANCE}
    for name in ("QUOTA_EXCEEDED", "THROTTLED"):
        responses[name] = {"statusCode": str(too_many.value)} | _answer(problem)
    # The rest keeps a status that only API Gateway knows, so the problem does not repeat it.
    for name in ("DEFAULT_4XX", "DEFAULT_5XX"):
        responses[name] = _answer({"type": "about:blank", "instance": _INSTANCE})
    return dict(sorted(responses.items()))


def _answer(problem: Json) -> Json:
    return {
        "responseParameters": {"gatewayresponse.header.Content-Type": f"'{MEDIA_TYPE}'"},
        "responseTemplates": {"application/json": json.dumps(problem, separators=(",", ":"))},
    }
