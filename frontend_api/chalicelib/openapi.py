"""The OpenAPI 3.1 description, made from the operations and their shapes. Pure: one app, one document."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from chalicelib.operation import Access, Operation, Source
from dualtone.domain.problem import MEDIA_TYPE, ProblemType
from dualtone.usecases.play_recording import MOST_BYTES

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{model}"
_PATH_PARAMETERS: Final[dict[str, Json]] = {
    "recording_id": {
        "name": "recording_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^rec_[a-z2-7]{26}$"},
    },
    "call_id": {
        "name": "call_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"},
    },
    "agent_id": {
        "name": "agent_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^agt_[0-7][0-9A-HJKMNP-TV-Z]{25}$"},
    },
    "endpoint_id": {
        "name": "endpoint_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^pay_[0-7][0-9A-HJKMNP-TV-Z]{25}$"},
    },
}
_WEBHOOK_PARAMETERS: Final[list[Json]] = [
    {
        "name": f"webhook-{name}",
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }
    for name, description, example in (
        (
            "id",
            "Unique for each message, the same when it is sent again; no full stop.",
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        ),
        ("timestamp", "Unix time in seconds of this attempt; at most five minutes off.", "1795516800"),
        (
            "signature",
            "`v1,` and base64 of HMAC-SHA256(secret, id + '.' + timestamp + '.' + body); several with a space between.",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    )
]
_RANGE_PARAMETERS: Final[list[Json]] = [
    {
        "name": "Range",
        "in": "header",
        "description": f"RFC 9110 section 14.2, unit bytes. A range is shortened to {MOST_BYTES} bytes, which "
        "Content-Range shows; of several ranges the first satisfiable one is answered.",
        "schema": {"type": "string"},
        "example": "bytes=0-",
    },
    {
        "name": "If-Range",
        "in": "header",
        "description": "The ETag of an earlier answer.",
        "schema": {"type": "string"},
    },
]
_IF_MATCH: Final[Json] = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": 'The ETag of the version that was read; `"0"` if there is none.',
    "schema": {"type": "string"},
    "example": '"7"',
}
_VERSION_TAG: Final[Json] = {"ETag": {"schema": {"type": "string"}, "description": "The version.", "example": '"7"'}}
_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri", "enum": [kind.uri for kind in ProblemType]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri", "description": "Names the request; quote it to support."},
        "errors": {
            "type": "array",
            "description": "What is wrong with which parameter.",
            "items": {
                "type": "object",
                "required": ["parameter", "detail"],
                "properties": {"parameter": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "error": {"type": "string", "description": "RFC 6749 section 5.2, at the token endpoint."},
        "total_bytes": {"type": "integer", "description": "The size of the recording's file."},
        "most_bytes": {"type": "integer", "description": "The largest answer."},
    },
}


def describe(operations: Iterable[Operation], version: str) -> Json:
    """Describes the API.

    Args:
        operations: All routes.
        version: Of the product.

    Returns:
        An OpenAPI 3.1.0 document.
    """
    routes = list(operations)
    schemas: Json = {"Problem": _PROBLEM, **_schemas(routes)}
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    used = {route.parameters.__name__ for route in routes if route.parameters and route.source is Source.QUERY}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dualtone",
            "version": version,
            "summary": "Recordings of calls that no single person can open.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"accessToken": []}],
        "paths": paths,
        "components": {
            # Shapes of queries are spelled out as parameters.
            "schemas": {name: schema for name, schema in sorted(schemas.items()) if name not in used},
            "securitySchemes": {
                "accessToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Access token of the tenant's user pool client.",
                }
            },
        },
    }


def _schemas(routes: list[Operation]) -> Json:
    requests: list[type[BaseModel]] = [route.parameters for route in routes if route.parameters]
    answers: list[type[BaseModel]] = [route.answer for route in routes if route.answer]
    _, document = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(requests)]
        + [(model, "serialization") for model in dict.fromkeys(answers)],
        ref_template=_REF,
    )
    schemas: Json = document.get("$defs", {})
    return schemas


def _operation(route: Operation, schemas: Json) -> Json:
    parts = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters: list[Json] = [_PATH_PARAMETERS[name] for name in parts]
    operation: Json = {"operationId": route.name, "summary": route.summary, "x-verb": route.verb.value}
    if route.parameters is not None and route.source is Source.QUERY:
        parameters += _query_parameters(schemas[route.parameters.__name__])
    if route.audio:
        parameters += _RANGE_PARAMETERS
    if route.access is Access.SIGNED_MESSAGE:
        parameters += _WEBHOOK_PARAMETERS
    if route.versioned and route.method != "GET":
        parameters.append(_IF_MATCH)
    if parameters:
        operation["parameters"] = parameters
    if route.parameters is not None and route.source is not Source.QUERY:
        content = {route.source.value: {"schema": {"$ref": _REF.format(model=route.parameters.__name__)}}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.access is not Access.PERSON:
        operation["security"] = []
        operation["description"] = f"What proves the caller: {route.access.value}."
    operation["responses"] = _audio_answers() if route.audio else _answers(route)
    operation["responses"] |= _problems(route)
    return operation


def _query_parameters(shape: Json) -> list[Json]:
    required = shape.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            **({"description": schema["description"]} if "description" in schema else {}),
            "schema": {key: value for key, value in schema.items() if key not in ("description", "title")},
        }
        for name, schema in shape["properties"].items()
    ]


def _answers(route: Operation) -> Json:
    schema: Json = {"type": "object"} if route.answer is None else {"$ref": _REF.format(model=route.answer.__name__)}
    headers: Json = {"headers": _VERSION_TAG} if route.versioned else {}
    return {
        str(status.value): {
            "description": status.phrase,
            **headers,
            "content": {"application/json": {"schema": schema}},
        }
        for status in (route.status, *route.also)
    }


def _audio_answers() -> Json:
    headers: Json = {
        "Accept-Ranges": {"schema": {"type": "string", "const": "bytes"}},
        "ETag": {"schema": {"type": "string"}, "description": "Changes if ever the recording does."},
    }
    content_range: Json = {"Content-Range": {"schema": {"type": "string"}, "example": "bytes 0-4194303/7361432"}}
    content: Json = {"audio/ogg": {"schema": {"type": "string", "contentMediaType": "audio/ogg; codecs=opus"}}}
    return {
        "200": {"description": "The whole file, if it is small enough.", "headers": headers, "content": content},
        "206": {"description": "A part of the file.", "headers": headers | content_range, "content": content},
    }


def _problems(route: Operation) -> Json:
    """Problems that the route can answer with, by status; several kinds may share one."""
    by_status: dict[HTTPStatus, list[ProblemType]] = {}
    for kind in ProblemType:
        if kind in _kinds(route):
            by_status.setdefault(kind.status, []).append(kind)
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {
        str(status.value): {"description": "; ".join(kind.title for kind in kinds) + ".", "content": content}
        for status, kinds in sorted(by_status.items())
    }


def _kinds(route: Operation) -> set[ProblemType]:
    """What can go wrong anywhere, with credentials, with parameters, and on this route."""
    kinds = {ProblemType.INTERNAL, *route.problems}
    if route.access is Access.PUBLIC:
        return kinds
    kinds |= {ProblemType.MALFORMED, ProblemType.UNAVAILABLE}
    if route.access is Access.PERSON:
        kinds |= {ProblemType.UNAUTHENTICATED, ProblemType.FORBIDDEN}
    if route.parameters is not None:
        kinds |= {ProblemType.INVALID}
    if route.source is not Source.QUERY:
        kinds |= {ProblemType.UNSUPPORTED_MEDIA_TYPE, ProblemType.TOO_LARGE}
    return kinds
