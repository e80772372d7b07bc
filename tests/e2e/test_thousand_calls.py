"""A thousand calls at once through ``dualtone local``, and twice as many offered: every write is kept, none lost.

The traffic comes from ``dualtone-agent load`` on the same machine. Its sequence numbers are counted, packet by packet:
what a recording says it received must be what its call was sent.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import BIN, Local, start_local, stop_local
from tests.e2e.test_hundred_calls import all_recordings

MEDIA_PORTS = "10000-19999"
A_CALL_S = 2.0
"""What finalising a call may take here, one after the other, on two busy cores."""


def _calls(*, calls: int, seconds: int) -> Any:
    name = f"{calls} at once for {seconds} s"
    return pytest.param((calls, seconds), id=name, marks=pytest.mark.long if calls > 100 else ())


@pytest.fixture(params=[_calls(calls=40, seconds=4), _calls(calls=1_000, seconds=30)])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    asked: tuple[int, int] = request.param
    return asked


@pytest.fixture
def busy(size: tuple[int, int], tmp_path: Path) -> Iterator[Local]:
    """A local cloud whose agent has ports for exactly so many calls."""
    running = start_local(tmp_path, "--streams", str(2 * size[0]), "--media-ports", MEDIA_PORTS)
    yield running
    assert stop_local(running) == 0


def load(local: Local, calls: int, seconds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Offers twice the capacity at up to 100 calls a second; returns what came of each call, and the sums."""
    command = [str(BIN / "dualtone-agent"), "load", "--target", local.line["sip_udp"], "--each", "--json"]
    command += ["--calls", str(2 * calls), "--rate", "100", "--seconds", str(seconds)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    *each, sums = [json.loads(line) for line in result.stdout.splitlines()]
    return each, sums


def test_every_packet_of_every_call_is_recorded_once(busy: Local, size: tuple[int, int]) -> None:
    """At twice the capacity half is refused at once by 503; those that were taken are recorded whole, each once."""
    calls, seconds = size
    each, sums = load(busy, calls, seconds)
    assert (sums["answered"], sums["refused"], sums["failed"]) == (calls, {"503": calls}, {})
    assert sums["ended_by_recorder"] == 0
    taken = {one["sip_call_id"]: one["packets"] for one in each if one["ok"]}
    assert len(taken) == calls
    until = time.monotonic() + 60 + A_CALL_S * calls
    found: list[dict[str, Any]] = []
    while len(found) < calls:
        assert time.monotonic() < until, f"{len(found)} of {calls} were recorded"
        time.sleep(1)
        found = all_recordings(busy)
    recordings = [busy.wait_recorded(sip_call_id) for sip_call_id in taken]
    assert len({recording["recording_id"] for recording in recordings}) == calls
    assert sorted(entry["recording_id"] for entry in all_recordings(busy)) == sorted(
        recording["recording_id"] for recording in recordings
    )
    for recording, sent in zip(recordings, taken.values(), strict=True):
        assert [channel["packets"] for channel in recording["quality"]] == sent
        assert [channel["lost"] for channel in recording["quality"]] == [0, 0]
