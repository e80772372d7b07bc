"""One call, one recording: under repeated, concurrent and interrupted events, and after what a crash left is reconciled.

The finaliser is killed before and after every single call that it makes to the outside: a BaseException that nothing
catches, as if the process had ended there. Then the event comes again, or only the reconciler does.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import pytest

from dualtone.adapters import clock, opus_encoder, wiring
from dualtone.adapters.finalizer import finalizer
from dualtone.adapters.kms import KmsSigner
from dualtone.adapters.observability import Alarms
from dualtone.domain import call_files
from dualtone.domain.errors import IntegrityError, Unavailable
from dualtone.domain.ids import CallId
from dualtone.usecases.commit_recording import CommitRecording
from dualtone.usecases.finalize_recording import Chance, FinalizeRecording, Finalized, KeyArns
from dualtone.usecases.open_call import OpenCall
from dualtone.usecases.reconcile_recordings import PATIENCE_MS
from dualtone.usecases.render_audio import RenderAudio
from tests.adapters.finalize.cloud import AUDIT, INDEX, KEYS, Cloud
from tests.call_samples import TENANT, Upload, blocks, packets, speech

ALICE: Final = speech("alice")[:16_000]


class Killed(BaseException):
    """The process ended here."""


class Fate:
    """Counts the calls to the outside, and ends the process at one moment of them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.moments = 0
        self.last = ""

    def moment(self, name: str) -> None:
        """One moment before or after a call."""
        self.last = name
        if self.moments == self._at:
            raise Killed(name)
        self.moments += 1

    def over(self, port: Any) -> Any:
        """The port, mortal."""
        return _Mortal(port, self)


class _Mortal:
    def __init__(self, port: Any, fate: Fate) -> None:
        self._port = port
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fate.moment(f"before {name}")
            result = value(*args, **kwargs)
            self._fate.moment(f"after {name}")
            return result

        return call


def mortal(cloud: Cloud, fate: Fate) -> FinalizeRecording:
    """The finaliser as it is wired, every port of it mortal."""
    ingest, index = fate.over(wiring.ingest_store()), fate.over(wiring.recording_index())
    directory, kms = fate.over(wiring.directory()), fate.over(wiring.kms())
    signer = KmsSigner(kms, cloud.signing_key)
    return FinalizeRecording(
        uploads=ingest,
        directory=directory,
        open_call=OpenCall(ingest, kms),
        render=RenderAudio(opus_encoder.started),
        custody=lambda tenant: fate.over(wiring.vault_access().custody(tenant)),
        signer=signer,
        metadata=fate.over(wiring.metadata_store()),
        tokens=fate.over(wiring.tokens()),
        index=index,
        commit=CommitRecording(
            index=index,
            vault=fate.over(wiring.vault_store()),
            ingest=ingest,
            agents=directory,
            queues=fate.over(wiring.commit_recording()._queues),
            signer=signer,
        ),
        alarms=Alarms(),
        keys=KeyArns(cloud.ingest_key, cloud.custodian_a, cloud.custodian_b),
        chance=Chance(clock.now_ms, clock.random_bytes),
    )


def sample(cloud: Cloud, number: int = 0) -> Upload:
    """Two seconds of a call, both sides; each number is another call."""
    kept = [*packets(ALICE), *packets(ALICE, stream=1, ssrc=2)]
    return cloud.seal(blocks(kept), part_seconds=1, call=CallId(f"01JD00000000000000000{number:05d}"))


def reconcile(after_ms: int = PATIENCE_MS + 60_000) -> None:
    """Runs the reconciler as if so much time had passed."""
    wiring.reconciler()(clock.now_ms() + after_ms)


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
    assert all(one.parts == [entry.sha256 for entry in sent.manifest.parts] for one in receipts), where
    assert cloud.opened(sent.manifest.call), where


@pytest.mark.parametrize("recovery", ["the event comes again", "the reconciler comes first"])
def test_killed_at_every_moment(cloud: Cloud, recovery: str) -> None:
    """Wherever it dies, one whole recording results, and nothing else is left."""
    moment, alive = 0, False
    while not alive:
        fate, sent = Fate(moment), sample(cloud, moment)
        key = cloud.receive(sent)
        try:
            mortal(cloud, fate)(key)
            alive = True
        except Killed as death:
            where = f"{recovery}, killed {death} (moment {moment})"
            if recovery == "the reconciler comes first":
                reconcile()
            finalizer()(key)
            reconcile()
            assert_one_recording(cloud, sent, where)
        moment += 1
    assert moment > 40, "too few calls were interrupted to believe this test"


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


def test_concurrent_events_make_one_recording(cloud: Cloud) -> None:
    """Two finalisers encode the same call at once; one wins, the loser's object goes with the reconciler."""
    sent = sample(cloud)
    key = cloud.receive(sent)
    together = threading.Barrier(2)
    outcomes: list[Finalized] = []

    def run() -> None:
        finalise = mortal(cloud, Fate(-1))
        commit = finalise._commit.commit

        def at_once(prepared: Any) -> bool:
            together.wait(60)
            return commit(prepared)

        finalise._commit.commit = at_once  # type: ignore[method-assign]
        outcomes.append(finalise(key))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == [Finalized.RECORDED, Finalized.REPEATED]
    assert len(cloud.vault_versions()) == 2
    reconcile()
    assert_one_recording(cloud, sent)


def test_a_young_attempt_is_left_alone(cloud: Cloud) -> None:
    """The reconciler does not touch what may still be at work."""
    fate = Fate(-1)
    finalise = mortal(cloud, fate)
    key = cloud.receive(sample(cloud))
    store = finalise._commit.store

    def interrupted(attempt: Any, data: bytes, sha256: str) -> str:
        version = store(attempt, data, sha256)
        reconcile(after_ms=PATIENCE_MS - 60_000)
        return version

    finalise._commit.store = interrupted  # type: ignore[method-assign]
    assert finalise(key) is Finalized.RECORDED


def test_an_abandoned_attempt_cannot_commit(cloud: Cloud) -> None:
    """A finaliser that was given up writes nothing more; its event comes again and succeeds."""
    sent = sample(cloud)
    finalise = mortal(cloud, Fate(-1))
    key = cloud.receive(sent)
    store = finalise._commit.store

    def overtaken(attempt: Any, data: bytes, sha256: str) -> str:
        version = store(attempt, data, sha256)
        reconcile()
        return version

    finalise._commit.store = overtaken  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        finalise(key)
    assert cloud.recordings() == []
    assert cloud.vault_versions() == []
    assert finalizer()(key) is Finalized.RECORDED
    assert_one_recording(cloud, sent)
