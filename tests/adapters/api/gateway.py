"""API Gateway as the app sees it: real REST proxy events in, and every answer checked against the API's description."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import app as frontend
from chalicelib import openapi
from dualtone.adapters import clock

Json = dict[str, Any]

DESCRIPTION: Final = openapi.describe(frontend.app.operations, "0")
_DOCUMENT: Final = "urn:openapi"
_REGISTRY: Final = Registry().with_resource(_DOCUMENT, Resource.from_contents(DESCRIPTION, DRAFT202012))
PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def media_type(self) -> str:
        return self.headers["Content-Type"].partition(";")[0]

    def without_instance(self) -> Json:
        """A problem but for the URI of its request, and the header fields beside it."""
        problem = self.json
        assert problem.pop("instance").startswith("urn:dualtone:request:")
        return {"status": self.status, "headers": self.headers, "problem": problem}


def event(
    method: str,
    resource: str,
    *,
    token: str | None = None,
    path: dict[str, str] | None = None,
    query: dict[str, str | list[str]] | None = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    request_id: str = "c0ffee00-0000-4000-8000-000000000000",
    received_at_ms: int | None = None,
) -> Json:
    """The event that API Gateway makes of a request, in payload format 1.0 with BinaryMediaTypes `*/*`."""
    url = resource
    for name, value in (path or {}).items():
        url = url.replace(f"{{{name}}}", value)
    sent = {"Host": "api.example.com", **(headers or {})}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    values = {name: [value] if isinstance(value, str) else value for name, value in (query or {}).items()}
    return {
        "resource": resource,
        "path": url,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": {name: value[-1] for name, value in values.items()} or None,
        "multiValueQueryStringParameters": values or None,
        "pathParameters": path,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource,
            "httpMethod": method,
            "path": f"/live{url}",
            "domainName": "api.example.com",
            "requestId": request_id,
            "identity": {"sourceIp": "192.0.2.7"},
            "requestTimeEpoch": clock.now_ms() if received_at_ms is None else received_at_ms,
        },
        "body": None if body is None else base64.b64encode(body).decode("ascii"),
        "isBase64Encoded": body is not None,
    }


def send(raw: Json) -> Answer:
    """Serves an event and reads the answer as API Gateway would; it must be one that the description names."""
    answer = frontend.app(raw, None)
    json.dumps(answer)  # what Lambda does with it
    body = base64.b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer["body"].encode()
    found = Answer(answer["statusCode"], answer["headers"], body)
    _check(raw["resource"], raw["httpMethod"], found, encoded=bool(answer.get("isBase64Encoded")))
    return found


def call(method: str, resource: str, **parts: Any) -> Answer:
    """Sends a request; see `event`."""
    return send(event(method, resource, **parts))


def post_json(resource: str, body: object, **parts: Any) -> Answer:
    """Posts JSON."""
    headers = {"Content-Type": "application/json", **parts.pop("headers", {})}
    return call("POST", resource, body=json.dumps(body).encode(), headers=headers, **parts)


def post_form(resource: str, fields: dict[str, str], **parts: Any) -> Answer:
    """Posts a form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", **parts.pop("headers", {})}
    return call("POST", resource, body=urlencode(fields).encode(), headers=headers, **parts)


def _check(resource: str, method: str, answer: Answer, *, encoded: bool) -> None:
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert encoded is (answer.media_type == "audio/ogg")
    operation = DESCRIPTION["paths"].get(resource, {}).get(method.lower())
    if operation is None:
        assert answer.status in (404, 405)
        schema: Json = {"$ref": f"{_DOCUMENT}#/components/schemas/Problem"}
    else:
        documented = operation["responses"]
        assert str(answer.status) in documented, f"undocumented status {answer.status}: {answer.body!r}"
        content = documented[str(answer.status)]["content"]
        assert answer.media_type in content, f"undocumented media type {answer.media_type}"
        schema = json.loads(json.dumps(content[answer.media_type]["schema"]).replace('"#/', f'"{_DOCUMENT}#/'))
    if answer.media_type != "audio/ogg":
        OAS31Validator(schema, registry=_REGISTRY).validate(answer.json)
    if answer.status >= 400:
        assert answer.media_type == PROBLEM
        assert answer.json["status"] == answer.status
        assert answer.json["type"].startswith("urn:dualtone:problem:")
