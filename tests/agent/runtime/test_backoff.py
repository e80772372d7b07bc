"""Back-off: doubles to a ceiling, jitters, never gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.runtime.backoff import Backoff


def test_each_failure_doubles_the_wait_to_a_ceiling() -> None:
    """Without jitter (the draw at its top) the steps are 1, 2, 4 seconds and at last the ceiling."""
    backoff = Backoff(lambda: 1.0, first_s=1, ceiling_s=60)
    assert [backoff.fail(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_half_and_all_of_its_step(failures: int, draw: float) -> None:
    """Whatever is drawn and however often it failed, the wait is bounded and positive."""
    backoff = Backoff(lambda: draw, failures=failures)
    assert 0.5 <= backoff.fail(0.0) <= 300


def test_nothing_is_tried_before_its_time() -> None:
    """After a failure an attempt waits; a success forgets."""
    backoff = Backoff(lambda: 1.0, first_s=4)
    assert backoff.may_try(0)
    backoff.fail(10)
    assert not backoff.may_try(13.9)
    assert backoff.may_try(14)
    backoff.succeed()
    assert backoff.may_try(0)
    assert backoff.fail(0) == 4


def test_days_without_a_link_fill_no_log() -> None:
    """The first failures are told, then ever fewer."""
    backoff = Backoff(lambda: 0.0)
    told = []
    for _ in range(1_000):
        backoff.fail(0.0)
        told.append(backoff.is_news)
    assert [number for number, is_news in enumerate(told, 1) if is_news] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
