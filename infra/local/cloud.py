"""The embedded cloud: moto, mended, with template.yaml applied to it, its events driven and its API served.

One process is the whole cloud: boto3 clients inside of it reach moto directly, everybody else by `aws_endpoint`. Only
one can run in a process at a time, since moto patches botocore for all of it.
"""

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moto import mock_aws

from infra.local.aws_endpoint import AwsEndpoint
from infra.local.functions import Functions
from infra.local.gateway.authorizer import CognitoAuthorizer
from infra.local.gateway.rest_api import RestApi
from infra.local.gateway.server import GatewayServer
from infra.local.moto_fixes import mended
from infra.local.onboarding import PLANS, Tenant, TenantPlan, onboard
from infra.local.pump import DEFAULT_WORKERS, Pump
from infra.local.resources.resource import snake_case
from infra.local.schedules import Schedules, ScheduleThread
from infra.local.template import ACCOUNT_ID, REGION, TEMPLATE, Stack, apply

_ONLY_ONE = threading.Lock()

CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    # Otherwise boto3 puts the account id into DynamoDB's host name, which moto does not know.
    "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What any AWS client of a local cloud needs in its environment, beside AWS_ENDPOINT_URL."""

_LAMBDA_ENVIRONMENT: Mapping[str, str] = {"POWERTOOLS_TRACE_DISABLED": "true", "AWS_XRAY_SDK_ENABLED": "false"}
_MISLEADING = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


class LocalCloud:
    """A running cloud, as a context manager.

    Args:
        api_port: loopback port of the API; 0 takes a free one.
        aws_port: loopback port of the AWS endpoint; 0 takes a free one.
        template: SAM template to apply.
        parameters: values for its parameters.
        workers: most concurrent invocations from one queue.
        driven: whether queues and schedules are polled; tests that pump by hand say no.
        tenants: whom to onboard.

    Attributes:
        stack: the applied template.
        functions: its functions.
        tenants: onboarded tenants by id.
        pumps: one for each event source mapping.
        schedules: the scheduled rules.
    """

    stack: Stack
    functions: Functions
    schedules: Schedules

    def __init__(
        self,
        *,
        api_port: int = 0,
        aws_port: int = 0,
        template: Path = TEMPLATE,
        parameters: Mapping[str, str] | None = None,
        workers: int = DEFAULT_WORKERS,
        driven: bool = True,
        tenants: Sequence[TenantPlan] = PLANS,
    ) -> None:
        self._api_port = api_port
        self._aws_port = aws_port
        self._template = template
        self._parameters = parameters
        self._workers = workers
        self._driven = driven
        self._plans = tenants
        self._stack = ExitStack()
        self.tenants: dict[str, Tenant] = {}
        self.pumps: list[Pump] = []
        self.api_url = ""
        self.aws_endpoint = ""

    def __enter__(self) -> Self:
        """Start everything; what was started is stopped again if something fails.

        Raises:
            RuntimeError: if this process has a running cloud already.
        """
        if not _ONLY_ONE.acquire(blocking=False):
            raise RuntimeError("only one local cloud can run in a process")
        with ExitStack() as stack:
            stack.callback(_ONLY_ONE.release)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the drivers, then the servers, then moto."""
        self._stack.close()

    def client(self, service: str) -> Any:
        """Return a boto3 client that reaches this cloud in-process."""
        return self.stack.account.client(service)

    def invoke(self, logical_id: str, event: Any) -> Any:
        """Call a function by its name in the template; see `functions.Function.invoke`."""
        return self.functions.invoke(logical_id, event)

    def resources(self) -> dict[str, str]:
        """Return the physical ids of all resources, by their names in snake case: `ingest_bucket` and so on."""
        return {snake_case(logical_id): created.ref for logical_id, created in self.stack.created.items()}

    def _start(self, stack: ExitStack) -> None:
        stack.enter_context(mended())
        stack.enter_context(_environment(CREDENTIALS, without=_MISLEADING))
        stack.enter_context(mock_aws())
        stack.callback(gc.collect)  # moto's objects hold temporary files until they are collected
        endpoint = AwsEndpoint(self._aws_port)
        stack.callback(endpoint.stop)
        endpoint.start()
        self.aws_endpoint = endpoint.url
        server = GatewayServer(self._api_port)
        stack.callback(server.stop)
        self.api_url = server.url

        self.stack = apply(self._template, parameters=self._parameters)
        _publish(self.stack)
        self.functions = Functions(self.stack.compute.functions)
        stack.callback(self.functions.close)
        stack.enter_context(_environment(self._function_environment()))
        _forget_caches()
        self._drive(stack)
        self._serve(server)
        self.tenants = {plan.tenant: onboard(self.stack, plan) for plan in self._plans}

    def _function_environment(self) -> dict[str, str]:
        environment = {**self.functions.environment(), **_LAMBDA_ENVIRONMENT}
        # The template takes https only for PublicUrl, rightly; loopback has no certificate.
        environment["DUALTONE_PUBLIC_URL"] = self.api_url
        # JWKS documents are fetched by plain HTTP clients, which moto does not intercept in-process.
        environment["AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER"] = self.aws_endpoint
        return environment

    def _drive(self, stack: ExitStack) -> None:
        sqs, compute = self.client("sqs"), self.stack.compute
        for source in compute.event_sources:
            self.pumps.append(Pump(source, self.functions.by_arn(source.function_arn), sqs, self._workers))
        self.schedules = Schedules(compute.rules, self.functions, sqs, time.monotonic())
        if not self._driven:
            return
        for pump in self.pumps:
            stack.callback(pump.stop)
            pump.start()
        thread = ScheduleThread(self.schedules)
        stack.callback(thread.stop)
        thread.start()

    def _serve(self, server: GatewayServer) -> None:
        def authorizer(pool_id: str) -> CognitoAuthorizer:
            return CognitoAuthorizer(pool_id, f"{self.aws_endpoint}/{pool_id}/.well-known/jwks.json")

        for api in self.stack.compute.apis.values():
            stage = self.stack.compute.stages[api.api_id]
            server.start(RestApi(api, stage, ACCOUNT_ID, self.functions, authorizer))


def _publish(stack: Stack) -> None:
    """Make a CloudFormation stack with the template's outputs and nothing else: by those, operators find everything."""
    outputs = {name: {"Value": value} for name, value in stack.outputs.items()}
    template = json.dumps({"Resources": {}, "Outputs": outputs})
    stack.account.client("cloudformation").create_stack(StackName=stack.account.stack, TemplateBody=template)


@contextmanager
def _environment(values: Mapping[str, str], without: tuple[str, ...] = ()) -> Iterator[None]:
    """Hold environment variables at values for the length of a block."""
    names = (*values, *without)
    before = {name: os.environ[name] for name in names if name in os.environ}
    for name in without:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _forget_caches() -> None:
    """Start cold: drop what cached factories of the shared package made for an earlier cloud of this process."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "dualtone":
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()
