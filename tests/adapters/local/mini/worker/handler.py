"""A queue handler that fails what it is told to fail, and remembers what it saw."""

import json
from typing import Any

SEEN: list[str] = []


def handler(event: dict[str, Any], context: Any) -> Any:
    """Handles a batch; a body names what becomes of it."""
    if "Records" not in event:
        SEEN.append(event["detail-type"])
        if event["detail-type"] == "Scheduled Event":
            raise RuntimeError("no schedule runs here")
        return {"seen": SEEN, "context": [context.function_name, context.get_remaining_time_in_millis()]}
    failures: list[dict[str, Any]] = []
    for record in event["Records"]:
        wish = json.loads(record["body"]).get("wish")
        if wish == "raise":
            raise ValueError("as it was told")
        if wish == "nonsense":
            return {"batchItemFailures": [{"itemIdentifier": "nobody"}]}
        if wish == "fail":
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
