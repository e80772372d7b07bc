"""``dualtone local``: the whole product on one machine, for people to try and for programs to test.

Standard output carries one thing: with ``--json`` the JSON line that says where everything is, else a summary for
people. Whatever else the process or a handler prints goes to log files in the data directory.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from cryptography.hazmat.primitives import serialization

from infra.local.agent import POOL_STREAMS, Agent, AgentFailed, AgentPlan
from infra.local.client import ApiClient, ApiProblem
from infra.local.cloud import CREDENTIALS, LocalCloud
from infra.local.functions import FunctionError
from infra.local.intrinsics import TemplateError
from infra.local.template import REGION
from sbc_agent.runtime.durable import write_private
from sbc_agent.runtime.lan_credentials import CERTIFICATE_FILE, bearer_token

AGENT_TENANT = "acme"
LINE_FILE = "local.json"
_WATCH_S = 0.5
_LONGEST_HOLD_BACK_S = 30.0
_MOST_STREAMS = 30_000
_INHERITED = re.compile(r"(?!AWS_|DUALTONE_|POWERTOOLS_)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dualtone local`."""
    parser.add_argument("--json", action="store_true", help="print one JSON line when ready, and nothing else")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="D",
        help=f"keep logs, spool, settings and {LINE_FILE} (this line, kept up to date) here (default: temporary)",
    )
    parser.add_argument(
        "--hold-back", type=_hold_back, default=5.0, metavar="S", help="hold-back in seconds (default: 5)"
    )
    for name, what in (
        ("--api-port", "the API"),
        ("--sip-port", "SIP over UDP"),
        ("--sip-tcp-port", "SIP over TCP"),
        ("--sip-tls-port", "SIP over TLS"),
        ("--aws-port", "the AWS endpoint"),
    ):
        parser.add_argument(name, type=_port, default=0, metavar="P", help=f"port of {what} (default: 0, a free one)")
    parser.add_argument(
        "--agent-aws-endpoint",
        metavar="URL",
        help="where the agent finds AWS: something in front of --aws-port, to try a bad uplink (default: AWS itself)",
    )
    parser.add_argument(
        "--streams",
        type=_streams,
        default=POOL_STREAMS,
        metavar="N",
        help=f"streams that the agent receives at once (default: {POOL_STREAMS}, at most half the media ports)",
    )
    parser.add_argument(
        "--media-ports", type=_port_range, default="20000-29999", metavar="A-B", help="UDP ports for RTP"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal asks to stop; return the exit status."""
    stopping = _Stopping()
    try:
        with ExitStack() as stack:
            stack.enter_context(stopping.handlers())
            data_dir = stack.enter_context(_data_dir(arguments.data_dir))
            say = stack.enter_context(_quiet_stdout(data_dir / "logs"))
            cloud = stack.enter_context(LocalCloud(api_port=arguments.api_port, aws_port=arguments.aws_port))
            warming = stack.enter_context(ThreadPoolExecutor(1)).submit(cloud.functions.warm)
            plan = _agent_plan(arguments, data_dir, cloud)
            administrator = cloud.tenants[AGENT_TENANT].tokens["administrator"]
            warming.result()
            endpoint = ApiClient(cloud.api_url, administrator).post("/v1/payment-endpoints", {"name": "local"})
            agent = stack.enter_context(Agent(plan, administrator))
            line = describe(cloud, agent.ready, plan, arguments.hold_back, endpoint)
            _keep(line, data_dir)
            say(json.dumps(line) if arguments.json else _summary(line))
            while not stopping.wait(_WATCH_S):
                agent.check()
                if agent.ready["pids"]["sip"] != line["pids"]["sip"]:  # it was started again
                    line = describe(cloud, agent.ready, plan, arguments.hold_back, endpoint)
                    _keep(line, data_dir)
    except _Stopped:
        pass
    except (AgentFailed, ApiProblem, FunctionError, TemplateError, OSError) as error:
        sys.stderr.write(f"dualtone local: {error}\n")
        return 1
    return 0


def describe(
    cloud: LocalCloud, agent: Mapping[str, Any], plan: AgentPlan, hold_back_s: float, endpoint: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the JSON line says: where everything is, and the keys to it."""
    state_dir = plan.directory / "state"
    return {
        "api": cloud.api_url,
        "sip_udp": agent["sip_udp"],
        "sip_tcp": agent["sip_tcp"],
        "sip_tls": agent["sip_tls"],
        "sip_tls_certificate": str(plan.sip_certificate),
        "agent_lan": agent.get("lan"),
        "agent_lan_token": bearer_token(state_dir),
        "agent_lan_certificate": str(state_dir / CERTIFICATE_FILE),
        "agent_tenant": AGENT_TENANT,
        "tenants": {name: dict(tenant.tokens) for name, tenant in cloud.tenants.items()},
        "token_url": f"{cloud.api_url}/v1/token",
        "webhook_url": endpoint["url"],
        "webhook_secret": endpoint["secret"],
        "public_keys": {
            "recording_signing": _public_key_pem(cloud, "SigningKey"),
            "gap_certificates": _public_key_pem(cloud, "CertificateKey"),
        },
        "aws_endpoint": cloud.aws_endpoint,
        "region": REGION,
        "resources": cloud.resources(),
        "spool_dir": str(plan.spool_dir),
        "log_files": [str(plan.log.with_name(name)) for name in ("cloud.log", "functions.log", plan.log.name)],
        "pids": {"sip": agent["pids"]["sip"], "media": agent["pids"]["media"], "cloud": os.getpid()},
        "hold_back_s": hold_back_s,
        "metrics": agent.get("metrics"),
        "version": importlib.metadata.version("dualtone"),
    }


def _keep(line: Mapping[str, Any], data_dir: Path) -> None:
    """Write what the JSON line says now to a file: process ids change when the agent is started again."""
    write_private(data_dir / LINE_FILE, json.dumps(line).encode() + b"\n")


def _agent_plan(arguments: argparse.Namespace, data_dir: Path, cloud: LocalCloud) -> AgentPlan:
    environment = {name: value for name, value in os.environ.items() if _INHERITED.match(name)}
    return AgentPlan(
        directory=_fresh(data_dir / "agent"),
        log=data_dir / "logs" / "agent.log",
        api=cloud.api_url,
        environment={
            **environment,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": arguments.agent_aws_endpoint or cloud.aws_endpoint,
        },
        sip_port=arguments.sip_port,
        sip_tcp_port=arguments.sip_tcp_port,
        sip_tls_port=arguments.sip_tls_port,
        media_ports=arguments.media_ports,
        hold_back_s=arguments.hold_back,
        streams=arguments.streams,
    )


def _fresh(path: Path) -> Path:
    """Return the path, or the first free of `path-2`, `path-3`...

    An agent of an earlier run belongs to a cloud that is gone, and the keys with it: what is left in its spool can be
    opened by nobody. It is left alone all the same.
    """
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _public_key_pem(cloud: LocalCloud, logical_id: str) -> str:
    der = cloud.client("kms").get_public_key(KeyId=cloud.stack.ref(logical_id))["PublicKey"]
    key = serialization.load_der_public_key(der)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode("ascii")


def _summary(line: Mapping[str, Any]) -> str:
    officer = line["tenants"][line["agent_tenant"]]["officer"]
    return f"""\
Dualtone {line["version"]} runs on this machine. Ctrl-C stops it.

  SIPREC      {line["sip_udp"]} (UDP), {line["sip_tcp"]} (TCP), {line["sip_tls"]} (TLS),
              recording for {line["agent_tenant"]}; certificate of TLS: {line["sip_tls_certificate"]}
  API         {line["api"]}/v1/openapi.json
  AWS         AWS_ENDPOINT_URL={line["aws_endpoint"]}, region {line["region"]}, any credentials
  LAN         {line["agent_lan"]} (the agent's own endpoint, for pauses without an uplink)
  Payments    {line["webhook_url"]}
  Spool       {line["spool_dir"]}
  Logs        {Path(line["log_files"][0]).parent}

  Place a call:  dualtone-agent call --target {line["sip_udp"]} --caller-wav A.wav --callee-wav B.wav
  List calls:    curl -H "Authorization: Bearer $TOKEN" {line["api"]}/v1/recordings
                 TOKEN={officer}
"""


# ---------------------------------------------------------------- signals, files, options


class _Stopped(BaseException):
    """A signal asked to stop while things were still being started."""


class _Stopping:
    """Turns SIGINT and SIGTERM into an orderly end, whenever they come."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._waiting = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for a signal, at most so long; tell whether one came."""
        self._waiting = True
        return self._asked.wait(timeout_s)

    @contextmanager
    def handlers(self) -> Iterator[None]:
        """Hold the signal handlers for the length of a block; a second signal does not interrupt the end."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            first = not self._asked.is_set()
            self._asked.set()
            if first and not self._waiting:
                raise _Stopped

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _data_dir(wanted: Path | None) -> Iterator[Path]:
    """Make the data directory; a temporary one goes away at the end, one that was named stays."""
    if wanted is not None:
        directory = wanted.resolve()
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        yield directory
        return
    directory = Path(tempfile.mkdtemp(prefix="dualtone-local-"))
    (directory / "logs").mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Say:
    """The one way to the real standard output."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, text: str) -> None:
        data = memoryview(f"{text}\n".encode())
        while data:
            data = data[os.write(self._descriptor, data) :]


@contextmanager
def _quiet_stdout(logs: Path) -> Iterator[_Say]:
    """Send everything that is printed to functions.log, and Python's logging to cloud.log."""
    handler = logging.FileHandler(logs / "cloud.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("infra").setLevel(logging.INFO)
    sys.stdout.flush()
    original = os.dup(1)
    printed = os.open(logs / "functions.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(printed, 1)
    os.close(printed)
    try:
        yield _Say(original)
    finally:
        sys.stdout.flush()
        os.dup2(original, 1)
        os.close(original)
        root.removeHandler(handler)
        handler.close()


def _bad(message: str) -> NoReturn:
    raise argparse.ArgumentTypeError(message)


def _hold_back(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        _bad(f"{text} is not a number of seconds")
    return (
        value if 0 <= value <= _LONGEST_HOLD_BACK_S else _bad(f"hold-back is 0 to {_LONGEST_HOLD_BACK_S:.0f} seconds")
    )


def _streams(text: str) -> int:
    return int(text) if text.isdecimal() and 0 < int(text) <= _MOST_STREAMS else _bad(f"{text} is no number of streams")


def _port(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) <= 65_535 else _bad(f"{text} is no port")  # noqa: PLR2004 - 16 bits


def _port_range(text: str) -> str:
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text, re.ASCII)
    if not match or not 1024 <= int(match[1]) < int(match[2]) <= 65_535:  # noqa: PLR2004 - unprivileged ports
        _bad(f"{text} is no range of ports such as 20000-29999")
    return text
