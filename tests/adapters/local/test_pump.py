"""Queues, events and schedules drive the handlers that the template names, as Lambda would."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from infra.local.cloud import LocalCloud
from infra.local.functions import FunctionError, FunctionTimeout
from infra.local.intrinsics import TemplateError
from infra.local.pump import Pump
from infra.local.schedules import Schedules, period_s


def send(cloud: LocalCloud, *wishes: str) -> None:
    """Puts messages into the work queue."""
    for wish in wishes:
        cloud.client("sqs").send_message(QueueUrl=cloud.stack.ref("Work"), MessageBody=json.dumps({"wish": wish}))


def depth(cloud: LocalCloud, queue: str) -> int:
    """How many messages a queue holds."""
    attributes = cloud.client("sqs").get_queue_attributes(
        QueueUrl=cloud.stack.ref(queue), AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(attributes["Attributes"]["ApproximateNumberOfMessages"])


def drain(cloud: LocalCloud) -> list[int]:
    """Pumps until the queue is empty; returns the sizes of the batches."""
    sizes = []
    while size := cloud.pumps[0].pump_once():
        sizes.append(size)
        assert len(sizes) < 50
    return sizes


@pytest.fixture(autouse=True)
def fresh(mini: LocalCloud) -> None:
    """Empty queues and no loaded environment before each test."""
    for url in (mini.stack.ref("Work"), mini.stack.ref("Dead")):
        while messages := mini.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                mini.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    mini.functions.close()


def test_batches_are_as_large_as_the_mapping_says(mini: LocalCloud) -> None:
    """BatchSize bounds a batch; what was handled is gone."""
    send(mini, *["ok"] * 7)
    assert drain(mini) == [5, 2]
    assert (depth(mini, "Work"), depth(mini, "Dead")) == (0, 0)


def test_only_reported_messages_come_again_and_end_among_the_dead_letters(mini: LocalCloud) -> None:
    """ReportBatchItemFailures: the others are deleted; after maxReceiveCount receives a message is moved."""
    send(mini, "ok", "fail", "ok")
    assert drain(mini) == [3, 1, 1]
    assert (depth(mini, "Work"), depth(mini, "Dead")) == (0, 1)


@pytest.mark.parametrize("wish", ["raise", "nonsense"])
def test_a_batch_that_fails_as_a_whole_comes_again_as_a_whole(mini: LocalCloud, wish: str) -> None:
    """An exception, or a report that names nobody in the batch, fails every message of it."""
    send(mini, "ok", wish)
    assert drain(mini) == [2, 2, 2]
    assert depth(mini, "Dead") == 2


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (None, 0),
        ({}, 0),
        ({"batchItemFailures": []}, 0),
        ({"batchItemFailures": None}, 0),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, 2),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, 2),
        ({"batchItemFailures": [{"id": "m"}]}, 2),
        ({"somethingElse": []}, 2),
        ("text", 2),
    ],
)
def test_reports_are_read_as_lambda_reads_them(mini: LocalCloud, answer: Any, failed: int) -> None:
    """'Reporting batch item failures': which answers are success and which fail everything."""

    class Answering:
        spec = mini.functions.by_arn(mini.stack.arn("WorkerFunction")).spec

        def invoke(self, event: Any) -> Any:
            assert [record["eventSource"] for record in event["Records"]] == ["aws:sqs"] * 2
            return answer

    source = mini.stack.compute.event_sources[0]
    send(mini, "ok", "ok")
    pump = Pump(source, Answering(), mini.client("sqs"))  # type: ignore[arg-type]
    assert pump.pump_once() == 2
    assert depth(mini, "Work") == failed


def test_an_upload_reaches_the_queue_if_its_name_fits(mini: LocalCloud) -> None:
    """S3 ObjectCreated -> SQS by the template's suffix filter."""
    for key in ("a/b.go", "a/b.stop"):
        mini.client("s3").put_object(Bucket=mini.stack.ref("Uploads"), Key=key, Body=b"x")
    assert drain(mini) == [1]


def test_a_new_message_is_handled_at_once(mini: LocalCloud) -> None:
    """A running pump is woken by a message, and stops when it is told to."""
    handled = threading.Event()

    class Noticing:
        spec = mini.functions.by_arn(mini.stack.arn("WorkerFunction")).spec

        def invoke(self, _event: Any) -> Any:
            handled.set()

    pump = Pump(mini.stack.compute.event_sources[0], Noticing(), mini.client("sqs"), workers=2)  # type: ignore[arg-type]
    pump.start()
    began = time.monotonic()
    send(mini, "ok")
    assert handled.wait(5)
    noticed_s = time.monotonic() - began
    pump.stop()
    assert noticed_s < 0.5  # some 10 ms on an idle machine; a poll that slept would take a second
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pump-")]


def test_a_rate_is_kept_by_the_clock_that_is_given(mini: LocalCloud) -> None:
    """Due after its period; a time that was slept through runs once; two retries, then the dead letters."""
    rules, sqs = mini.stack.compute.rules, mini.client("sqs")
    schedules = Schedules(rules, mini.functions, sqs, started_s=1000.0)
    assert schedules.next_due() == 1300.0
    assert schedules.run_due(1299.0) == 0
    assert schedules.run_due(1300.0) == 1  # the worker fails scheduled events
    assert schedules.next_due() == 1360.0
    assert schedules.run_due(1360.0) == 1
    assert depth(mini, "Dead") == 0
    assert schedules.run_due(1480.0) == 1
    assert schedules.next_due() == 1600.0
    letter = sqs.receive_message(QueueUrl=mini.stack.ref("Dead"), MessageAttributeNames=["All"])["Messages"][0]
    assert json.loads(letter["Body"])["detail-type"] == "Scheduled Event"
    assert letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == "RuntimeError"
    assert schedules.run_due(9999.0) == 1


@pytest.mark.parametrize("expression", ["cron(0 12 * * ? *)", "rate(0 minutes)", "rate(5 weeks)", "5 minutes"])
def test_other_schedules_are_an_error(expression: str) -> None:
    """What is not driven is not passed over in silence."""
    with pytest.raises(TemplateError, match="rate"):
        period_s(expression)


def test_a_function_is_told_about_its_invocation(mini: LocalCloud) -> None:
    """The context has the function's name and the time that is left."""
    name, left_ms = mini.invoke("WorkerFunction", {"detail-type": "hello"})["context"]
    assert name == mini.stack.ref("WorkerFunction")
    assert 4000 < left_ms <= 5000


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("raise", "ValueError"),
        ("huge", "Function.ResponseSizeTooLarge"),
        ("object", "Runtime.MarshalError"),
    ],
)
def test_what_lambda_would_not_pass_on_is_an_error(mini: LocalCloud, wish: str, kind: str) -> None:
    """Exceptions, answers over 6 MB and answers that are no JSON; the error does not repeat what the handler said."""
    with pytest.raises(FunctionError) as caught:
        mini.invoke("EchoFunction", {"queryStringParameters": {"wish": wish}})
    assert caught.value.kind == kind
    assert "as it was told" not in str(caught.value)


def test_an_event_over_six_megabytes_is_refused(mini: LocalCloud) -> None:
    """The limit holds on the way in too."""
    with pytest.raises(FunctionError) as caught:
        mini.invoke("EchoFunction", {"x": "x" * (6 * 1024 * 1024)})
    assert caught.value.kind == "RequestEntityTooLargeException"


def test_who_waits_too_short_is_told_so_and_the_environment_is_not_used_again(mini: LocalCloud) -> None:
    """A hanging invocation times out; the next one has an environment of its own, loaded afresh."""
    function = mini.functions.by_arn(mini.stack.arn("EchoFunction"))
    first = json.loads(function.invoke({})["body"])["count"]
    second = json.loads(function.invoke({})["body"])["count"]
    with pytest.raises(FunctionTimeout):
        function.invoke({"queryStringParameters": {"wish": "hang"}}, wait_s=0.01)
    third = json.loads(function.invoke({})["body"])["count"]
    assert (first, second, third) == (1, 2, 1)


def test_concurrent_invocations_share_no_modules(mini: LocalCloud) -> None:
    """Each environment counts its own invocations, as separate sandboxes would."""
    function = mini.functions.by_arn(mini.stack.arn("EchoFunction"))
    counts: list[int] = []
    barrier = threading.Barrier(2)

    def call() -> None:
        environment = function._take(time.monotonic() + 5)
        barrier.wait(5)
        counts.append(json.loads(environment.submit({}, function._context(0)).result(5)["body"])["count"])
        function._give_back(environment)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1, 1]
