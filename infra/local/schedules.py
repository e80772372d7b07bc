"""Scheduled rules of EventBridge: calls functions at their rate, retries and dead-letters as asynchronous calls do.

Time is a parameter: `run_due(now)` does what is due, `next_due()` says when to come again, so tests never wait.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html: two retries, after one minute
and two.
"""

import json
import logging
import re
import threading
import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from infra.local.functions import Function, FunctionError, Functions
from infra.local.intrinsics import TemplateError
from infra.local.resources.compute import Rule

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_UNIT_S = {"minute": 60, "hour": 3600, "day": 86400}
_RETRY_DELAYS_S = (60.0, 120.0)

_log = logging.getLogger(__name__)


def period_s(expression: str) -> int:
    """Return the seconds of a `rate(...)` expression.

    Raises:
        TemplateError: for anything else: the local cloud drives rates only.
    """
    match = _RATE.fullmatch(expression)
    if not match or int(match[1]) == 0:
        message = f"the local cloud drives rate(...) schedules only, not {expression}"
        raise TemplateError(message)
    return int(match[1]) * _UNIT_S[match[2]]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A function to call at a time."""

    due_s: float
    rule_arn: str
    function: Function
    event: dict[str, Any]
    retry: int = 0


class Schedules:
    """Drives rules.

    Args:
        rules: as the template describes them.
        functions: what they call.
        sqs: boto3 SQS client, for dead letters.
        started_s: time at which the rules were made, on the clock that `run_due` is given.
    """

    def __init__(self, rules: list[Rule], functions: Functions, sqs: Any, started_s: float) -> None:
        self._sqs = sqs
        self._functions = functions
        self._rules = {rule.arn: (rule, period_s(rule.expression)) for rule in rules if rule.enabled}
        self._due = {arn: started_s + period for arn, (_, period) in self._rules.items()}
        self._retries: list[_Attempt] = []

    def next_due(self) -> float | None:
        """Return when something is due next, or None if nothing ever is."""
        return min([*self._due.values(), *(attempt.due_s for attempt in self._retries)], default=None)

    def run_due(self, now_s: float) -> int:
        """Call every function that is due by `now_s`, retries included. A rule that was missed runs once, not often.

        Args:
            now_s: the current time.

        Returns:
            How many invocations were tried.
        """
        attempts = [attempt for attempt in self._retries if attempt.due_s <= now_s]
        self._retries = [attempt for attempt in self._retries if attempt.due_s > now_s]
        for arn, due_s in self._due.items():
            if due_s <= now_s:
                rule, period = self._rules[arn]
                self._due[arn] = due_s + period * (1 + int((now_s - due_s) // period))
                attempts += [
                    _Attempt(now_s, arn, self._functions.by_arn(function_arn), _event(arn))
                    for function_arn in rule.function_arns
                ]
        for attempt in attempts:
            self._try(attempt, now_s)
        return len(attempts)

    def _try(self, attempt: _Attempt, now_s: float) -> None:
        try:
            attempt.function.invoke(attempt.event)
        except FunctionError as error:
            if attempt.retry < len(_RETRY_DELAYS_S):
                due_s = now_s + _RETRY_DELAYS_S[attempt.retry]
                self._retries.append(replace(attempt, due_s=due_s, retry=attempt.retry + 1))
            elif attempt.function.spec.dead_letter_arn:
                self._bury(attempt, error)
            _log.warning("scheduled run of %s failed: %s", attempt.function.spec.logical_id, error.kind)

    def _bury(self, attempt: _Attempt, error: FunctionError) -> None:
        arn = str(attempt.function.spec.dead_letter_arn)
        url = self._sqs.get_queue_url(QueueName=arn.rsplit(":", 1)[-1])["QueueUrl"]
        attributes = {"ErrorCode": "200", "ErrorMessage": error.kind, "RequestID": str(uuid.uuid4())}
        self._sqs.send_message(
            QueueUrl=url,
            MessageBody=json.dumps(attempt.event),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )


def _event(rule_arn: str) -> dict[str, Any]:
    _, _, _, region, account, _ = rule_arn.split(":", 5)
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": account,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "resources": [rule_arn],
        "detail": {},
    }


class ScheduleThread:
    """Runs schedules by the monotonic clock until it is stopped.

    Args:
        schedules: what to run.
    """

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedules", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Start nothing further, and wait for a run that is under way."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (due_s := self._schedules.next_due()) is not None:
            if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                return
            self._schedules.run_due(time.monotonic())
