"""The agent beside the local cloud: enrolled through the public API, run as a child that cannot outlive its cloud.

Here stands what a service manager does on a machine of its own: an agent that ends without being asked to is started
again at once, with the addresses that it had, so that it goes on with its calls.
"""

import datetime as dt
import json
import logging
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from infra.local import tether
from infra.local.client import ApiClient
from sbc_agent.runtime import self_signed

_ENROL_S = 30.0
_READY_S = 30.0
_ANSWER_S = 5.0
POOL_STREAMS = 400
_DRAIN_S = 10
_STOP_S = _DRAIN_S + 15.0
_QUICK_S = 1.0  # who ends sooner than that after being ready has not recovered
_QUICK_DEATHS = 6
_BACK_OFF_S = (0.0, 0.0, 0.5, 1.0, 2.0)  # before the next start, by quick deaths in a row

_LOG = logging.getLogger(__name__)


class AgentFailed(Exception):  # noqa: N818 - what happened, in a word
    """The agent did not enrol, start or answer; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """How to set the agent up.

    Attributes:
        directory: for its settings, state and spool.
        log: file for its standard error.
        api: base URL of the API.
        environment: of its processes.
        sip_port: UDP port, 0 for a free one.
        sip_tcp_port: TCP port, 0 for a free one.
        sip_tls_port: TCP port of SIP over TLS, 0 for a free one.
        media_ports: range for RTP, `first-last`.
        hold_back_s: hold-back in seconds.
        lan_port: TCP port of its LAN endpoint, 0 for a free one.
        metrics_port: TCP port of its figures for Prometheus, 0 for a free one.
        streams: how many streams it can receive at once.
        canary_s: how often it places a call of its own, 0 for never.
    """

    directory: Path
    log: Path
    api: str
    environment: Mapping[str, str]
    sip_port: int
    sip_tcp_port: int
    media_ports: str
    hold_back_s: float
    lan_port: int = 0
    metrics_port: int = 0
    streams: int = POOL_STREAMS
    canary_s: int = 0
    sip_tls_port: int = 0

    @property
    def sip_certificate(self) -> Path:
        """What SIP over TLS proves itself with; its key lies beside it."""
        return self.directory / "sip.crt"

    @property
    def spool_dir(self) -> Path:
        """Where sealed calls wait for their receipt."""
        return self.directory / "spool"

    @property
    def settings(self) -> Path:
        """The agent's settings file."""
        return self.directory / "agent.toml"


class Agent:
    """A running agent, as a context manager; a thread of its own starts it, and starts it again when it ended.

    Args:
        plan: how it is set up.
        administrator: an administrator's access token, which invites it.
    """

    def __init__(self, plan: AgentPlan, administrator: str) -> None:
        self._plan = plan
        self._administrator = administrator
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._first = threading.Event()
        self._ready: Mapping[str, Any] = {}
        self._failed: AgentFailed | None = None
        # The kernel ties a child to the thread that started it: this one lives as long as the agent may.
        self._watch = threading.Thread(target=self._keep_running, name="agent", daemon=True)

    @property
    def ready(self) -> Mapping[str, Any]:
        """The JSON line that it printed when it was ready last."""
        return self._ready

    def __enter__(self) -> Self:
        """Invite, enrol and start it, and wait until it answers SIP."""
        plan = self._plan
        plan.spool_dir.mkdir(parents=True, exist_ok=True)
        self_signed.write(plan.sip_certificate, _key_of(plan.sip_certificate), "127.0.0.1", dt.datetime.now(dt.UTC))
        plan.settings.write_text(_settings(plan), "utf-8")
        invitation = ApiClient(plan.api, self._administrator).post("/v1/agents", {"name": "local"})
        self._run("enrol", "--api", plan.api, "--code", invitation["code"], "--config", str(plan.settings))
        self._watch.start()
        try:
            self._first.wait()
            self.check()
            _wait_for_answer(self.ready["sip_udp"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Drain and stop it."""
        self.stop()

    def check(self) -> None:
        """Raise AgentFailed if it ends again and again."""
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Ask it to drain and end; after its grace time, kill every process of its group."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self._watch.join()

    def _keep_running(self) -> None:
        """Start it, and again whenever it ended, until asked to stop or until it is clear that it cannot run."""
        quick_deaths = 0
        try:
            while not self._stopping.wait(_BACK_OFF_S[min(quick_deaths, len(_BACK_OFF_S) - 1)]):
                status, lived_s = self._run_once()
                quick_deaths = quick_deaths + 1 if lived_s < _QUICK_S else 0
                if self._stopping.is_set():
                    return
                _LOG.warning("the agent ended with %s and is started again", status)
                if not self._first.is_set():
                    raise self._failure("the agent ended before it was ready")
                if quick_deaths == _QUICK_DEATHS:
                    raise self._failure(f"the agent ended by itself with {status}, {quick_deaths} times in a row")
        except AgentFailed as failure:
            self._failed = failure
        finally:
            self._first.set()

    def _run_once(self) -> tuple[int, float]:
        """Start it, note its line when it is ready, wait for its end; return its status and how long it was ready."""
        lived_s = 0.0
        with self._lock:
            if self._stopping.is_set():
                return 0, lived_s
            process = self._process = self._spawn("run", "--config", str(self._plan.settings))
        assert process.stdout is not None
        with process.stdout:
            if (line := self._first_line(process)) is not None:
                # It comes back with the addresses that it has now: its peers know no others.
                self._plan = replace(
                    self._plan,
                    sip_port=_port(line["sip_udp"]),
                    sip_tcp_port=_port(line["sip_tcp"]),
                    sip_tls_port=_port(line["sip_tls"]),
                    lan_port=_port(line["lan"]) if line["lan"] else self._plan.lan_port,
                    metrics_port=_port(line["metrics"]) if line["metrics"] else self._plan.metrics_port,
                )
                self._plan.settings.write_text(_settings(self._plan), "utf-8")
                self._ready, began = line, time.monotonic()
                self._first.set()
                process.wait()
                lived_s = time.monotonic() - began
            return process.wait(), lived_s

    def _run(self, *arguments: str) -> None:
        with self._plan.log.open("ab") as log:
            result = subprocess.run(  # noqa: S603 - our own command
                [*_command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._plan.environment),
                check=False,
                timeout=_ENROL_S,
            )
        if result.returncode != 0:
            raise self._failure(f"`dualtone-agent {arguments[0]}` ended with {result.returncode}")

    def _spawn(self, *arguments: str) -> "subprocess.Popen[str]":
        tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid())]
        with self._plan.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                [*tied, *_command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=dict(self._plan.environment),
                process_group=0,  # Ctrl-C in a terminal is the cloud's to pass on
            )

    def _first_line(self, process: "subprocess.Popen[str]") -> Mapping[str, Any] | None:
        """What it prints when it is ready; None if it ended, or had to be ended, before."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(_READY_S):
                _LOG.error("the agent was not ready within %.0f s", _READY_S)
                os.killpg(process.pid, signal.SIGKILL)
                return None
        text = process.stdout.readline()
        return json.loads(text) if text.startswith("{") else None

    def _failure(self, what: str) -> AgentFailed:
        return AgentFailed(f"{what}; its log is {self._plan.log}")


def _command() -> Sequence[str]:
    return [str(Path(sys.executable).with_name("dualtone-agent"))]


def _settings(plan: AgentPlan) -> str:
    """Write the agent's TOML file."""
    pairs = _media_pairs(plan.media_ports)
    return f"""\
[agent]
state_dir = {json.dumps(str(plan.directory / "state"))}
spool_dir = {json.dumps(str(plan.spool_dir))}
drain_s = {_DRAIN_S}

[sip]
udp = "127.0.0.1:{plan.sip_port}"
tcp = "127.0.0.1:{plan.sip_tcp_port}"
tls = "127.0.0.1:{plan.sip_tls_port}"
tls_certificate = {json.dumps(str(plan.sip_certificate))}
tls_key = {json.dumps(str(_key_of(plan.sip_certificate)))}

[media]
address = "127.0.0.1"
ports = "{plan.media_ports}"
pool_size = {min(plan.streams, pairs)}
hold_back_s = {plan.hold_back_s}

[uplink]
api = {json.dumps(plan.api)}

[lan]
listen = "127.0.0.1:{plan.lan_port}"

[metrics]
listen = "127.0.0.1:{plan.metrics_port}"

[canary]
every_s = {plan.canary_s}

[log]
level = "info"
"""


def _key_of(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2].partition("/")[0])


def _media_pairs(ports: str) -> int:
    """Return how many even ports of a range have their odd neighbour in it."""
    first, last = (int(port) for port in ports.split("-"))
    return (last + 1) // 2 - (first + 1) // 2


def _wait_for_answer(address: str) -> None:
    """Send OPTIONS until the recorder answers it (RFC 3261 section 11: a ping that makes no dialog).

    Raises:
        AgentFailed: if nothing comes within five seconds.
    """
    host, _, port = address.rpartition(":")
    deadline_s = time.monotonic() + _ANSWER_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((host, int(port)))
        udp.settimeout(0.25)
        while time.monotonic() < deadline_s:
            try:
                udp.send(_options(address, udp.getsockname()[1]))
                if udp.recv(65_536).startswith(b"SIP/2.0 "):
                    return
            except (TimeoutError, ConnectionRefusedError):
                continue
    message = f"the agent does not answer OPTIONS at {address}"
    raise AgentFailed(message)


def _options(address: str, port: int) -> bytes:
    token = secrets.token_hex(8)
    lines = (
        f"OPTIONS sip:{address} SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{token};rport",
        "Max-Forwards: 70",
        f"From: <sip:local@127.0.0.1:{port}>;tag={token}",
        f"To: <sip:{address}>",
        f"Call-ID: {token}@127.0.0.1",
        "CSeq: 1 OPTIONS",
        f"Contact: <sip:local@127.0.0.1:{port}>",
        "Content-Length: 0",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
