"""The queue of calls of which a paused span may have been kept: `{"tenant", "call"}`, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualtone.adapters.aws_errors import translated
from dualtone.domain import canonical
from dualtone.domain.ids import CallId, TenantId

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class CutQueue:
    """Sends to what cuts."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        """Takes the client and the queue's URL."""
        self._client = client
        self._queue_url = queue_url

    def order(self, tenant: TenantId, call: CallId) -> None:
        """Has what is kept of a call made to agree with its ledger; asking twice does no harm.

        Raises:
            Unavailable: If SQS does not answer.
        """
        body = canonical.encode({"tenant": tenant, "call": call}).decode("ascii")
        with translated("ordering a cut"):
            self._client.send_message(QueueUrl=self._queue_url, MessageBody=body)
