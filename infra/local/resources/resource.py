"""What a maker of resources is given, and how it accounts for every property."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3

from infra.local.intrinsics import Created, TemplateError

_NAME_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Account:
    """The account and region in which the template is applied.

    Attributes:
        account_id: 12 digits.
        region: AWS region name.
        stack: name of the stack, the first part of generated names.
        suffix: random characters, the last part of generated names.
    """

    account_id: str
    region: str
    stack: str
    suffix: str
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service, one per service."""
        if service not in self._clients:
            self._clients[service] = boto3.client(service, region_name=self.region)  # type: ignore[call-overload]
        return self._clients[service]

    def arn(self, service: str, resource: str, *, region: bool = True) -> str:
        """Return the ARN of a resource of this account."""
        return f"arn:aws:{service}:{self.region if region else ''}:{self.account_id}:{resource}"

    def name(self, logical_id: str, limit: int = _NAME_LIMIT) -> str:
        """Return a name as CloudFormation generates it: stack, logical id, random suffix."""
        tail = f"-{self.suffix}"
        return f"{self.stack}-{logical_id}"[: limit - len(tail)] + tail


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the translated template, its properties resolved.

    Attributes:
        logical_id: name in the template.
        type: CloudFormation type.
        properties: resolved properties.
    """

    logical_id: str
    type: str
    properties: Mapping[str, Any]

    def account_for(self, applied: Collection[str], not_modelled: Mapping[str, str] | None = None) -> None:
        """Check that every property is either applied or left out for a stated reason.

        Args:
            applied: names of the properties that the maker applies.
            not_modelled: names of those it leaves out, with the reason.

        Raises:
            TemplateError: naming the properties nobody accounts for.
        """
        unknown = set(self.properties) - set(applied) - set(not_modelled or {})
        if unknown:
            message = f"{self.logical_id} ({self.type}): the local cloud does not know {', '.join(sorted(unknown))}"
            raise TemplateError(message)

    def tags(self) -> dict[str, str]:
        """Return the Tags property, in either of its two spellings, as a mapping."""
        tags = self.properties.get("Tags", {})
        return {tag["Key"]: tag["Value"] for tag in tags} if isinstance(tags, list) else dict(tags)


Maker = Callable[[Account, Resource], Created]
"""Makes a resource and says what Ref and GetAtt give for it."""


def snake_case(logical_id: str) -> str:
    """Return `IngestBucket` as `ingest_bucket`, `CustodianAKey` as `custodian_a_key`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", logical_id).lower()
