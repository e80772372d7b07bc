"""An API handler that answers with its event, or in the way that the query asks for."""

import base64
import json
import threading
from typing import Any

from inner import shared  # type: ignore[import-not-found] # found where CodeUri is

RELEASE = threading.Event()


def app(event: dict[str, Any], context: Any) -> Any:
    """Answers a proxy event."""
    shared.COUNT += 1
    wish = (event.get("queryStringParameters") or {}).get("wish")
    if wish == "raise":
        raise ValueError("as it was told")
    if wish == "hang":
        RELEASE.wait(20)
    if wish == "huge":
        return {"statusCode": 200, "body": "x" * (6 * 1024 * 1024)}
    if wish == "object":
        return {"statusCode": 200, "body": object()}
    if wish == "malformed":
        return {"status": 200, "body": {}}
    if wish == "injected":
        return {"statusCode": 200, "headers": {"X-A": "a\r\nX-B: b"}, "body": ""}
    if wish == "binary":
        headers = {"Content-Type": ["audio/ogg"], "X-Two": ["1", "2"], "WWW-Authenticate": ["Bearer"]}
        body = base64.b64encode(bytes(range(256))).decode()
        return {"statusCode": 206, "multiValueHeaders": headers, "body": body, "isBase64Encoded": True}
    answer = {"event": event, "count": shared.COUNT, "request_id": context.aws_request_id}
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(answer)}
