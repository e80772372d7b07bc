"""Lambda, every five minutes: find calls that went silent, and have what came of them finalised after long silence."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dualtone.adapters import clock, observability, wiring


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001 - what Lambda passes
    """Looks at all calls that are due; answers how many took which step."""
    counts = wiring.sweeper()(clock.now_ms()).counts()
    observability.logger().info("swept", extra=counts)
    return counts
