"""Pages across months: for every set of rows and every page size, nothing is missed, repeated or out of order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.ids import TenantId
from dualtone.domain.period import DAY_MS, Period, month_of
from dualtone.usecases.recording_pages import PageRequest, Walk

ACME = TenantId("acme")
START = 1_767_225_600_000  # 2026-01-01
PERIOD = Period(START, START + 200 * DAY_MS)


class PlainCursors:
    """Keeps positions by number; what seals them is tested elsewhere."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def seal(self, tenant: TenantId, scope: str, position: dict[str, Any]) -> str:
        self.kept.append(position)
        return str(len(self.kept) - 1)

    def open(self, tenant: TenantId, scope: str, cursor: str) -> dict[str, Any]:
        return self.kept[int(cursor)]


@given(
    st.sets(st.integers(PERIOD.from_ms, PERIOD.to_ms - 1), max_size=40),
    st.integers(1, 12),
)
def test_pages_add_up_to_the_whole(times: set[int], limit: int) -> None:
    """And no page is empty but an only one."""
    rows = sorted(times, reverse=True)

    def fetch(month: str, before: str | None, most: int) -> list[tuple[str, int]]:
        found = [at for at in rows if month_of(at) == month and (before is None or f"{at:013d}" < before)]
        return [(f"{at:013d}", at) for at in found[:most]]

    cursors, cursor, pages = PlainCursors(), None, []
    while True:
        request = PageRequest(PERIOD.from_ms, PERIOD.to_ms, limit, cursor)
        walk: Walk[int] = Walk.begin(request, tenant=ACME, scope="x", cursors=cursors, now_ms=0)
        page, rest = walk.page(fetch, limit)
        pages.append(page)
        if rest is None:
            break
        cursor = rest.cursor(tenant=ACME, scope="x", cursors=cursors)
    assert [row for page in pages for row in page] == rows
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1] or len(pages) == 1
