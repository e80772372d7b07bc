"""The state's write-ahead log: carried over beside its writers, bounded, and lost by nobody."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sbc_agent.runtime import checkpoints
from sbc_agent.runtime.agent_state import STATE_FILE, AgentState
from tests.agent.runtime import states

PATIENCE_S = 20.0


def counted(state: AgentState) -> int:
    ((count,),) = state.run("SELECT count(*) FROM event")
    assert isinstance(count, int)
    return count


def put(state: AgentState, number: int) -> None:
    state.run("INSERT INTO event (key, droppable, body) VALUES (?, 0, ?)", (f"k{number}", bytes(4_000)))


def test_no_commit_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is carried over by another thread, after so many commits; everything is there, also for another run."""
    carried = threading.Event()
    names: list[str] = []
    real = checkpoints.Checkpoints._carry_over

    def watched(self: checkpoints.Checkpoints) -> None:
        real(self)
        names.append(threading.current_thread().name)
        carried.set()

    monkeypatch.setattr(checkpoints.Checkpoints, "_carry_over", watched)
    state = states.opened(tmp_path)
    for number in range(checkpoints.EVERY_COMMITS):
        put(state, number)
    assert carried.wait(PATIENCE_S)
    assert set(names) == {"checkpoints"}
    assert (tmp_path / STATE_FILE).stat().st_size > 4_000 * checkpoints.EVERY_COMMITS / 2
    assert counted(states.opened(tmp_path)) == checkpoints.EVERY_COMMITS


def test_a_log_that_grows_too_fast_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its bound commits wait once, and the log is empty; nothing is lost."""
    monkeypatch.setattr(checkpoints, "MOST_LOG_BYTES", 100_000)
    monkeypatch.setattr(checkpoints, "_PASSES", 0)  # as if writers were always ahead
    state = states.opened(tmp_path)
    for number in range(100):
        put(state, number)
    log = tmp_path / f"{STATE_FILE}-wal"
    assert log.stat().st_size > 100_000
    state._checkpoints._carry_over()
    assert log.stat().st_size == 0
    assert counted(state) == 100


def test_the_thread_ends_with_the_state(tmp_path: Path) -> None:
    """Closing waits for it: nothing of it holds the file afterwards."""
    state = AgentState(tmp_path / STATE_FILE)
    for number in range(checkpoints.EVERY_COMMITS):
        put(state, number)
    state.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoints"]
