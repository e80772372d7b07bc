"""Pauses of the whole agent as its own processes: on the LAN without an uplink, by the cloud's queue, over a kill."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualtone.domain import agent_events, call_match, ids
from dualtone.domain.agent_events import AckEvent, CallEvent, CutEvent, Event
from dualtone.domain.call_command import Command
from dualtone.domain.call_files import OpeningFile
from dualtone.domain.signing import Envelope
from sbc_agent.runtime import cli, speech, test_call
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.src_link import CallFailed
from sbc_agent.runtime.test_call import CallResult, Side
from tests.agent.runtime import aws, web
from tests.agent.runtime.controlled import ENDPOINT, LIVE_KEY, SECRET
from tests.agent.runtime.spooled import AGENT, TENANT
from tests.agent.runtime.test_process import CLOUD, CODE, COMMAND, PORTS

UCID = "00FA080018803B69810C6D"
NOWHERE = "http://127.0.0.1:1"
NEWER = "arn:aws:kms:eu-west-1:000000000000:key/newer"
NEVER = threading.Event()  # not set: waiting on it yields the processor


@dataclass
class Machine:
    """A machine with an enrolled agent, its cloud's API, and two queues that it may or may not reach."""

    directory: Path
    sqs: Any
    aws_url: str
    commands_url: str
    events_url: str
    token: dict[str, Any] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    others: list[Any] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @contextmanager
    def running(self, *, uplink: bool) -> Iterator[None]:
        """Runs the agent; with or without a way to S3 and SQS."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run", "--config", str(self.directory / "agent.toml")],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment | {"AWS_ENDPOINT_URL": self.aws_url if uplink else NOWHERE},
            )
        assert self.process.stdout
        try:
            self.ready = json.loads(self.process.stdout.readline() or "{}")
            yield
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def stop(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def call(self, seconds: float) -> CallResult:
        """Places a call."""
        count = round(50 * seconds)
        tone = speech.alaw((8_000 * np.sin(np.arange(160 * count) / 3)).astype(np.int16))
        sides = [Side("caller", "+442079460101", "Alice", tone), Side("callee", "+442079460102", "Bob", tone)]
        host, _, port = self.ready["sip_udp"].partition(":")
        return asyncio.run(test_call.place(Endpoint(host, int(port)), "udp", sides, ucid=UCID))

    def report(self, what: str, **data: Any) -> tuple[int, dict[str, Any]]:
        """A payment system's webhook on the LAN."""
        body = json.dumps({"type": f"card_entry.{what}", "data": {"call": {"ucid": UCID}} | data}).encode()
        name, stamp = f"msg_{secrets.token_hex(6)}", str(int(time.time()))
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        mac = base64.b64encode(hmac.digest(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256)).decode()
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.ready['lan']}/v1/webhooks/payments/{ENDPOINT}",
            body,
            {
                "Content-Type": "application/json",
                "webhook-id": name,
                "webhook-timestamp": stamp,
                "webhook-signature": f"v1,{mac}",
            },
        )
        trust = ssl.create_default_context(cafile=str(self.directory / "state" / "lan.crt"))
        with urllib.request.urlopen(request, context=trust, timeout=20) as response:  # noqa: S310 - our own address
            return response.status, json.loads(response.read())

    def live(self) -> dict[str, Any]:
        """The one live call, by the LAN; waits for it."""
        token = (self.directory / "state" / "lan.token").read_text().strip()
        trust = ssl.create_default_context(cafile=str(self.directory / "state" / "lan.crt"))
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.ready['lan']}/v1/calls", headers=headers)  # noqa: S310 - as above
        while True:
            with urllib.request.urlopen(request, context=trust, timeout=20) as response:  # noqa: S310 - as above
                calls = json.loads(response.read())["calls"]
            if calls:
                return dict(calls[0])
            NEVER.wait(0.02)

    def send(self, action: str, number: int, **changes: Any) -> Command:
        """The cloud sends a command by match."""
        now_ms = time.time_ns() // 1_000_000
        command = Command(
            id=ids.ulid(now_ms, secrets.token_bytes(10)),
            tenant=TENANT,
            agent=AGENT,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + 60_000,
            action=action,  # type: ignore[arg-type]
            call=None,
            match=call_match.token(LIVE_KEY, "ucid", UCID),
            number=number,
            cause="payment",
            effective_at_ms=None,
            until_ms=None,
            lease_s=900,
            on_expiry="silent",
            by="person:1",
        )
        self.sqs.send_message(QueueUrl=self.commands_url, MessageBody=json.dumps(command.sealed_by(CLOUD).to_json()))
        return command

    def events(self, wanted: type[Event], count: int, other: type[Event] | None = None) -> list[Any]:
        """Waits for so many events of a type, and keeps those of another; reports are verified by the agent's key."""
        key = AgentKey.load(self.directory / "state", AGENT).public_der()
        found: list[Any] = []
        while len(found) < count:
            for message in self.sqs.receive_message(QueueUrl=self.events_url, MaxNumberOfMessages=10).get(
                "Messages", []
            ):
                report = agent_events.verified(Envelope.from_json(json.loads(message["Body"])), key)
                found += [event for event in report.events if isinstance(event, wanted)]
                self.others += [event for event in report.events if other is not None and isinstance(event, other)]
                self.sqs.delete_message(QueueUrl=self.events_url, ReceiptHandle=message["ReceiptHandle"])
            NEVER.wait(0.01)
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with aws.moto_server() as aws_url:
        sqs = aws.client("sqs", aws_url)
        name = secrets.token_hex(4)
        urls = [sqs.create_queue(QueueName=f"{name}-{kind}")["QueueUrl"] for kind in ("commands", "events")]
        made = Machine(tmp_path, sqs, aws_url, *urls)
        live = {
            "events_queue_url": made.events_url,
            "live_key": base64.b64encode(LIVE_KEY).decode(),
            "payment_endpoints": [{"endpoint_id": ENDPOINT, "secret": SECRET}],
        }

        def api(path: str, _: str) -> web.Answer:
            if path == "/v1/health":
                return 200, {"now_ms": time.time_ns() // 1_000_000}
            if path == "/v1/agents/enrol":
                return 200, live | CLOUD.enrolment(
                    token_url=f"{server.url}/v1/token", command_queue_url=made.commands_url
                )
            return 200, live | {
                "access_key_id": "ASIAEXAMPLE",
                "secret_access_key": "secret",
                "session_token": "token",
                # so short that each request of the agent fetches new ones
                "expires_at": (datetime.now(UTC) + timedelta(seconds=200)).isoformat(),
            } | made.token

        with web.serving(api) as server:
            config = tmp_path / "agent.toml"
            config.write_text(
                f"""
[agent]
state_dir = "{tmp_path}/state"
spool_dir = "{tmp_path}/spool"
drain_s = 1
[sip]
udp = "127.0.0.1:0"
tcp = "off"
[media]
address = "127.0.0.1"
ports = "{PORTS + 40}-{PORTS + 59}"
pool_size = 8
hold_back_s = 1
[uplink]
api = "{server.url}"
[lan]
listen = "127.0.0.1:0"
"""
            )
            assert cli.main(["enrol", "--config", str(config), "--code", CODE, "--name", "rec-1"]) == 0
            yield made
        sqs.close()


@contextmanager
def talking(machine: Machine, seconds: float) -> Iterator[Future[CallResult]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(machine.call, seconds)


def test_a_webhook_on_the_lan_pauses_while_the_uplink_is_down_and_the_ledger_hears_of_it_after_a_kill(
    machine: Machine,
) -> None:
    """Acknowledged at once; killed before the cloud heard of it, the next run tells it."""
    with machine.running(uplink=False), talking(machine, 4) as call:
        live = machine.live()
        status, answer = machine.report("started")
        assert (status, answer["outcome"]) == (200, "acknowledged")
        (one,) = answer["calls"]
        assert (one["call_id"], one["causes"]) == (live["call_id"], ["payment"])
        assert {silent["stream"] for silent in one["silent_from"]} == {0, 1}
        status, answer = machine.report("ended")
        assert (status, answer["outcome"], answer["calls"][0]["paused"]) == (200, "acknowledged", False)
        call.result()
    with machine.running(uplink=True):
        acks: list[AckEvent] = machine.events(AckEvent, 2)
        machine.stop()
    assert [(ack.origin, ack.action, ack.outcome) for ack in acks] == [
        ("lan", "pause", "acknowledged"),
        ("lan", "resume", "acknowledged"),
    ]
    assert {ack.by for ack in acks} == {f"endpoint:{ENDPOINT}"}
    assert acks[0].call == live["call_id"]


def test_what_a_killed_run_cut_is_told_by_the_next(machine: Machine) -> None:
    """The report came after the hold-back, the agent was killed before it could tell: the next run tells."""
    with machine.running(uplink=False), talking(machine, 5) as call:
        live = machine.live()
        NEVER.wait(3.5)
        began = datetime.now(UTC) - timedelta(seconds=2.5)
        ends = began + timedelta(seconds=0.5)
        status, answer = machine.report("started", effective_at=began.isoformat(), until=ends.isoformat())
        assert (status, answer["outcome"], answer["calls"][0]["paused"]) == (200, "too_late", False)
        assert machine.process
        machine.process.kill()
        with contextlib.suppress(CallFailed):
            call.result()
    with machine.running(uplink=True):
        (ack,) = machine.events(AckEvent, 1, CutEvent)
        cut = (machine.others or machine.events(CutEvent, 1))[0]
        machine.stop()
    assert (ack.call, ack.outcome, ack.origin) == (live["call_id"], "too_late", "lan")
    assert (cut.call, cut.command) == (ack.call, ack.command)
    assert cut.from_us <= 1_000_000 * began.timestamp() - 250_000


def test_a_command_of_the_cloud_is_acknowledged(machine: Machine) -> None:
    """By match, by the queue; the events queue has the call, the acknowledgement, and then the causes."""
    with machine.running(uplink=True), talking(machine, 5) as call:
        machine.live()
        sent = machine.send("pause", 1)
        (ack,) = machine.events(AckEvent, 1)
        assert (ack.command, ack.outcome, ack.causes) == (sent.id, "acknowledged", ["payment"])
        meant_us = 1000 * sent.issued_at_ms
        assert meant_us - 400_000 <= ack.from_us <= meant_us - 250_000
        machine.send("resume", 2)
        (ack,) = machine.events(AckEvent, 1)
        assert (ack.action, ack.outcome, ack.causes) == ("resume", "acknowledged", [])
        call.result()
        machine.stop()
    ended = machine.events(CallEvent, 1)[-1]
    assert ended.state in {"ended", "spooled", "live"}
    while ended.state != "spooled":
        ended = machine.events(CallEvent, 1)[-1]


def test_a_new_ingest_key_is_for_calls_that_begin_from_then_on(machine: Machine) -> None:
    """The tenant's KMS key is rotated in the midst of a call: that one ends under the old key, the next has the new."""
    with machine.running(uplink=False):
        with talking(machine, 3) as call:
            before = machine.live()["call_id"]
            machine.token["ingest_key"] = CLOUD.ingest_key(arn=NEWER)
            while NEWER.encode() not in _ingest_key(machine):
                NEVER.wait(0.02)
            call.result()
        with talking(machine, 1) as call:
            after = machine.live()["call_id"]
            call.result()
        machine.stop()
    assert [_key_arn(machine, found) for found in (before, after)] == [
        "arn:aws:kms:eu-west-1:000000000000:key/ingest",
        NEWER,
    ]
    assert (machine.spool / before / "manifest.json").exists()


def _ingest_key(machine: Machine) -> bytes:
    kept = json.loads((machine.directory / "state" / "identity.json").read_bytes())
    return Envelope.from_json(kept["ingest_key"]).payload


def _key_arn(machine: Machine, call: str) -> str:
    public = AgentKey.load(machine.directory / "state", AGENT).public_der()
    return OpeningFile.decode((machine.spool / call / "opening-00.json").read_bytes()).verified(public).key_arn
