"""Dead-letter queues: looked at without taking anything away, and sent on their way again one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from dualtone.adapters.aws_errors import error_code, translated

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sqs import SQSClient

_HELD_S: Final = 60
_MOST: Final = 10
_LONG_POLL_S: Final = 1
"""Asks every server of the queue: a short poll may find nothing where something is."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A dead-letter queue.

    Attributes:
        name: What its messages are for, for example ``finalize``.
        url: Its URL.
        source_url: The queue that they came from; None for failed runs of a schedule.
    """

    name: str
    url: str
    source_url: str | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was given up.

    Attributes:
        queue: Where it lies.
        message_id: Its id there.
        body: What it says: opaque ids, or what an agent signed and sealed. Never shown.
        sent_at_ms: When it was first sent, Unix time.
        handle: By which it is deleted while it is held.
    """

    queue: Queue
    message_id: str
    body: str = field(repr=False)
    sent_at_ms: int
    handle: str = field(repr=False)


class DeadLetters:
    """Reads dead-letter queues, and sends their messages again."""

    def __init__(self, client: SQSClient) -> None:
        """Takes the client."""
        self._client = client

    @contextmanager
    def held(self, queue: Queue) -> Iterator[list[Letter]]:
        """Holds all messages of a queue for the length of a block: nobody else sends them again meanwhile.

        Raises:
            NotFound: If there is no such queue.
            PolicyViolation: If the queue refuses.
            Unavailable: If SQS does not answer.
        """
        letters: list[Letter] = []
        try:
            while found := self._receive(queue):
                letters += found
            yield letters
        finally:
            self._let_go(letters)

    def tries(self, queue: Queue) -> int | None:
        """How often a message is tried before it comes here; None for runs of a schedule."""
        if queue.source_url is None:
            return None
        with translated("asking a queue"):
            answer = self._client.get_queue_attributes(QueueUrl=queue.source_url, AttributeNames=["RedrivePolicy"])
        policy: dict[str, Any] = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
        return int(policy["maxReceiveCount"]) if "maxReceiveCount" in policy else None

    def redrive(self, letter: Letter) -> None:
        """Sends a held message to where it came from, and then removes it here: rather twice than never."""
        if letter.queue.source_url is not None:
            with translated("sending a message again"):
                self._client.send_message(QueueUrl=letter.queue.source_url, MessageBody=letter.body)
        with translated("removing a dead letter"):
            self._client.delete_message(QueueUrl=letter.queue.url, ReceiptHandle=letter.handle)

    def _receive(self, queue: Queue) -> list[Letter]:
        with translated("reading a dead-letter queue"):
            answer = self._client.receive_message(
                QueueUrl=queue.url,
                MaxNumberOfMessages=_MOST,
                VisibilityTimeout=_HELD_S,
                WaitTimeSeconds=_LONG_POLL_S,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
        return [
            Letter(
                queue,
                message["MessageId"],
                message["Body"],
                int(message["Attributes"]["SentTimestamp"]),
                message["ReceiptHandle"],
            )
            for message in answer.get("Messages", [])
        ]

    def _let_go(self, letters: Sequence[Letter]) -> None:
        """Makes what is left visible at once; what is gone is fine, and what fails is visible in a minute."""
        for letter in letters:
            try:
                self._client.change_message_visibility(
                    QueueUrl=letter.queue.url, ReceiptHandle=letter.handle, VisibilityTimeout=0
                )
            except ClientError:
                continue


class KeyStates:
    """The states of keys in KMS."""

    def __init__(self, client: KMSClient) -> None:
        """Takes the client."""
        self._client = client

    def state(self, key_arn: str) -> str:
        """The state of a key, or ``missing``; raises Unavailable or PolicyViolation if KMS does not say."""
        try:
            return str(self._client.describe_key(KeyId=key_arn)["KeyMetadata"].get("KeyState", "unknown"))
        except ClientError as error:
            if error_code(error) == "NotFoundException":
                return "missing"
            with translated("looking at a key"):
                raise
