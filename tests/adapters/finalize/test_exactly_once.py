"""One call, one recording: under repeated, concurrent and interrupted events, and after a crash.

The finaliser is killed after every single change that it makes to the outside, and before the first: a BaseException
that nothing catches, as if the process had ended there. Then the event comes again, or the reconciler comes first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.finalizer import finalizer
from dualtone.domain import call_files
from dualtone.domain.errors import IntegrityError, Unavailable
from dualtone.domain.ids import CallId
from dualtone.usecases.commit_recording import Commit, CommitRecording
from dualtone.usecases.finalize_recording import Finalized
from dualtone.usecases.reconcile_recordings import LINGER_MS, PATIENCE_MS
from tests.adapters.finalize.cloud import AUDIT, INDEX, KEYS, VAULT, Cloud
from tests.call_samples import TENANT, Upload, blocks, packets, speech

ALICE: Final = speech("alice")[:16_000]
READS: Final = ("Get", "Head", "Query", "List", "Decrypt", "Generate", "Sign", "AssumeRole")
CHANGES: Final = [
    "PutItem",  # the attempt
    "PutItem",  # the call is being finalised
    "PutObject",
    "TransactWriteItems",
    "PutObjectRetention",
    "DeleteObjects",
    "DeleteObject",
    "SendMessage",
    "DeleteItem",
]


class Killed(BaseException):
    """The process ended here."""


@contextmanager
def killed_after(changes: int) -> Iterator[list[str]]:
    """Ends the process after so many changes; yields the list in which they are written down."""
    done: list[str] = []

    def notice(model: Any, **_: object) -> None:
        if not model.name.startswith(READS):
            done.append(model.name)
            if len(done) == changes:
                raise Killed

    clients = (wiring.dynamodb(), wiring.s3(), wiring.sqs())
    for client in clients:
        client.meta.events.register("after-call", notice)
    try:
        yield done
    finally:
        for client in clients:
            client.meta.events.unregister("after-call", notice)


def sample(cloud: Cloud, number: int = 0) -> Upload:
    """Two seconds of a call, both sides; each number is another call."""
    kept = [*packets(ALICE), *packets(ALICE, stream=1, ssrc=2)]
    return cloud.seal(blocks(kept), part_seconds=1, call=CallId(f"01JD00000000000000000{number:05d}"))


def reconcile(after_ms: int = PATIENCE_MS + 60_000) -> None:
    """Runs the reconciler as if so much time had passed, and once more when nothing can come any more."""
    now_ms = clock.now_ms() + after_ms
    wiring.reconciler()(now_ms)
    wiring.reconciler()(now_ms + LINGER_MS, LINGER_MS + PATIENCE_MS)


def assert_one_recording(cloud: Cloud, sent: Upload, where: str = "") -> None:
    """One recording, its object locked and the only one, its keys stored, the upload gone, the agent told."""
    assert sent.manifest is not None
    (recording,) = cloud.recordings(sent.manifest.call)
    name = recording["recording_id"]
    stored = [version for version in cloud.vault_versions() if name in version[0]]
    assert stored == [(recording["vault_key"], recording["vault_version_id"])], where
    assert cloud.locked(*stored[0]), where
    assert len(cloud.items(KEYS, f"{TENANT}#{name}")) == 1, where
    assert cloud.items(INDEX, "attempts#") == [], where
    assert cloud.ingest_keys() == [], where
    receipts = [call_files.verified_receipt(one, cloud.signing_public_key()) for one in cloud.receipts()]
    assert receipts, where
    assert all(one.parts == [entry.digest for entry in sent.manifest.parts] for one in receipts), where
    assert cloud.opened(sent.manifest.call), where


def test_what_a_finaliser_changes(cloud: Cloud) -> None:
    """The steps of a commit, in their order: nothing is locked before the commit, or deleted before it is locked."""
    finalizer()(cloud.receive(sample(cloud, 99)))  # makes the month's key
    with killed_after(-1) as done:
        finalizer()(cloud.receive(sample(cloud)))
    assert done == CHANGES


@pytest.mark.parametrize("recovery", ["the event comes again", "the reconciler comes first"])
@pytest.mark.parametrize("changes", range(1, len(CHANGES) + 1), ids=lambda n: f"{n}-{CHANGES[n - 1]}")
def test_killed_between_any_two_steps(cloud: Cloud, recovery: str, changes: int) -> None:
    """Wherever it dies, one whole recording results, and nothing else is left."""
    finalizer()(cloud.receive(sample(cloud, 99)))
    cloud.receipts()
    sent = sample(cloud)
    key = cloud.receive(sent)
    with pytest.raises(Killed), killed_after(changes):
        finalizer()(key)
    if recovery == "the reconciler comes first":
        reconcile()
    finalizer()(key)
    reconcile()
    assert_one_recording(cloud, sent)


def test_the_reconciler_alone_completes_what_was_committed(cloud: Cloud) -> None:
    """After the transaction the recording exists; lock, release and receipt need no event any more."""
    sent = sample(cloud)
    key = cloud.receive(sent)
    with pytest.raises(Killed), killed_after(1 + CHANGES.index("TransactWriteItems") + 1):
        finalizer()(key)
    reconcile()
    assert_one_recording(cloud, sent)


def test_a_repeated_event_changes_nothing(cloud: Cloud) -> None:
    """The second event finds neither manifest nor attempt, and leaves tables, vault and queue as they are."""
    sent = sample(cloud)
    key = cloud.receive(sent)
    assert finalizer()(key) is Finalized.RECORDED
    before = cloud.items(INDEX), cloud.items(KEYS), cloud.items(AUDIT), cloud.vault_versions()
    assert len(cloud.receipts()) == 1
    assert finalizer()(key) is Finalized.REPEATED
    assert (cloud.items(INDEX), cloud.items(KEYS), cloud.items(AUDIT), cloud.vault_versions()) == before
    assert cloud.receipts() == []


def test_an_agent_that_sends_everything_again_gets_its_receipt_again(cloud: Cloud) -> None:
    """A lost receipt never leaves an agent with a full spool, and never makes a second recording."""
    sent = sample(cloud)
    finalizer()(cloud.receive(sent))
    cloud.receipts()
    assert finalizer()(cloud.receive(sent)) is Finalized.REPEATED
    assert_one_recording(cloud, sent)


def test_another_manifest_of_the_same_generation_deletes_nothing(cloud: Cloud) -> None:
    """Two manifests cannot both be the one that was committed; the second is an integrity error."""
    sent = sample(cloud)
    finalizer()(cloud.receive(sent))
    cloud.receipts()
    other = cloud.seal(blocks(packets(ALICE)), part_seconds=1, call=CallId(f"01JD00000000000000000{0:05d}"))
    with pytest.raises(IntegrityError):
        finalizer()(cloud.receive(other))
    assert sorted(cloud.ingest_keys()) == sorted(other.files)
    assert cloud.receipts() == []


def test_concurrent_events_make_one_recording(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two finalisers encode the same call at once; one wins, the loser's object goes with the reconciler."""
    sent = sample(cloud)
    key = cloud.receive(sent)
    together = threading.Barrier(2)
    commit = CommitRecording.commit

    def at_once(self: CommitRecording, prepared: Commit) -> bool:
        together.wait(60)
        return commit(self, prepared)

    monkeypatch.setattr(CommitRecording, "commit", at_once)
    finalise, outcomes = finalizer(), list[Finalized]()
    threads = [threading.Thread(target=lambda: outcomes.append(finalise(key))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == [Finalized.RECORDED, Finalized.REPEATED]
    assert len(cloud.vault_versions()) == 2
    reconcile()
    assert_one_recording(cloud, sent)


@contextmanager
def reconciled_while_storing(monkeypatch: pytest.MonkeyPatch, after_ms: int) -> Iterator[None]:
    """Runs the reconciler, as if so much time had passed, right after an attempt stored its object."""
    store = CommitRecording.store

    def overtaken(self: CommitRecording, *args: Any) -> str:
        version = store(self, *args)
        reconcile(after_ms)
        return version

    with monkeypatch.context() as patch:
        patch.setattr(CommitRecording, "store", overtaken)
        yield


def test_a_young_attempt_is_left_alone(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reconciler does not touch what may still be at work."""
    key = cloud.receive(sample(cloud))
    with reconciled_while_storing(monkeypatch, PATIENCE_MS - 60_000):
        assert finalizer()(key) is Finalized.RECORDED


def test_an_object_that_arrives_after_its_attempt_was_removed_goes_too(cloud: Cloud) -> None:
    """A PUT that was still under way when its attempt was given up leaves nothing behind, and no note of it."""
    key = cloud.receive(sample(cloud))
    with pytest.raises(Killed), killed_after(1):
        finalizer()(key)
    (attempt,) = cloud.items(INDEX, "attempts#")
    now_ms = clock.now_ms() + PATIENCE_MS + 60_000
    assert wiring.reconciler()(now_ms).abandoned == 1
    cloud.s3.put_object(Bucket=VAULT, Key=attempt["vault_key"], Body=b"late")
    assert wiring.reconciler()(now_ms + 60_000).forgotten == 0
    assert cloud.vault_versions() == []
    cloud.s3.put_object(Bucket=VAULT, Key=attempt["vault_key"], Body=b"later still")
    assert wiring.reconciler()(now_ms + LINGER_MS).forgotten == 1
    assert cloud.vault_versions() == []
    assert cloud.items(INDEX, "attempts#") == []


def test_an_abandoned_attempt_cannot_commit(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser that was given up writes nothing more; its event comes again and succeeds."""
    sent = sample(cloud)
    key = cloud.receive(sent)
    with reconciled_while_storing(monkeypatch, PATIENCE_MS + 60_000), pytest.raises(Unavailable):
        finalizer()(key)
    assert cloud.recordings() == []
    assert cloud.vault_versions() == []
    assert finalizer()(key) is Finalized.RECORDED
    assert_one_recording(cloud, sent)
