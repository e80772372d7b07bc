"""The load generator against a recorder with real sockets: what it says of the recorder and of itself must be so."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from sbc_agent.runtime import load
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.load import LoadPlan
from sbc_agent.runtime.src_dialog import Transport
from sbc_agent.runtime.src_link import CallFailed
from tests.agent.runtime.test_test_call import recorder


@dataclass(frozen=True)
class Outcome:
    """Whether it passed, what it said, the sequence numbers at each port, and how the recorder saw calls end."""

    passed: bool
    lines: list[dict[str, Any]]
    numbers: list[list[int]]
    ended: list[str]


def run(streams: int = 20, transport: Transport = "udp", **plan: Any) -> Outcome:
    """Runs a load test of calls of half a second; the last line is the sums."""

    async def scenario() -> Outcome:
        lines: list[str] = []
        async with recorder(streams) as (media, _, targets):
            options = {"calls": 5, "seconds": 0.5, "rate": 50.0, "total": 5} | plan
            passed = await load.run(LoadPlan(targets[transport], transport, json=True, **options), lines.append)
            arrived = [media.packets(port) for port in media.ports]
        numbers = [[int.from_bytes(packet[2:4], "big") for packet in packets] for packets in arrived if packets]
        return Outcome(passed, [json.loads(line) for line in lines], numbers, media.ended)

    return asyncio.run(scenario())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_every_packet_that_it_counts_was_sent(transport: Transport) -> None:
    """Two streams a call, each counted from 0 without a hole, 50 packets a second."""
    outcome = run(transport=transport)
    assert outcome.passed
    (sums,) = outcome.lines
    assert (sums["calls"], sums["answered"], sums["refused"], sums["failed"]) == (5, 5, {}, {})
    assert len(outcome.numbers) == 10
    assert all(stream == list(range(len(stream))) for stream in outcome.numbers)
    assert sum(map(len, outcome.numbers)) == sums["packets"]
    assert all(20 <= len(stream) <= 40 for stream in outcome.numbers)
    assert outcome.ended == ["bye"] * 5


def test_what_is_refused_is_said_with_its_status() -> None:
    """A recorder with ports for two calls refuses the others at once; the test has not passed."""
    outcome = run(streams=4)
    assert not outcome.passed
    (sums,) = outcome.lines
    assert sums["answered"] == 2
    assert sums["refused"] == {"503": 3}
    assert sums["answer_ms_max"] < 5_000


def test_calls_beyond_those_at_once_begin_as_others_end() -> None:
    """Six calls, two at a time, each told."""
    outcome = run(calls=2, total=6, seconds=0.2, each=True)
    *each, sums = outcome.lines
    assert outcome.passed
    assert sums["answered"] == 6
    assert len({one["sip_call_id"] for one in each}) == 6
    assert sum(sum(one["packets"]) for one in each) == sums["packets"]
    assert outcome.ended == ["bye"] * 6


def test_nobody_answers(unused_port: int) -> None:
    """A connection that cannot be made is a failure of the call, and is said."""

    async def scenario() -> dict[str, Any]:
        plan = LoadPlan(Endpoint("127.0.0.1", unused_port), "tcp", calls=2, seconds=0.2, rate=50, total=2)
        return await load.Load(plan, print).run()

    sums = asyncio.run(scenario())
    assert sums["answered"] == 0
    assert sum(sums["failed"].values()) == 2


@pytest.fixture
def unused_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_sender_whose_owner_is_gone_sends_nothing_more() -> None:
    """A load test that was killed leaves no process that goes on without it."""
    ended = subprocess.run(
        [sys.executable, "-m", "sbc_agent.runtime.rtp_sender", "2"], input=b"", timeout=60, check=False
    )
    assert ended.returncode == 0


def test_without_its_sender_a_load_test_fails() -> None:
    """At once, and whatever its calls were doing."""

    async def scenario() -> None:
        async with recorder(20) as (_, _, targets):
            plan = LoadPlan(targets["udp"], "udp", calls=5, seconds=0.5, rate=50.0, total=10)
            job = load.Load(plan, lambda _: None)
            running = asyncio.create_task(job.run())
            while not job._tally.live:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            assert job._sender is not None
            job._sender.kill()
            with pytest.raises(CallFailed, match="the sender of RTP ended"):
                await asyncio.wait_for(running, 60)
            assert job._tally.failed["the sender of RTP ended"]

    asyncio.run(scenario())
