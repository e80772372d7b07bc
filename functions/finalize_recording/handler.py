"""Lambda: a manifest arrived in the ingest bucket (S3 event in an SQS message): finalise its call."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote_plus

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from dualtone.adapters import observability
from dualtone.adapters.finalizer import finalizer

# The queue's redrive policy and its alarm deal with failures: each is reported for its message, none for the batch.
_PROCESSOR: Final = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Takes a batch of SQS messages; answers which of them should come again."""
    return process_partial_response(event=event, record_handler=_message, processor=_PROCESSOR, context=context)


def _message(record: SQSRecord) -> None:
    """Finalises what one message names. S3's test message, sent when notifications are set up, names nothing."""
    for notice in record.json_body.get("Records", []):
        key = unquote_plus(notice["s3"]["object"]["key"])
        try:
            outcome = finalizer()(key)
        except Exception as error:
            observability.failed(observability.FINALIZE_FAILED, error, upload=key)
            raise
        observability.logger().info("finalized", extra={"upload": key, "outcome": outcome.value})
        observability.count(observability.RECORDING_FINALIZED)
