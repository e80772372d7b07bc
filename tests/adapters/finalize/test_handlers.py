"""The Lambdas: S3 events inside SQS messages in, partial failures out."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import quote

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from functions.finalize_recording.handler import handler as finalize
from functions.reconcile_recordings.handler import handler as reconcile
from tests.adapters.finalize.cloud import INDEX, Cloud
from tests.call_samples import CALLER, blocks, packets, speech

ALICE = speech("alice")[:16_000]
NO_CONTEXT = cast("LambdaContext", None)


def message(message_id: str, body: object) -> dict[str, Any]:
    """An SQS record as Lambda's event source mapping passes it."""
    return {
        "messageId": message_id,
        "receiptHandle": "handle",
        "body": json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:finalize",
        "awsRegion": "eu-west-1",
    }


def arrived(key: str) -> dict[str, Any]:
    """S3's notice that an object was created; keys are URL-encoded in it."""
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "ingest"}, "object": {"key": quote(key, "")}}}
    return {"Records": [record]}


def test_a_manifest_becomes_a_recording(cloud: Cloud) -> None:
    """The key is taken from the event, decoded."""
    key = cloud.receive(cloud.seal(blocks(packets(ALICE))))
    assert finalize({"Records": [message("1", arrived(key))]}, NO_CONTEXT) == {"batchItemFailures": []}
    assert len(cloud.recordings()) == 1


def test_s3_test_messages_are_no_calls(cloud: Cloud) -> None:
    """S3 sends one when notifications are set up."""
    told = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "ingest"}
    assert finalize({"Records": [message("1", told)]}, NO_CONTEXT) == {"batchItemFailures": []}


def test_what_fails_comes_again_alone(
    cloud: Cloud, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bad message does not take the good one back into the queue; the log says why without saying who."""
    good = cloud.receive(cloud.seal(blocks(packets(ALICE))))
    bad = "acme/manifest.json"
    answer = finalize({"Records": [message("bad", arrived(bad)), message("good", arrived(good))]}, NO_CONTEXT)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "bad"}]}
    assert len(cloud.recordings()) == 1
    assert '"FinalizeFailed":[1.0]' in capsys.readouterr().out
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.__dict__["error"], record.__dict__["upload"]) == ("MalformedInput", bad)
    assert CALLER not in str([record.__dict__ for record in caplog.records])


def test_a_batch_that_fails_as_a_whole_is_answered_too(cloud: Cloud) -> None:
    """The answer names the message; an exception would say less."""
    answer = finalize({"Records": [message("bad", arrived("acme/manifest.json"))]}, NO_CONTEXT)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "bad"}]}
    assert cloud.recordings() == []


def test_the_reconciler_runs_on_its_schedule(cloud: Cloud) -> None:
    """With nothing to do it does nothing and says so."""
    assert reconcile({"source": "aws.events"}, NO_CONTEXT) == dict.fromkeys(
        ("completed", "abandoned", "forgotten", "failed"), 0
    )
    assert cloud.items(INDEX) == []
