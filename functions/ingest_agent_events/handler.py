"""Lambda: agents report (signed messages in an SQS queue): live calls, answers to commands, health."""

from __future__ import annotations

from typing import Any, Final

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from dualtone.adapters import clock, observability, wiring
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.usecases.take_agent_events import ReportRefused

_PROCESSOR: Final = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Takes a batch of SQS messages; answers which of them should come again."""
    return process_partial_response(event=event, record_handler=_message, processor=_PROCESSOR, context=context)


def _message(record: SQSRecord) -> None:
    """Takes one report. What is damaged or forged is said and dropped: it would be so again, and others wait."""
    try:
        taken = wiring.take_agent_events()(record.body, record.message_id, clock.now_ms())
    except (MalformedInput, IntegrityError, ReportRefused) as error:
        observability.failed(observability.AGENT_EVENT_REFUSED, error, message_id=record.message_id)
    except Exception as error:
        observability.failed(observability.AGENT_EVENTS_FAILED, error, message_id=record.message_id)
        raise
    else:
        observability.logger().debug("taken", extra={"message_id": record.message_id, "events": taken})
