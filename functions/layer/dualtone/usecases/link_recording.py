"""Link a recording to the others of its call, before it is committed.

1. The tokens that dialogs of one call share, and how the recording relates to others (``domain.linked_calls``).
2. Which recordings have one of them; of its copies, one stands for the call.
3. The commit writes both down, on the condition that nobody else linked a recording of the same parties to one of the
   tokens meanwhile: so of two copies that are committed in one moment one comes second, and sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dualtone.domain import call_match, linked_calls
from dualtone.domain.call_match import MatchKind
from dualtone.domain.call_session import CallSession
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.linked_calls import LinkedRecording
from dualtone.domain.numbers import normalise
from dualtone.domain.recording_entry import RecordingEntry

MOST_LINKS: Final = 8
"""Tokens of one recording that are indexed, the most telling ones."""
MOST_COPIES: Final = 4
"""Copies of a call that change their place with a commit: more than four recorders of one call are a mistake."""


@dataclass(frozen=True, slots=True)
class Linkage:
    """How a recording is linked.

    Attributes:
        tokens: What it is found by.
        row: What is written under each of them.
        revisions: How often a recording of the same parties was linked to each token when that was read; 0 for never.
        copy_of: The copy that stands for the call, if it is another.
        others: The other copies, of which each now stands behind ``foremost``, or in front.
        foremost: Which recording stands for the call.
    """

    tokens: tuple[str, ...]
    row: LinkedRecording
    revisions: Mapping[str, int]
    foremost: RecordingId
    others: tuple[LinkedRecording, ...] = field(default=())

    @classmethod
    def alone(cls, row: LinkedRecording) -> Linkage:
        """A recording that nothing else is linked to."""
        return cls((), row, {}, row.recording)

    @property
    def copy_of(self) -> RecordingId | None:
        """The recording that stands for the call in its stead; None if it does so itself."""
        return None if self.foremost == self.row.recording else self.foremost


class Links(Protocol):
    """The index's links."""

    def revision(self, tenant: TenantId, token: str, parties: str) -> int:
        """Reads how often a recording of certain parties was linked to a token."""

    def linked(self, tenant: TenantId, token: str, around_ms: int) -> list[LinkedRecording]:
        """Reads what of about a moment is linked to a token."""


class LinkRecording:
    """Links recordings."""

    def __init__(self, links: Links, live_key: Callable[[TenantId], bytes]) -> None:
        """Takes the index and what yields a tenant's live key (``domain.call_match``)."""
        self._links = links
        self._live_key = live_key

    def __call__(self, entry: RecordingEntry, session: CallSession) -> Linkage:
        """Relates a recording that is about to be committed.

        Raises:
            Unavailable: If the index does not answer.
        """
        key = self._live_key(entry.tenant)
        tokens = call_match.links(key, session)[:MOST_LINKS]
        row = _row(key, entry, session)
        found: dict[RecordingId, LinkedRecording] = {}
        revisions: dict[str, int] = {}
        for token in tokens:
            revisions[token] = self._links.revision(entry.tenant, token, row.parties)  # before what it guards
            found |= {other.recording: other for other in self._links.linked(entry.tenant, token, entry.answered_at_ms)}
        copies = linked_calls.copies(row, found.values())[:MOST_COPIES]
        return Linkage(tokens, row, revisions, linked_calls.foremost([row, *copies]), copies)


def _row(key: bytes, entry: RecordingEntry, session: CallSession) -> LinkedRecording:
    numbers = sorted({number for party in session.participants if (number := normalise(party.aor)) is not None})
    return LinkedRecording(
        recording=entry.recording_id,
        call=entry.call_id,
        agent=entry.agent_id,
        source=_token(key, [session.src]),
        end=session.end,
        parties=_token(key, numbers),
        streams=len(entry.channels),
        started_at_ms=entry.started_at_ms,
        ended_at_ms=entry.started_at_ms + entry.duration_ms,
        lost_ms=linked_calls.lost_ms(entry.gaps),
    )


def _token(key: bytes, values: Sequence[str]) -> str:
    """One token of several values; empty if there are none, or they name nothing."""
    try:
        return call_match.token(key, MatchKind.EXTERNAL_ID, " ".join(values))
    except MalformedInput:
        return ""
