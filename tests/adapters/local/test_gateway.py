"""The API over HTTP: events as API Gateway builds them, its authorizer, its own answers, its limits."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from infra.local.cloud import LocalCloud
from infra.local.gateway.authorizer import CognitoAuthorizer
from infra.local.gateway.events import response
from infra.local.gateway.message import HttpRequest, Refused
from infra.local.gateway.routes import Route, RouteTable
from tests.adapters.local.behaviour import Aws
from tests.adapters.local.storage_behaviour import sign_in

SCOPE = "aws.cognito.signin.user.admin"


@pytest.fixture
def connection(mini: LocalCloud) -> Iterator[http.client.HTTPConnection]:
    """A keep-alive connection to the small cloud's API."""
    client = http.client.HTTPConnection(urlsplit(mini.api_url).netloc, timeout=10)
    yield client
    client.close()


def call(client: http.client.HTTPConnection, method: str, target: str, body: Any = None, **headers: str) -> Any:
    """Sends a request; returns the response and its body."""
    client.request(
        method, target, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = client.getresponse()
    return answer, answer.read()


@pytest.fixture(scope="module")
def person(mini: LocalCloud) -> tuple[str, str]:
    """An access token and an identity token of somebody in the small cloud's pool."""
    cognito, pool = mini.client("cognito-idp"), mini.stack.ref("People")
    app = cognito.create_user_pool_client(UserPoolId=pool, ClientName="app")["UserPoolClient"]["ClientId"]
    cognito.create_group(UserPoolId=pool, GroupName="officer")
    cognito.create_group(UserPoolId=pool, GroupName="administrator")
    cognito.admin_create_user(UserPoolId=pool, Username="eve", MessageAction="SUPPRESS")
    cognito.admin_set_user_password(UserPoolId=pool, Username="eve", Password="Secret-1-secret", Permanent=True)
    for group in ("administrator", "officer"):
        cognito.admin_add_user_to_group(UserPoolId=pool, Username="eve", GroupName=group)
    tokens = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=app,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "eve", "PASSWORD": "Secret-1-secret"},
    )["AuthenticationResult"]
    return tokens["AccessToken"], tokens["IdToken"]


def test_an_event_is_what_api_gateway_sends(person: tuple[str, str], connection: http.client.HTTPConnection) -> None:
    """Payload format 1.0: template strings, last and all values, claims as strings, absent things null."""
    token = person[0]
    target = "/things/a%20b?x=1&x=2&empty=&plus=a+b%2B"
    answer, body = call(connection, "GET", target, Authorization=token, X_Custom="7", User_Agent="test")
    assert answer.status == 200
    event = json.loads(body)["event"]
    assert event["resource"] == event["requestContext"]["resourcePath"] == "/things/{thing_id}"
    assert event["path"] == event["requestContext"]["path"] == "/things/a%20b"
    assert event["pathParameters"] == {"thing_id": "a%20b"}
    assert event["queryStringParameters"] == {"x": "2", "empty": "", "plus": "a b+"}
    assert event["multiValueQueryStringParameters"]["x"] == ["1", "2"]
    assert event["headers"]["X-Custom"] == "7"
    assert event["multiValueHeaders"]["X-Forwarded-For"] == ["127.0.0.1"]
    assert (event["body"], event["isBase64Encoded"], event["stageVariables"]) == (None, False, None)
    context = event["requestContext"]
    assert (context["stage"], context["httpMethod"], context["accountId"]) == ("live", "GET", "123456789012")
    assert context["identity"]["sourceIp"] == "127.0.0.1"
    assert context["identity"]["userAgent"] == "test"
    assert context["requestId"] == answer.getheader("x-amzn-RequestId")
    claims = context["authorizer"]["claims"]
    assert claims["token_use"] == "access"
    assert sorted(claims["cognito:groups"].split(",")) == ["administrator", "officer"]
    assert all(isinstance(value, str) for value in claims.values())


def test_bodies_are_base64_and_come_back_as_bytes(connection: http.client.HTTPConnection) -> None:
    """BinaryMediaTypes */*: every body is binary, in both directions."""
    data = bytes(range(256))
    _, body = call(connection, "POST", "/open", body=data, Content_Type="application/json")
    event = json.loads(body)["event"]
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == data
    answer, body = call(connection, "GET", "/open?wish=binary", Accept="audio/ogg, */*")
    assert (answer.status, body) == (206, data)
    assert answer.headers.get_all("X-Two") == ["1", "2"]
    assert answer.getheader("x-amzn-Remapped-WWW-Authenticate") == "Bearer"
    assert answer.getheader("WWW-Authenticate") is None


def test_an_open_route_has_no_authorizer(connection: http.client.HTTPConnection) -> None:
    """`security: NONE` lets everybody in, and the event says nothing of them."""
    _, body = call(connection, "GET", "/things/special")
    assert "authorizer" not in json.loads(body)["event"]["requestContext"]
    _, body = call(connection, "GET", "/files/a/b/../c")
    assert json.loads(body)["event"]["pathParameters"] == {"path": "a/b/../c"}


def _forged(pool: str, kid: str | None, **claims: Any) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = int(time.time())
    issuer = f"https://cognito-idp.eu-west-1.amazonaws.com/{pool}"
    payload = {"iss": issuer, "sub": "x", "token_use": "access", "scope": SCOPE, "exp": now + 99, "iat": now, **claims}
    return jwt.encode(payload, key, algorithm="RS256", headers={"kid": kid} if kid else None)


def test_nobody_comes_in_without_a_token_of_the_pool(
    mini: LocalCloud, person: tuple[str, str], connection: http.client.HTTPConnection
) -> None:
    """None, nonsense, an ID token, a forgery under the pool's own key id, another pool's token, `alg: none`: 401."""
    access, identity = person
    kid = jwt.get_unverified_header(access)["kid"]
    pool = mini.stack.ref("People")
    _, foreign = sign_in(Aws())
    header, payload, _ = access.split(".")
    unsigned = jwt.encode(jwt.decode(access, options={"verify_signature": False}), "", algorithm="none")
    flipped = access[:-8] + ("A" if access[-8] != "A" else "B") + access[-7:]
    bad = ["", "x", "a.b.c", identity, _forged(pool, kid), _forged(pool, None), foreign, unsigned, flipped]
    for token in [*bad, f"{header}.{payload}."]:
        for spelled in (token, f"Bearer {token}"):
            answer, body = call(connection, "GET", "/things/1", Authorization=spelled)
            assert (answer.status, json.loads(body)) == (401, {"message": "Unauthorized"})
    assert call(connection, "GET", "/things/1")[0].status == 401
    for spelled in (access, f"Bearer {access}"):
        assert call(connection, "GET", "/things/1", Authorization=spelled)[0].status == 200


def test_a_token_ends(mini: LocalCloud, person: tuple[str, str]) -> None:
    """Expiry is told apart: 'The incoming token has expired'."""
    access, _ = person
    pool = mini.stack.ref("People")
    request = HttpRequest("GET", "/", "", (("Authorization", access),), b"", "127.0.0.1", "r", 0)
    url = f"{mini.aws_endpoint}/{pool}/.well-known/jwks.json"
    assert CognitoAuthorizer(pool, url).claims(request, (SCOPE,))["username"] == "eve"
    with pytest.raises(Refused) as caught:
        CognitoAuthorizer(pool, url, clock=lambda: time.time() + 3601).claims(request, (SCOPE,))
    assert (caught.value.kind, caught.value.status) == ("EXPIRED_TOKEN", 401)
    with pytest.raises(Refused, match="UNAUTHORIZED"):
        CognitoAuthorizer(pool, url).claims(request, ("another/scope",))


@pytest.mark.parametrize("target", ["/", "/nothing", "/things", "/things/", "/things/1/2", "/OPEN", "/open/"])
def test_an_unknown_route_is_answered_as_rest_apis_do(connection: http.client.HTTPConnection, target: str) -> None:
    """403 'Missing Authentication Token', which a definition may customise."""
    answer, body = call(connection, "GET", target)
    assert (answer.status, json.loads(body)) == (403, {"message": "Missing Authentication Token"})


def test_an_unknown_method_is_an_unknown_route(connection: http.client.HTTPConnection) -> None:
    """There is no 405 at API Gateway."""
    assert call(connection, "DELETE", "/open")[0].status == 403


@pytest.mark.parametrize("wish", ["raise", "malformed", "injected", "huge"])
def test_a_bad_answer_is_a_502_that_says_nothing(connection: http.client.HTTPConnection, wish: str) -> None:
    """Whatever the function did wrong, the caller learns only that it failed; the connection lives on."""
    answer, body = call(connection, "GET", f"/open?wish={wish}")
    assert (answer.status, json.loads(body)) == (502, {"message": "Internal server error"})
    assert call(connection, "GET", "/open")[0].status == 200


def test_a_slow_answer_is_a_504(mini: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API waits 29 s (here: a moment) and no longer."""
    monkeypatch.setattr("infra.local.gateway.rest_api.TIMEOUT_S", 0.05)
    client = http.client.HTTPConnection(urlsplit(mini.api_url).netloc, timeout=10)
    answer, body = call(client, "GET", "/open?wish=hang")
    assert (answer.status, json.loads(body)) == (504, {"message": "Endpoint request timed out"})
    client.close()


def test_requests_are_bounded(connection: http.client.HTTPConnection) -> None:
    """10 MB of body, 10 kB of headers, no chunks, one length."""
    connection.putrequest("POST", "/open")
    connection.putheader("Content-Length", str(10 * 1024 * 1024 + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert call(connection, "GET", "/open", X_Long="x" * 11_000)[0].status == 400
    connection.putrequest("POST", "/open")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()
    connection.putrequest("POST", "/open")
    connection.putheader("Content-Length", "1")
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    assert connection.getresponse().status == 400


def _routes(*paths: str) -> RouteTable:
    return RouteTable([Route(path, "GET", "arn", None) for path in paths])


@pytest.mark.parametrize(
    ("path", "expected", "parameters"),
    [
        ("/a/b", "/a/b", {}),
        ("/a/c", "/a/{x}", {"x": "c"}),
        ("/a/c/d", "/a/{rest+}", {"rest": "c/d"}),
        ("/a/%2E%2E", "/a/{x}", {"x": "%2E%2E"}),
        ("/z", "/{any}", {"any": "z"}),
    ],
)
def test_literal_before_parameter_before_greedy(path: str, expected: str, parameters: dict[str, str]) -> None:
    """The most specific resource wins, whatever the order of the definition."""
    matched = _routes("/{any}", "/a/{rest+}", "/a/{x}", "/a/b").match("GET", path)
    assert matched is not None
    assert (matched[0].path, matched[1]) == (expected, parameters)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        [],
        {"statusCode": "abc"},
        {"statusCode": True},
        {"statusCode": 99},
        {"statusCode": 200, "body": 5},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "multiValueHeaders": {"A": "b"}},
        {"statusCode": 200, "headers": {"A": {}}},
        {"statusCode": 200, "body": "###", "isBase64Encoded": True},
    ],
)
def test_the_output_format_is_enforced(answer: Any) -> None:
    """'Output format of a Lambda function for proxy integration': anything else is malformed."""
    request = HttpRequest("GET", "/", "", (), b"", "127.0.0.1", "r", 0)
    with pytest.raises(Refused) as caught:
        response(answer, request, ("*/*",))
    assert caught.value.status == 502
