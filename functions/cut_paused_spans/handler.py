"""Lambda: a call of which a paused span was kept somewhere (SQS): cut it out of everything that is stored."""

from __future__ import annotations

from typing import Any, Final

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from dualtone.adapters import observability
from dualtone.adapters.cutter import cutter
from dualtone.domain.ids import parse_call_id, parse_tenant_id

# The queue's redrive policy and its alarm deal with failures: each is reported for its message, none for the batch.
_PROCESSOR: Final = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Takes a batch of SQS messages; answers which of them should come again."""
    return process_partial_response(event=event, record_handler=_message, processor=_PROCESSOR, context=context)


def _message(record: SQSRecord) -> None:
    """Cuts the call that one message names."""
    body = record.json_body
    tenant, call = parse_tenant_id(body["tenant"]), parse_call_id(body["call"])
    try:
        cutter()(tenant, call)
    except Exception as error:
        observability.failed(observability.CUT_FAILED, error, tenant=tenant, call=call)
        raise
    observability.logger().info("cut", extra={"tenant": tenant, "call": call})
