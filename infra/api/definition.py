"""Builds the API's definition (OpenAPI 3.0.1 with API Gateway's extensions) from the app's routes. Pure.

Chalice finds a view by the exact template of the path that API Gateway matched, so each route stands here as the app
spells it; `{proxy+}` would make every call a 405. All routes share one integration and one permission.

API Gateway closes every route with the template's default authorizer. The few that are open are named here, beside the
reason, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

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
    Route("/v1/token", "POST"): "the signed assertion in the body is the credential",
}

_INTEGRATION: Final[Json] = {
    "type": "aws_proxy",
    "httpMethod": "POST",
    "uri": {
        "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path"
        "/2015-03-31/functions/${ApiFunction.Arn}/invocations"
    },
}

# What API Gateway answers before, or instead of, our code. UNAUTHORIZED and the rest are its names; `None` keeps the
# status that it chose. An unknown path is by default a 403 "Missing Authentication Token": we call it what it is.
_GATEWAY_RESPONSES: Final[dict[str, tuple[HTTPStatus | None, str]]] = {
    "ACCESS_DENIED": (HTTPStatus.FORBIDDEN, "You may not do this"),
    "AUTHORIZER_CONFIGURATION_ERROR": (HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be authorised"),
    "AUTHORIZER_FAILURE": (HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be authorised"),
    "BAD_REQUEST_BODY": (HTTPStatus.BAD_REQUEST, "The body cannot be read"),
    "BAD_REQUEST_PARAMETERS": (HTTPStatus.BAD_REQUEST, "A parameter is missing or malformed"),
    "DEFAULT_4XX": (None, "The request was refused"),
    "DEFAULT_5XX": (None, "The request failed"),
    "EXPIRED_TOKEN": (HTTPStatus.UNAUTHORIZED, "The access token has expired"),
    "INTEGRATION_FAILURE": (HTTPStatus.BAD_GATEWAY, "The request failed"),
    "INTEGRATION_TIMEOUT": (HTTPStatus.GATEWAY_TIMEOUT, "The request took too long"),
    "MISSING_AUTHENTICATION_TOKEN": (HTTPStatus.NOT_FOUND, "There is no such resource"),
    "REQUEST_TOO_LARGE": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "THROTTLED": (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests"),
    "UNAUTHORIZED": (HTTPStatus.UNAUTHORIZED, "An access token is required"),
}


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
        "x-amazon-apigateway-gateway-responses": {
            name: _gateway_response(status, title) for name, (status, title) in _GATEWAY_RESPONSES.items()
        },
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


def _gateway_response(status: HTTPStatus | None, title: str) -> Json:
    """A problem detail (RFC 9457 section 3); without a status member where only API Gateway knows the status."""
    members = f'"type":"about:blank","title":"{title}"'
    if status is not None:
        members += f',"status":{status.value}'
    members += ',"instance":"urn:dualtone:request:$context.requestId"'
    headers = {"gatewayresponse.header.Content-Type": "'application/problem+json'"}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["gatewayresponse.header.WWW-Authenticate"] = "'Bearer'"  # RFC 9110 section 11.6.1
    response: Json = {} if status is None else {"statusCode": str(status.value)}
    return response | {
        "responseParameters": headers,
        "responseTemplates": {"application/json": "{" + members + "}"},
    }
