"""One real ``dualtone local`` for all end-to-end tests, started as another program would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.client import ApiClient, ApiProblem

BIN = Path(sys.executable).parent
VECTORS = Path(__file__).parents[1] / "vectors"


class Local:
    """A running ``dualtone local``: its JSON line, its API as an officer, and what tests do over and over."""

    def __init__(self, line: dict[str, Any], process: subprocess.Popen[str]) -> None:
        self.line = line
        self.process = process
        self.tenant: str = line["agent_tenant"]
        self.officer = ApiClient(line["api"], line["tenants"][self.tenant]["officer"])

    def wait_recorded(self, sip_call_id: str, within_s: float = 60) -> dict[str, Any]:
        """Polls the call's state until it is recorded, as a tester would; returns the recording."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            try:
                found = self.officer.get("/v1/calls", {"sip_call_id": sip_call_id})
            except ApiProblem as problem:
                if problem.status != 404:
                    raise
            else:
                if found["state"] == "recorded":
                    return self.officer.get(f"/v1/recordings/{found['recording_id']}")
            time.sleep(0.1)
        raise AssertionError(f"no recording of the call within {within_s} s")

    def place_calls(self, *options: str) -> list[dict[str, Any]]:
        """Runs ``dualtone-agent call --json`` and returns one object a call (without the one that sums up)."""
        command = [str(BIN / "dualtone-agent"), "call", "--target", self.line["sip_udp"], "--json", *options]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 0, result.stderr
        answers = [json.loads(text) for text in result.stdout.splitlines()]
        return [answer for answer in answers if "sip_call_id" in answer]


def start_local(data_dir: Path, *options: str) -> Local:
    """Starts ``dualtone local --json`` and waits for its line."""
    command = [str(BIN / "dualtone"), "local", "--json", "--data-dir", str(data_dir), *options]
    temporary = data_dir / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}, start_new_session=True
    )
    assert process.stdout is not None
    text = process.stdout.readline()
    assert text.startswith("{"), f"dualtone local said {text!r} and ended with {process.wait(30)}"
    return Local(json.loads(text), process)


def stop_local(local: Local) -> int:
    """Stops it as a user would; returns its exit status."""
    local.process.send_signal(signal.SIGTERM)
    try:
        return local.process.wait(60)
    except subprocess.TimeoutExpired:
        local.process.kill()
        raise
    finally:
        if local.process.stdout is not None:
            local.process.stdout.close()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local cloud with agent and API, hold-back one second."""
    running = start_local(tmp_path_factory.mktemp("local"), "--hold-back", "1")
    yield running
    assert stop_local(running) == 0
