"""A deployment as an operator finds it: the outputs of its CloudFormation stack, and clients with their credentials.

The local cloud has a stack of the same outputs, so that what works there works on AWS.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dualtone.adapters.dead_letters import Queue

_LETTERS: Final = re.compile(r"(\w+)DeadLettersUrl")
_KEYS: Final = ("Ingest", "Signing", "Certificate", "Metadata", "Hmac", "CustodianA", "CustodianB")
_LOCAL_REGION: Final = "eu-west-1"
_PATIENCE: Final = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3})


class NoDeployment(Exception):  # noqa: N818 - what an operator is told
    """There is no such stack, or these credentials may not see it."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A stack.

    Attributes:
        outputs: The template's outputs by name.
    """

    outputs: Mapping[str, str]
    _session: boto3.Session = field(repr=False)
    _endpoint: str | None = None

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients have a type each
        """Makes a client of a service."""
        return self._session.client(service, endpoint_url=self._endpoint, config=_PATIENCE)  # type: ignore[call-overload]

    def dead_letter_queues(self) -> list[Queue]:
        """Every dead-letter queue, with the queue that it belongs to; those of schedules belong to none."""
        found = [(match[1], url) for name, url in self.outputs.items() if (match := _LETTERS.fullmatch(name))]
        return [Queue(_kebab(name), url, self.outputs.get(f"{name}QueueUrl")) for name, url in sorted(found)]

    def keys(self) -> dict[str, str]:
        """The deployment's KMS keys by what they are for."""
        return {_kebab(name): self.outputs[f"{name}KeyArn"] for name in _KEYS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options by which a deployment is found."""
    parser.add_argument("--stack", default="dualtone", metavar="NAME", help="CloudFormation stack (default: dualtone)")
    parser.add_argument("--region", metavar="R", help="AWS region (default: that of the environment)")
    parser.add_argument("--aws-endpoint", metavar="URL", help="the local cloud's AWS endpoint instead of AWS")


def find(arguments: argparse.Namespace) -> Deployment:
    """Finds the deployment that options name; raises NoDeployment."""
    region, key = arguments.region, None
    if arguments.aws_endpoint:
        region = region or _LOCAL_REGION
        key = None if "AWS_ACCESS_KEY_ID" in os.environ else "local"  # the local cloud takes any credentials
    session = boto3.Session(region_name=region, aws_access_key_id=key, aws_secret_access_key=key)
    try:
        client = session.client("cloudformation", endpoint_url=arguments.aws_endpoint, config=_PATIENCE)
        (stack,) = client.describe_stacks(StackName=arguments.stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise NoDeployment(f"stack {arguments.stack} cannot be seen: {error}") from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return Deployment(outputs, session, arguments.aws_endpoint)


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
