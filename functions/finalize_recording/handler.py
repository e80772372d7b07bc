"""Lambda: a manifest arrived (S3 event in an SQS message), a call went silent, or it is to be rendered anew."""

from __future__ import annotations

from typing import Any, Final

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from dualtone.adapters import finalize_queue, observability
from dualtone.adapters.finalizer import finalizer
from dualtone.usecases.finalize_recording import Finalized

# The queue's redrive policy and its alarm deal with failures: each is reported for its message, none for the batch.
_PROCESSOR: Final = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Takes a batch of SQS messages; answers which of them should come again."""
    return process_partial_response(event=event, record_handler=_message, processor=_PROCESSOR, context=context)


def _message(record: SQSRecord) -> None:
    """Does what one message asks."""
    for request in finalize_queue.requests(record.json_body):
        try:
            if request.after is not None:
                outcome = finalizer().again(request.key, request.after)
            elif request.lasted_until_ms is None:
                outcome = finalizer()(request.key)
            else:
                outcome = finalizer().interrupted(request.key, request.lasted_until_ms)
        except Exception as error:
            observability.failed(observability.FINALIZE_FAILED, error, upload=request.key)
            raise
        observability.logger().info("finalized", extra={"upload": request.key, "outcome": outcome.value})
        if outcome is Finalized.RECORDED:
            observability.count(observability.RECORDING_FINALIZED)
