"""Token buckets, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.runtime.rate_limit import RateLimit, TooMany


def _taken(limit: RateLimit, key: str, now: float) -> bool:
    try:
        limit.take(key, now)
    except TooMany:
        return False
    return True


def test_a_burst_is_taken_and_then_the_rate() -> None:
    """What is refused is not counted, and says how long to wait."""
    limit = RateLimit(burst=3, per_s=0.5)
    assert [_taken(limit, "a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    with pytest.raises(TooMany) as refused:
        limit.take("a", 10.0)
    assert refused.value.wait_s == 2
    assert _taken(limit, "b", 10.0)
    assert _taken(limit, "a", 12.0)
    assert not _taken(limit, "a", 12.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_never_more_than_burst_and_rate(times: list[float]) -> None:
    """Whatever the order of requests, no span of time has more than the burst and what was refilled in it."""
    limit = RateLimit(burst=5, per_s=2)
    taken = [now for now in sorted(times) if _taken(limit, "a", now)]
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= 5 + 2 * (taken[last] - begin) + 1e-6


def test_memory_is_bounded_by_what_was_used_longest_ago() -> None:
    """A thousand keys leave ten, and the newest of them are still limited."""
    limit = RateLimit(burst=1, per_s=0.001, most_keys=10)
    for number in range(1_000):
        assert _taken(limit, str(number), float(number))
    assert not _taken(limit, "999", 1_000.0)
    assert _taken(limit, "0", 1_000.0)
