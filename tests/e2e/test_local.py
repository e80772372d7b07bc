"""``dualtone local`` as other programs see it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from infra.local.client import ApiClient
from tests.e2e.conftest import Local, start_local, stop_local

KEYS = {
    "api", "sip_udp", "sip_tcp", "sip_tls", "agent_lan", "agent_tenant", "tenants", "token_url", "webhook_url",
    "webhook_secret", "public_keys", "aws_endpoint", "resources", "spool_dir", "log_files", "pids", "hold_back_s",
    "metrics", "version",
}  # fmt: skip


def descendants(pid: int) -> set[int]:
    """All processes below a process."""
    found: set[int] = set()
    listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children = [tuple(map(int, row.split())) for row in listing.splitlines()]
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in children if parent in frontier} - found
        found |= frontier
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of them that still run (a zombie does not)."""
    running = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.add(pid)
        except OSError:
            continue
    return running


def test_the_line_says_all_that_it_promises(local: Local) -> None:
    """Every key is there, and what they name answers."""
    line = local.line
    assert set(line) >= KEYS
    assert set(line["pids"]) == {"sip", "media", "cloud"}
    assert line["hold_back_s"] == 1
    assert set(line["tenants"]) >= {"acme", "globex"}
    for roles in line["tenants"].values():
        assert set(roles) == {"administrator", "officer"}
    assert all(Path(name).exists() for name in [line["spool_dir"], *line["log_files"], line["agent_lan_certificate"]])
    assert line["agent_lan"].startswith("https://127.0.0.1:")
    assert line["webhook_url"].startswith(f"{line['api']}/v1/webhooks/payments/")
    assert line["webhook_secret"].startswith("whsec_")
    assert local.officer.status("/v1/recordings") == 200
    assert ApiClient(line["api"]).status("/v1/recordings") == 401
    assert ApiClient(line["api"], "x.y.z").status("/v1/recordings") == 401


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_it(tmp_path: Path, how: signal.Signals) -> None:
    """However it ends, killed outright included, its agent ends too."""
    running = start_local(tmp_path, "--hold-back", "1")
    family = descendants(running.process.pid)
    assert {running.line["pids"]["sip"], running.line["pids"]["media"]} <= family
    if how is signal.SIGTERM:
        assert stop_local(running) == 0
    else:
        os.kill(running.process.pid, how)
        status = running.process.wait(60)
        assert status == (0 if how is signal.SIGINT else -how)
        assert running.process.stdout is not None
        running.process.stdout.close()
    until = time.monotonic() + 10
    while alive(family) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(family) == set()
