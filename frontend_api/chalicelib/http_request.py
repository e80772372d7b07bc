"""A request as API Gateway's REST proxy integration hands it over, read once and into plain values.

Chalice's own request object hangs on the app, where concurrent requests of one process would meet; this one is made
from the event and passed along.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from dualtone.domain.errors import MalformedInput

MOST_BODY_BYTES: Final = 65_536
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_MOST_FIELDS: Final = 32


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        headers: By lower-case name.
        query: Every value of every parameter, decoded.
        path: Parameters of the path.
        body: As sent.
        request_id: API Gateway's id of it.
        origin: The address that API Gateway saw.
        base_url: Scheme, host and stage under which the client reached us.
        received_at_ms: When API Gateway received it, Unix time; None if it does not say.
    """

    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, list[str]] = field(repr=False)
    path: Mapping[str, str]
    body: bytes = field(repr=False)
    request_id: str
    origin: str
    base_url: str
    received_at_ms: int | None

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> HttpRequest:
        """Reads the proxy event (payload format 1.0); raises MalformedInput if its body is not the base64 it says."""
        context = event.get("requestContext") or {}
        body = event.get("body") or ""
        try:
            raw = base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode()
        except (binascii.Error, ValueError) as error:
            raise MalformedInput("the body cannot be read") from error
        return cls(
            headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
            query=event.get("multiValueQueryStringParameters") or {},
            path=event.get("pathParameters") or {},
            body=raw,
            request_id=context.get("requestId", ""),
            origin=(context.get("identity") or {}).get("sourceIp") or "",
            base_url=_base_url(context),
            received_at_ms=context.get("requestTimeEpoch"),
        )

    def bearer_token(self) -> str | None:
        """The token of ``Authorization: Bearer`` (RFC 6750 section 2.1); None without one.

        A token without a scheme before it is read as well, since API Gateway's authorizer takes both.
        """
        first, _, rest = self.headers.get("authorization", "").strip().partition(" ")
        token = rest.strip() if first.lower() == "bearer" else first if not rest else ""
        return token or None

    def query_values(self) -> dict[str, str]:
        """The query's parameters; raises MalformedInput if one is repeated, since one of them would be ignored."""
        return _each_once([(name, value) for name, values in self.query.items() for value in values])

    def json_values(self) -> object:
        """The body as JSON; raises MalformedInput: 415, 413, or 400."""
        self._require(_JSON)
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise MalformedInput("the body is not well-formed JSON") from error

    def form_values(self) -> dict[str, str]:
        """The body as a form (WHATWG URL section 5.1); raises MalformedInput: 415, 413, or 400."""
        self._require(_FORM)
        try:
            text = self.body.decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_FIELDS)
        except ValueError as error:
            raise MalformedInput("the body is not a well-formed form") from error
        return _each_once(pairs)

    def _require(self, media_type: str) -> None:
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
            raise MalformedInput(f"send the body as {media_type}", http_status=415)
        if len(self.body) > MOST_BODY_BYTES:
            raise MalformedInput(f"the body may have {MOST_BODY_BYTES} bytes", http_status=413)


def _each_once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise MalformedInput("a parameter is given twice", http_status=422)
    return values


def _base_url(context: Mapping[str, Any]) -> str:
    """``https://<domain>/<stage>``, or without stage under a custom domain: what precedes the route in the path."""
    path, route = str(context.get("path", "")), str(context.get("resourcePath", ""))
    prefix = path[: -len(route)] if route and path.endswith(route) else ""
    return f"https://{context.get('domainName', '')}{prefix}"
