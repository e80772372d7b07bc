"""Spans of time that a query asks about, and the months that hold the answer. Pure; times are Unix ms, months UTC."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from dualtone.domain.errors import MalformedInput

DAY_MS: Final = 86_400_000
DEFAULT_DAYS: Final = 90
LONGEST_MONTHS: Final = 13
# An agent's clock may run ahead of ours: without an explicit end, a call that started a little in the future is found.
CLOCK_TOLERANCE_MS: Final = 3_600_000
_LATEST_MS: Final = 253_370_764_800_000  # the year 9999, the last that ISO 8601 writes in four digits


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open: from ``from_ms``, up to but without ``to_ms``."""

    from_ms: int
    to_ms: int

    @classmethod
    def resolve(cls, from_ms: int | None, to_ms: int | None, now_ms: int) -> Self:
        """Fills in what a query left open and refuses what no index should be asked.

        Args:
            from_ms: First instant; None means 90 days before the end.
            to_ms: End; None means now, plus an hour for clocks that run ahead.
            now_ms: The current time.

        Returns:
            The period.

        Raises:
            MalformedInput: If it is empty, longer than 13 months, or outside years 1970 to 9999.
        """
        end = now_ms + CLOCK_TOLERANCE_MS if to_ms is None else to_ms
        start = max(0, (now_ms if to_ms is None else end) - DEFAULT_DAYS * DAY_MS) if from_ms is None else from_ms
        if not 0 <= start < end <= _LATEST_MS:
            raise MalformedInput("`from` must lie before `to`, and both between 1970 and 9999", http_status=422)
        if end - CLOCK_TOLERANCE_MS > _months_later(start, LONGEST_MONTHS):
            raise MalformedInput(f"a query spans at most {LONGEST_MONTHS} months: ask in steps", http_status=422)
        return cls(start, end)

    def months_newest_first(self) -> Iterator[str]:
        """Yields ``YYYY-MM`` of each month that the period touches, the latest first."""
        last = month_of(self.from_ms)
        year, month = divmod(_month_number(self.to_ms - 1), 12)
        while True:
            name = f"{year:04d}-{month + 1:02d}"
            yield name
            if name == last:
                return
            year, month = (year, month - 1) if month else (year - 1, 11)


def month_of(at_ms: int) -> str:
    """Names the month partition, ``YYYY-MM`` in UTC, of an instant."""
    year, month = divmod(_month_number(at_ms), 12)
    return f"{year:04d}-{month + 1:02d}"


def _month_number(at_ms: int) -> int:
    moment = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    return moment.year * 12 + moment.month - 1


def _months_later(at_ms: int, months: int) -> int:
    moment = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    year, month = divmod(_month_number(at_ms) + months, 12)
    day = min(moment.day, calendar.monthrange(min(year, 9999), month + 1)[1])
    if year > 9999:  # noqa: PLR2004 - the last year of the calendar
        return _LATEST_MS
    return int(moment.replace(year=year, month=month + 1, day=day).timestamp() * 1000)
