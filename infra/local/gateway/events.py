"""The Lambda proxy integration of REST APIs: from a request to its event, from the answer to a response.

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html, input format and
output format. Pure. As in the REST APIs of AWS: `resource` is the template string, single-value maps hold the last
value, a body is base64 where BinaryMediaTypes match, and everything absent is null.
"""

import base64
import binascii
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from infra.local.gateway.message import HttpRequest, HttpResponse, Refused
from infra.local.gateway.routes import Route

_REMAPPED = frozenset({"connection", "content-md5", "date", "server", "upgrade", "www-authenticate", "authorization"})
_DROPPED = frozenset({"content-length", "transfer-encoding", "keep-alive", "te", "trailer"})
_MALFORMED = Refused("INTEGRATION_FAILURE", 502, "Internal server error")


def _matches(media_type: str | None, patterns: Iterable[str]) -> bool:
    offered = (media_type or "application/json").split(";", 1)[0].strip().lower()
    return any(pattern in ("*/*", offered) for pattern in patterns)


def _last(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    return dict(pairs) or None


def _every(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]] | None:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values or None


def proxy_event(
    request: HttpRequest,
    route: Route,
    parameters: Mapping[str, str],
    *,
    claims: Mapping[str, str] | None,
    api_id: str,
    account_id: str,
    stage: str,
    binary_media_types: Iterable[str],
) -> dict[str, Any]:
    """Build the event of a request.

    Args:
        request: as it came in.
        route: that it matched.
        parameters: of the path.
        claims: of the verified token, or None on an open route.
        api_id: of the API.
        account_id: of the API's owner.
        stage: name of the stage.
        binary_media_types: of the API.

    Returns:
        An event in payload format 1.0.
    """
    host = request.header("Host") or "localhost"
    port = host.rsplit(":", 1)[-1] if ":" in host else "80"
    # Plain HTTP is the one thing that AWS would not do: its APIs are HTTPS only.
    added = (("X-Forwarded-For", request.source_ip), ("X-Forwarded-Port", port), ("X-Forwarded-Proto", "http"))
    headers = (
        *request.headers,
        *added,
        ("X-Amzn-Trace-Id", f"Root=1-{request.at_ms // 1000:08x}-{request.request_id[-12:]:0>24}"),
    )
    query = parse_qsl(request.query, keep_blank_values=True)
    binary = bool(request.body) and _matches(request.header("Content-Type"), binary_media_types)
    try:
        body = base64.b64encode(request.body).decode("ascii") if binary else request.body.decode("utf-8")
    except UnicodeDecodeError:
        body = request.body.decode("utf-8", "replace")  # API Gateway takes text for UTF-8 whatever it is
    context: dict[str, Any] = {
        "resourceId": route.resource_id,
        "resourcePath": route.path,
        "operationName": None,
        "httpMethod": request.method,
        "extendedRequestId": request.request_id,
        "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(request.at_ms / 1000)),
        "path": request.path,
        "accountId": account_id,
        "protocol": "HTTP/1.1",
        "stage": stage,
        "domainPrefix": api_id,
        "requestTimeEpoch": request.at_ms,
        "requestId": request.request_id,
        "identity": _identity(request),
        "domainName": host,
        "apiId": api_id,
    }
    if claims is not None:
        context["authorizer"] = {"claims": dict(claims)}
    return {
        "resource": route.path,
        "path": request.path,
        "httpMethod": request.method,
        "headers": _last(headers),
        "multiValueHeaders": _every(headers),
        "queryStringParameters": _last(query),
        "multiValueQueryStringParameters": _every(query),
        "pathParameters": dict(parameters) or None,
        "stageVariables": None,
        "requestContext": context,
        "body": body if request.body else None,
        "isBase64Encoded": binary,
    }


def _identity(request: HttpRequest) -> dict[str, Any]:
    absent = (
        "cognitoIdentityPoolId",
        "accountId",
        "cognitoIdentityId",
        "caller",
        "principalOrgId",
        "accessKey",
        "cognitoAuthenticationType",
        "cognitoAuthenticationProvider",
        "userArn",
        "user",
    )
    return {**dict.fromkeys(absent), "sourceIp": request.source_ip, "userAgent": request.header("User-Agent")}


def response(answer: Any, request: HttpRequest, binary_media_types: Iterable[str]) -> HttpResponse:
    """Turn a function's answer into a response.

    Args:
        answer: what the function returned.
        request: that it answers.
        binary_media_types: of the API; a base64 body is decoded where the caller accepts one of them.

    Returns:
        The response, with API Gateway's request id and its renamed headers.

    Raises:
        Refused: 502, if the answer has not the form that the integration prescribes.
    """
    if not isinstance(answer, dict) or not _is_status(answer.get("statusCode", 200)):
        raise _MALFORMED
    body = "" if answer.get("body") is None else answer["body"]
    if not isinstance(body, str):
        raise _MALFORMED
    content = body.encode()
    if answer.get("isBase64Encoded") and _matches(
        (request.header("Accept") or "*/*").split(",", 1)[0], binary_media_types
    ):
        try:
            content = base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise _MALFORMED from error
    return HttpResponse(int(answer.get("statusCode", 200)), _headers(answer, request.request_id), content)


def _is_status(value: Any) -> bool:
    text = str(value)
    return not isinstance(value, bool) and text.isdecimal() and 100 <= int(text) <= 599  # noqa: PLR2004 - HTTP's range


def _headers(answer: Mapping[str, Any], request_id: str) -> tuple[tuple[str, str], ...]:
    single, multiple = ({} if answer.get(name) is None else answer[name] for name in ("headers", "multiValueHeaders"))
    if not isinstance(single, dict) or not isinstance(multiple, dict):
        raise _MALFORMED
    pairs: list[tuple[str, str]] = []
    listed = {name.lower() for name in multiple}
    for name, values in [
        *multiple.items(),
        *((key, [value]) for key, value in single.items() if key.lower() not in listed),
    ]:
        if not isinstance(values, list):
            raise _MALFORMED
        for value in values:
            if not isinstance(value, (str, int, float)) or any(character in str(value) for character in "\r\n\0"):
                raise _MALFORMED
            if name.lower() not in _DROPPED:
                pairs.append((f"x-amzn-Remapped-{name}" if name.lower() in _REMAPPED else name, str(value)))
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("Content-Type", "application/json"))
    return (*pairs, ("x-amzn-RequestId", request_id))
