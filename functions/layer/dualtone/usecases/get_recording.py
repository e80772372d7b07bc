"""Get one recording: everything the index and its metadata say, without opening it."""

from __future__ import annotations

from typing import Any, Protocol

from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.tenancy import Principal, Verb
from dualtone.usecases.recording_pages import Listed, Metadata


class RecordingIndex(Protocol):
    """The index, by id."""

    def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[RecordingEntry, dict[str, Any]]:
        """Reads a recording and its sealed metadata; raises NotFound, also if it is another tenant's."""


class GetRecording:
    """Gets a tenant's recording."""

    def __init__(self, index: RecordingIndex, metadata: Metadata) -> None:
        """Takes the index and what opens metadata."""
        self._index = index
        self._metadata = metadata

    def get(self, principal: Principal, recording: RecordingId) -> Listed:
        """Reads a recording.

        Raises:
            NotFound: If the tenant has no such recording.
            IntegrityError: If its metadata is missing, or not what was sealed.
        """
        entry, sealed = self._index.recording(principal.tenant, recording)
        if not principal.may(Verb.SEE_PARTIES):
            return Listed(entry, None)
        return Listed(entry, self._metadata.open(principal.tenant, recording, sealed))
