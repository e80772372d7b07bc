"""True time: measured against the cloud, aged, kept over a kill; steps of the wall clock change nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput, Unavailable
from sbc_agent.media.clock import AgentClock
from sbc_agent.runtime.clock_offset import ClockSampler, Measurement, TrueTime, better, measurement
from sbc_agent.runtime.cloud_api import CloudApi
from tests.agent.runtime import web
from tests.agent.runtime.spooled import Lines

HOUR_US = 3_600_000_000


@dataclass
class AgentTime:
    """An agent's clock that stands until it is moved."""

    at_us: int = 1_800_000_000_000_000

    def now_us(self) -> int:
        return self.at_us


def sampler(url: str, state_dir: Path, clock: AgentClock, *, boot: str = "b1") -> tuple[ClockSampler, TrueTime]:
    true_time = TrueTime(clock)
    made = ClockSampler(
        api=CloudApi(), base=url, clock=clock, true_time=true_time, state_dir=state_dir, log=Lines().log, boot_id=boot
    )
    return made, true_time


@given(offset_us=st.integers(-HOUR_US, HOUR_US), forth_us=st.integers(0, 10**6), back_us=st.integers(0, 10**6))
def test_the_true_offset_lies_within_the_error(offset_us: int, forth_us: int, back_us: int) -> None:
    """However unequal the two ways are, half the round trip and a millisecond cover it."""
    sent_us = 1_800_000_000_000_000
    cloud_ms = (sent_us + forth_us + offset_us) // 1000
    made = measurement(sent_us, sent_us + forth_us + back_us, cloud_ms)
    assert abs(made.offset_us - offset_us) <= made.error_us + 1


def test_uncertainty_grows_with_age_and_ends_at_two_seconds() -> None:
    """A hundred millionths: 0.36 s after an hour, never more than two seconds."""
    made = Measurement(0, 10_000, 0)
    assert made.uncertainty_us(0) == 10_000
    assert made.uncertainty_us(HOUR_US) == 10_000 + 360_000
    assert made.uncertainty_us(240 * HOUR_US) == 2_000_000


@pytest.mark.parametrize(
    ("old", "new", "believed"),
    [
        (None, Measurement(5, 9, 0), 5),
        (Measurement(0, 1_000, 0), Measurement(2_000, 9_000, 0), 0),
        (Measurement(0, 9_000, 0), Measurement(2_000, 1_000, 0), 2_000),
        (Measurement(0, 1_000, 0), Measurement(2_000, 9_000, HOUR_US), 2_000),
        (Measurement(0, 1_000, 0), Measurement(HOUR_US, 9_000, 0), HOUR_US),
    ],
    ids=["first", "old is better", "new is better", "old has aged", "both cannot be true"],
)
def test_which_measurement_is_believed(old: Measurement | None, new: Measurement, believed: int) -> None:
    """The more certain one, but the new one where the two disagree."""
    assert better(old, new, new.at_us).offset_us == believed


def test_before_the_first_measurement_the_wall_clock_at_the_start_counts() -> None:
    """The offset is 0, and as uncertain as it may ever be."""
    true_time = TrueTime(AgentTime())
    assert (true_time.offset_us, true_time.uncertainty_us) == (0, 2_000_000)


def test_commands_times_become_the_agents(tmp_path: Path) -> None:
    """The agent's clock is an hour ahead: a true moment is an hour later on it."""
    clock = AgentTime()
    true_time = TrueTime(clock)
    true_time.learn(Measurement(-HOUR_US, 1_000, clock.at_us))
    assert true_time.agent_us(1_800_000_000_000) == 1_800_000_000_000_000 + HOUR_US
    assert true_time.now_ms() == 1_800_000_000_000 - 3_600_000


@pytest.mark.parametrize("step_us", [HOUR_US, -HOUR_US], ids=["an hour ahead", "an hour back"])
def test_a_step_of_the_wall_clock_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_us: int
) -> None:
    """The offset is measured from the agent's clock: after a step, true time and its uncertainty are what they were."""
    clock = AgentClock.measured()
    wall_ns = time.time_ns
    with web.serving(lambda *_: (200, {"now_ms": wall_ns() // 1_000_000})) as server:
        measuring, true_time = sampler(server.url, tmp_path, clock)
        before = measuring.measure()
        monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + 1000 * step_us)
        monkeypatch.setattr(time, "time", lambda: (wall_ns() + 1000 * step_us) / 1e9)
        assert abs(true_time.now_us() - wall_ns() // 1000) <= before.error_us + 20_000
        after = measuring.measure()
    assert abs(after.offset_us - before.offset_us) <= after.error_us + before.error_us
    assert true_time.uncertainty_us < 2_000_000


def test_an_agent_that_started_with_a_wrong_clock_learns_it(tmp_path: Path) -> None:
    """The wall clock was an hour ahead at the start; the offset says so."""
    clock = AgentClock(AgentClock.measured().offset_us + HOUR_US)
    with web.serving(lambda *_: (200, {"now_ms": time.time_ns() // 1_000_000})) as server:
        measuring, true_time = sampler(server.url, tmp_path, clock)
        measuring.measure()
    assert abs(true_time.now_ms() - time.time_ns() // 1_000_000) < 500
    assert len(server.requests) == 5


def test_the_measurement_outlives_a_kill_but_not_a_boot(tmp_path: Path) -> None:
    """Killed and started without an uplink, the wall clock stepped meanwhile: the agent still knows true time."""
    clock = AgentClock.measured()
    with web.serving(lambda *_: (200, {"now_ms": time.time_ns() // 1_000_000})) as server:
        sampler(server.url, tmp_path, clock)[0].measure()
    stepped = AgentClock(clock.offset_us - HOUR_US)
    _, known = sampler("http://127.0.0.1:1", tmp_path, stepped)
    assert abs(known.now_ms() - time.time_ns() // 1_000_000) < 500
    assert known.uncertainty_us < 1_000_000
    _, unknown = sampler("http://127.0.0.1:1", tmp_path, stepped, boot="b2")
    assert unknown.measured is None
    assert (tmp_path / "clock-offset.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", json.dumps({"boot_id": "b1", "error_us": "1"}).encode()])
def test_a_damaged_file_is_no_measurement(tmp_path: Path, content: bytes) -> None:
    """It is measured anew."""
    (tmp_path / "clock-offset.json").write_bytes(content)
    assert sampler("http://127.0.0.1:1", tmp_path, AgentClock.measured())[1].measured is None


@pytest.mark.parametrize("answer", [{}, {"now_ms": "1"}, {"now_ms": -1}, {"now_ms": True}, {"now_ms": 2**53}])
def test_an_answer_without_the_time_is_none(tmp_path: Path, answer: dict[str, object]) -> None:
    """An older cloud, or a page that is none: nothing is learnt."""
    with web.serving(lambda *_: (200, answer)) as server:
        measuring, true_time = sampler(server.url, tmp_path, AgentClock.measured())
        with pytest.raises(MalformedInput):
            measuring.measure()
    assert true_time.measured is None


def test_the_thread_measures_and_time_waits_for_it(tmp_path: Path) -> None:
    """Whoever asks for the time at the start gets true time, not the wall clock's."""
    clock = AgentClock(AgentClock.measured().offset_us + HOUR_US)
    with web.serving(lambda *_: (200, {"now_ms": time.time_ns() // 1_000_000})) as server:
        measuring, _ = sampler(server.url, tmp_path, clock)
        measuring.start()
        assert abs(measuring.now_s() - time.time()) < 1
        measuring.close()


def test_without_a_cloud_time_is_told_all_the_same(tmp_path: Path) -> None:
    """A failed attempt does not hold anybody up."""
    measuring, _ = sampler("http://127.0.0.1:1", tmp_path, AgentClock.measured())
    with pytest.raises(Unavailable):
        measuring.measure()
    measuring.start()
    assert abs(measuring.now_s() - time.time()) < 1
    measuring.close()
