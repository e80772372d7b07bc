"""Find the recordings in which a number takes part, without the index holding any number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.numbers import normalise
from dualtone.domain.period import Period
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.tenancy import Principal
from dualtone.usecases.list_recordings import with_metadata
from dualtone.usecases.recording_pages import Alarms, Cursors, Metadata, PageRequest, RecordingPage, Walk


class NumberIndex(Protocol):
    """The index, by number."""

    def with_number(
        self, tenant: TenantId, token: str, period: Period, *, before: str | None, limit: int
    ) -> list[tuple[str, RecordingId]]:
        """Reads rows of one month's token with their positions, newest first."""

    def recordings(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, RecordingEntry]:
        """Reads many recordings."""

    def metadata(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, dict[str, Any]]:
        """Reads the sealed metadata of many recordings."""


class NumberTokens(Protocol):
    """Makes the tokens under which numbers are found."""

    def number(self, tenant: TenantId, month: str, number: str) -> str:
        """The token of a normalised number in the calls of a month."""


class SearchRecordings:
    """Finds a tenant's recordings by number."""

    def __init__(
        self, index: NumberIndex, tokens: NumberTokens, metadata: Metadata, cursors: Cursors, alarms: Alarms
    ) -> None:
        """Takes the index, what makes tokens, what opens metadata, what makes cursors, and who hears of damage."""
        self._index = index
        self._tokens = tokens
        self._metadata = metadata
        self._cursors = cursors
        self._alarms = alarms

    def page(self, principal: Principal, number: str, request: PageRequest, now_ms: int) -> RecordingPage:
        """Reads a page of the recordings with a number, newest first; of several copies of a call the foremost alone.

        Args:
            principal: Who asks.
            number: In any spelling.
            request: The span of time and the number of rows.
            now_ms: The current time.

        Raises:
            MalformedInput: If that is no number, the period is not allowed, or the cursor belongs to another query.
        """
        tenant = principal.tenant
        normalised = normalise(number)
        if normalised is None:
            raise MalformedInput("give a telephone number or an address of record", http_status=422)
        scope = f"number#{normalised}"
        walk: Walk[RecordingId] = Walk.begin(request, tenant=tenant, scope=scope, cursors=self._cursors, now_ms=now_ms)

        def fetch(month: str, before: str | None, limit: int) -> list[tuple[str, RecordingId]]:
            token = self._tokens.number(tenant, month, normalised)
            return self._index.with_number(tenant, token, walk.period, before=before, limit=limit)

        found, rest = walk.page(fetch, request.limit)
        known = self._index.recordings(tenant, found)
        entries = [known[recording] for recording in found if recording in known and known[recording].copy_of is None]
        cursor = None if rest is None else rest.cursor(tenant=tenant, scope=scope, cursors=self._cursors)
        rows = with_metadata(principal, entries, self._index, self._metadata, self._alarms)
        return RecordingPage(rows, walk.period, cursor)
