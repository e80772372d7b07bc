"""Commit a recording: exactly once, however often it is tried, and whole, wherever it is interrupted.

1. The attempt is written down, then its object is stored under a name that carries the attempt's id, unlocked.
2. One DynamoDB transaction claims the generation of the call and writes everything that makes the recording one:
   index, sealed metadata, keys, tokens, audit event. Of several attempts one wins; the others' keys were never stored.
3. The object is locked.
4. The upload is deleted, if it was taken over as a whole.
5. The agent gets a signed receipt, and only then frees its spool.
6. The attempt is forgotten.

Steps 3 to 6 can be repeated at will by a repeated event or the reconciler. An object that no commit names is removed by
the reconciler alone: the finaliser may not delete anything from the vault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.commit_attempt import Attempt, AttemptState, Generation, Upload
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import AgentId, AttemptId, CallId, RecordingId, TenantId
from dualtone.domain.kek import KeyItem
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import Agent
from dualtone.usecases.link_recording import Linkage


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction writes.

    Attributes:
        attempt: The attempt, with everything that its later steps need.
        entry: The recording in the index.
        metadata: The sealed metadata's attributes.
        keys: The item of the keys table.
        number_tokens: Under which the recording is found.
        sip_tokens: Under which the call is followed.
        ledger_version: Of the ledger of pauses with which the recording was made; it must still be that.
        linkage: How it is linked to the other recordings of its call.
        call_state: What those who follow it are told.
        event: The audit event.
    """

    attempt: Attempt
    entry: RecordingEntry
    metadata: Mapping[str, Any]
    keys: KeyItem
    number_tokens: Sequence[str]
    sip_tokens: Sequence[str]
    ledger_version: int
    linkage: Linkage
    call_state: str
    event: AuditEvent


class Index(Protocol):
    """The index table, for committing."""

    def open_attempt(self, attempt: Attempt) -> None:
        """Writes an attempt down."""

    def attempt(self, attempt: AttemptId, created_at_ms: int) -> Attempt | None:
        """Reads an attempt; None if it was forgotten."""

    def generation(self, tenant: TenantId, call: CallId, generation: int) -> Generation | None:
        """Reads who claimed a generation of a call; None if nobody did."""

    def latest_generation(self, tenant: TenantId, call: CallId) -> Generation | None:
        """Reads who claimed the latest generation of a call."""

    def commit(self, commit: Commit) -> bool:
        """Does the transaction; False if the generation is taken, a pause came in, or the attempt was abandoned."""

    def forget(self, attempt: Attempt) -> None:
        """Removes an attempt."""


class Vault(Protocol):
    """The vault bucket."""

    def put(self, key: str, data: bytes, sha256: str) -> str:
        """Stores an object; returns its version id."""

    def lock(self, key: str, version_id: str, until_ms: int) -> None:
        """Locks a version; again only ever extends."""


class IngestBucket(Protocol):
    """The ingest bucket, for deleting."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects in this order; one that is gone is fine."""


class CommandQueues(Protocol):
    """The agents' command queues."""

    def send(self, queue_url: str, envelope: Envelope) -> None:
        """Sends a signed message."""


class Agents(Protocol):
    """The directory of agents."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent of a tenant; raises NotFound."""


class CommitRecording:
    """Takes attempts through their steps."""

    def __init__(
        self,
        *,
        index: Index,
        vault: Vault,
        ingest: IngestBucket,
        agents: Agents,
        queues: CommandQueues,
        signer: Signer,
    ) -> None:
        """Takes what the steps act on, and what signs receipts."""
        self._index = index
        self._vault = vault
        self._ingest = ingest
        self._agents = agents
        self._queues = queues
        self._signer = signer

    def begin(self, attempt: Attempt) -> None:
        """Writes an attempt down (step 1, before anything is stored)."""
        self._index.open_attempt(attempt)

    def store(self, attempt: Attempt, data: bytes, sha256: str) -> str:
        """Stores an attempt's object (step 1); returns the version id."""
        return self._vault.put(attempt.vault_key, data, sha256)

    def commit(self, commit: Commit) -> bool:
        """Commits (step 2), and goes on to the end.

        Returns:
            True if this attempt made the recording, False if the generation is another's or the attempt was abandoned.
        """
        if not self._index.commit(commit):
            return False
        self.complete(replace(commit.attempt, state=AttemptState.COMMITTED))
        return True

    def complete(self, attempt: Attempt) -> None:
        """Does what is left to do for a committed attempt (steps 3 to 6).

        Raises:
            IntegrityError: If the attempt is not committed.
            Unavailable: If a step must be tried again.
        """
        if attempt.state is not AttemptState.COMMITTED or not attempt.vault_version_id:
            raise IntegrityError("only a committed attempt is completed")
        self._vault.lock(attempt.vault_key, attempt.vault_version_id, attempt.lock_until_ms or 0)
        if attempt.releases:
            self.release(attempt.upload, attempt.recording)
        self._index.forget(attempt)

    def release(self, upload: Upload, recording: RecordingId) -> None:
        """Deletes an upload and tells its agent (steps 4 and 5)."""
        self._ingest.delete(upload.keys())
        queue_url = self._agents.agent(upload.tenant, upload.agent).command_queue_url
        if queue_url is not None:
            self._queues.send(queue_url, upload.receipt(recording).sealed_by(self._signer))

    def resume(self, generation: Generation, upload: Upload | None) -> None:
        """Does what a committed generation still lacks, for an event that came again.

        Args:
            generation: Who claimed it; it holds what the event tells of.
            upload: What lies in the ingest bucket; None if there is no manifest.
        """
        attempt = self._index.attempt(generation.attempt, generation.created_at_ms)
        if attempt is not None:
            self.complete(attempt)
        elif upload is not None and generation.releases:
            # The agent did not get its receipt, or lost it, and sent everything again.
            self.release(upload, generation.recording)
