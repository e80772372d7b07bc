"""Pages of recordings, newest first, across month partitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.period import Period
from dualtone.domain.recording_entry import RecordingEntry

Row = TypeVar("Row")

MOST_ROWS: Final = 100


class Cursors(Protocol):
    """Makes positions opaque, and refuses those that were not made for this tenant and this query."""

    def seal(self, tenant: TenantId, scope: str, position: dict[str, Any]) -> str:
        """Writes a cursor."""

    def open(self, tenant: TenantId, scope: str, cursor: str) -> dict[str, Any]:
        """Reads a cursor; raises MalformedInput."""


class Metadata(Protocol):
    """Opens the sealed metadata of recordings."""

    def open(self, tenant: TenantId, recording: RecordingId, item: dict[str, Any]) -> dict[str, Any]:
        """Returns participants, SIP Call-ID and so on; raises IntegrityError."""


class Alarms(Protocol):
    """Tells the people on duty."""

    def metadata_damaged(self, tenant: TenantId, recording: RecordingId) -> None:
        """The sealed metadata of a recording is missing, or is not what was sealed."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What is asked for: a span of time and a number of rows, or the continuation of such a query.

    Attributes:
        from_ms: First instant, or None for the default.
        to_ms: End, or None for the default.
        limit: 1 to 100.
        cursor: From the page before, or None.
    """

    from_ms: int | None
    to_ms: int | None
    limit: int
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of a list.

    Attributes:
        entry: The recording.
        metadata: What its metadata says; None if whoever asks may not know, or it does not open.
        metadata_damaged: That it is not what was sealed. Such a recording is listed all the same.
    """

    entry: RecordingEntry
    metadata: dict[str, Any] | None = field(repr=False)
    metadata_damaged: bool = False


@dataclass(frozen=True, slots=True)
class RecordingPage:
    """Some rows, the period they are from, and where the next page begins, if there is one."""

    rows: tuple[Listed, ...]
    period: Period
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Walk(Generic[Row]):
    """A query on its way through the months.

    Attributes:
        period: Its span.
        month: Where it continues; None at its beginning.
        before: The position in that month after which it continues.
    """

    period: Period
    month: str | None = None
    before: str | None = None

    @classmethod
    def begin(cls, request: PageRequest, *, tenant: TenantId, scope: str, cursors: Cursors, now_ms: int) -> Walk[Row]:
        """Begins a query, or continues the one that a cursor comes from.

        Raises:
            MalformedInput: If the period is not allowed, or the cursor belongs to another query.
        """
        if request.cursor is None:
            return cls(Period.resolve(request.from_ms, request.to_ms, now_ms))
        position = cursors.open(tenant, scope, request.cursor)
        period = Period(position["from"], position["to"])
        if request.from_ms not in (None, period.from_ms) or request.to_ms not in (None, period.to_ms):
            raise MalformedInput("the cursor continues a query of another period", http_status=422)
        return cls(period, position["month"], position["before"])

    def page(
        self, fetch: Callable[[str, str | None, int], list[tuple[str, Row]]], limit: int
    ) -> tuple[list[Row], Walk[Row] | None]:
        """Reads a page.

        Args:
            fetch: Reads rows of one month: month, position to begin after, most rows; returns positions and rows.
            limit: At most so many rows.

        Returns:
            The rows, and the rest of the walk if there is more.
        """
        found: list[tuple[str, str, Row]] = []
        for month in self.period.months_newest_first():
            if self.month is not None and month > self.month:
                continue
            before = self.before if month == self.month else None
            # One more than asked for, to know whether there is a next page.
            found += [(month, position, row) for position, row in fetch(month, before, limit + 1 - len(found))]
            if len(found) > limit:
                last_month, last_position, _row = found[limit - 1]
                return [row for _, _, row in found[:limit]], Walk(self.period, last_month, last_position)
        return [row for _, _, row in found], None

    def cursor(self, *, tenant: TenantId, scope: str, cursors: Cursors) -> str:
        """Writes where this walk stands."""
        position = {"from": self.period.from_ms, "to": self.period.to_ms, "month": self.month, "before": self.before}
        return cursors.seal(tenant, scope, position)
