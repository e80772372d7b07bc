"""Play a recording, or a part of it. What is about to be heard is on record before it can be heard."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from dualtone.domain import byte_range, gap_certificate
from dualtone.domain.byte_range import ByteRange
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.recording_entry import RecordingEntry

MOST_BYTES: Final = 4 * 1024 * 1024
"""Lambda answers with at most 6 MB, and base64 makes four bytes of three."""


class Layout(Protocol):
    """Where everything is in the playable file."""

    @property
    def total_bytes(self) -> int:
        """Its size."""

    def span_ms(self, first_byte: int, last_byte: int) -> tuple[int, int] | None:
        """Which time a byte range releases; None for header pages alone."""


class Vault(Protocol):
    """Opens sealed recordings."""

    def layout(self, recording: RecordingEntry) -> Layout:
        """Tells how the playable file is laid out; opens nothing."""

    def read(self, recording: RecordingEntry, first_byte: int, last_byte: int) -> bytes:
        """Opens a range, both bounds included."""


class RecordingIndex(Protocol):
    """The index, by id."""

    def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[RecordingEntry, dict[str, Any]]:
        """Reads a recording; raises NotFound, also if it is another tenant's."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is about to leave: these bytes, and the time that can be heard in them (from and to in ms), if any."""

    range: ByteRange
    span_ms: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Sound:
    """A part of a playable file.

    Attributes:
        data: The bytes.
        range: Which ones.
        total_bytes: The size of the whole file.
        media_type: Of the whole file.
        etag: Strong entity tag of the whole file.
    """

    data: bytes = field(repr=False)
    range: ByteRange
    total_bytes: int
    media_type: str
    etag: str


class PlayRecording:
    """Releases a tenant's audio."""

    def __init__(self, index: RecordingIndex, vault: Vault) -> None:
        """Takes the index and the vault."""
        self._index = index
        self._vault = vault

    def play(
        self,
        tenant: TenantId,
        recording: RecordingId,
        *,
        range_field: str | None,
        if_range: str | None,
        about_to_release: Callable[[Release], None],
    ) -> Sound:
        """Opens what a Range asks for.

        Args:
            tenant: Whose recording.
            recording: Its id.
            range_field: The Range field of the request, or None.
            if_range: The If-Range field of the request, or None.
            about_to_release: Writes the audit event; called before any key is touched, and if it raises, none is.

        Raises:
            NotFound: If the tenant has no such recording, or its keys were destroyed.
            RangeRequired: If the whole is asked for and too large for one answer.
            RangeNotSatisfiable: If nothing of what is asked for exists.
            IntegrityError: If the recording is not what was sealed.
            Unavailable: If a store or a custodian does not answer.
        """
        entry, _metadata = self._index.recording(tenant, recording)
        layout = self._vault.layout(entry)
        etag = _etag(entry)
        wanted = byte_range.resolve(
            range_field, if_range, etag=etag, total_bytes=layout.total_bytes, most_bytes=MOST_BYTES
        )
        about_to_release(Release(wanted, layout.span_ms(wanted.first, wanted.last)))
        data = self._vault.read(entry, wanted.first, wanted.last)
        return Sound(data, wanted, layout.total_bytes, entry.media_type, etag)


def _etag(entry: RecordingEntry) -> str:
    """Strong: of the sealed object, and of the seconds that were destroyed since, which play as silence."""
    destroyed = [
        envelope.payload
        for envelope in entry.certificates
        if gap_certificate.parse(envelope.payload).segments is not None
    ]
    if not destroyed:
        return f'"{entry.vault_sha256}"'
    return f'"{hashlib.sha256(entry.vault_sha256.encode("ascii") + b"".join(destroyed)).hexdigest()}"'
