"""List recordings by time, newest first. Vault keys play no part in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.period import Period
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.tenancy import Principal, Verb
from dualtone.usecases.recording_pages import Alarms, Cursors, Listed, Metadata, PageRequest, RecordingPage, Walk

_SCOPE: Final = "list"


class TimeIndex(Protocol):
    """The index, by time."""

    def started_in(
        self, tenant: TenantId, month: str, period: Period, *, before: str | None, limit: int
    ) -> list[tuple[str, RecordingEntry]]:
        """Reads rows of a month with their positions, newest first."""

    def metadata(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, dict[str, Any]]:
        """Reads the sealed metadata of many recordings."""


class ListRecordings:
    """Lists a tenant's recordings."""

    def __init__(self, index: TimeIndex, metadata: Metadata, cursors: Cursors, alarms: Alarms) -> None:
        """Takes the index, what opens metadata, what makes cursors, and who hears of damage."""
        self._index = index
        self._metadata = metadata
        self._cursors = cursors
        self._alarms = alarms

    def page(self, principal: Principal, request: PageRequest, now_ms: int) -> RecordingPage:
        """Reads a page.

        Numbers and names are opened only for whoever may see them.

        Raises:
            MalformedInput: If the period is not allowed, or the cursor belongs to another query.
        """
        tenant = principal.tenant
        walk: Walk[RecordingEntry] = Walk.begin(
            request, tenant=tenant, scope=_SCOPE, cursors=self._cursors, now_ms=now_ms
        )
        entries, rest = walk.page(
            lambda month, before, limit: self._index.started_in(tenant, month, walk.period, before=before, limit=limit),
            request.limit,
        )
        cursor = None if rest is None else rest.cursor(tenant=tenant, scope=_SCOPE, cursors=self._cursors)
        rows = with_metadata(principal, entries, self._index, self._metadata, self._alarms)
        return RecordingPage(rows, walk.period, cursor)


class SealedMetadata(Protocol):
    """The index's sealed metadata."""

    def metadata(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, dict[str, Any]]:
        """Reads the sealed metadata of many recordings."""


def with_metadata(
    principal: Principal, entries: Sequence[RecordingEntry], index: SealedMetadata, metadata: Metadata, alarms: Alarms
) -> tuple[Listed, ...]:
    """Adds to recordings what their metadata says, if the principal may see parties.

    Metadata is written with the recording it belongs to. Where it is missing or does not open it was tampered with:
    that row says so and raises an alarm, and the rest of the page is answered.
    """
    if not principal.may(Verb.SEE_PARTIES):
        return tuple(Listed(entry, None) for entry in entries)
    tenant = principal.tenant
    sealed = index.metadata(tenant, [entry.recording_id for entry in entries])
    rows = []
    for entry in entries:
        recording = entry.recording_id
        try:
            rows.append(Listed(entry, metadata.open(tenant, recording, sealed.get(recording, {}))))
        except IntegrityError:
            alarms.metadata_damaged(tenant, recording)
            rows.append(Listed(entry, None, metadata_damaged=True))
    return tuple(rows)
