"""Failures of the API, counted: one structured log line each, in CloudWatch's embedded metric format.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
Chalice turns an exception of a view into a 500 before any middleware sees it, so the edge counts what it answers.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final, TextIO

NAMESPACE: Final = "Dualtone"
METRIC: Final = "ApiFailures"


class FailureMetrics:
    """Writes to a stream that Lambda's runtime forwards to the log group."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Takes the stream; standard output by default."""
        self._stream = stream

    def request_failed(self, *, route: str, error: str, at: str, request_id: str, status: int) -> None:
        """Counts an answer of 500 or above.

        Args:
            route: Method and template of the path.
            error: Class of the exception.
            at: File and line where it arose.
            request_id: API Gateway's id of the request.
            status: What was answered.
        """
        line = {
            "_aws": {
                "Timestamp": time.time_ns() // 1_000_000,
                "CloudWatchMetrics": [
                    {
                        "Namespace": NAMESPACE,
                        "Dimensions": [["route"]],
                        "Metrics": [{"Name": METRIC, "Unit": "Count"}],
                    }
                ],
            },
            METRIC: 1,
            "level": "ERROR",
            "event": "request_failed",
            "route": route,
            "error": error,
            "at": at,
            "request_id": request_id,
            "status": status,
        }
        (self._stream or sys.stdout).write(json.dumps(line, separators=(",", ":")) + "\n")
