"""HTTP requests and responses as values, and the refusals that API Gateway itself gives."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONTEXT = re.compile(r"\$context\.([A-Za-z.]+)")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came in.

    Attributes:
        method: as sent.
        path: of the target, percent-encoded, without query.
        query: without the question mark.
        headers: in order, names as sent.
        body: after transfer decoding.
        source_ip: of the peer.
        request_id: drawn for it.
        at_ms: Unix time of its arrival.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    source_ip: str
    request_id: str
    at_ms: int

    def header(self, name: str) -> str | None:
        """Return the last value of a header, or None."""
        wanted = name.lower()
        return next((value for key, value in reversed(self.headers) if key.lower() == wanted), None)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response to send."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Refused(Exception):  # noqa: N818 - it is an answer rather than a fault
    """API Gateway answers this request by itself.

    Attributes:
        kind: its gateway response type, for example UNAUTHORIZED.
        status: HTTP status unless the definition says otherwise.
        message: the default body's message.
    """

    def __init__(self, kind: str, status: int, message: str | None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.status = status
        self.message = message


class GatewayResponses:
    """The bodies, statuses and headers of API Gateway's own answers, as the definition customises them.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html

    Args:
        body: OpenAPI document, intrinsics resolved.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._custom: Mapping[str, Any] = body.get("x-amazon-apigateway-gateway-responses", {})

    def answer(self, refused: Refused, request_id: str) -> HttpResponse:
        """Return the answer to a request that was refused."""
        default = "DEFAULT_4XX" if refused.status < 500 else "DEFAULT_5XX"  # noqa: PLR2004 - HTTP's classes
        custom = self._custom.get(refused.kind) or self._custom.get(default, {})
        status = int(custom.get("statusCode", refused.status))
        templates = custom.get("responseTemplates", {})
        template = templates.get("application/json", '{"message":$context.error.messageString}')
        values = {
            "error.message": refused.message or "null",
            "error.messageString": json.dumps(refused.message),
            "error.responseType": refused.kind,
            "requestId": request_id,
        }
        text = _CONTEXT.sub(lambda match: values.get(match[1], "-"), template)
        headers = {"Content-Type": "application/json", "x-amzn-RequestId": request_id}
        for name, value in custom.get("responseParameters", {}).items():
            if name.startswith("gatewayresponse.header."):
                headers[name.removeprefix("gatewayresponse.header.")] = value.strip("'")
        return HttpResponse(status, tuple(headers.items()), text.encode())
