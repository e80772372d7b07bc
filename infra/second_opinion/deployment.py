"""Deploys the template to the emulator by CloudFormation, as `sam deploy` would to AWS.

What is uploaded is the file itself: `sam package` replaces each CodeUri and ContentUri by the place of its zip in S3,
and so does this, on those lines alone. The transform, the change set and the resources are ministack's. What its
CloudFormation drops and the product relies on is set afterwards through the services' own APIs, from the very template:
departures.md says what and why.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.second_opinion.emulator import REGION, Emulator

STACK: Final = "dualtone"
_CODE_BUCKET: Final = "dualtone-code"
_CHANGE_SET: Final = "first"
_READY_S: Final = 60.0
_POLL_S: Final = 0.05
_RESOURCE: Final = re.compile(r"  (\w+):\s*(?:#.*)?")
_URI: Final = re.compile(r"(      (?:CodeUri|ContentUri): )(\S+)(.*)")


class DeploymentFailed(Exception):  # noqa: N818 - what happened, in a word
    """CloudFormation refused the template or a resource of it; the message has its reasons."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A template that was deployed.

    Attributes:
        account: Where to: makes clients.
        resources: Physical ids, by logical id.
        outputs: The template's outputs.
        template: The template after the SAM transform, as CloudFormation processed it.
        api_url: Base URL of the API's stage.
    """

    account: Emulator
    resources: Mapping[str, str]
    outputs: Mapping[str, str]
    template: Mapping[str, Any]
    api_url: str

    def ref(self, logical_id: str) -> str:
        """Return the physical id of a resource."""
        return self.resources[logical_id]


def packaged(text: str, zips: Mapping[str, str]) -> str:
    """Replace each CodeUri and ContentUri of a template by the place of its zip, and nothing else.

    Args:
        text: The template.
        zips: S3 URIs, by logical id.

    Raises:
        DeploymentFailed: If a zip has no place in the template.
    """
    lines, resource, left = [], "", dict(zips)
    for line in text.splitlines(keepends=True):
        if match := _RESOURCE.fullmatch(line.rstrip("\n")):
            resource = match[1]
        if resource in left and (match := _URI.match(line)):
            lines.append(f"{match[1]}{left.pop(resource)}{match[3]}\n")
        else:
            lines.append(line)
    if left:
        message = f"the template has no code location for {', '.join(left)}"
        raise DeploymentFailed(message)
    return "".join(lines)


def deploy(emulator: Emulator, template: Path, zips: Mapping[str, Path]) -> Deployment:
    """Upload, deploy, and set what the emulator's CloudFormation drops.

    Args:
        emulator: Where to.
        template: The template.
        zips: Packages, by logical id.

    Raises:
        DeploymentFailed: If it does not become CREATE_COMPLETE.
    """
    url = _upload(emulator, template, zips)
    cloudformation = emulator.client("cloudformation")
    stack = _create(cloudformation, url)
    listed = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
    resources = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in listed}
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    processed = cloudformation.get_template(StackName=STACK, TemplateStage="Processed")["TemplateBody"]
    api_url = f"{emulator.url}/_aws/execute-api/{resources['Api']}/live"
    deployment = Deployment(emulator, resources, outputs, processed, api_url)
    _lock_objects(deployment)
    _set_gateway_responses(deployment)
    _tell_public_url(deployment)
    return deployment


def _upload(emulator: Emulator, template: Path, zips: Mapping[str, Path]) -> str:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=_CODE_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in zips.values():
        s3.upload_file(str(path), _CODE_BUCKET, path.name)
    text = packaged(
        template.read_text("utf-8"), {name: f"s3://{_CODE_BUCKET}/{path.name}" for name, path in zips.items()}
    )
    s3.put_object(Bucket=_CODE_BUCKET, Key=template.name, Body=text.encode())
    return f"{emulator.url}/{_CODE_BUCKET}/{template.name}"  # CloudFormation takes no more than 51,200 bytes directly


def _create(cloudformation: Any, url: str) -> Mapping[str, Any]:
    """Create the stack by a change set, as `sam deploy` does; return its description."""
    named = {"StackName": STACK, "ChangeSetName": _CHANGE_SET}
    cloudformation.create_change_set(
        **named,
        ChangeSetType="CREATE",
        TemplateURL=url,
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    change_set = _settled(lambda: cloudformation.describe_change_set(**named), "Status")
    if change_set["Status"] != "CREATE_COMPLETE":
        message = f"the change set was refused: {change_set.get('StatusReason')}"
        raise DeploymentFailed(message)
    cloudformation.execute_change_set(**named)
    stack = _settled(lambda: cloudformation.describe_stacks(StackName=STACK)["Stacks"][0], "StackStatus")
    if stack["StackStatus"] != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
        failed = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
        reasons = "; ".join(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in failed)
        message = f"the stack is {stack['StackStatus']}: {reasons}"
        raise DeploymentFailed(message)
    return stack


def _settled(describe: Any, field: str) -> Mapping[str, Any]:
    deadline_s = time.monotonic() + _READY_S
    while time.monotonic() < deadline_s:
        described: Mapping[str, Any] = describe()
        if not described[field].endswith(("_PENDING", "_IN_PROGRESS")):
            return described
        time.sleep(_POLL_S)
    message = f"CloudFormation did not finish within {_READY_S:.0f} s"
    raise DeploymentFailed(message)


# ------------------------------------------------------------------- what ministack's CloudFormation leaves out


def _lock_objects(deployment: Deployment) -> None:
    """Turn Object Lock on where the template says ObjectLockEnabled."""
    s3 = deployment.account.client("s3")
    for logical_id, resource in deployment.template["Resources"].items():
        if resource["Type"] == "AWS::S3::Bucket" and resource["Properties"].get("ObjectLockEnabled"):
            s3.put_object_lock_configuration(
                Bucket=deployment.ref(logical_id), ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
            )


def _set_gateway_responses(deployment: Deployment) -> None:
    """Set the gateway responses that API Gateway takes from the OpenAPI document when it imports one."""
    gateway, api_id = deployment.account.client("apigateway"), deployment.ref("Api")
    body = deployment.template["Resources"]["Api"]["Properties"]["Body"]
    for response_type, response in body["x-amazon-apigateway-gateway-responses"].items():
        gateway.put_gateway_response(restApiId=api_id, responseType=response_type, **response)
    gateway.create_deployment(restApiId=api_id, stageName="live")


def _tell_public_url(deployment: Deployment) -> None:
    """Tell the API where it is reached.

    PublicUrl takes https alone, rightly, and loopback has no certificate; and ministack tells a function no domainName,
    from which the API would otherwise know.
    """
    functions, name = deployment.account.client("lambda"), deployment.ref("ApiFunction")
    environment = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": {**environment, "DUALTONE_PUBLIC_URL": deployment.api_url}}
    )
