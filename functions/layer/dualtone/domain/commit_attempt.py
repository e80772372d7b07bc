"""An attempt to make a call a recording, and what it must still do once it is committed. Pure.

An attempt is written down before its object is stored, so that no object is ever without a note of it. It is *open*
until one transaction makes it *committed*: then the recording exists, and lock, release and receipt follow, by whoever
comes first. An open attempt that is too old is *abandoned*: it cannot commit any more, and its object is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dualtone.domain import call_files
from dualtone.domain.call_files import IngestKey, Manifest, Receipt
from dualtone.domain.ids import AgentId, AttemptId, CallId, RecordingId, TenantId


class AttemptState(StrEnum):
    """How far an attempt has come."""

    OPEN = "open"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Upload:
    """What a call's manifest says lies in the ingest bucket.

    Attributes:
        tenant: Owner of the call.
        agent: Who uploaded it.
        call: The call.
        generation: Which generation of it.
        files: Names of the opening records and parts, then of the manifest.
        parts: Digest of every part, hexadecimal.
    """

    tenant: TenantId
    agent: AgentId
    call: CallId
    generation: int
    files: tuple[str, ...]
    parts: tuple[str, ...]

    @classmethod
    def of(cls, place: IngestKey, manifest: Manifest) -> Upload:
        """Reads it from a verified manifest."""
        files = [call_files.part_name(entry.epoch, entry.index) for entry in manifest.parts]
        files += [call_files.opening_name(entry.epoch) for entry in manifest.epochs]
        return cls(
            tenant=place.tenant,
            agent=place.agent,
            call=place.call,
            generation=manifest.generation,
            files=(*files, call_files.MANIFEST_NAME),
            parts=tuple(entry.digest for entry in manifest.parts),
        )

    def keys(self) -> list[str]:
        """The objects' keys, the manifest's last: while it is there, a repeated event finds its way."""
        prefix = call_files.ingest_prefix(self.tenant, self.agent, self.call)
        return [prefix + name for name in self.files]

    def receipt(self, recording: RecordingId) -> Receipt:
        """The receipt that lets the agent free exactly these parts."""
        return Receipt(self.tenant, self.agent, self.call, self.generation, recording, list(self.parts))


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt.

    Attributes:
        attempt: Its id, a ULID.
        created_at_ms: When it began, Unix time.
        recording: The recording that it is about to make.
        vault_key: Name of its object.
        upload: What it was made from.
        manifest_sha256: Of the agent's manifest file, hexadecimal.
        state: How far it has come.
        releases: Whether the upload is wholly in the recording, and may go.
        vault_version_id: The object's version; None before the commit.
        lock_until_ms: Until when the object is locked; None before the commit.
    """

    attempt: AttemptId
    created_at_ms: int
    recording: RecordingId
    vault_key: str
    upload: Upload
    manifest_sha256: str
    state: AttemptState = AttemptState.OPEN
    releases: bool = False
    vault_version_id: str | None = None
    lock_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """The claim that one attempt made on a generation of a call, forever.

    Attributes:
        attempt: The attempt that won.
        created_at_ms: When that attempt began.
        recording: What it made.
        manifest_sha256: The manifest it was made from.
        releases: Whether the upload was wholly taken over.
    """

    attempt: AttemptId
    created_at_ms: int
    recording: RecordingId
    manifest_sha256: str
    releases: bool
