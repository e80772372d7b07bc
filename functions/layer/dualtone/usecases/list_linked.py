"""List the recordings that belong to the call of another: copies of it, its other end, what follows a transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from dualtone.domain import linked_calls
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.linked_calls import LOSSES, LinkedRecording
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.tenancy import Principal

MOST_LINKED: Final = 50

Relation = Literal["copy", "same_call"]


class RecordingIndex(Protocol):
    """The index, by id."""

    def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[RecordingEntry, dict[str, Any]]:
        """Reads a recording; raises NotFound, also if it is another tenant's."""

    def recordings(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, RecordingEntry]:
        """Reads many recordings at once; one that is gone is left out."""


class Links(Protocol):
    """The index's links."""

    def linked(self, tenant: TenantId, token: str, around_ms: int) -> list[LinkedRecording]:
        """Reads what of about a moment is linked to a token."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A recording of the same call.

    Attributes:
        entry: The recording.
        relation: ``copy``: the same streams, from another recorder or SBC; ``same_call``: other streams or another
            time of the call.
        completes: Spans that the recording that was asked about lost, and this copy has: from and to, counted from the
            start of that one's audio.
    """

    entry: RecordingEntry
    relation: Relation
    completes: tuple[tuple[int, int], ...] = ()


class ListLinked:
    """Lists linked recordings."""

    def __init__(self, index: RecordingIndex, links: Links) -> None:
        """Takes the index and its links."""
        self._index = index
        self._links = links

    def list(self, principal: Principal, recording: RecordingId) -> list[Linked]:
        """Reads what belongs to the call of a recording, the oldest first, at most 50; without that itself.

        Raises:
            NotFound: If the tenant has no such recording.
        """
        tenant = principal.tenant
        entry, _ = self._index.recording(tenant, recording)
        rows: dict[RecordingId, LinkedRecording] = {}
        for token in entry.links:
            rows |= {one.recording: one for one in self._links.linked(tenant, token, entry.answered_at_ms)}
        mine = rows.pop(recording, None)
        others = sorted(rows.values(), key=lambda one: (one.started_at_ms, one.recording))[:MOST_LINKED]
        entries = self._index.recordings(tenant, [one.recording for one in others])
        return [
            _related(entry, mine, other, entries[other.recording]) for other in others if other.recording in entries
        ]


def _related(
    entry: RecordingEntry, mine: LinkedRecording | None, other: LinkedRecording, other_entry: RecordingEntry
) -> Linked:
    if mine is None or not mine.is_copy_of(other):
        return Linked(other_entry, "same_call")
    start = entry.started_at_ms
    lost = sorted({(gap.from_ms, gap.to_ms) for gap in entry.gaps if gap.cause in LOSSES})
    has = [span for span in lost if linked_calls.has_span(other, other_entry.gaps, start + span[0], start + span[1])]
    return Linked(other_entry, "copy", tuple(has))
