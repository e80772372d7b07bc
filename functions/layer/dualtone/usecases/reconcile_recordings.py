"""Reconcile: finish or remove what crashes left between the steps of a commit (see ``commit_recording``).

An attempt younger than the patience may still be at work and is left alone. Of the older ones, a committed attempt is
completed. An open one is abandoned first, by a conditional write after which it can never commit; then its object is
removed, which no key opens. The note of it stays for an hour more: a PUT that was still under way when its attempt was
given up leaves an object that nothing else would ever name, and a later run removes that too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain.commit_attempt import Attempt, AttemptState

PATIENCE_MS: Final = 20 * 60 * 1000
"""Longer than a finaliser can run: 15 minutes."""

LINGER_MS: Final = 60 * 60 * 1000
"""Longer than any request of a finaliser can be under way after its attempt was given up."""


class Attempts(Protocol):
    """The index table's attempts."""

    def attempts_before(self, before_ms: int) -> Iterable[Attempt]:
        """Reads all attempts that began before a moment."""

    def abandon(self, attempt: Attempt, now_ms: int) -> bool:
        """Makes an open attempt unable to commit; False if it is not open any more."""

    def forget(self, attempt: Attempt) -> None:
        """Removes an attempt."""


class VaultVersions(Protocol):
    """The vault bucket, for removing what was never committed."""

    def versions(self, key: str) -> list[str]:
        """The version ids of an object."""

    def delete_version(self, key: str, version_id: str) -> None:
        """Deletes a version; raises PolicyViolation if it is locked."""


class Completion(Protocol):
    """Does the later steps of a commit."""

    def complete(self, attempt: Attempt) -> None:
        """Locks, releases, tells the agent, forgets."""


class Failures(Protocol):
    """Hears of attempts that could not be reconciled; they are tried again with the next run."""

    def not_reconciled(self, attempt: Attempt, error: Exception) -> None:
        """Notes one."""


@dataclass(slots=True)
class Reconciled:
    """What a run did.

    Attributes:
        completed: Committed attempts whose last steps were done.
        abandoned: Open attempts that were given up.
        forgotten: Abandoned attempts of which nothing can come any more.
        failed: Attempts that could not be reconciled.
    """

    completed: int = 0
    abandoned: int = 0
    forgotten: int = 0
    failed: int = 0


class ReconcileRecordings:
    """Goes through old attempts."""

    def __init__(self, *, attempts: Attempts, vault: VaultVersions, completion: Completion, failures: Failures) -> None:
        """Takes the attempts, the vault, what completes commits, and who hears of failures."""
        self._attempts = attempts
        self._vault = vault
        self._completion = completion
        self._failures = failures

    def __call__(self, now_ms: int, patience_ms: int = PATIENCE_MS) -> Reconciled:
        """Reconciles every attempt that began before ``now_ms - patience_ms``."""
        done = Reconciled()
        for attempt in self._attempts.attempts_before(now_ms - patience_ms):
            try:
                self._reconcile(attempt, now_ms, done)
            except Exception as error:  # noqa: BLE001 - whatever one attempt meets, the others are reconciled
                self._failures.not_reconciled(attempt, error)
                done.failed += 1
        return done

    def _reconcile(self, attempt: Attempt, now_ms: int, done: Reconciled) -> None:
        if attempt.state is AttemptState.COMMITTED:
            self._completion.complete(attempt)
            done.completed += 1
        elif attempt.state is AttemptState.ABANDONED:
            self._remove(attempt)
            if now_ms - (attempt.abandoned_at_ms or 0) >= LINGER_MS:
                self._attempts.forget(attempt)
                done.forgotten += 1
        elif self._attempts.abandon(attempt, now_ms):
            self._remove(attempt)
            done.abandoned += 1

    def _remove(self, attempt: Attempt) -> None:
        for version in self._vault.versions(attempt.vault_key):
            self._vault.delete_version(attempt.vault_key, version)
