"""The agent's events: signed, counted, kept over a kill and an outage, each taken out only when the queue has it."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import agent_events
from dualtone.domain.agent_events import (
    AckEvent,
    CallEvent,
    ClockOffset,
    CutEvent,
    DecisionEvent,
    Event,
    HealthEvent,
    LeaseEvent,
    Report,
    SpoolState,
)
from dualtone.domain.errors import PolicyViolation, Unavailable
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.clock_offset import Measurement, TrueTime
from sbc_agent.runtime.events import EventSender
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.ingest_bucket import sqs_client
from sbc_agent.runtime.outbox import Outbox
from tests.agent.runtime import aws, states
from tests.agent.runtime.controlled import START_US, Time
from tests.agent.runtime.spooled import AGENT, TENANT, Clock, Lines, call_id

KEY = AgentKey(AgentKey.generate().private_key, AGENT)
NEVER = threading.Event()  # not set: waiting on it yields the processor


def call_event(number: int = 1, revision: int = 1, state: Any = "live") -> CallEvent:
    return CallEvent(call_id(1, number), revision, state, 1, None if state == "live" else 2, ["a" * 32], "", [])


def ack(number: int = 1, outcome: Any = "acknowledged") -> AckEvent:
    call, command = call_id(1), call_id(2, number)
    return AckEvent(
        call, command, number, "lan", "pause", "payment", outcome, 1, 2, 2, [], ["payment"], "endpoint:pay_1", None
    )


def cut(number: int = 1) -> CutEvent:
    return CutEvent(call_id(1), call_id(2, number), 1, 2, ["part-00-000000.dtp"])


def health() -> HealthEvent:
    return HealthEvent([call_id(1)], SpoolState(1, 2, 3), {"uplink_refused": 1}, "1.0", 0)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws.moto_server() as url:
        yield url


@pytest.fixture
def queue(endpoint: str) -> Iterator[tuple[Any, str]]:
    client = aws.client("sqs", endpoint)
    url = client.create_queue(QueueName="events", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    yield client, url
    client.delete_queue(QueueUrl=url)
    client.close()


class Sender:
    """A sender over a state directory, and the time that it sees."""

    def __init__(self, directory: Path, endpoint: str, queue_url: str, *, most: int = 1_000) -> None:
        self.time, self.clock, self.lines = Time(), Clock(), Lines()
        self.queue_url = queue_url
        self.state = states.opened(directory)
        self.outbox = Outbox(self.state, self.lines.log, most=most)
        self.true_time = TrueTime(self.time)
        self.sender = EventSender(
            outbox=self.outbox,
            state=self.state,
            client=sqs_client(aws.session(), endpoint_url=endpoint),
            queue_url=lambda: self.queue_url,
            tenant=TENANT,
            agent=AGENT,
            signer=KEY,
            clock=self.time,
            true_time=self.true_time,
            health=health,
            log=self.lines.log,
            monotonic=self.clock,
            random=lambda: 0.0,
        )


def received(queue: tuple[Any, str]) -> list[Report]:
    """What lies in the queue, each report verified by the agent's key."""
    client, url = queue
    reports = []
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            envelope = Envelope.from_json(json.loads(message["Body"]))
            reports.append(agent_events.verified(envelope, KEY.public_der()))
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(reports, key=lambda report: report.sequence)


def told(reports: list[Report]) -> list[AckEvent | CallEvent | CutEvent | DecisionEvent | LeaseEvent]:
    """All events but health."""
    return [event for report in reports for event in report.events if not isinstance(event, HealthEvent)]


def test_a_report_is_signed_counted_and_says_how_far_the_clock_is_off(
    tmp_path: Path, endpoint: str, queue: tuple[Any, str]
) -> None:
    """The cloud's own reader takes it; events come in the order in which they happened."""
    made = Sender(tmp_path, endpoint, queue[1])
    made.true_time.learn(Measurement(-5_000, 1_000, START_US))
    events: list[Event] = [call_event(), ack(), cut(), LeaseEvent(call_id(1), "payment", "silent", 3)]
    for event in events:
        made.sender.put(event)
    assert made.sender.send() == 5
    (report,) = received(queue)
    assert report.events == [*events, health()]
    assert (report.tenant, report.agent, report.sent_at_us) == (TENANT, AGENT, START_US)
    assert report.clock == ClockOffset(-5_000, 1_000)
    assert made.sender.send() == 0, "nothing waits, health is not due"


def test_health_comes_every_thirty_seconds(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """At the start, and from then on."""
    made = Sender(tmp_path, endpoint, queue[1])
    sent = []
    for seconds in (0, 1, 29, 30, 31, 61):
        made.clock.now = 1_000 + seconds
        sent.append(made.sender.send())
    assert sent == [1, 0, 0, 1, 0, 1]
    assert all(report.clock is None for report in received(queue)), "the clock was never measured"


def test_the_ids_of_thousands_of_calls_fit_a_message(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """They go in a report of their own; the events follow."""
    made = Sender(tmp_path, endpoint, queue[1])
    live = [str(call_id(1, number)) for number in range(6_000)]
    made.sender._health = lambda: dataclasses.replace(health(), live=live)
    made.sender.put(ack())
    assert [made.sender.send(), made.sender.send()] == [1, 1]
    first, second = received(queue)
    assert [event.live for event in first.events if isinstance(event, HealthEvent)] == [live]
    assert second.events == [ack()]


def test_what_was_not_sent_outlives_a_kill(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """The run after sends it, once, under a higher number."""
    first = Sender(tmp_path, endpoint, queue[1])
    first.sender.put(call_event())
    first.sender.send()
    first.sender.put(ack())
    second = Sender(tmp_path, endpoint, queue[1])
    second.time.at_us -= 3_600_000_000  # and its clock went back by an hour
    second.sender.send()
    reports = received(queue)
    assert told(reports) == [call_event(), ack()]
    assert len({report.sequence for report in reports}) == 2


def test_an_outage_loses_nothing_and_coalesces_states(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """Every acknowledgement and cut is kept; of a call only the newest state."""
    made = Sender(tmp_path, "http://127.0.0.1:1", queue[1])
    for number in range(1, 4):
        made.sender.put(call_event(1, number))
        made.sender.put(ack(number))
        with pytest.raises(Unavailable):
            made.sender.send()
    made.sender.put(cut())
    made.sender.put(call_event(1, 4, "ended"))
    later = Sender(tmp_path, endpoint, queue[1])
    later.sender.send()
    assert told(received(queue)) == [ack(1), ack(2), ack(3), cut(), call_event(1, 4, "ended")]


def test_a_repeated_answer_does_not_hide_the_first(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """A command that came again was superseded: what it did before is told as well."""
    made = Sender(tmp_path, endpoint, queue[1])
    made.sender.put(ack(1, "too_late"))
    made.sender.put(ack(1, "superseded"))
    made.sender.put(ack(1, "superseded"))
    made.sender.send()
    assert [event.outcome for event in told(received(queue)) if isinstance(event, AckEvent)] == [
        "too_late",
        "superseded",
    ]


def test_more_than_a_report_holds_goes_in_several(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """Each within what a queue takes, all of them, in order."""
    made = Sender(tmp_path, endpoint, queue[1])
    for number in range(700):
        made.sender.put(call_event(number))
    while made.sender.send():
        pass
    reports = received(queue)
    assert len(reports) >= 3
    assert [event.call for event in told(reports)] == [call_id(1, number) for number in range(700)]


def test_a_box_that_days_have_filled_drops_states_of_ended_calls_alone(tmp_path: Path) -> None:
    """Acknowledgements and live calls stay."""
    made = Sender(tmp_path, "http://127.0.0.1:1", "", most=1_500)
    made.sender.put(ack())
    made.sender.put(call_event(0))
    for number in range(1, 2_500):
        made.sender.put(call_event(number, 2, "ended"))
    waiting = [entry.event for entry in made.outbox.peek(10_000, 1 << 30)]
    assert len(waiting) < 2_500
    assert waiting[:2] == [ack(), call_event(0)]
    assert waiting[-1] == call_event(2_499, 2, "ended")


def test_a_full_disk_keeps_no_event_from_the_cloud(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """What cannot be written is kept in memory, sent, and alarmed."""
    made = Sender(tmp_path, endpoint, queue[1])
    made.state.close()
    made.sender.put(call_event(1, 1))
    made.sender.put(call_event(1, 2))
    made.sender.put(ack())
    assert made.sender.send() == 3
    assert made.outbox.peek(10, 10_000) == []
    assert told(received(queue)) == [call_event(1, 2), ack()]
    assert made.lines.named("event_not_kept")[0]["level"] == "error"


def test_an_event_of_another_version_is_dropped_with_an_alarm(tmp_path: Path) -> None:
    """It must not stand before all others for ever."""
    made = Sender(tmp_path, "http://127.0.0.1:1", "")
    made.state.run("INSERT INTO event (key, droppable, body) VALUES ('x', 0, ?)", (b'{"type":"hologram"}',))
    made.sender.put(ack())
    assert [entry.event for entry in made.outbox.peek(10, 10_000)] == [ack()]
    assert len(made.outbox.peek(10, 10_000)) == 1
    assert len(made.lines.named("event_unreadable")) == 1


def test_no_queue_and_a_refusal_are_told_apart(tmp_path: Path, endpoint: str) -> None:
    """Nothing is lost in either."""
    made = Sender(tmp_path, endpoint, "")
    made.sender.put(ack())
    with pytest.raises(Unavailable, match="no events queue"):
        made.sender.send()
    made.queue_url = f"{endpoint}/123456789012/nowhere"
    with pytest.raises(PolicyViolation):
        made.sender.send()
    assert len(made.outbox.peek(10, 10_000)) == 1


def test_the_thread_sends_a_moment_later_and_what_is_left_at_the_end(
    tmp_path: Path, endpoint: str, queue: tuple[Any, str]
) -> None:
    """Nobody asks it to."""
    made = Sender(tmp_path, endpoint, queue[1])
    made.sender.start()
    made.sender.put(call_event(1))
    while made.outbox.peek(1, 1):
        NEVER.wait(0.01)
    made.sender.put(ack())
    made.sender.close()
    assert told(received(queue)) == [call_event(1), ack()]


def test_a_state_file_that_the_disk_refuses_is_left_as_it_is(tmp_path: Path) -> None:
    """On a full disk, for example: this run remembers in memory, and the next finds what there was."""
    before = states.opened(tmp_path)
    assert before.next_number("lan", 5) == 5
    before.close()
    path = tmp_path / "control.db"
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    state = states.opened(tmp_path)
    assert (state.in_memory, state.was_damaged) == (True, False)
    assert state.next_number("lan", 7) == 7
    state.close()
    path.rmdir()
    (tmp_path / "elsewhere").rename(path)
    after = states.opened(tmp_path)
    assert (after.in_memory, after.was_damaged) == (False, False)
    assert after.next_number("lan", 5) == 6


def test_a_damaged_state_file_is_put_aside(tmp_path: Path) -> None:
    """The agent starts with an empty one, and says so."""
    path = tmp_path / "control.db"
    path.write_bytes(b"not a database, by any means" * 100)
    state = states.opened(tmp_path)
    assert state.was_damaged
    assert state.next_number("lan", 5) == 5
    assert state.next_number("lan", 5) == 6
    assert state.next_number("lan", 90) == 90
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("control.db.damaged").exists()
