"""The agent beside the local cloud: enrolled through the public API, run as a child that cannot outlive its cloud."""

import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from infra.local.client import ApiClient

_ENROL_S = 30.0
_READY_S = 30.0
_ANSWER_S = 5.0
_POOL_STREAMS = 400
_DRAIN_S = 10
_STOP_S = _DRAIN_S + 15.0


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
        media_ports: range for RTP, `first-last`.
        hold_back_s: hold-back in seconds.
    """

    directory: Path
    log: Path
    api: str
    environment: Mapping[str, str]
    sip_port: int
    sip_tcp_port: int
    media_ports: str
    hold_back_s: float

    @property
    def spool_dir(self) -> Path:
        """Where sealed calls wait for their receipt."""
        return self.directory / "spool"

    @property
    def settings(self) -> Path:
        """The agent's settings file."""
        return self.directory / "agent.toml"


class Agent:
    """A running agent, as a context manager. Enter it on the main thread: the kernel ties the child to that thread.

    Args:
        plan: how it is set up.
        administrator: an administrator's access token, which invites it.

    Attributes:
        ready: the JSON line that it printed when it was ready.
    """

    ready: Mapping[str, Any]

    def __init__(self, plan: AgentPlan, administrator: str) -> None:
        self._plan = plan
        self._administrator = administrator
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Invite, enrol and start it, and wait until it answers SIP."""
        plan = self._plan
        plan.spool_dir.mkdir(parents=True, exist_ok=True)
        plan.settings.write_text(_settings(plan), "utf-8")
        invitation = ApiClient(plan.api, self._administrator).post("/v1/agents", {"name": "local"})
        self._run("enrol", "--api", plan.api, "--code", invitation["code"], "--config", str(plan.settings))
        self._process = self._spawn("run", "--config", str(plan.settings))
        try:
            self.ready = self._first_line()
            _wait_for_answer(self.ready["sip_udp"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Drain and stop it."""
        self.stop()

    def check(self) -> None:
        """Raise AgentFailed if it ended by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise self._failure(f"the agent ended by itself with {status}")

    def stop(self) -> None:
        """Ask it to drain and end; after its grace time, kill every process of its group."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

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
        tether = [sys.executable, "-m", "infra.local.tether", str(os.getpid())]
        with self._plan.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                [*tether, *_command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=dict(self._plan.environment),
                process_group=0,  # Ctrl-C in a terminal is the cloud's to pass on
            )

    def _first_line(self) -> Mapping[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise self._failure("the agent was not started")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(_READY_S):
                raise self._failure(f"the agent was not ready within {_READY_S:.0f} s")
        text = process.stdout.readline()
        if not text.startswith("{"):
            raise self._failure("the agent ended before it was ready")
        ready: Mapping[str, Any] = json.loads(text)
        return ready

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

[media]
address = "127.0.0.1"
ports = "{plan.media_ports}"
pool_size = {min(_POOL_STREAMS, pairs)}
hold_back_s = {plan.hold_back_s}

[uplink]
api = {json.dumps(plan.api)}

[log]
level = "info"
"""


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
