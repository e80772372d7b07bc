"""The reconciler's decisions, attempt by attempt, and that one stubborn attempt never keeps it from the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dualtone.domain.commit_attempt import Attempt, AttemptState, Upload
from dualtone.domain.errors import PolicyViolation, Unavailable
from dualtone.domain.ids import AttemptId, RecordingId
from dualtone.usecases.reconcile_recordings import LINGER_MS, PATIENCE_MS, Reconciled, ReconcileRecordings
from tests.call_samples import AGENT, CALL, TENANT

NOW_MS = 2_000_000_000_000
OPEN = Attempt(
    attempt=AttemptId("01JD0000000000000000000001"),
    created_at_ms=NOW_MS - PATIENCE_MS - 1,
    recording=RecordingId("rec_" + "a" * 26),
    vault_key="acme/rec/0001/attempt.dtv",
    upload=Upload(TENANT, AGENT, CALL, 1, ("manifest.json",), ()),
    manifest_sha256="00" * 32,
)
ABANDONED = replace(OPEN, state=AttemptState.ABANDONED, abandoned_at_ms=NOW_MS - LINGER_MS + 1)
COMMITTED = replace(OPEN, state=AttemptState.COMMITTED, vault_version_id="v", lock_until_ms=NOW_MS)


@dataclass
class World:
    """Attempts, vault and commit steps in memory."""

    attempts: list[Attempt]
    versions: dict[str, list[str]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    fails: Exception | None = None
    open_still: bool = True

    def attempts_before(self, before_ms: int) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.created_at_ms < before_ms]

    def abandon(self, attempt: Attempt, now_ms: int) -> bool:
        assert now_ms == NOW_MS
        self.done.append(f"abandon {attempt.attempt[-1]}")
        return self.open_still

    def forget(self, attempt: Attempt) -> None:
        self.done.append(f"forget {attempt.attempt[-1]}")

    def delete_version(self, key: str, version_id: str) -> None:
        self.done.append(f"delete {key} {version_id}")

    def complete(self, attempt: Attempt) -> None:
        if self.fails is not None:
            raise self.fails
        self.done.append(f"complete {attempt.attempt[-1]}")

    def not_reconciled(self, attempt: Attempt, error: Exception) -> None:
        self.done.append(f"{type(error).__name__} {attempt.attempt[-1]}")

    def run(self) -> Reconciled:
        vault = _Vault(self)
        return ReconcileRecordings(attempts=self, vault=vault, completion=self, failures=self)(NOW_MS)


class _Vault:
    def __init__(self, world: World) -> None:
        self._world = world
        self.delete_version = world.delete_version

    def versions(self, key: str) -> list[str]:
        return self._world.versions.get(key, [])


@pytest.mark.parametrize(
    ("attempt", "versions", "expected"),
    [
        (COMMITTED, ["v"], ["complete 1"]),
        (OPEN, ["v"], ["abandon 1", f"delete {OPEN.vault_key} v"]),
        (OPEN, [], ["abandon 1"]),
        (OPEN, ["v", "w"], ["abandon 1", f"delete {OPEN.vault_key} v", f"delete {OPEN.vault_key} w"]),
        (ABANDONED, [], []),
        (ABANDONED, ["v"], [f"delete {OPEN.vault_key} v"]),
        (replace(ABANDONED, abandoned_at_ms=NOW_MS - LINGER_MS), ["v"], [f"delete {OPEN.vault_key} v", "forget 1"]),
        (replace(OPEN, created_at_ms=NOW_MS - PATIENCE_MS), ["v"], []),
    ],
    ids=[
        "committed",
        "open",
        "open, nothing stored",
        "stored twice",
        "abandoned",
        "stored late",
        "an hour ago",
        "young",
    ],
)
def test_decisions(attempt: Attempt, versions: list[str], expected: list[str]) -> None:
    """What is done for an attempt, in order: it is abandoned before its object goes, and noted until none can come."""
    world = World([attempt], {OPEN.vault_key: versions})
    world.run()
    assert world.done == expected


def test_an_attempt_that_commits_at_the_last_moment_is_left_to_the_next_run() -> None:
    """The conditional write decides; nothing is deleted."""
    world = World([OPEN], {OPEN.vault_key: ["v"]}, open_still=False)
    assert world.run() == Reconciled()
    assert world.done == ["abandon 1"]


@pytest.mark.parametrize("error", [Unavailable("later"), PolicyViolation("no"), OverflowError("far")])
def test_one_that_fails_does_not_stop_the_others(error: Exception) -> None:
    """It is reported and stays for the next run."""
    other = replace(OPEN, attempt=AttemptId("01JD0000000000000000000002"))
    world = World([COMMITTED, other], fails=error)
    assert world.run() == Reconciled(abandoned=1, failed=1)
    assert world.done == [f"{type(error).__name__} 1", "abandon 2"]
