"""``dualtone ops`` against a local cloud: what was given up is found, explained as it is now, and sent again."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from moto.sqs.models import sqs_backends

from dualtone.adapters import clock, dead_letters
from dualtone.adapters.attribute_values import from_item, to_item
from dualtone.domain import agent_events, call_files
from dualtone.domain.ids import CallId
from infra.cli import ops
from infra.local import cli
from infra.local.cloud import LocalCloud
from tests.adapters.finalize.test_handlers import arrived
from tests.call_samples import AGENT, CALLEE, CALLER, TENANT, AgentKey, Upload, blocks, packets, speech, upload

ALICE: Final = speech("alice")[:16_000]
POLICY: Final = Path(ops.__file__).with_name("operator_policy.json")
CALLS: Final = (CallId(f"01JD00000000000000000{number:05d}") for number in range(1000))


class Operator:
    """A deployment with one enrolled agent, and an operator's terminal."""

    def __init__(self, cloud: LocalCloud, capsys: pytest.CaptureFixture[str]) -> None:
        self.cloud = cloud
        self.key = AgentKey()
        self._capsys = capsys
        self.enrol("active")

    def enrol(self, state: str) -> None:
        """Writes the agent into the directory."""
        item = {
            "pk": f"tenant#{TENANT}",
            "sk": f"agent#{AGENT}",
            "agent_id": AGENT,
            "name": "sbc",
            "state": state,
            "public_key": self.key.public_pem,
        }
        self.cloud.client("dynamodb").put_item(TableName=self.cloud.stack.ref("DirectoryTable"), Item=to_item(item))

    def wrap(self, bound: bytes) -> bytes:
        """What an agent does with the public half of the ingest key."""
        der = self.cloud.client("kms").get_public_key(KeyId=self.cloud.stack.ref("IngestKey"))["PublicKey"]
        public = load_der_public_key(der)
        assert isinstance(public, rsa.RSAPublicKey)
        return public.encrypt(bound, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))

    def seal(self, **options: Any) -> Upload:
        """A call of its own for each test."""
        kept = [*packets(ALICE), *packets(ALICE, stream=1, ssrc=2)]
        key_arn = self.cloud.stack.arn("IngestKey")
        return upload(blocks(kept), key=self.key, wrap=self.wrap, key_arn=key_arn, call=next(CALLS), **options)

    def put(self, sent: Upload, *, without: tuple[str, ...] = ()) -> None:
        """Files lie in the ingest bucket; what S3 tells of them is dropped."""
        for key, data in sent.files.items():
            if key not in without:
                bucket = self.cloud.stack.ref("IngestBucket")
                self.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
        self.empty("FinalizeQueue")

    def empty(self, queue: str) -> None:
        """Drops what is in a queue, held or not."""
        account = self.cloud.stack.account
        name = self.cloud.stack.ref(queue).rpartition("/")[2]
        stored = sqs_backends[account.account_id][account.region].queues[name]
        stored._messages.clear()
        stored.pending_messages.clear()

    def bury(self, queue: str, body: object) -> str:
        """A message lies among dead letters; returns its id."""
        url, text = self.cloud.stack.ref(queue), json.dumps(body)
        return str(self.cloud.client("sqs").send_message(QueueUrl=url, MessageBody=text)["MessageId"])

    def depth(self, queue: str) -> int:
        """How many messages a queue holds."""
        attributes = self.cloud.client("sqs").get_queue_attributes(
            QueueUrl=self.cloud.stack.ref(queue), AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    def say(self, *words: str, status: int) -> str:
        """Runs a command as on a terminal; returns what it printed."""
        endpoint = ("--aws-endpoint", self.cloud.aws_endpoint)
        self._capsys.readouterr()  # of functions, which log to this process's output too
        assert cli.main(["ops", *words, *endpoint]) == status
        printed = self._capsys.readouterr()
        assert not re.search("[A-Za-z0-9+=]{60}", printed.out)  # nothing that was sealed or signed
        assert CALLER not in printed.out
        assert CALLEE not in printed.out
        return printed.out + printed.err

    def letters(self) -> list[dict[str, Any]]:
        """All dead letters, as a program sees them."""
        found: list[dict[str, Any]] = json.loads(self.say("dead-letters", "--json", status=ops.LEFT))["letters"]
        return found

    def letter(self) -> tuple[str, list[str], str]:
        """Verdict, kinds of findings and text of the one dead letter."""
        (one,) = self.letters()
        told = self.say("dead-letters", status=ops.LEFT)
        return one["verdict"], [finding["kind"] for finding in one["findings"]], told


@pytest.fixture(scope="module")
def running() -> Iterator[LocalCloud]:
    with LocalCloud(driven=False) as cloud:
        yield cloud


@pytest.fixture
def operator(
    running: LocalCloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Operator]:
    monkeypatch.setattr(dead_letters, "_LONG_POLL_S", 0)
    made = Operator(running, capsys)
    yield made
    for name, kind in running.stack.types.items():
        if kind == "AWS::SQS::Queue":
            made.empty(name)


def test_nothing_was_given_up(operator: Operator) -> None:
    """And a script knows by the status."""
    assert operator.say("dead-letters", status=ops.OK) == "no dead letters\n"
    assert json.loads(operator.say("dead-letters", "--json", status=ops.OK)) == {"letters": []}
    assert json.loads(operator.say("redrive", "--all", "--json", status=ops.OK)) == {"redriven": []}


def test_every_dead_letter_queue_of_the_template_is_looked_at(operator: Operator) -> None:
    """Whatever its message: one that cannot be read is said to be so."""
    queues = [name for name in operator.cloud.stack.types if name.endswith("DeadLetters")]
    for name in queues:
        operator.bury(name, ["nonsense"])
    told = operator.letters()
    assert len(told) == len(queues) >= 5
    assert {one["queue"] for one in told} == {"agent-events", "cut", "finalize", "reconcile", "sweep"}
    assert {one["verdict"] for one in told if one["queue"] not in {"reconcile", "sweep"}} == {"blocked"}


def test_what_failed_five_times_is_found_explained_and_recorded_after_all(operator: Operator) -> None:
    """The whole way: given up while the agent was unknown, and sent again once it is known."""
    sent = operator.seal()
    operator.put(sent)
    operator.enrol("pending")
    sqs, queue = operator.cloud.client("sqs"), operator.cloud.stack.ref("FinalizeQueue")
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "0"})
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(arrived(sent.manifest_key)))
    (pump,) = [one for one in operator.cloud.pumps if one._source.queue_arn.endswith(queue.rpartition("/")[2])]
    for _ in range(6):
        pump.pump_once()
    assert operator.depth("FinalizeDeadLetters") == 1
    verdict, kinds, told = operator.letter()
    assert (verdict, kinds) == ("blocked", ["agent-pending"])
    assert "tried 5 times" in told
    assert "the agent has not enrolled" in told
    assert "left: it would fail again" in operator.say("redrive", "--all", "--wait", "0", status=ops.LEFT)
    assert operator.depth("FinalizeDeadLetters") == 1

    operator.enrol("active")
    assert operator.letter()[:2] == ("clear", [])
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "960"})
    pump.start()
    try:
        assert "sent again, and recorded" in operator.say("redrive", "--all", status=ops.OK)
    finally:
        pump.stop()
    assert operator.depth("FinalizeDeadLetters") == 0
    operator.bury("FinalizeDeadLetters", arrived(sent.manifest_key))
    verdict, kinds, told = operator.letter()
    assert (verdict, kinds) == ("done", ["recorded"])
    assert "generation 1" in told


def test_what_stands_in_the_way_of_a_call(operator: Operator) -> None:
    """Each as it is seen now: files, signatures, keys, agents."""
    sent = operator.seal(part_seconds=1)
    manifest, (first, *_) = sent.manifest_key, sent.part_keys
    opening = next(key for key in sent.files if "opening" in key)
    operator.put(sent, without=(manifest,))
    operator.bury("FinalizeDeadLetters", arrived(manifest))
    assert operator.letter()[:2] == ("blocked", ["manifest-missing"])
    operator.put(Upload({manifest: sent.files[manifest]}))
    assert operator.letter()[:2] == ("clear", [])
    for key in (first, opening):
        operator.cloud.client("s3").delete_object(Bucket=operator.cloud.stack.ref("IngestBucket"), Key=key)
    verdict, kinds, told = operator.letter()
    assert (verdict, kinds) == ("clear", ["opening-missing", "parts-missing"])
    assert "parts are missing: 1 of 2" in told
    operator.enrol("revoked")
    verdict, kinds, told = operator.letter()
    assert (verdict, kinds[0]) == ("blocked", "agent-revoked")
    assert "the agent was revoked" in told
    operator.key = AgentKey()
    operator.enrol("active")
    assert operator.letter()[:2] == ("blocked", ["forged"])


@pytest.mark.parametrize("key", ["IngestKey", "SigningKey", "CustodianAKey", "MetadataKey"])
def test_a_key_that_is_disabled_stands_in_the_way(operator: Operator, key: str) -> None:
    """And is named."""
    sent = operator.seal()
    operator.put(sent)
    operator.bury("FinalizeDeadLetters", arrived(sent.manifest_key))
    operator.bury("CutDeadLetters", {"tenant": TENANT, "call": sent.manifest_key.split("/")[2]})
    kms, key_id = operator.cloud.client("kms"), operator.cloud.stack.ref(key)
    kms.disable_key(KeyId=key_id)
    try:
        told = operator.letters()
    finally:
        kms.enable_key(KeyId=key_id)
    assert [(one["queue"], one["verdict"]) for one in told] == [("cut", "blocked"), ("finalize", "blocked")]
    assert all("key is not usable: Disabled" in one["findings"][0]["text"] for one in told)
    assert {one["verdict"] for one in operator.letters()} == {"clear"}


def test_a_silent_call_and_a_beginning(operator: Operator) -> None:
    """The sweeper's word needs parts; a first opening needs nothing but its agent."""
    sent = operator.seal()
    opening = next(key for key in sent.files if "opening" in key)
    operator.bury("FinalizeDeadLetters", {"interrupted": {"key": sent.manifest_key, "lasted_until_ms": 0}})
    assert operator.letter()[:2] == ("blocked", ["nothing-there"])
    operator.put(sent, without=(sent.manifest_key,))
    operator.bury("FinalizeDeadLetters", {"interrupted": {"key": sent.manifest_key, "lasted_until_ms": 0}})
    operator.bury("FinalizeDeadLetters", arrived(opening))
    told = operator.letters()
    assert {one["about"] for one in told} == {"a call that went silent", "the beginning of a call"}
    assert {one["verdict"] for one in told} == {"clear"}
    assert {one["call"] for one in told} == {sent.manifest_key.split("/")[2]}


def test_a_report_of_an_agent(operator: Operator) -> None:
    """Its signature and its agent are looked at; what it says is not shown."""
    health = agent_events.HealthEvent([], agent_events.SpoolState(0, 0, 0), {}, "test", 0)
    report = agent_events.Report(TENANT, AGENT, 1, 1, None, [health])
    operator.bury("AgentEventsDeadLetters", report.sealed_by(operator.key).to_json())
    verdict, _, told = operator.letter()
    assert verdict == "clear"
    assert "a report of an agent with 1 events" in told
    operator.key = AgentKey()
    operator.enrol("active")
    assert operator.letter()[:2] == ("blocked", ["forged"])
    operator.enrol("revoked")
    assert set(operator.letter()[1]) == {"forged", "agent-revoked"}


def test_one_message_is_sent_whatever_stands_in_its_way(operator: Operator) -> None:
    """By its id; another id is an error, and nothing moves."""
    wanted, other = (operator.bury("CutDeadLetters", body) for body in ({"tenant": TENANT}, {"call": "x"}))
    told = operator.say("redrive", "--message", wanted, "--wait", "0", "--json", status=ops.LEFT)
    (sent,) = json.loads(told)["redriven"]
    assert (sent["message"], sent["verdict"], sent["outcome"]) == (wanted, "blocked", "sent")
    assert (operator.depth("CutQueue"), operator.depth("CutDeadLetters")) == (1, 1)
    assert [one["message"] for one in operator.letters()] == [other]
    assert "no dead letter has the id" in operator.say("redrive", "--message", wanted, status=ops.FAILED)


def test_a_failed_run_of_a_schedule_is_dropped(operator: Operator) -> None:
    """The schedule has run again since."""
    operator.bury("SweepDeadLetters", {"source": "aws.events"})
    assert operator.letter()[:2] == ("done", ["scheduled"])
    told = operator.say("redrive", "--queue", "sweep", "--all", status=ops.OK)
    assert "removed: nothing had to be sent" in told
    assert operator.depth("SweepDeadLetters") == 0


def test_a_deployment_or_queue_that_is_not_there(operator: Operator) -> None:
    """Is an error in words."""
    assert "cannot be seen" in operator.say("dead-letters", "--stack", "other", status=ops.FAILED)
    assert "it is one of agent-events, cut" in operator.say("dead-letters", "--queue", "x", status=ops.FAILED)


def test_looking_takes_nothing_away(operator: Operator) -> None:
    """What was looked at is there for the next one at once, more than one batch of it."""
    for number in range(23):
        operator.bury("CutDeadLetters", {"tenant": TENANT, "call": f"01JD00000000000000001{number:05d}"})
    for _ in range(2):
        assert len({one["message"] for one in operator.letters()}) == 23
    assert operator.depth("CutDeadLetters") == 23


def test_the_operators_policy_allows_what_is_done_and_no_more(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of both commands is an action of the policy, and every action of the policy is called."""
    sent = operator.seal()
    operator.put(sent)
    operator.bury("FinalizeDeadLetters", arrived(sent.manifest_key))
    called: set[str] = set()
    create = boto3.Session.client

    def watched(self: boto3.Session, service: str, **options: Any) -> Any:
        client = create(self, service, **options)  # type: ignore[call-overload]
        client.meta.events.register("before-call", lambda model, **_: called.add(f"{service}:{model.name}"))
        return client

    monkeypatch.setattr(boto3.Session, "client", watched)
    operator.letters()
    operator.say("redrive", "--all", "--wait", "0", status=ops.LEFT)
    named = {"s3:ListObjectsV2": "s3:ListBucket"}
    statements = json.loads(POLICY.read_text())["Statement"]
    allowed = {one for statement in statements for one in _listed(statement["Action"])}
    assert {named.get(action, action) for action in called} == allowed
    assert not any(fnmatch.fnmatch("*", action) for action in allowed)
    assert call_files.MANIFEST_NAME in POLICY.read_text()


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_a_silent_call_goes_its_way_through_the_template(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's notice of the opening, the schedule's function twice, the finaliser's queue: recorded without a manifest."""
    sent, cloud = operator.seal(), operator.cloud
    operator.empty("FinalizeQueue")  # of what S3 sends when its notifications are set up
    for key, data in sent.files.items():
        if key != sent.manifest_key:
            cloud.client("s3").put_object(Bucket=cloud.stack.ref("IngestBucket"), Key=key, Body=data)
    (pump,) = [one for one in cloud.pumps if "FinalizeQueue" in one._source.queue_arn]
    assert pump.pump_once() == 1  # parts are no event
    began_ms = clock.now_ms()
    for hours, step in ((0.2, "interrupt"), (73, "finalize")):
        monkeypatch.setattr(clock, "now_ms", lambda hours=hours: began_ms + round(hours * 3_600_000))
        swept = cloud.invoke("SweepCallsFunction", {})
        assert (swept[step], swept["failed"]) == (1, 0)
    assert pump.pump_once() == 1
    assert operator.depth("FinalizeQueue") == 0
    rows = cloud.client("dynamodb").scan(TableName=cloud.stack.ref("IndexTable"))["Items"]
    call = sent.manifest_key.split("/")[2]
    (row,) = [row for row in map(from_item, rows) if row["sk"] == "rec" and row["call_id"] == call]
    assert (row["generation"], row["flags"]) == (1, ["interrupted"])
