"""Lambda, every five minutes: finish or remove what crashes left between the steps of a commit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dualtone.adapters import clock, observability, wiring


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001 - what Lambda passes
    """Reconciles all attempts that are older than a finaliser can run; answers how many."""
    done = wiring.reconciler()(clock.now_ms(), 1000 * wiring.settings().reconcile_after_s)
    counts = asdict(done)
    observability.logger().info("reconciled", extra=counts)
    return counts
