"""The whole agent as its own processes, before a foreign cloud: enrolled, called, stopped, broken."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualtone.domain import enrolment_code
from dualtone.domain.call_files import OpeningFile, verified_manifest
from dualtone.domain.ids import CallId
from sbc_agent.runtime import cli, speech, status, test_call
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.src_link import CallFailed
from sbc_agent.runtime.test_call import CallResult, Side
from tests.agent.runtime import aws, web
from tests.agent.runtime.ports import own_block
from tests.agent.runtime.spooled import AGENT, TENANT, CloudKey, receipt

CLOUD = CloudKey()
CODE = enrolment_code.make(b"s" * 16, CLOUD.der)
PORTS = own_block()
COMMAND = [sys.executable, "-m", "sbc_agent.runtime.cli"]


_NEVER = threading.Event()  # not set: waiting on it yields the processor


@dataclass
class Site:
    """A machine with an enrolled agent, and the cloud that it speaks to."""

    config: Path
    aws_url: str
    s3: Any
    sqs: Any
    queue_url: str
    bucket: str

    @property
    def state(self) -> Path:
        return self.config.parent / "state"

    @property
    def spool(self) -> Path:
        return self.config.parent / "spool"

    def objects(self) -> list[str]:
        return _listed(self.s3, self.bucket)

    def body(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()  # type: ignore[no-any-return]

    @contextmanager
    def running(self) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], list[str]]]:
        """Runs the agent; yields process, ready line, and the log as it grows."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        process = subprocess.Popen(
            [*COMMAND, "run", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"AWS_ENDPOINT_URL": self.aws_url},
        )
        assert process.stdout
        assert process.stderr
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        reader.start()
        try:
            ready = json.loads(process.stdout.readline() or "{}")
            yield process, ready, lines
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
            process.stderr.close()

    def call(self, ready: dict[str, Any], packets: int) -> CallResult:
        """Places a call of so many packets a side."""
        tone = speech.alaw((8_000 * np.sin(np.arange(160 * packets) / 3)).astype(np.int16))
        sides = [Side("caller", "+442079460101", "Alice", tone), Side("callee", "+442079460102", "Bob", tone)]
        host, _, port = ready["sip_udp"].partition(":")
        return asyncio.run(test_call.place(Endpoint(host, int(port)), "udp", sides))

    def wait_until(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        """Waits for the agent's report to say so."""
        while not reached(status.ask(self.state)):
            _NEVER.wait(0.02)


def _listed(s3: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    config = tmp_path / "agent.toml"
    with aws.moto_server() as aws_url:
        s3, sqs = aws.client("s3", aws_url), aws.client("sqs", aws_url)
        bucket = f"ingest-{secrets.token_hex(4)}"  # moto keeps one world for the whole process
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
        queue_url = sqs.create_queue(QueueName=bucket, Attributes={"VisibilityTimeout": "0"})["QueueUrl"]

        def api(path: str, _: str) -> web.Answer:
            if path == "/v1/agents/enrol":
                return 200, CLOUD.enrolment(
                    token_url=f"{server.url}/v1/token", command_queue_url=queue_url, ingest_bucket=bucket
                )
            return 200, {
                "access_key_id": "ASIAEXAMPLE",
                "secret_access_key": "secret",
                "session_token": "token",
                "expires_at": (datetime.now(UTC) + timedelta(seconds=900)).isoformat(),
                "ingest_key": None,
            }

        with web.serving(api) as server:
            config.write_text(
                f"""
[agent]
state_dir = "{tmp_path}/state"
spool_dir = "{tmp_path}/spool"
drain_s = 20
[sip]
udp = "127.0.0.1:0"
tcp = "127.0.0.1:0"
[media]
address = "127.0.0.1"
ports = "{PORTS}-{PORTS + 19}"
pool_size = 4
hold_back_s = 0.2
[uplink]
api = "{server.url}"
"""
            )
            assert cli.main(["enrol", "--config", str(config), "--code", CODE, "--name", "rec-1"]) == 0
            yield Site(config, aws_url, s3, sqs, queue_url, bucket)
        for name in _listed(s3, bucket):
            s3.delete_object(Bucket=bucket, Key=name)
        s3.delete_bucket(Bucket=bucket)
        sqs.delete_queue(QueueUrl=queue_url)
        s3.close()
        sqs.close()


def test_a_call_is_sealed_sent_confirmed_and_freed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """From the INVITE to the signed manifest in the bucket; the receipt frees the spool; SIGTERM ends it with 0."""
    with site.running() as (process, ready, log):
        assert ready.keys() == {"sip_udp", "sip_tcp", "sip_tls", "lan", "metrics", "pids", "version"}
        result = site.call(ready, 50)
        assert (result.packets, result.bye_status) == ([50, 50], 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    key = AgentKey.load(site.state, AGENT)
    public = key.public_der()
    prefix, names = f"{TENANT}/{AGENT}/", [found.rpartition("/")[2] for found in site.objects()]
    (call,) = {found.removeprefix(prefix).partition("/")[0] for found in site.objects()}
    assert names[0] == "manifest.json"
    manifest = verified_manifest(site.body(f"{prefix}{call}/manifest.json"), public)
    assert sum(entry.received for entry in manifest.statistics) == 100
    OpeningFile.decode(site.body(f"{prefix}{call}/opening-00.json")).verified(public)
    assert len(names) == 2 + len(manifest.parts)
    assert (site.spool / call).is_dir(), "nothing is freed without a receipt"
    told = receipt(CLOUD, CallId(call), [entry.digest for entry in manifest.parts])
    site.sqs.send_message(QueueUrl=site.queue_url, MessageBody=json.dumps(told))
    with site.running() as (process, _, again):
        while (site.spool / call).is_dir():
            assert process.poll() is None
            _NEVER.wait(0.02)
        assert cli.main(["status", "--config", str(site.config)]) == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert "alarms   none" in capsys.readouterr().out
    events = [json.loads(line) for line in [*log, *again]]
    assert {"ready", "call_began", "call_ended", "transfer", "receipt", "stopping", "stopped"} <= {
        line["event"] for line in events
    }
    text = "".join([*log, *again])
    assert "4420" not in text
    assert result.sip_call_id not in text


def test_a_stop_in_the_middle_of_a_call_loses_nothing(site: Site) -> None:
    """SIGTERM ends the call by BYE, writes what was said so far, uploads it, and exits with 0."""
    with site.running() as (process, ready, _):
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(site.call, ready, 1_500)
            site.wait_until(lambda report: report["media"].get("received", 0) >= 40)
            process.send_signal(signal.SIGTERM)
            result = call.result()
        assert process.wait(60) == 0
    assert result.ended_by == "recorder"
    assert min(result.packets) < 1_500
    (manifest_key,) = [key for key in site.objects() if key.endswith("manifest.json")]
    manifest = verified_manifest(site.body(manifest_key), AgentKey.load(site.state, AGENT).public_der())
    assert manifest.end_reason == "shutdown"
    assert sum(entry.received for entry in manifest.statistics) >= sum(result.packets) - 4


def test_an_agent_that_is_to_finish_lets_its_calls_end(site: Site) -> None:
    """SIGUSR1: new calls are refused at once, the one in progress goes on to its own end, and only then it stops."""
    with site.running() as (process, ready, log):
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(site.call, ready, 100)
            site.wait_until(lambda report: report["media"].get("received", 0) >= 20)
            process.send_signal(signal.SIGUSR1)
            site.wait_until(lambda report: report["draining"] == 1)
            with pytest.raises(CallFailed, match="503"):
                site.call(ready, 5)
            result = call.result()
        assert process.wait(60) == 0
    assert (result.ended_by, result.packets, result.bye_status) == ("us", [100, 100], 200)
    (manifest_key,) = [key for key in site.objects() if key.endswith("manifest.json")]
    manifest = verified_manifest(site.body(manifest_key), AgentKey.load(site.state, AGENT).public_der())
    assert (manifest.end_reason, sum(entry.received for entry in manifest.statistics)) == ("bye", 200)
    assert [line["calls"] for line in map(json.loads, log) if line["event"] == "finishing"] == [1]


def test_the_death_of_the_media_process_ends_the_agent(site: Site) -> None:
    """An agent without its media process records nothing: it alarms and ends, so that it is started again."""
    with site.running() as (process, ready, log):
        os.kill(ready["pids"]["media"], signal.SIGKILL)
        assert process.wait(30) == 1
    events = [json.loads(line) for line in log]
    assert [line["level"] for line in events if line["event"] == "media_died"] == ["error"]


def test_a_second_agent_over_the_same_state_is_refused(site: Site) -> None:
    """Two agents over one spool would send everything twice; the second says so and ends."""
    with site.running() as (_, ready, _log):
        assert ready["sip_udp"]
        second = subprocess.run(
            [*COMMAND, "run", "--config", str(site.config)], capture_output=True, text=True, timeout=60, check=False
        )
    assert second.returncode == 1
    assert "another agent runs with" in second.stderr


def test_a_taken_port_is_told(site: Site) -> None:
    """The address and what to do are named; there is no trace."""
    with site.running() as (_, ready, _log):
        port = ready["sip_tcp"].rpartition(":")[2]
        text = site.config.read_text().replace('tcp = "127.0.0.1:0"', f'tcp = "127.0.0.1:{port}"')
        text = (
            text.replace(f"{PORTS}-{PORTS + 19}", f"{PORTS + 20}-{PORTS + 39}")
            .replace("/state", "/other")
            .replace("/spool", "/other-spool")
        )
        other = site.config.with_name("other.toml")
        other.write_text(text)
        other_state = site.state.with_name("other")
        other_state.mkdir()
        for name in ("agent.key", "identity.json"):
            (other_state / name).write_bytes((site.state / name).read_bytes())
            (other_state / name).chmod(0o600)
        done = subprocess.run(
            [*COMMAND, "run", "--config", str(other)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert f"sip.tcp 127.0.0.1:{port} cannot be listened to (address already in use)" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_while_running(site: Site) -> None:
    """The report counts what the agent did."""
    with site.running() as (_, ready, _log):
        site.call(ready, 10)
        report = status.ask(site.state)
    assert report["media"]["received"] == 20
    assert report["uplink"]["link"] == "up"
    assert report["pids"]["media"] == ready["pids"]["media"]
    assert report["alarms"] == {}


def test_a_call_whose_directory_vanishes_holds_up_no_stop(site: Site) -> None:
    """Somebody removes a call's directory while it is recorded: SIGTERM ends the agent all the same, with an alarm."""
    with site.running() as (process, ready, log):
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(site.call, ready, 1_500)
            site.wait_until(lambda report: report["media"].get("records", 0) >= 2)
            (directory,) = [path for path in site.spool.iterdir() if path.is_dir()]
            shutil.rmtree(directory)
            process.send_signal(signal.SIGTERM)
            call.result()
        assert process.wait(60) == 0
    alarms = [line for line in map(json.loads, log) if line["level"] == "error"]
    assert {"spool_gone"} <= {line.get("kind") for line in alarms}


def test_a_full_spool_refuses_new_calls_and_says_so(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """With less room than the setting wants the agent starts, sends what it has, answers 503, and tells it."""
    text = site.config.read_text()
    site.config.write_text(text.replace("[sip]", "min_free_mb = 100000000\n[sip]", 1))
    assert cli.main(["run", "--check", "--config", str(site.config)]) == 0
    assert "less than agent.min_free_mb = 100000000: new calls are refused" in capsys.readouterr().err
    with site.running() as (process, ready, log):
        with pytest.raises(CallFailed, match="503"):
            site.call(ready, 10)
        assert cli.main(["status", "--config", str(site.config)]) == 0
        assert "FULL, new calls are refused" in capsys.readouterr().out
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    events = [json.loads(line)["event"] for line in log]
    assert events.count("spool_full") == 1
    assert events.count("no_room_for_call") >= 1


def fill(path: Path) -> None:
    """Writes a file until the disk takes no more."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1_024)):
            pass


@pytest.mark.parametrize(("full", "alarm"), [("spool", "spool_full"), ("state", "state_not_kept")])
def test_a_disk_without_a_byte_left(site: Site, full: str, alarm: str) -> None:
    """The agent starts on a full disk, takes a call into memory, and writes and sends it when there is room."""
    directory, public = site.config.parent / full, AgentKey.load(site.state, AGENT).public_der()
    directory.mkdir(exist_ok=True)
    kept = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)], check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        directory.chmod(0o700)
        for name, data in kept.items():
            (directory / name).write_bytes(data)
            (directory / name).chmod(0o600)
        filler = directory / "filler"
        fill(filler)
        text = site.config.read_text()
        site.config.write_text(text.replace("[sip]", 'when_full = "record_in_memory"\n[sip]', 1))
        with site.running() as (process, ready, log):
            result = site.call(ready, 60)
            assert result.packets == [60, 60]
            filler.unlink()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    finally:
        subprocess.run(["umount", str(directory)], check=True)
    (key,) = [key for key in site.objects() if key.endswith("manifest.json")]
    manifest = verified_manifest(site.body(key), public)
    assert sum(entry.received for entry in manifest.statistics) == 120
    assert alarm in {json.loads(line)["event"] for line in log}
