"""ministack as a child process: on loopback, on a port of its own, with nothing of this process's environment."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

import boto3

ACCOUNT_ID: Final = "123456789012"
REGION: Final = "eu-west-1"
VENV: Final = Path(__file__).resolve().parents[2] / ".venv-ministack"

_CHILD: Final = Path(__file__).with_name("mended_ministack.py")
_READY_S: Final = 30.0
_POLL_S: Final = 0.05


class EmulatorFailed(Exception):  # noqa: N818 - what happened, in a word
    """ministack is not installed, did not start or ended; the message says where its log is."""


class Emulator:
    """A running ministack, as a context manager. Enter it on the main thread: the kernel ties the child to that thread.

    Args:
        directory: For everything that it and its functions write.

    Attributes:
        url: Its one endpoint, for every AWS service and for API Gateway's stages.
        log: What it printed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.log = directory / "ministack.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            EmulatorFailed: If it is not installed or not ready in time.
        """
        python = VENV / "bin" / "python"
        if not python.exists():
            message = f"{VENV.name} is not there: `make test` builds it"
            raise EmulatorFailed(message)
        # Tied to this process: however it dies, the kernel kills ministack, and the functions end at their next read.
        tether = [sys.executable, "-m", "infra.local.tether", str(os.getpid())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*tether, str(python), "-P", str(_CHILD)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self._directory,
                process_group=0,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and every function's process."""
        self.stop()

    def client(self, service: str) -> Any:
        """Return a boto3 client that reaches it; one a service."""
        if service not in self._clients:
            # A key of twelve digits names the account: what is made belongs to the one that ARNs speak of.
            self._clients[service] = boto3.client(  # type: ignore[call-overload]
                service,
                endpoint_url=self.url,
                region_name=REGION,
                aws_access_key_id=ACCOUNT_ID,
                aws_secret_access_key="local",  # noqa: S106 - nobody checks it
            )
        return self._clients[service]

    def stop(self) -> None:
        """Kill its process group, the functions in it. It keeps nothing, so there is nothing to wait for."""
        process, self._process = self._process, None
        if process is None:
            return
        for client in self._clients.values():
            client.close()
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, and no function was left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "HOME": str(self._directory),
            "TMPDIR": str(self._directory),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
            "MINISTACK_REGION": REGION,
            "STATE_DIR": str(self._directory / "state"),
            "S3_DATA_DIR": str(self._directory / "s3"),
            # These two listen on all addresses, whatever BIND_HOST says.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }

    def _wait(self) -> None:
        deadline_s = time.monotonic() + _READY_S
        while time.monotonic() < deadline_s:
            if self._process is None or self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(_POLL_S)
        message = f"ministack did not start; its log ends: {self.log.read_text('utf-8', 'replace')[-500:]}"
        raise EmulatorFailed(message)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=1)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
