"""The doctor: what it says of healthy and of sick machines, in words that tell what to change."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import enrolment_code
from dualtone.domain.errors import PolicyViolation, Unavailable
from sbc_agent.media.clock import AgentClock
from sbc_agent.runtime import cli, config, diagnosis, doctor, doctor_machine, doctor_uplink, lan_credentials
from sbc_agent.runtime.clock_offset import Measurement
from sbc_agent.runtime.cloud_api import CloudApi, Refused
from sbc_agent.runtime.config import Endpoint, PortRange
from sbc_agent.runtime.diagnosis import Diagnosis
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.revocation import Revocation
from tests.agent.runtime import aws, web
from tests.agent.runtime.spooled import AGENT, CloudKey, Lines

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (doctor_machine.judged_socket_buffer(2 << 20), "ok", "18.2 s of a stream"),
        (doctor_machine.judged_socket_buffer(425_984), "ok", "3.7 s"),
        (doctor_machine.judged_socket_buffer(212_992), "warn", "net.core.rmem_max=1048576"),
        (doctor_machine.backlog(1_000, 20), "ok", "1000 ms"),
        (doctor_machine.backlog(1_000, 2_000), "warn", "netdev_max_backlog=16384"),
        (doctor_machine.lost_datagrams(""), "ok", "no datagram"),
        (doctor_machine.lost_datagrams("Udp: InDatagrams RcvbufErrors\nUdp: 5 0\n"), "ok", "no datagram"),
        (doctor_machine.lost_datagrams("Udp: InDatagrams RcvbufErrors\nUdp: 5 31\n"), "warn", "31 datagrams"),
        (doctor_machine.judged_disk(2e8, 0.002, 400)[0], "ok", "200 MB/s; 400 streams need 3.6"),
        (doctor_machine.judged_disk(8e6, 0.002, 400)[0], "warn", "little is left"),
        (doctor_machine.judged_disk(2e6, 0.002, 400)[0], "fail", "lower media.pool_size"),
        (doctor_machine.judged_disk(2e8, 0.002, 400)[1], "ok", "2.0 ms"),
        (doctor_machine.judged_disk(2e8, 0.4, 400)[1], "warn", "disk of its own"[:4]),
        (doctor_machine.judged_clock(0), "ok", "kept by NTP"),
        (doctor_machine.judged_clock(5), "warn", "chrony"),
        (doctor_machine.judged_clock(-1), "warn", "container"),
        (doctor_machine.core_dumps(0, of="x"), "ok", "off"),
        (doctor_machine.core_dumps(-1, of="x"), "warn", "LimitCORE=0"),
        (doctor_uplink.judged_offset(Measurement(400_000, 10_000, 0)), "ok", "0.40 s behind"),
        (doctor_uplink.judged_offset(Measurement(-90_000_000, 10_000, 0)), "warn", "90.00 s ahead"),
    ],
)
def test_what_it_makes_of_figures(found: Diagnosis, state: str, words: str) -> None:
    """A table of machines, by rule."""
    assert (found.state, words in found.message) == (state, True), found


def _bound(kind: socket.SocketKind) -> socket.socket:
    held = socket.socket(socket.AF_INET, kind)
    held.bind(("127.0.0.1", 0))
    if kind is TCP:
        held.listen(1)
    return held


@pytest.mark.parametrize("kind", [UDP, TCP])
def test_a_port_is_free_or_taken(kind: socket.SocketKind) -> None:
    """Taken is right while the agent runs, and wrong before; off is not looked at."""
    with _bound(kind) as held:
        taken = Endpoint("127.0.0.1", held.getsockname()[1])
        endpoints: dict[str, tuple[Endpoint | None, socket.SocketKind]] = {
            "sip.x": (taken, kind),
            "sip.y": (None, kind),
        }
        (before,) = doctor_machine.listeners(endpoints, running=False)
        (beside,) = doctor_machine.listeners(endpoints, running=True)
    (free,) = doctor_machine.listeners(endpoints, running=False)
    (lost,) = doctor_machine.listeners(endpoints, running=True)
    assert [one.state for one in (before, beside, free, lost)] == ["fail", "ok", "ok", "fail"]
    assert "address already in use" in before.message


def test_the_media_range_has_pairs_enough_or_says_how_many() -> None:
    """Both ports of a pair count; another machine's address is named as such."""
    with _bound(UDP) as held:
        odd = held.getsockname()[1] | 1
        ports = PortRange(odd - 1, odd)
        full = doctor_machine.media_pool("127.0.0.1", ports, 1, running=False)
    free = doctor_machine.media_pool("127.0.0.1", ports, 1, running=False)
    elsewhere = doctor_machine.media_pool("192.0.2.1", ports, 1, running=False)
    assert [one.state for one in (full, free, elsewhere)] == ["fail", "ok", "fail"]
    assert "only 0 pairs" in full.message
    assert "ip addr" in elsewhere.message


def test_the_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    """Speed and sync by a clock; a directory that is gone is to be mended."""
    ticks = iter(range(1_000))
    speed, sync = doctor_machine.disk_speed(tmp_path, 400, clock=lambda: float(next(ticks)))
    assert speed.message.startswith("17 MB/s")
    assert sync.message.startswith("a small write is safe on the disk after 1000.0 ms")
    assert list(tmp_path.iterdir()) == []
    (gone,) = doctor_machine.disk_speed(tmp_path / "gone", 400)
    assert gone.state == "fail"


def test_names_are_looked_up() -> None:
    """Each host, by what it is for."""

    def resolve(host: str) -> None:
        if host == "gone.example.com":
            raise OSError

    found = doctor_uplink.names({"A": "https://api.example.com/x", "B": "https://gone.example.com"}, resolve=resolve)
    assert [(one.state, one.message.split(" ")[0]) for one in found] == [
        ("ok", "api.example.com"),
        ("fail", "gone.example.com"),
    ]


@pytest.mark.parametrize("answer", [(500, {}), (200, {"version": "1"}), (200, {"now_ms": "x"}), (200, b"<html>")])
def test_an_api_that_is_none_is_told(answer: web.Answer) -> None:
    """Down, or something else at its address."""
    with web.serving(lambda *_: answer) as server:
        (found,), offset = doctor_uplink.health(CloudApi(), server.url, AgentClock.measured())
    assert (found.check, found.state, offset) == ("api", "fail", None)


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (None, "ok", "gives it credentials"),
        (Refused(400, "grant refused"), "fail", "revoked"),
        (PolicyViolation("no"), "fail", "revoked"),
        (Unavailable("later"), "fail", "wait in the spool"),
    ],
)
def test_credentials_are_asked_for(error: Exception | None, state: str, words: str) -> None:
    """What the cloud says is said in our words."""

    def fetch() -> None:
        if error is not None:
            raise error

    found = doctor_uplink.credentials(fetch)
    assert (found.state, words in found.message) == (state, True)


def test_queue_and_bucket_are_tried_and_left_as_they_were() -> None:
    """A message stays in the queue; the probe of the bucket, if the bucket took it at all, is no call's file."""
    with aws.moto_server() as url:
        sqs, s3 = aws.client("sqs", url), aws.client("s3", url)
        s3.create_bucket(Bucket="doctors", CreateBucketConfiguration={"LocationConstraint": aws.REGION})
        queue = sqs.create_queue(QueueName="doctors")["QueueUrl"]
        sqs.send_message(QueueUrl=queue, MessageBody="{}")
        identity = CloudKey().identity(command_queue_url=queue, ingest_bucket="doctors")
        assert doctor_uplink.command_queue(sqs, identity).state == "ok"
        assert doctor_uplink.ingest_bucket(s3, identity).state == "ok"
        assert len(sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]) == 1
        gone = CloudKey().identity(command_queue_url=f"{queue}-gone", ingest_bucket="nobodys")
        for found in (doctor_uplink.command_queue(sqs, gone), doctor_uplink.ingest_bucket(s3, gone)):
            assert (found.state, "firewall" in found.message) == ("fail", True)
        sqs.close()
        s3.close()


@pytest.mark.parametrize(("days", "state"), [(0, "ok"), (3_625, "warn"), (3_700, "fail")])
def test_a_certificate_has_time_left(tmp_path: Path, days: int, state: str) -> None:
    """A month before its end is time to look; after it, to act."""
    began = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)
    lan_credentials.server_context(tmp_path, "127.0.0.1", began.timestamp())
    found = doctor_uplink.certificate("ours", tmp_path / "lan.crt", began + dt.timedelta(days=days))
    assert found.state == state
    assert doctor_uplink.certificate("ours", tmp_path / "none", began).state == "fail"


def test_it_counts_and_shows() -> None:
    """The gravest state is the whole's; a program gets the same."""
    found = [Diagnosis("a", "ok", "well"), Diagnosis("b", "warn", "look"), Diagnosis("c", "fail", "change")]
    assert diagnosis.shown(found).splitlines() == [
        "ok    a             well",
        "warn  b             look",
        "fail  c             change",
        "1 ok, 1 to look at, 1 to change",
    ]
    assert diagnosis.to_json(found)["state"] == "fail"
    assert [diagnosis.worst(found[:count]) for count in range(3)] == ["ok", "ok", "warn"]


def _settings(tmp_path: Path, api: str) -> Path:
    """Settings of a machine as it is after the installation."""
    for name in ("state", "spool"):
        (tmp_path / name).mkdir(mode=0o700, exist_ok=True)
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[agent]\nstate_dir = "{tmp_path}/state"\nspool_dir = "{tmp_path}/spool"\n'
        '[sip]\nudp = "127.0.0.1:0"\ntcp = "127.0.0.1:0"\n'
        '[media]\naddress = "127.0.0.1"\nports = "21500-21519"\npool_size = 4\n'
        f'[uplink]\napi = "{api}"\n[lan]\nlisten = "127.0.0.1:0"\n'
    )
    return path


@pytest.fixture
def enrolled(tmp_path: Path) -> Callable[[str], Path]:
    """Settings of an agent that is enrolled with a cloud on loopback."""

    def make(url: str) -> Path:
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        AgentKey.generate().save(state)
        identity = CloudKey().identity(token_url=f"{url}/v1/token", command_queue_url=f"{url}/1/q")
        dataclasses.replace(identity, api=url).save(state)
        lan_credentials.server_context(state, "127.0.0.1", 1_800_000_000.0)
        return _settings(tmp_path, url)

    return make


def _api(path: str, _body: str) -> web.Answer:
    return (200, {"now_ms": 1}) if path == "/v1/health" else (400, {"title": "The grant was not accepted"})


def test_a_machine_that_is_not_enrolled_is_looked_at_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, one JSON object, every check by its name."""
    with web.serving(_api) as server:
        assert cli.main(["doctor", "--json", "--config", str(_settings(tmp_path, server.url))]) == 1
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    checks = {one["check"]: one["state"] for one in told["checks"]}
    assert told["state"] == "fail"
    assert {
        "agent", "ports", "media_ports", "port_range", "descriptors", "memory_lock", "core_dumps", "socket_buffer",
        "nic_backlog", "lost_packets", "ntp", "directory", "disk_space", "disk_kind", "disk_speed", "disk_sync", "api",
        "clock", "identity",
    } <= checks.keys()  # fmt: skip
    assert (checks["identity"], checks["api"], checks["agent"]) == ("fail", "ok", "warn")


def test_a_cloud_that_refuses_is_the_thing_to_change(enrolled: Callable[[str], Path]) -> None:
    """Names, API and clock are asked first; the token's refusal ends it."""
    with web.serving(_api) as server:
        found = doctor.examine(config.load(enrolled(server.url)), Lines().log)
    states = {one.check: one.state for one in found}
    assert (states["identity"], states["dns"], states["api"], states["token"]) == ("ok", "ok", "ok", "fail")
    assert "certificate" in states
    assert "queue" not in states


def test_a_revoked_agent_is_told_so_and_nobody_is_asked(tmp_path: Path, enrolled: Callable[[str], Path]) -> None:
    """How to record again stands in the line."""
    with web.serving(_api) as server:
        settings = config.load(enrolled(server.url))
        Revocation(tmp_path / "state", AGENT, Lines().log).learn()
        found = doctor.examine(settings, Lines().log)
        assert server.requests == []
    (revoked,) = [one for one in found if one.check == "revoked"]
    assert (revoked.state, "--replace" in revoked.message) == ("fail", True)


def test_it_leaves_nothing_behind(tmp_path: Path, enrolled: Callable[[str], Path]) -> None:
    """Neither what the token's answer tells anew, nor a directory that is not there, nor what it wrote to the disk."""
    ends = dt.datetime(2030, 1, 1, tzinfo=dt.UTC).isoformat()
    token: dict[str, Any] = {"access_key_id": "A", "secret_access_key": "s", "session_token": "t", "expires_at": ends}
    token["pause"] = {"lease_s": 77, "on_expiry": "silent"}
    answers: dict[str, web.Answer] = {"/v1/health": (200, {"now_ms": 1_800_000_000_000}), "/v1/token": (200, token)}
    with web.serving(lambda path, _: answers.get(path, (403, {}))) as server:
        settings = config.load(enrolled(server.url))
        (tmp_path / "spool").rmdir()
        before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
        found = doctor.examine(settings, Lines().log)
    assert [one.state for one in found if one.check == "token"] == ["ok"]
    (told,) = [one.message for one in found if one.check == "directory" and one.state == "fail"]
    assert told.startswith(f"agent.spool_dir {tmp_path}/spool cannot be used (no such file or directory): create it")
    assert told.endswith(f"install -d -m 700 -o dualtone {tmp_path}/spool")
    assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before
    assert not (tmp_path / "spool").exists()


def test_root_is_told_to_look_as_the_agents_user(
    tmp_path: Path, enrolled: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What root may do says nothing of the agent, and what root writes the agent cannot read; a code is not spent."""
    with web.serving(_api) as server:
        path = enrolled(server.url)
        monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "state").stat().st_uid + 1)
        code = enrolment_code.make(b"s" * 16, CloudKey().der)
        for command in (["doctor"], ["enrol", "--replace", "--code", code], ["desk", "remove", "One"]):
            assert cli.main([*command, "--config", str(path)]) == 1
            assert "belongs to another user: run this as the agent's user, with sudo -u" in capsys.readouterr().err
        assert server.requests == []
