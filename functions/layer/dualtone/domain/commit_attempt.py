"""An attempt to make a call a recording, and what it must still do once it is committed. Pure.

An attempt is written down before its object is stored, so that no object is ever without a note of it. It is *open*
until one transaction makes it *committed*: then the recording exists, and lock, release and receipt follow, by whoever
comes first. An open attempt that is too old is *abandoned*: it cannot commit any more, and its object is removed.

The cloud numbers the generations of a call. One that follows holds all that the one before held, and more: a manifest
where there was none, or a part that was lacking. The index points to the latest; the objects of all stay locked.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from dualtone.domain import call_files
from dualtone.domain.call_files import IngestKey, Manifest, Receipt
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import AgentId, AttemptId, CallId, RecordingId, TenantId


class AttemptState(StrEnum):
    """How far an attempt has come."""

    OPEN = "open"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Upload:
    """What of a call lies in the ingest bucket, by its manifest or, without one, by what is found there.

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
    def of(cls, place: IngestKey, manifest: Manifest, generation: int) -> Upload:
        """Reads it from a verified manifest.

        Args:
            place: Where the call lies.
            manifest: What the agent says, or what the cloud says in its place.
            generation: The number that the cloud gives it; agents always say 1.
        """
        files = [call_files.part_name(entry.epoch, entry.index) for entry in manifest.parts]
        files += [call_files.opening_name(entry.epoch) for entry in manifest.epochs]
        return cls(
            tenant=place.tenant,
            agent=place.agent,
            call=place.call,
            generation=generation,
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
        manifest_sha256: Of the agent's manifest file, or of what the cloud said in its place, hexadecimal.
        interrupted: Whether there was no manifest.
        state: How far it has come.
        releases: Whether the upload is wholly in the recording, and may go.
        lacking: Digests of parts that the manifest names and that were not there.
        vault_version_id: The object's version; None before the commit.
        lock_until_ms: Until when the object is locked; None before the commit.
        abandoned_at_ms: When it was given up; None unless it was.
    """

    attempt: AttemptId
    created_at_ms: int
    recording: RecordingId
    vault_key: str
    upload: Upload
    manifest_sha256: str
    interrupted: bool = False
    state: AttemptState = AttemptState.OPEN
    releases: bool = False
    lacking: tuple[str, ...] = ()
    vault_version_id: str | None = None
    lock_until_ms: int | None = None
    abandoned_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """The claim that one attempt made on a generation of a call, forever.

    Attributes:
        number: Which generation, from 1.
        attempt: The attempt that won.
        created_at_ms: When that attempt began.
        recording: What it made.
        manifest_sha256: The manifest it was made from, or what the cloud said in its place.
        interrupted: Whether there was no manifest.
        releases: Whether the upload was wholly taken over.
        parts: Digests of the parts that it was made from, hexadecimal.
        lacking: Digests of parts that its manifest names and that were not there.
    """

    number: int
    attempt: AttemptId
    created_at_ms: int
    recording: RecordingId
    manifest_sha256: str
    interrupted: bool
    releases: bool
    parts: frozenset[str]
    lacking: frozenset[str] = frozenset()

    def holds(self, manifest_sha256: str, *, interrupted: bool, parts: AbstractSet[str]) -> bool:
        """Whether an upload brings nothing that this generation does not hold: then it is the same event again.

        A manifest is more than no manifest, and a part that was lacking is more than none. Without a manifest, what
        lies there is more only if some part of it is new and the generation was made without one too.

        Args:
            manifest_sha256: Of the upload's manifest, or of what the cloud says in its place.
            interrupted: Whether it has no manifest.
            parts: Digests of its parts that are there, hexadecimal.

        Raises:
            IntegrityError: If it is another manifest than that of this generation: only one can be the agent's.
        """
        if interrupted:
            return not self.interrupted or parts <= self.parts
        if self.interrupted:
            return False
        if manifest_sha256 != self.manifest_sha256:
            raise IntegrityError("two manifests of one call")
        return self.releases or not self.lacking & parts

    def require_within(self, parts: AbstractSet[str]) -> None:
        """Sees to it that what follows this generation lacks nothing of it.

        Args:
            parts: Digests of the parts from which the next one was made.

        Raises:
            IntegrityError: If it does: then the better recording stays, and the upload too.
        """
        if not self.parts <= parts:
            raise IntegrityError("a later generation lacks parts of the one before")
