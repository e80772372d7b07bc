"""Functions, event sources, schedules and APIs: described here, run by the drivers of the local cloud, never by moto.

moto runs no Lambda without Docker, and an event source mapping made in it swallows the queue's messages: so none of
these is created there. What the template says about each is kept as data for `functions`, `pump`, `schedules` and
`gateway`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.intrinsics import Created, TemplateError
from infra.local.resources.resource import Account, Resource
from infra.local.translate import CODE_BUCKET


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A Lambda function as the template describes it.

    Attributes:
        logical_id: name in the template.
        name: physical name.
        arn: its ARN.
        code: directory that CodeUri names.
        handler: `module.attribute` in that directory.
        timeout_s: longest run.
        memory_mb: memory size, as the context tells it.
        environment: environment variables.
        concurrency: reserved concurrent executions, or None.
        dead_letter_arn: where events of failed asynchronous invocations go, or None.
    """

    logical_id: str
    name: str
    arn: str
    code: Path
    handler: str
    timeout_s: float
    memory_mb: int
    environment: Mapping[str, str]
    concurrency: int | None = None
    dead_letter_arn: str | None = None


@dataclass(frozen=True, slots=True)
class EventSource:
    """An SQS event source mapping: which queue feeds which function, and how."""

    queue_arn: str
    function_arn: str
    batch_size: int
    partial_failures: bool
    concurrency: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A scheduled rule of EventBridge and the functions it calls."""

    arn: str
    expression: str
    function_arns: tuple[str, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class Api:
    """A REST API: its OpenAPI definition, resolved, and the name of its stage once that is known."""

    api_id: str
    name: str
    body: Mapping[str, Any]
    binary_media_types: tuple[str, ...]


@dataclass(slots=True)
class Compute:
    """Everything that runs, collected while a template is applied.

    Attributes:
        root: directory of the template, to which CodeUri is relative.
        functions: by ARN.
        event_sources: in the template's order.
        rules: in the template's order.
        apis: by id.
        stages: stage names by API id.
    """

    root: Path
    functions: dict[str, FunctionSpec] = field(default_factory=dict)
    event_sources: list[EventSource] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    apis: dict[str, Api] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)

    def function(self, account: Account, resource: Resource) -> Created:
        """Keep a function's description."""
        resource.account_for(
            (
                "Code",
                "DeadLetterConfig",
                "Environment",
                "FunctionName",
                "Handler",
                "MemorySize",
                "ReservedConcurrentExecutions",
                "Timeout",
            ),
            {
                "Architectures": "the handler runs in this interpreter",
                "Description": "for people",
                "Layers": "the layer's package is on this process's path",
                "LoggingConfig": "handlers log to this process's log file",
                "Role": "moto enforces no IAM: handlers run with the credentials of the process",
                "Runtime": "the handler runs in this interpreter",
                "Tags": "for people",
                "TracingConfig": "there is no X-Ray here",
            },
        )
        wanted = resource.properties
        code = wanted["Code"]
        if code.get("S3Bucket") != CODE_BUCKET:
            message = f"{resource.logical_id}: the local cloud runs code beside the template only"
            raise TemplateError(message)
        name = wanted.get("FunctionName") or account.name(resource.logical_id)
        arn = account.arn("lambda", f"function:{name}")
        environment = wanted.get("Environment", {}).get("Variables", {})
        self.functions[arn] = FunctionSpec(
            logical_id=resource.logical_id,
            name=name,
            arn=arn,
            code=self.root / code["S3Key"],
            handler=wanted["Handler"],
            timeout_s=float(wanted.get("Timeout", 3)),
            memory_mb=int(wanted.get("MemorySize", 128)),
            environment={key: str(value) for key, value in environment.items()},
            concurrency=wanted.get("ReservedConcurrentExecutions"),
            dead_letter_arn=wanted.get("DeadLetterConfig", {}).get("TargetArn"),
        )
        return Created(name, {"Arn": arn})

    def event_source(self, account: Account, resource: Resource) -> Created:
        """Keep an event source mapping's description."""
        resource.account_for(
            ("BatchSize", "Enabled", "EventSourceArn", "FunctionName", "FunctionResponseTypes", "ScalingConfig")
        )
        wanted = resource.properties
        if wanted.get("Enabled", True):
            self.event_sources.append(
                EventSource(
                    queue_arn=wanted["EventSourceArn"],
                    function_arn=self._function_arn(account, wanted["FunctionName"]),
                    batch_size=int(wanted.get("BatchSize", 10)),
                    partial_failures="ReportBatchItemFailures" in wanted.get("FunctionResponseTypes", []),
                    concurrency=wanted.get("ScalingConfig", {}).get("MaximumConcurrency"),
                )
            )
        return Created(account.name(resource.logical_id))

    def rule(self, account: Account, resource: Resource) -> Created:
        """Keep a scheduled rule's description."""
        resource.account_for(("Description", "Name", "ScheduleExpression", "State", "Targets"))
        wanted = resource.properties
        name = wanted.get("Name") or account.name(resource.logical_id)
        arn = account.arn("events", f"rule/{name}")
        self.rules.append(
            Rule(
                arn=arn,
                expression=wanted["ScheduleExpression"],
                function_arns=tuple(target["Arn"] for target in wanted["Targets"]),
                enabled=wanted.get("State", "ENABLED") == "ENABLED",
            )
        )
        return Created(name, {"Arn": arn})

    def api(self, account: Account, resource: Resource) -> Created:
        """Keep a REST API's definition."""
        resource.account_for(
            ("BinaryMediaTypes", "Body", "Description", "Name"),
            {
                "EndpointConfiguration": "the API is served on loopback",
                "FailOnWarnings": "cfn-lint and sam validate check the definition",
                "Parameters": "of the import of the definition: they repeat the endpoint configuration",
                "Tags": "for people",
            },
        )
        wanted = resource.properties
        api_id = f"{account.suffix}api"
        listed = [
            *wanted.get("BinaryMediaTypes", []),
            *wanted["Body"].get("x-amazon-apigateway-binary-media-types", []),
        ]
        types = tuple(dict.fromkeys(media_type.replace("~1", "/") for media_type in listed))
        self.apis[api_id] = Api(api_id, wanted.get("Name", resource.logical_id), wanted["Body"], types)
        return Created(api_id, {"RootResourceId": f"{account.suffix}root", "RestApiId": api_id})

    def stage(self, _account: Account, resource: Resource) -> Created:
        """Keep a stage's name; throttles, traces and access logs have no counterpart here."""
        self.stages[resource.properties["RestApiId"]] = resource.properties["StageName"]
        return Created(resource.properties["StageName"])

    def _function_arn(self, account: Account, name_or_arn: str) -> str:
        return name_or_arn if name_or_arn.startswith("arn:") else account.arn("lambda", f"function:{name_or_arn}")
