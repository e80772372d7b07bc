"""The agent's own call, from its SIP port to the vault and back as a receipt; what was recorded of it is its song."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from infra.local import listening
from infra.local.agent import Agent, AgentPlan
from infra.local.cloud import CREDENTIALS
from sbc_agent.runtime import canary_song
from tests.e2e.conftest import BIN, Local


@pytest.fixture
def agent(local: Local, tmp_path: Any) -> Iterator[AgentPlan]:
    """Another agent of the tenant, which sings every ten seconds."""
    plan = AgentPlan(
        directory=tmp_path,
        log=tmp_path / "agent.log",
        api=local.line["api"],
        environment={"PATH": os.environ["PATH"], **CREDENTIALS, "AWS_ENDPOINT_URL": local.line["aws_endpoint"]},
        sip_port=0,
        sip_tcp_port=0,
        media_ports="32000-32099",
        hold_back_s=1.0,
        canary_s=10,
    )
    with Agent(plan, local.line["tenants"][local.tenant]["administrator"]):
        yield plan


def figures(plan: AgentPlan) -> dict[str, Any]:
    """What the agent's status says of its canary."""
    command = [str(BIN / "dualtone-agent"), "status", "--json", "--config", str(plan.settings)]
    told: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    seen: dict[str, Any] = told["canary"]
    return seen


def test_the_canary_is_recorded_and_in_no_list(local: Local, agent: AgentPlan) -> None:
    """Both sweeps are heard, each on its side; the agent heard of it by the cloud's receipt."""
    until = time.monotonic() + 90
    while (seen := figures(agent))["age_s"] is None:
        assert time.monotonic() < until, seen
        time.sleep(0.5)
    assert seen["failed"] == 0
    found = local.officer.post("/v1/recordings/search", {"number": "canary"})["recordings"]
    assert found
    recording = local.officer.get(f"/v1/recordings/{found[0]['recording_id']}")
    assert "canary" in recording["flags"]
    listed = local.officer.get("/v1/recordings", {"limit": "100"})["recordings"]
    assert recording["recording_id"] not in {row["recording_id"] for row in listed}
    played = listening.decode_opus(local.officer.audio(recording["recording_id"]))
    song = canary_song.sweep()
    for channel, sung in enumerate((song, song[::-1])):
        likeness, _ = listening.correlation(sung, played[:, channel], max_lag_ms=100)
        assert likeness >= 0.9
