"""The whole product behind a bad uplink: calls are recorded once, whatever happens to what the agent sends."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import VECTORS, Local, start_local, stop_local
from tests.faulty_link import Answer, Cut, Fault, FaultyLink, LoseAnswer, Request

SPEECH = VECTORS / "speech"


@contextmanager
def local_behind(data_dir: Path) -> Iterator[tuple[Local, FaultyLink]]:
    """A local cloud whose agent reaches AWS over a network that the test breaks."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    network = FaultyLink(port)
    local = start_local(data_dir, "--hold-back", "1", "--aws-port", str(port), "--agent-aws-endpoint", network.url)
    try:
        yield local, network
    finally:
        network.plan, network.down = (lambda _: None), False
        assert stop_local(local) == 0
        network.close()


def place(local: Local, calls: int, seconds: int) -> list[str]:
    """Places calls, all at once; returns their SIP Call-IDs."""
    answers = local.place_calls(
        "--calls", str(calls), "--parallel", str(calls), "--duration", str(seconds),
        "--caller-wav", str(SPEECH / "alice.wav"), "--callee-wav", str(SPEECH / "bob.wav"),
    )  # fmt: skip
    return [answer["sip_call_id"] for answer in answers]


def assert_recorded_once(local: Local, calls: list[str], seconds: int, within_s: float) -> None:
    """Each call is one recording of its full length; the spool is empty soon after, and there are no others."""
    recordings = [local.wait_recorded(call, within_s) for call in calls]
    assert len({recording["recording_id"] for recording in recordings}) == len(calls)
    assert max(abs(recording["duration_ms"] - 1_000 * seconds) for recording in recordings) <= 100
    assert not [recording for recording in recordings if recording["gaps"]]
    until = time.monotonic() + 60
    spool = Path(local.line["spool_dir"])
    while left := [path for path in spool.iterdir() if len(path.name) == len("01K00000000000000000000000")]:
        assert time.monotonic() < until, f"{len(left)} calls are not confirmed"
        time.sleep(0.1)
    listed = local.officer.get("/v1/recordings", {"limit": "100"})
    assert {entry["recording_id"] for entry in listed["recordings"]} == {
        recording["recording_id"] for recording in recordings
    }


def cutting(network: FaultyLink, cuts: int, seed: int) -> None:
    """From now on four of five uploads break off somewhere, until so many have."""
    draw = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        if not request.is_upload or network.faults["Cut"] >= cuts or draw.random() < 0.2:
            return None
        return Cut(draw.randrange(request.length))

    network.plan = plan


def test_uploads_that_break_off(tmp_path: Path) -> None:
    """Four calls, a dozen uploads that break off in the middle: four recordings."""
    with local_behind(tmp_path) as (local, network):
        cutting(network, 12, 1)
        calls = place(local, 4, 2)
        assert_recorded_once(local, calls, 2, 90)
        assert network.faults["Cut"] == 12


# REQ: FEATURES P5: the link killed mid-upload 100 times: nothing lost, nothing twice.
@pytest.mark.long
def test_a_hundred_uploads_that_break_off(tmp_path: Path) -> None:
    """Twenty calls, one hundred uploads that break off in the middle: twenty recordings."""
    with local_behind(tmp_path) as (local, network):
        cutting(network, 100, 2)
        calls = place(local, 20, 5)
        assert_recorded_once(local, calls, 5, 420)
        assert network.faults["Cut"] == 100


@pytest.mark.long
def test_an_uplink_that_is_down_then_worse(tmp_path: Path) -> None:
    """Calls while nothing gets through, then lost answers, throttling, errors and cuts: each is recorded once."""
    draw = random.Random(3)

    def plan(request: Request) -> Fault | None:
        if draw.random() < 0.5:
            return None
        faults: list[Fault] = [LoseAnswer(), Answer(503, "SlowDown"), Answer(500, "InternalError")]
        return draw.choice([*faults, Cut(draw.randrange(max(request.length, 1)))])

    with local_behind(tmp_path) as (local, network):
        network.down = True
        calls = place(local, 6, 3)
        network.plan, network.down = plan, False
        calls += place(local, 6, 3)
        network.plan = plan
        until = time.monotonic() + 30
        while network.faults.total() < 60 and time.monotonic() < until:
            time.sleep(0.1)
        network.plan = lambda _: None
        assert_recorded_once(local, calls, 3, 420)
