"""The event source mapping between an SQS queue and a function: batches, visibility, partial failures, dead letters.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html. What a function fails on stays invisible
for the queue's visibility timeout and then comes again; the queue's redrive policy moves it away in the end.
"""

import logging
import threading
from typing import Any

from infra.local.functions import Function, FunctionError
from infra.local.moto_fixes.sqs import wait_for_visible, wake
from infra.local.resources.compute import EventSource

DEFAULT_WORKERS = 4
_LONGEST_NAP_S = 1.0  # after which a visibility timeout that has ended is noticed

_log = logging.getLogger(__name__)


class Pump:
    """Feeds one queue to one function.

    Args:
        source: the mapping as the template describes it.
        function: what is called.
        sqs: boto3 SQS client that reaches moto in-process.
        workers: most invocations at a time; the mapping's MaximumConcurrency lowers it.
    """

    def __init__(self, source: EventSource, function: Function, sqs: Any, workers: int = DEFAULT_WORKERS) -> None:
        self._source = source
        self._function = function
        self._sqs = sqs
        _, _, _, self._region, self._account, self._name = source.queue_arn.split(":")
        self._url = sqs.get_queue_url(QueueName=self._name)["QueueUrl"]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"pump-{self._name}-{number}", daemon=True)
            for number in range(min(workers, source.concurrency or workers))
        ]

    def start(self) -> None:
        """Begin to poll."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Take no further batch, and wait for those being handled."""
        self._stopping.set()
        wake(self._account, self._region, self._name)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout_s)

    def pump_once(self) -> int:
        """Receive one batch if there is one, call the function, delete what it handled.

        Returns:
            How many messages were received.
        """
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=min(self._source.batch_size, 10),
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if messages:
            failed = self._failed(messages)
            handled = [message for message in messages if message["MessageId"] not in failed]
            for message in handled:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.pump_once() == 0:
                    wait_for_visible(self._account, self._region, self._name, _LONGEST_NAP_S, self._stopping.is_set)
            except Exception:  # noqa: BLE001 - the poller outlives whatever happens to one batch, as Lambda's does
                _log.exception("polling %s failed", self._name)
                self._stopping.wait(_LONGEST_NAP_S)

    def _failed(self, messages: list[dict[str, Any]]) -> set[str]:
        """Return the ids of the messages that stay in the queue."""
        everything = {message["MessageId"] for message in messages}
        try:
            answer = self._function.invoke({"Records": [self._record(message) for message in messages]})
        except FunctionError as error:
            _log.warning("%s: batch of %d failed: %s", self._name, len(messages), error.kind)
            return everything
        failed = _failures(answer, everything) if self._source.partial_failures else set()
        if failed:
            _log.warning("%s: %d of %d messages failed", self._name, len(failed), len(messages))
        return failed

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        attributes = {
            name: {
                "stringValue": value.get("StringValue"),
                "dataType": value["DataType"],
                "stringListValues": [],
                "binaryListValues": [],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        }
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": attributes,
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._source.queue_arn,
            "awsRegion": self._region,
        }


def _failures(answer: Any, everything: set[str]) -> set[str]:
    """Read batchItemFailures as Lambda does: nothing or an empty list is success, anything malformed fails all."""
    if answer is None or answer == {}:
        return set()
    if not isinstance(answer, dict):
        return everything
    failures = answer.get("batchItemFailures", None if answer else [])
    if failures is None and "batchItemFailures" in answer:
        return set()
    if not isinstance(failures, list):
        return everything
    failed = {str(failure.get("itemIdentifier")) if isinstance(failure, dict) else "" for failure in failures}
    return failed if failed <= everything else everything  # noqa: FURB136 - these are sets: <= is inclusion
