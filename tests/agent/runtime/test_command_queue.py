"""Receipts and commands from a foreign SQS: only the cloud's signed word frees the spool, or moves a call."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import canonical
from dualtone.domain.call_command import Command
from dualtone.domain.call_decision import Decision, Refresh
from dualtone.domain.errors import PolicyViolation, Unavailable
from dualtone.domain.ids import AgentId, CallId
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.command_queue import CommandQueue
from sbc_agent.runtime.ingest_bucket import sqs_client
from sbc_agent.runtime.receipts import Receipts
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.uplink import Uplink
from tests.agent.runtime import aws
from tests.agent.runtime.spooled import AGENT, TENANT, CloudKey, Lines, call_id, receipt, write_call

CLOUD = CloudKey()
CALL = call_id(1)
PATIENCE_S = 20
NEVER = threading.Event()  # not set: waiting on it yields the processor


class HeldStore:
    """A store that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.held, self.go = threading.Event(), threading.Event()

    def put(self, _key: str, _body: bytes, _sha256: bytes) -> str:
        self.held.set()
        self.go.wait(PATIENCE_S)
        return "stored"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws.moto_server() as url:
        yield url


@pytest.fixture
def queue(endpoint: str) -> Iterator[tuple[Any, str]]:
    client = aws.client("sqs", endpoint)
    url = client.create_queue(QueueName="commands", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    yield client, url
    client.delete_queue(QueueUrl=url)
    client.close()


class Agent:
    """The part of an agent that reads commands, over a spool with one finished call."""

    def __init__(self, spool_dir: Path, endpoint: str = "http://127.0.0.1:1", queue_url: str = "http://x/q") -> None:
        self.parts = write_call(spool_dir, CALL)
        self.lines = Lines()
        self.directory = spool_dir / CALL
        self.freed: list[CallId] = []
        self.obeyed: list[Command] = []
        self.decided: list[Decision] = []
        self.refreshed: list[Refresh] = []
        self.revoked: list[AgentId] = []
        self.unreachable = False
        self.asked_elsewhere = threading.Semaphore(0)
        self.now_s = 0.0
        self.answers: list[BaseException | str] = []
        identity = dataclasses.replace(CLOUD.identity(), command_queue_url=queue_url)
        self.spooled_then: list[bool] = []  # whether the call was in the spool when a command came
        self.store = HeldStore()
        self._uplink = Uplink(spool=Spool(spool_dir), store=self.store, log=self.lines.log, threads=1)
        self.commands = CommandQueue(
            client=sqs_client(aws.session(), endpoint_url=endpoint),
            identity=identity,
            receipts=Receipts(identity=identity, uplink=self._uplink, freed=self.freed.append, log=self.lines.log),
            obey=self.obey,
            decide=self.decide,
            refresh=self.refresh,
            revoked=lambda: self.revoked.append(AGENT),
            unheard=self.unheard,
            log=self.lines.log,
            clock=lambda: self.now_s,
            random=lambda: 0.0,
        )

    def unheard(self) -> None:
        """What asks the token endpoint."""
        self.asked_elsewhere.release()

    def send(self) -> None:
        """What a thread of the uplink does."""
        self._uplink.scan()
        while self._uplink.send_next():
            pass

    def obey(self, command: Command) -> Future[str]:
        """What the event loop would do: here the test's next answer, or none yet."""
        self.obeyed.append(command)
        self.spooled_then.append(self.directory.exists())
        future: Future[str] = Future()
        match self.answers.pop(0) if self.answers else "applied":
            case str(answer):
                future.set_result(answer)
            case error:
                future.set_exception(error)
        return future

    def decide(self, decision: Decision) -> Future[str]:
        """What the event loop would do with a decision."""
        self.decided.append(decision)
        future: Future[str] = Future()
        future.set_result("kept")
        return future

    def refresh(self, refresh: Refresh) -> None:
        """What fetches credentials."""
        if self.unreachable:
            raise Unavailable("no uplink")
        self.refreshed.append(refresh)


def decision(key: CloudKey = CLOUD, **changes: Any) -> str:
    """A decision as it lies in the queue."""
    facts: dict[str, Any] = {
        "id": CALL,
        "tenant": TENANT,
        "agent": AGENT,
        "issued_at_ms": 1,
        "expires_at_ms": 2,
        "call": CALL,
        "match": None,
        "decision": "keep",
        "cause": "on_demand",
        "how": "api",
        "by": "person:b0b",
    }
    return json.dumps(Decision(**facts | changes).sealed_by(key).to_json())


def command(key: CloudKey = CLOUD, **changes: Any) -> str:
    """A pause as it lies in the queue."""
    facts: dict[str, Any] = {
        "id": CALL,
        "tenant": TENANT,
        "agent": AGENT,
        "issued_at_ms": 1,
        "expires_at_ms": 2,
        "action": "pause",
        "call": CALL,
        "match": None,
        "number": 1,
        "cause": "payment",
        "effective_at_ms": None,
        "until_ms": None,
        "lease_s": 900,
        "on_expiry": "silent",
        "by": "endpoint:pay_1",
    }
    return json.dumps(Command(**facts | changes).sealed_by(key).to_json())


def left(client: Any, url: str) -> int:
    return len(client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []))


def test_a_receipt_frees_the_call_and_goes(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """The directory is gone, then the message."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    client.send_message(QueueUrl=url, MessageBody=json.dumps(receipt(CLOUD, CALL, agent.parts)))
    assert agent.commands.poll(1) == 1
    assert not agent.directory.exists()
    assert left(client, url) == 0
    assert agent.lines.named("receipt")[0]["result"] == "freed"
    assert agent.freed == [CALL]


def test_a_crash_before_the_message_is_deleted_repeats_harmlessly(
    tmp_path: Path, endpoint: str, queue: tuple[Any, str]
) -> None:
    """The same receipt twice: the second finds nothing to free and goes as well."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    body = json.dumps(receipt(CLOUD, CALL, agent.parts))
    assert agent.commands.act(body) == "freed"
    client.send_message(QueueUrl=url, MessageBody=body)
    assert agent.commands.poll(1) == 1
    assert left(client, url) == 0
    assert not [line for line in agent.lines.events() if line["level"] == "error"]


def test_commands_are_acted_upon_before_receipts(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """A pause does not wait while the parts of a long call are compared with its receipt."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    client.send_message(QueueUrl=url, MessageBody=json.dumps(receipt(CLOUD, CALL, agent.parts)))
    client.send_message(QueueUrl=url, MessageBody="noise")
    client.send_message(QueueUrl=url, MessageBody=command())
    while agent.commands.poll(0):
        pass
    assert agent.spooled_then == [True]
    assert not agent.directory.exists()


def test_a_receipt_of_a_call_that_is_being_sent_comes_again(
    tmp_path: Path, endpoint: str, queue: tuple[Any, str]
) -> None:
    """Nobody waits out an upload that hangs: the message stays, and is acted upon when the call is let go."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    client.send_message(QueueUrl=url, MessageBody=json.dumps(receipt(CLOUD, CALL, agent.parts)))
    sending = threading.Thread(target=agent.send)
    sending.start()
    assert agent.store.held.wait(PATIENCE_S)
    assert agent.commands.poll(1) == 1
    assert agent.directory.exists()
    assert not [line for line in agent.lines.events() if line["level"] == "error"]
    agent.store.go.set()
    sending.join()
    assert agent.commands.poll(1) == 1
    assert not agent.directory.exists()
    assert left(client, url) == 0


def test_an_empty_queue_is_no_event(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """Nothing came; nothing happens."""
    agent = Agent(tmp_path, endpoint, queue[1])
    assert agent.commands.poll(0) == 0


def _forged(parts: list[str]) -> str:
    return json.dumps(receipt(CloudKey(), CALL, parts))


def _unsigned(parts: list[str]) -> str:
    return json.dumps(receipt(CLOUD, CALL, parts) | {"signature": ""})


def _swapped(parts: list[str]) -> str:
    """A right signature over another payload."""
    return json.dumps(receipt(CLOUD, CALL, parts) | {"payload": receipt(CLOUD, CALL, [])["payload"]})


def _other_kind(parts: list[str]) -> str:
    """The payload of a receipt, signed by the cloud as something else."""
    payload = Envelope.from_json(receipt(CLOUD, CALL, parts)).payload
    return json.dumps(Envelope.sealed_by(CLOUD, "manifest", payload).to_json() | {"kind": "receipt"})


def _unknown_command(_: list[str]) -> str:
    return json.dumps(Envelope.sealed_by(CLOUD, "pause", canonical.encode({"call": CALL})).to_json())


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (_forged, "command_rejected"),
        (_unsigned, "command_rejected"),
        (_swapped, "command_rejected"),
        (_other_kind, "command_rejected"),
        (_unknown_command, "command_rejected"),
        (lambda parts: json.dumps(receipt(CLOUD, CALL, parts, tenant="globex")), "command_rejected"),
        (lambda parts: json.dumps(receipt(CLOUD, CALL, parts, agent="agt_" + "0" * 26)), "command_rejected"),
        (lambda parts: json.dumps(receipt(CLOUD, CALL, parts[:1])), "receipt_rejected"),
        (lambda parts: json.dumps(receipt(CLOUD, CALL, [*parts, "0" * 64])), "receipt_rejected"),
        (lambda _: "not json", "command_rejected"),
        (lambda _: "[]", "command_rejected"),
        (lambda _: "\ud800", "command_rejected"),
        (lambda _: json.dumps(Envelope.sealed_by(CLOUD, "receipt", b"{}").to_json()), "command_rejected"),
        (lambda _: command(CloudKey()), "command_rejected"),
        (lambda _: command(tenant="globex"), "command_rejected"),
        (lambda _: command(agent="agt_" + "0" * 26), "command_rejected"),
        (lambda _: json.dumps(Envelope.sealed_by(CLOUD, "command", b"{}").to_json()), "command_rejected"),
    ],
)
def test_anything_else_frees_nothing_and_is_alarmed(tmp_path: Path, body: Any, event: str) -> None:
    """Forged, altered, misdirected, misshapen, or over other parts: the spool stays, an alarm is logged."""
    agent = Agent(tmp_path)
    assert agent.commands.act(body(agent.parts)) == "rejected"
    assert len(list(agent.directory.iterdir())) == 4
    assert (agent.freed, agent.obeyed) == ([], [])
    assert agent.lines.named(event)[0]["level"] == "error"


def test_a_rejected_message_does_not_come_back(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """It was acted upon: it is alarmed once, not for ever."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    client.send_message(QueueUrl=url, MessageBody="noise")
    client.send_message(QueueUrl=url, MessageBody=json.dumps(receipt(CLOUD, CALL, agent.parts)))
    while agent.commands.poll(0):
        pass
    assert left(client, url) == 0
    assert not agent.directory.exists()


def test_no_queue_is_unavailable_or_refused(tmp_path: Path, endpoint: str) -> None:
    """An outage and a refusal are told apart; the spool waits in both."""
    with pytest.raises(Unavailable):
        Agent(tmp_path / "a").commands.poll(0)
    with pytest.raises(PolicyViolation):
        Agent(tmp_path / "b", endpoint, f"{endpoint}/123456789012/nowhere").commands.poll(0)


def test_the_thread_polls_and_acts(tmp_path: Path, endpoint: str, queue: tuple[Any, str]) -> None:
    """Started, it frees what receipts name without being asked."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    client.send_message(QueueUrl=url, MessageBody=json.dumps(receipt(CLOUD, CALL, agent.parts)))
    agent.commands.start()
    while agent.directory.exists():
        NEVER.wait(0.01)
    agent.commands.close()


def test_commands_are_handed_over_together_and_go_when_obeyed(
    tmp_path: Path, endpoint: str, queue: tuple[Any, str]
) -> None:
    """What was carried out is deleted; what the media process did not answer stays, and comes again."""
    client, url = queue
    agent = Agent(tmp_path, endpoint, url)
    agent.answers = ["applied", Unavailable("the media process does not answer"), ValueError("a defect"), "pending"]
    for number in range(1, 5):
        client.send_message(QueueUrl=url, MessageBody=command(number=number))
    while len(agent.obeyed) < 4:
        agent.commands.poll(0)
    assert sorted({told.number for told in agent.obeyed}) == [1, 2, 3, 4]
    assert [line["reason"] for line in agent.lines.named("command_repeats")] == ["Unavailable"]
    assert agent.lines.named("command_failed")[0]["error"] == "ValueError"
    while len(agent.obeyed) < 6:
        agent.commands.poll(0)
    assert left(client, url) == 0
    assert len(agent.obeyed) == 6


def test_a_decision_is_handed_over(tmp_path: Path) -> None:
    """What the cloud decided reaches the event loop; what another key or for another agent decided does not."""
    agent = Agent(tmp_path)
    result = agent.commands.act(decision())
    assert isinstance(result, Future)
    assert result.result() == "kept"
    assert agent.commands.act(decision(CloudKey())) == "rejected"
    assert agent.commands.act(decision(tenant="other")) == "rejected"
    assert [one.decision for one in agent.decided] == ["keep"]


def test_a_refresh_is_asked_again_until_the_cloud_answers(tmp_path: Path) -> None:
    """The word that there is a newer policy stays in the queue while that cannot be fetched."""
    agent = Agent(tmp_path)
    body = json.dumps(Refresh(CALL, TENANT, AGENT, 1, 2).sealed_by(CLOUD).to_json())
    agent.unreachable = True
    assert agent.commands.act(body) == "postponed"
    agent.unreachable = False
    assert agent.commands.act(body) == "refreshed"
    assert len(agent.refreshed) == 1


def test_a_message_of_a_later_version_is_told_and_left_alone(tmp_path: Path) -> None:
    """A kind of message that this agent does not know changes nothing and stops nothing."""
    agent = Agent(tmp_path)
    later = Envelope.sealed_by(CLOUD, "transfiguration", b"{}")
    assert agent.commands.act(json.dumps(later.to_json())) == "rejected"
    assert agent.lines.named("command_rejected")[0]["reason"] == "MalformedInput"


def test_while_the_queue_cannot_be_read_the_cloud_is_asked_another_way(tmp_path: Path) -> None:
    """A firewall that lets the API through and not SQS: at once, then every half a minute."""
    agent = Agent(tmp_path)
    agent.commands.start()
    try:
        for now_s in (0.0, 29.0, 30.0, 60.0):
            agent.now_s = now_s
            assert agent.asked_elsewhere.acquire(timeout=PATIENCE_S if now_s != 29.0 else 0.2) is (now_s != 29.0)
    finally:
        agent.commands.close()
    assert not agent.asked_elsewhere.acquire(blocking=False)
