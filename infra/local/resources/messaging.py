"""Queues and their policies."""

import json
from typing import Any

from infra.local.intrinsics import Created
from infra.local.resources.resource import Account, Maker, Resource

_ATTRIBUTES = (
    "ContentBasedDeduplication",
    "DelaySeconds",
    "FifoQueue",
    "KmsDataKeyReusePeriodSeconds",
    "KmsMasterKeyId",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
)


def _attribute(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def queue(account: Account, resource: Resource) -> Created:
    """Make an SQS queue with every attribute it names, its redrive policy included."""
    resource.account_for(("QueueName", "Tags", *_ATTRIBUTES))
    sqs = account.client("sqs")
    name = resource.properties.get("QueueName") or account.name(resource.logical_id)
    attributes = {key: _attribute(value) for key, value in resource.properties.items() if key in _ATTRIBUTES}
    url = sqs.create_queue(QueueName=name, Attributes=attributes, tags=resource.tags())["QueueUrl"]
    return Created(url, {"Arn": account.arn("sqs", name), "QueueName": name, "QueueUrl": url})


def queue_policy(account: Account, resource: Resource) -> Created:
    """Attach a policy to queues. moto stores and returns it, and never enforces it."""
    resource.account_for(("Queues", "PolicyDocument"))
    sqs = account.client("sqs")
    for url in resource.properties["Queues"]:
        policy = json.dumps(resource.properties["PolicyDocument"])
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return Created(account.name(resource.logical_id))


MAKERS: dict[str, Maker] = {"AWS::SQS::Queue": queue, "AWS::SQS::QueuePolicy": queue_policy}
