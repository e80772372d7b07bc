"""The agents' command queues: signed messages, one a body, which only the named agent may read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualtone.adapters.aws_errors import translated
from dualtone.domain import canonical
from dualtone.domain.errors import NotFound
from dualtone.domain.signing import Envelope

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class CommandQueue:
    """Sends to agents."""

    def __init__(self, client: SQSClient) -> None:
        """Takes the client."""
        self._client = client

    def send(self, queue_url: str, envelope: Envelope) -> None:
        """Sends a signed message; one to a queue that is gone is dropped, since its agent was taken out of service.

        Args:
            queue_url: The agent's queue, from the directory.
            envelope: The message. Its size is that of a receipt: 70 bytes a minute of the call.

        Raises:
            PolicyViolation: If the queue refuses.
            Unavailable: If SQS does not answer.
        """
        body = canonical.encode(envelope.to_json()).decode("ascii")
        try:
            with translated("sending to an agent"):
                self._client.send_message(QueueUrl=queue_url, MessageBody=body)
        except NotFound:
            return
