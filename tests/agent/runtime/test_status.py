"""The status socket and what a terminal shows of it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain.errors import NotFound, Unavailable
from sbc_agent.runtime import status

REPORT: dict[str, Any] = {
    "agent": "agt_01K00000000000000000000000",
    "tenant": "acme",
    "version": "1.2.3",
    "draining": False,
    "uptime_ms": 90_061_000,
    "calls_live": 3,
    "calls_adopted": 2,
    "media": {"streams": 6, "received": 1_000, "stored": 999},
    "spool": {"calls": 2, "bytes": 5 * 1024 * 1024, "free_bytes": 3 << 40, "full": False, "takes_calls": True},
    "uplink": {
        "link": "down",
        "reason": "EndpointConnectionError",
        "calls_waiting": 2,
        "calls_unconfirmed": 1,
        "objects_sent": 7,
        "bytes_sent": 1_536,
        "failures": 4,
        "retry_ms": 12_000,
        "last_success_s": None,
    },
    "lan": "https://127.0.0.1:5443",
    "alarms": {"uplink_refused": 2},
}


async def report() -> dict[str, Any]:
    return REPORT


def test_a_running_agent_answers(tmp_path: Path) -> None:
    """Asked twice, it answers twice; the socket is for its user alone, in a directory however long its path."""
    state = tmp_path / ("d" * 100)
    state.mkdir()

    async def scenario() -> list[dict[str, Any]]:
        async with await status.serve(state, report):
            return [await asyncio.to_thread(status.ask, state) for _ in range(2)]

    assert asyncio.run(scenario()) == [REPORT, REPORT]
    assert (state / status.SOCKET_NAME).stat().st_mode & 0o777 == 0o600


def test_a_socket_left_by_a_crash_gives_way(tmp_path: Path) -> None:
    """A second start takes the place of a first that died."""

    async def scenario() -> dict[str, Any]:
        first = await status.serve(tmp_path, report)
        first.close()
        async with await status.serve(tmp_path, report):
            return await asyncio.to_thread(status.ask, tmp_path)

    assert asyncio.run(scenario()) == REPORT


def test_no_agent_is_told(tmp_path: Path) -> None:
    """Neither a missing directory nor a dead socket is a trace."""
    with pytest.raises(NotFound, match="dualtone-agent run"):
        status.ask(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / status.SOCKET_NAME))
    with pytest.raises(NotFound, match="no agent runs"):
        status.ask(tmp_path)


def test_an_agent_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that accepts and is silent ends by time-out."""
    monkeypatch.setattr(status, "_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / status.SOCKET_NAME))
        silent.listen()
        with pytest.raises(Unavailable, match="does not answer"):
            status.ask(tmp_path)


def test_the_report_in_words() -> None:
    """A person reads how long, how many, how much, whether the cloud answers, and what is wrong."""
    text = status.describe(REPORT)
    assert "1 d 01:01:01" in text
    assert "3 live (6 streams), 2 taken over from the run before" in text
    assert "1000 received, 999 stored" in text
    assert "2 calls, 5.0 MiB, 3.0 TiB free" in text
    assert "down (EndpointConnectionError), next attempt in 12 s; 2 calls to send, 1 unconfirmed" in text
    assert "lan      https://127.0.0.1:5443" in text
    assert "uplink_refused x2" in text


def test_a_quiet_report_in_words() -> None:
    """With all well, nothing alarms."""
    quiet = REPORT | {
        "media": {},
        "alarms": {},
        "uplink": REPORT["uplink"] | {"link": "up", "reason": "", "failures": 0},
    }
    text = status.describe(quiet)
    assert "uplink   up; 2 calls" in text
    assert "alarms   none" in text


@pytest.mark.parametrize(
    ("takes_calls", "words"), [(False, "FULL, new calls are refused"), (True, "FULL, new calls are recorded in memory")]
)
def test_a_full_spool_in_words(takes_calls: bool, words: str) -> None:
    """A person reads that the spool is full, and what becomes of new calls."""
    assert words in status.describe(REPORT | {"spool": REPORT["spool"] | {"full": True, "takes_calls": takes_calls}})
