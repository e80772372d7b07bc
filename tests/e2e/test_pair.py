"""Two agents as a pair: the SBC forks each call to both. One recording is listed, a pause reaches both, one may die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.local.agent import Agent, AgentPlan
from infra.local.cloud import CREDENTIALS
from tests.e2e.conftest import Local
from tests.e2e.talking import Talking, new_ucid

MEDIA_PORTS = "30000-31999"
SECONDS = 8.0


@pytest.fixture(scope="module")
def second(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """The other agent of the pair: the same cloud and tenant, its own key, spool and ports."""
    directory = tmp_path_factory.mktemp("second")
    plan = AgentPlan(
        directory=directory,
        log=directory / "agent.log",
        api=local.line["api"],
        environment={"PATH": os.environ["PATH"], **CREDENTIALS, "AWS_ENDPOINT_URL": local.line["aws_endpoint"]},
        sip_port=0,
        sip_tcp_port=0,
        media_ports=MEDIA_PORTS,
        hold_back_s=1.0,
    )
    administrator = local.line["tenants"][local.tenant]["administrator"]
    with Agent(plan, administrator) as agent:
        yield _Second(local, plan, agent)


class _Second(Local):
    """A local cloud seen from its other agent."""

    def __init__(self, local: Local, plan: AgentPlan, agent: Agent) -> None:
        super().__init__(local.line, local.process)
        self._plan, self._agent = plan, agent
        self.line = local.line | {"sip_udp": agent.ready["sip_udp"], "spool_dir": str(plan.spool_dir)}

    @property
    def pid(self) -> int:
        """Of its SIP process, whichever runs now."""
        return int(self._agent.ready["pids"]["sip"])


@pytest.fixture
def ucid() -> str:
    return new_ucid()


@contextmanager
def forked(local: Local, second: Local, ucid: str) -> Iterator[None]:
    """A call that the SBC forks to both, while it lasts; its length counts from the beginning."""
    with Talking(local, SECONDS, ucid, wait=False), Talking(second, SECONDS, ucid, wait=False):
        until = time.monotonic() + 15
        while len(calls_of(local)) < 2:
            assert time.monotonic() < until, "the call was not seen live at both"
            time.sleep(0.05)
        yield


def recorded(local: Local, calls: list[str]) -> list[dict[str, Any]]:
    """The recordings of both sessions, when both are there."""
    until, found = time.monotonic() + 60, []
    while time.monotonic() < until:
        found = [local.officer.get(f"/v1/calls/{call}") for call in calls]
        if all(call.get("recording_id") for call in found):
            return [local.officer.get(f"/v1/recordings/{call['recording_id']}") for call in found]
        time.sleep(0.1)
    raise AssertionError(f"not recorded: {[call['state'] for call in found]}")


def listed(local: Local, recordings: list[dict[str, Any]]) -> list[str]:
    """Which of the recordings are in the list."""
    rows = local.officer.get("/v1/recordings", {"limit": "100"})["recordings"]
    ids = {recording["recording_id"] for recording in recordings}
    return [row["recording_id"] for row in rows if row["recording_id"] in ids]


def calls_of(local: Local) -> list[str]:
    return [call["call_id"] for call in local.officer.get("/v1/calls")["calls"] if call["state"] == "live"]


def test_a_pause_reaches_both_and_one_recording_is_listed(local: Local, second: Local, ucid: str) -> None:
    """One webhook, two acknowledgements; both copies are silent, each leads to the other."""
    with forked(local, second, ucid):
        calls = calls_of(local)
        time.sleep(2)
        answer = local.officer.post("/v1/pauses", {"call": {"ucid": ucid}, "cause": "payment"})
        assert answer["outcome"] == "acknowledged"
        assert {call["call_id"] for call in answer["calls"]} == set(calls)
        time.sleep(1)
        local.officer.post("/v1/resumes", {"call": {"ucid": ucid}, "cause": "payment"})
        time.sleep(SECONDS - 2)
    both = recorded(local, calls)
    assert all(any(gap["cause"] == "payment" for gap in one["gaps"]) for one in both)
    assert len(listed(local, both)) == 1
    (foremost,) = [one for one in both if one["copy_of"] is None]
    (copy,) = [one for one in both if one["copy_of"] is not None]
    assert copy["copy_of"] == foremost["recording_id"]
    found = local.officer.get(f"/v1/recordings/{foremost['recording_id']}/linked")["recordings"]
    assert [(one["recording_id"], one["relation"]) for one in found] == [(copy["recording_id"], "copy")]


def test_what_one_agent_loses_the_other_has(local: Local, second: _Second, ucid: str) -> None:
    """Killed in mid-call, it declares what it lost; the other's copy, which lost nothing, stands for the call."""
    with forked(local, second, ucid):
        calls = calls_of(local)
        time.sleep(2)
        os.kill(second.pid, signal.SIGKILL)
        time.sleep(SECONDS)
    both = recorded(local, calls)
    (whole,) = [one for one in both if not any(gap["cause"] == "restart" for gap in one["gaps"])]
    (broken,) = [one for one in both if one is not whole]
    assert whole["copy_of"] is None
    assert broken["copy_of"] == whole["recording_id"]
    assert listed(local, both) == [whole["recording_id"]]
    lost = sorted({(gap["from_ms"], gap["to_ms"]) for gap in broken["gaps"] if gap["cause"] == "restart"})
    (found,) = local.officer.get(f"/v1/recordings/{broken['recording_id']}/linked")["recordings"]
    assert [(span["from_ms"], span["to_ms"]) for span in found["completes"]] == lost
