"""Applies template.yaml to moto: every resource that the template names, made by boto3 in the order it needs.

moto's own CloudFormation is not used: it skips what it does not know and drops versioning, locks, lifecycle rules,
notifications and recovery settings without a word. Here an unknown type or property is an error.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from infra.local.intrinsics import Created, Resolver, TemplateError, references
from infra.local.resources import identity, keys, messaging, operations, storage
from infra.local.resources.compute import Compute
from infra.local.resources.resource import Account, Maker, Resource
from infra.local.translate import translate

TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"
ACCOUNT_ID = "123456789012"
REGION = "eu-west-1"

NOT_MODELLED: Mapping[str, str] = {
    "AWS::S3::BucketPolicy": "moto does evaluate bucket policies, but not their conditions: 'deny unless over TLS' "
    "denies everything to everybody. tests/contract checks that the template has the policy",
    "AWS::Lambda::LayerVersion": "the layer's package is on this process's path",
    "AWS::Lambda::Permission": "moto enforces no permission; the drivers call what the template wires",
    "AWS::ApiGateway::Account": "a role for API Gateway's own logs",
    "AWS::ApiGateway::Deployment": "the definition is served as it is",
}
"""Types that are deliberately not made, and why; Ref to one gives a generated name."""

_MAKERS: Mapping[str, Maker] = {
    **storage.MAKERS,
    **messaging.MAKERS,
    **keys.MAKERS,
    **identity.MAKERS,
    **operations.MAKERS,
}


@dataclass(frozen=True, slots=True)
class Stack:
    """A template that was applied.

    Attributes:
        account: where it was applied.
        created: what Ref and GetAtt give, by logical id.
        types: CloudFormation types, by logical id.
        compute: what runs.
        outputs: the template's outputs, resolved.
    """

    account: Account
    created: Mapping[str, Created]
    types: Mapping[str, str]
    compute: Compute
    outputs: Mapping[str, str]

    def ref(self, logical_id: str) -> str:
        """Return the physical id of a resource."""
        return self.created[logical_id].ref

    def arn(self, logical_id: str) -> str:
        """Return the ARN of a resource."""
        return self.created[logical_id].attributes["Arn"]


def apply(
    path: Path = TEMPLATE,
    *,
    parameters: Mapping[str, str] | None = None,
    account_id: str = ACCOUNT_ID,
    region: str = REGION,
    stack: str = "dualtone",
) -> Stack:
    """Translate a SAM template and make its resources in the AWS that boto3 reaches, which must be moto.

    Args:
        path: the template.
        parameters: values for its parameters; those left out take their defaults.
        account_id: account to name in ARNs.
        region: region to make resources in.
        stack: first part of generated names.

    Returns:
        What was made.

    Raises:
        TemplateError: if something in the template is unknown here, undefined, or circular.
    """
    pseudo = {
        "AWS::AccountId": account_id,
        "AWS::Partition": "aws",
        "AWS::Region": region,
        "AWS::StackId": f"arn:aws:cloudformation:{region}:{account_id}:stack/{stack}/{secrets.token_hex(8)}",
        "AWS::StackName": stack,
        "AWS::URLSuffix": "amazonaws.com",
    }
    template = translate(path, {**pseudo, **(parameters or {})})
    values = {**_parameter_values(template.get("Parameters", {}), parameters or {}), **pseudo}
    account = Account(account_id, region, stack, secrets.token_hex(4))
    compute = Compute(path.parent)
    created: dict[str, Created] = {}
    resolver = Resolver(values, template.get("Conditions", {}), created)
    wanted = {
        logical_id: declared
        for logical_id, declared in template["Resources"].items()
        if "Condition" not in declared or resolver.condition(declared["Condition"])
    }
    for logical_id in _in_dependency_order(wanted):
        properties = resolver.resolve(wanted[logical_id].get("Properties", {}))
        created[logical_id] = _make(account, compute, Resource(logical_id, wanted[logical_id]["Type"], properties))
    outputs = {name: resolver.resolve(output["Value"]) for name, output in template.get("Outputs", {}).items()}
    types = {logical_id: declared["Type"] for logical_id, declared in wanted.items()}
    return Stack(account, created, types, compute, outputs)


def _parameter_values(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    if unknown := set(given) - set(declared):
        message = f"the template has no parameter {', '.join(sorted(unknown))}"
        raise TemplateError(message)
    values = {}
    for name, parameter in declared.items():
        if name not in given and "Default" not in parameter:
            message = f"parameter {name} has no default and was not given"
            raise TemplateError(message)
        value = str(given.get(name, parameter.get("Default")))
        if not re.fullmatch(parameter.get("AllowedPattern", ".*"), value, re.DOTALL):
            message = f"parameter {name} {parameter.get('ConstraintDescription', 'does not match its pattern')}"
            raise TemplateError(message)
        if "AllowedValues" in parameter and value not in map(str, parameter["AllowedValues"]):
            message = f"parameter {name} must be one of {', '.join(map(str, parameter['AllowedValues']))}"
            raise TemplateError(message)
        values[name] = value
    return values


def _in_dependency_order(resources: Mapping[str, Any]) -> Iterator[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for logical_id, declared in resources.items():
        explicit = declared.get("DependsOn", [])
        needed = {*([explicit] if isinstance(explicit, str) else explicit), *references(declared.get("Properties", {}))}
        sorter.add(logical_id, *(name for name in needed if name in resources and name != logical_id))
    try:
        yield from sorter.static_order()
    except CycleError as error:
        message = f"the template is circular: {' -> '.join(error.args[1])}"
        raise TemplateError(message) from error


def _make(account: Account, compute: Compute, resource: Resource) -> Created:
    makers: dict[str, Maker] = {
        **_MAKERS,
        "AWS::Lambda::Function": compute.function,
        "AWS::Lambda::EventSourceMapping": compute.event_source,
        "AWS::Events::Rule": compute.rule,
        "AWS::ApiGateway::RestApi": compute.api,
        "AWS::ApiGateway::Stage": compute.stage,
    }
    if maker := makers.get(resource.type):
        return maker(account, resource)
    if resource.type in NOT_MODELLED:
        name = account.name(resource.logical_id)
        return Created(name, {"Arn": account.arn("local", name)})
    message = f"{resource.logical_id}: the local cloud does not know {resource.type}"
    raise TemplateError(message)
