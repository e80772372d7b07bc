"""Spans of time and their months: defaults, limits, and no month missed."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from dualtone.domain.period import CLOCK_TOLERANCE_MS, DAY_MS, Period, month_of


def ms(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1000)


NOW = ms("2026-11-24T10:00:00+00:00")


def test_without_bounds_the_last_ninety_days_are_meant() -> None:
    """Up to an hour from now, since an agent's clock may run ahead."""
    assert Period.resolve(None, None, NOW) == Period(NOW - 90 * DAY_MS, NOW + CLOCK_TOLERANCE_MS)


def test_an_end_alone_means_the_ninety_days_before_it() -> None:
    """So that going back in time by steps is easy."""
    end = ms("2026-01-01T00:00:00+00:00")
    assert Period.resolve(None, end, NOW) == Period(end - 90 * DAY_MS, end)


ALLOWED = [
    ("thirteen months to the day", "2025-10-24T10:00:00+00:00", "2026-11-24T10:00:00+00:00", True),
    ("from the end of a long month", "2025-01-31T00:00:00+00:00", "2026-02-28T00:00:00+00:00", True),
    ("a day more", "2025-10-23T10:00:00+00:00", "2026-11-24T10:00:00+00:00", False),
    ("one millisecond", "2026-11-24T10:00:00+00:00", "2026-11-24T10:00:00.001+00:00", True),
    ("nothing", "2026-11-24T10:00:00+00:00", "2026-11-24T10:00:00+00:00", False),
    ("upside down", "2026-11-24T10:00:00+00:00", "2026-11-23T10:00:00+00:00", False),
    ("before 1970", "1969-12-31T00:00:00+00:00", "1970-02-01T00:00:00+00:00", False),
    ("the last year", "9999-01-01T00:00:00+00:00", "9999-01-02T00:00:00+00:00", False),
]


@pytest.mark.parametrize(("start", "end", "allowed"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_period_is_not_empty_and_at_most_thirteen_months(start: str, end: str, *, allowed: bool) -> None:
    """Longer questions are asked in steps."""
    if allowed:
        assert Period.resolve(ms(start), ms(end), NOW) == Period(ms(start), ms(end))
    else:
        with pytest.raises(MalformedInput) as refusal:
            Period.resolve(ms(start), ms(end), NOW)
        assert refusal.value.http_status == 422


@given(st.integers(0, ms("2100-01-01T00:00:00+00:00")), st.integers(1, 390 * DAY_MS))
def test_the_months_of_a_period_are_all_months_in_it(start: int, length: int) -> None:
    """Newest first, each once: the month of every instant of the period is among them."""
    period = Period(start, start + length)
    months = list(period.months_newest_first())
    assert months == sorted(set(months), reverse=True)
    steps = {month_of(at) for at in range(start, start + length, 20 * DAY_MS)} | {month_of(start + length - 1)}
    assert set(months) == steps


@given(st.integers(0, ms("2100-01-01T00:00:00+00:00")))
def test_a_month_is_named_in_utc(at_ms: int) -> None:
    """As the calendar has it."""
    assert month_of(at_ms) == dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m")
