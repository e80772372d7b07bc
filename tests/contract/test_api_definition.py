"""The API as API Gateway will serve it: generated from the app, closed by default."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from infra.api.definition import OPEN_ROUTES, Route, build
from infra.api.generate import TEMPLATE, app_routes, render, replace
from tests.contract.policies import resources

Json = dict[str, Any]

COGNITO: list[Json] = [{"CognitoAccessToken": ["aws.cognito.signin.user.admin"]}]
OPEN: list[Json] = [{"NONE": []}]


def _operations(translated: Json) -> dict[tuple[str, str], Json]:
    paths = translated["Resources"]["Api"]["Properties"]["Body"]["paths"]
    return {(path, method.upper()): body for path, methods in paths.items() for method, body in methods.items()}


def test_the_template_holds_what_the_app_serves() -> None:
    """Checked in equals generated; `make definition` mends it."""
    text = TEMPLATE.read_text(encoding="utf-8")
    assert replace(text, render(build(app_routes()))) == text


def test_every_route_of_the_app_is_served(translated: Json) -> None:
    """Chalice answers 405 for a path that is not spelled as in the app."""
    assert {Route(path, method) for path, method in _operations(translated)} == set(app_routes())


def test_every_route_but_the_open_ones_wants_an_access_token(translated: Json) -> None:
    """With a scope in the authorizer API Gateway takes access tokens and refuses ID tokens."""
    for (path, method), operation in _operations(translated).items():
        expected = OPEN if Route(path, method) in OPEN_ROUTES else COGNITO
        assert operation["security"] == expected, (path, method)


def test_the_app_and_api_gateway_agree_on_what_is_open() -> None:
    """The app asks for a token on exactly the routes that API Gateway closes."""
    app = importlib.import_module("app").app
    token_free = {Route(one.path, one.method) for one in app.operations if one.access.name != "PERSON"}
    assert token_free == OPEN_ROUTES.keys()


def test_a_new_route_is_closed() -> None:
    """A route that nobody thought about carries no `security` of its own: the default authorizer takes it."""
    definition = build([*OPEN_ROUTES, Route("/v1/new/{thing_id}", "PUT")])
    operation = definition["paths"]["/v1/new/{thing_id}"]["put"]
    assert "security" not in operation
    assert operation["parameters"] == [
        {"name": "thing_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]


def test_a_stale_open_route_is_an_error() -> None:
    """The list of open routes cannot outlive the routes."""
    with pytest.raises(ValueError, match="OPEN_ROUTES"):
        build([Route("/v1/recordings", "GET")])


def test_the_authorizer_asks_our_user_pool(translated: Json) -> None:
    """One authorizer, on the Authorization header."""
    (scheme,) = translated["Resources"]["Api"]["Properties"]["Body"]["components"]["securitySchemes"].values()
    assert scheme["name"] == "Authorization"
    assert scheme["x-amazon-apigateway-authorizer"] == {
        "type": "cognito_user_pools",
        "providerARNs": [{"Fn::GetAtt": ["UserPool", "Arn"]}],
    }


def test_every_route_is_the_same_proxy(translated: Json) -> None:
    """One function serves all, invoked as Lambda proxies are (POST, whatever the client's method)."""
    integrations = [one["x-amazon-apigateway-integration"] for one in _operations(translated).values()]
    assert all(integration == integrations[0] for integration in integrations)
    assert (integrations[0]["type"], integrations[0]["httpMethod"]) == ("aws_proxy", "POST")
    assert "${ApiFunction.Arn}" in integrations[0]["uri"]["Fn::Sub"]


def test_api_gateway_needs_one_permission(translated: Json) -> None:
    """One for all routes: a function's policy holds about fifty."""
    permissions = [
        permission
        for permission in resources(translated, "AWS::Lambda::Permission").values()
        if permission["Principal"] == "apigateway.amazonaws.com"
    ]
    (permission,) = permissions
    assert permission["FunctionName"] == {"Ref": "ApiFunction"}
    assert permission["SourceArn"]["Fn::Sub"].endswith(":${Api}/*")


def test_audio_leaves_as_it_is(translated: Json) -> None:
    """Every media type is binary to API Gateway."""
    assert translated["Resources"]["Api"]["Properties"]["Body"]["x-amazon-apigateway-binary-media-types"] == ["*/*"]


def test_nothing_that_is_said_is_logged(template: Json) -> None:
    """No data trace, and an access log of routes rather than paths."""
    api = template["Resources"]["Api"]["Properties"]
    assert all(setting["DataTraceEnabled"] is False for setting in api["MethodSettings"])
    log_format = api["AccessLogSetting"]["Format"]
    assert isinstance(json.loads(log_format), dict)
    for name in ("$context.path", "$context.identity", "$context.authorizer", "$context.customDomain"):
        assert name not in log_format


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("UNAUTHORIZED", "401", "urn:dualtone:problem:unauthenticated"),
        ("EXPIRED_TOKEN", "401", "urn:dualtone:problem:unauthenticated"),
        ("ACCESS_DENIED", "403", "urn:dualtone:problem:forbidden"),
        ("MISSING_AUTHENTICATION_TOKEN", "404", "urn:dualtone:problem:not-found"),
        ("REQUEST_TOO_LARGE", "413", "urn:dualtone:problem:content-too-large"),
        ("THROTTLED", "429", "about:blank"),
        ("INTEGRATION_FAILURE", "500", "urn:dualtone:problem:internal"),
        ("INTEGRATION_TIMEOUT", "503", "urn:dualtone:problem:unavailable"),
        ("DEFAULT_4XX", None, "about:blank"),
        ("DEFAULT_5XX", None, "about:blank"),
    ],
)
def test_api_gateway_too_answers_with_problem_details(
    translated: Json, name: str, status: str | None, kind: str
) -> None:
    """REQ: RFC 9457 section 3.1.2: the status member, if there is one, equals the status."""
    body = translated["Resources"]["Api"]["Properties"]["Body"]
    response = body["x-amazon-apigateway-gateway-responses"][name]
    assert response.get("statusCode") == status
    headers = response["responseParameters"]
    assert headers["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
    problem = json.loads(response["responseTemplates"]["application/json"])
    assert problem["type"] == kind
    assert problem["instance"] == "urn:dualtone:request:$context.requestId"
    assert problem.get("status") == (int(status) if status else None)
    assert ("gatewayresponse.header.WWW-Authenticate" in headers) == (status == "401")
