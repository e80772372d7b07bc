"""Lambda: invokes the very handlers that the template names, within Lambda's limits.

https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: time, payload and concurrency are enforced.
Memory is told to the handler and not enforced, since all environments share this process.
"""

import concurrent.futures
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.local.environment import Environment
from infra.local.resources.compute import FunctionSpec

PAYLOAD_LIMIT_BYTES = 6 * 1024 * 1024
LONGEST_RUN_S = 900.0
_MOST_ENVIRONMENTS = 16  # stands in for the account's concurrency

_log = logging.getLogger(__name__)


class FunctionError(Exception):
    """An invocation that did not end with an answer.

    Attributes:
        kind: what Lambda would put into `errorType`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class FunctionTimeout(FunctionError):  # noqa: N818 - what happened, in a word
    """The handler ran longer than it may."""


@dataclass(frozen=True, slots=True)
class LambdaContext:
    """What Lambda tells a handler about its invocation; the names are Lambda's own."""

    function_name: str
    invoked_function_arn: str
    memory_limit_in_mb: str
    aws_request_id: str
    log_group_name: str
    log_stream_name: str
    deadline_s: float
    function_version: str = "$LATEST"
    identity: None = None
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run."""
        return max(0, int((self.deadline_s - time.monotonic()) * 1000))


class Function:
    """One function and its environments.

    Args:
        spec: the function as the template describes it.
    """

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self._free: list[Environment] = []
        self._count = 0
        self._limit = min(spec.concurrency or _MOST_ENVIRONMENTS, _MOST_ENVIRONMENTS)
        self._changed = threading.Condition()
        self._timeout_s = min(spec.timeout_s, LONGEST_RUN_S)

    def invoke(self, event: Any, wait_s: float = LONGEST_RUN_S) -> Any:
        """Call the handler as Lambda does: JSON in, JSON out, in an environment that nobody else uses meanwhile.

        Args:
            event: anything that JSON can carry.
            wait_s: how long the caller waits for the answer, if that is shorter than the function's own timeout.

        Returns:
            The handler's answer after a round trip through JSON.

        Raises:
            FunctionTimeout: if it runs longer than its Timeout, or than the caller waits.
            FunctionError: if it raises, answers what JSON cannot carry, or event or answer exceed 6 MB.
        """
        payload = json.dumps(event)
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise FunctionError("RequestEntityTooLargeException", "the event is larger than 6 MB")
        deadline_s = time.monotonic() + self._timeout_s
        environment = self._take(deadline_s)
        future = environment.submit(json.loads(payload), self._context(deadline_s))
        try:
            answer = future.result(timeout=min(self._timeout_s, wait_s))
        except concurrent.futures.TimeoutError as error:
            if not future.done():
                self._drop(environment)
                message = f"{self.spec.logical_id} did not answer in time"
                raise FunctionTimeout("Sandbox.Timedout", message) from error
            self._give_back(environment)
            raise self._failed(error) from error
        except BaseException as error:
            self._give_back(environment)
            raise self._failed(error) from error
        self._give_back(environment)
        return self._answer(answer)

    def warm(self) -> None:
        """Load one environment ahead of the first event."""
        self._give_back(self._take(time.monotonic() + self._timeout_s))

    def close(self) -> None:
        """End the idle environments."""
        with self._changed:
            for environment in self._free:
                environment.close()
            self._count -= len(self._free)
            self._free.clear()

    def _answer(self, answer: Any) -> Any:
        try:
            encoded = json.dumps(answer)
        except (TypeError, ValueError) as error:
            raise FunctionError(
                "Runtime.MarshalError", f"{self.spec.logical_id} answered what JSON cannot carry"
            ) from error
        if len(encoded) > PAYLOAD_LIMIT_BYTES:
            raise FunctionError("Function.ResponseSizeTooLarge", f"{self.spec.logical_id} answered more than 6 MB")
        return json.loads(encoded)

    def _failed(self, error: BaseException) -> FunctionError:
        _log.error("%s failed", self.spec.logical_id, exc_info=error)
        return FunctionError(type(error).__name__, f"{self.spec.logical_id} raised {type(error).__name__}")

    def _context(self, deadline_s: float) -> LambdaContext:
        request_id = str(uuid.uuid4())
        return LambdaContext(
            function_name=self.spec.name,
            invoked_function_arn=self.spec.arn,
            memory_limit_in_mb=str(self.spec.memory_mb),
            aws_request_id=request_id,
            log_group_name=f"/aws/lambda/{self.spec.name}",
            log_stream_name=request_id,
            deadline_s=deadline_s,
        )

    def _take(self, deadline_s: float) -> Environment:
        with self._changed:
            while not self._free and self._count >= self._limit:
                if not self._changed.wait(timeout=max(0.0, deadline_s - time.monotonic())):
                    raise FunctionError("TooManyRequestsException", f"{self.spec.logical_id} is at its concurrency")
            if self._free:
                return self._free.pop()
            self._count += 1
            number = self._count
        try:
            return Environment(self.spec.code, self.spec.handler, f"{self.spec.logical_id}-{number}")
        except BaseException as error:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            _log.error("%s cannot be loaded", self.spec.logical_id, exc_info=error)
            message = f"{self.spec.logical_id} cannot be loaded: {type(error).__name__}"
            raise FunctionError("Runtime.ImportModuleError", message) from error

    def _give_back(self, environment: Environment) -> None:
        with self._changed:
            self._free.append(environment)
            self._changed.notify()

    def _drop(self, environment: Environment) -> None:
        environment.close()
        with self._changed:
            self._count -= 1
            self._changed.notify()


class Functions:
    """Every function of the template.

    Args:
        specs: descriptions by ARN.
    """

    def __init__(self, specs: Mapping[str, FunctionSpec]) -> None:
        self._by_arn = {arn: Function(spec) for arn, spec in specs.items()}
        self._by_id = {function.spec.logical_id: function for function in self._by_arn.values()}

    def by_arn(self, arn: str) -> Function:
        """Return the function with this ARN."""
        return self._by_arn[arn]

    def invoke(self, logical_id: str, event: Any) -> Any:
        """Call a function by its name in the template; see `Function.invoke`."""
        return self._by_id[logical_id].invoke(event)

    def warm(self) -> None:
        """Load one environment of each function."""
        for function in self._by_arn.values():
            function.warm()

    def environment(self) -> dict[str, str]:
        """Return the variables of all functions together, since one process runs them all.

        Raises:
            ValueError: if two functions want different values of one variable.
        """
        together: dict[str, str] = {}
        for function in self._by_arn.values():
            for name, value in function.spec.environment.items():
                if together.setdefault(name, value) != value:
                    message = f"two functions want different values of {name}: one process cannot run both"
                    raise ValueError(message)
        return together

    def close(self) -> None:
        """End all idle environments."""
        for function in self._by_arn.values():
            function.close()
