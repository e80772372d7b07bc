"""The routes of a REST API, read from its OpenAPI definition and matched as API Gateway matches them.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-method-settings-method-request.html: a literal
segment wins over `{name}`, `{name}` over the greedy `{name+}`; what matches nothing is answered as if a token were
missing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.local.intrinsics import TemplateError

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "x-amazon-apigateway-any-method")
_INVOCATION = re.compile(r"arn:[^:]+:apigateway:[^:]+:lambda:path/2015-03-31/functions/(?P<function>.+)/invocations")
_OPEN = "NONE"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one resource.

    Attributes:
        path: the resource path exactly as the definition spells it, which Chalice dispatches by.
        method: HTTP method, or ANY.
        function_arn: Lambda of the proxy integration.
        scopes: OAuth scopes of which a token needs one; None if the route is open.
    """

    path: str
    method: str
    function_arn: str
    scopes: tuple[str, ...] | None

    @property
    def resource_id(self) -> str:
        """A stable id of the resource, six characters as API Gateway's."""
        value = 0
        for character in self.path:
            value = (value * 131 + ord(character)) % 36**6
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"
        return "".join(digits[value // 36**place % 36] for place in range(6))


def read(body: Mapping[str, Any]) -> list[Route]:
    """Read the routes of a definition.

    Args:
        body: OpenAPI document, intrinsics resolved.

    Returns:
        A route per method that has a Lambda proxy integration.

    Raises:
        TemplateError: on an integration or a security scheme that is not modelled.
    """
    routes = []
    for path, item in body.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                name = "ANY" if method.startswith("x-") else method.upper()
                routes.append(_route(path, name, item[method], body))
    return routes


def _route(path: str, method: str, operation: Mapping[str, Any], body: Mapping[str, Any]) -> Route:
    integration = operation.get("x-amazon-apigateway-integration", {})
    match = _INVOCATION.fullmatch(str(integration.get("uri", "")))
    if integration.get("type", "").lower() != "aws_proxy" or not match:
        message = f"{method} {path}: the local cloud serves Lambda proxy integrations only"
        raise TemplateError(message)
    return Route(path, method, match["function"], _scopes(f"{method} {path}", operation, body))


def _scopes(where: str, operation: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[str, ...] | None:
    security = operation.get("security", body.get("security", []))
    schemes = body.get("components", {}).get("securitySchemes", {}) or body.get("securityDefinitions", {})
    required = [(name, scopes) for entry in security for name, scopes in entry.items() if name != _OPEN]
    if not required:
        return None
    name, scopes = required[0]
    if schemes.get(name, {}).get("x-amazon-apigateway-authtype") != "cognito_user_pools" or len(required) > 1:
        message = f"{where}: the local cloud knows one Cognito authorizer a route"
        raise TemplateError(message)
    return tuple(scopes)


class RouteTable:
    """Matches requests to routes.

    Args:
        routes: what `read` returned.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._routes = sorted(
            ((tuple(route.path.strip("/").split("/")), route) for route in routes),
            key=lambda entry: [_rank(segment) for segment in entry[0]],
        )

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Find the route of a request.

        Args:
            method: as sent.
            path: of the request target, still percent-encoded, without query.

        Returns:
            The route and its path parameters, still percent-encoded; None if there is no such resource or method.
        """
        segments = path.removeprefix("/").split("/")
        for pattern, route in self._routes:
            if route.method in (method, "ANY") and (parameters := _parameters(pattern, segments)) is not None:
                return route, parameters
        return None


def _rank(segment: str) -> tuple[int, str]:
    if not segment.startswith("{"):
        return 0, segment
    return (2, "") if segment.endswith("+}") else (1, "")


def _parameters(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for index, expected in enumerate(pattern):
        if expected.startswith("{") and expected.endswith("+}"):
            rest = "/".join(segments[index:])
            return {**parameters, expected[1:-2]: rest} if rest else None
        if index >= len(segments):
            return None
        if expected.startswith("{"):
            if not segments[index]:
                return None
            parameters[expected[1:-1]] = segments[index]
        elif expected != segments[index]:
            return None
    return parameters if len(segments) == len(pattern) else None
