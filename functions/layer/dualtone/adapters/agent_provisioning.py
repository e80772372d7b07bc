"""What AWS gives an agent: a command queue, and sessions that reach its prefix, that queue and the events queue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Final

from dualtone.adapters.aws_errors import translated
from dualtone.domain.ids import AgentId, TenantId
from dualtone.usecases.issue_agent_credentials import AgentCredentials

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sts import STSClient

SESSION_SECONDS: Final = 900
_QUEUE_ATTRIBUTES: Final[Mapping[QueueAttributeNameType, str]] = {
    # Receipts and commands wait for an agent that was switched off over a long holiday.
    "MessageRetentionPeriod": str(14 * 86_400),
    "ReceiveMessageWaitTimeSeconds": "20",
    "VisibilityTimeout": "60",
    "SqsManagedSseEnabled": "true",
}


class CommandQueues:
    """Makes agents' command queues."""

    def __init__(self, sqs: SQSClient, role_arn: str, region: str) -> None:
        """Takes the client, and the role whose account and the region in which the queues are."""
        self._sqs = sqs
        self._role_arn = role_arn
        self._region = region

    def create(self, tenant: TenantId, agent: AgentId) -> str:
        """Makes an agent's queue, which refuses whatever comes without TLS; returns its URL.

        One that an interrupted enrolment made is found: its attributes are the same.
        """
        policy = json.dumps(
            _only_over_tls(queue_arn(self._role_arn, self._region, queue_name(agent))), separators=(",", ":")
        )
        with translated("making a command queue"):
            answer = self._sqs.create_queue(
                QueueName=queue_name(agent),
                Attributes={**_QUEUE_ATTRIBUTES, "Policy": policy},
                tags={"tenant": tenant, "agent": agent},
            )
        return answer["QueueUrl"]


class AgentSessions:
    """Assumes the agents' role for one agent at a time.

    What a session may do is limited twice: by the role, through the session's tags, and by a session policy that spells
    the same out. A mistake in either leaves the other.
    """

    def __init__(self, sts: STSClient, role_arn: str, *, bucket: str, events_queue_url: str, region: str) -> None:
        """Takes the client, the agents' role, and where the ingest bucket and the queues are."""
        self._sts = sts
        self._role_arn = role_arn
        self._bucket = bucket
        self._events_queue = events_queue_url.rpartition("/")[2]
        self._region = region

    def open(self, tenant: TenantId, agent: AgentId) -> AgentCredentials:
        """Opens a session of fifteen minutes; raises PolicyViolation or Unavailable if STS does not."""
        with translated("opening an agent's session"):
            answer = self._sts.assume_role(
                RoleArn=self._role_arn,
                RoleSessionName=agent,
                DurationSeconds=SESSION_SECONDS,
                Tags=[{"Key": "tenant", "Value": tenant}, {"Key": "agent", "Value": agent}],
                Policy=json.dumps(self._policy(tenant, agent), separators=(",", ":")),
            )
        credentials = answer["Credentials"]
        return AgentCredentials(
            access_key_id=credentials["AccessKeyId"],
            secret_access_key=credentials["SecretAccessKey"],
            session_token=credentials["SessionToken"],
            expires_at=credentials["Expiration"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def _policy(self, tenant: TenantId, agent: AgentId) -> dict[str, object]:
        partition = self._role_arn.split(":")[1]
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": "s3:PutObject",
                    "Resource": f"arn:{partition}:s3:::{self._bucket}/{tenant}/{agent}/*",
                },
                {
                    "Effect": "Allow",
                    "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"],
                    "Resource": queue_arn(self._role_arn, self._region, queue_name(agent)),
                },
                {
                    "Effect": "Allow",
                    "Action": "sqs:SendMessage",
                    "Resource": queue_arn(self._role_arn, self._region, self._events_queue),
                },
            ],
        }


def queue_name(agent: AgentId) -> str:
    """The name of an agent's command queue."""
    return f"dualtone-commands-{agent}"


def queue_arn(role_arn: str, region: str, name: str) -> str:
    """The ARN of a queue in the account of a role."""
    # arn:<partition>:iam::<account>:role/<name>
    _arn, partition, _iam, _region, account, _role = role_arn.split(":", 5)
    return f"arn:{partition}:sqs:{region}:{account}:{name}"


def _only_over_tls(queue: str) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OnlyOverTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sqs:*",
                "Resource": queue,
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
