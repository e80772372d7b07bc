"""Silence, 72 hours, and what comes after: sweeper and generations of a recording, on a clock that tests set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pytest

from dualtone.adapters import wiring
from dualtone.adapters.attribute_values import to_item
from dualtone.adapters.finalizer import finalizer
from dualtone.domain import call_files
from dualtone.domain.audio.g711 import Law
from dualtone.domain.call_watch import Step
from dualtone.domain.errors import IntegrityError, Unavailable
from dualtone.domain.ids import CallId
from dualtone.usecases.commit_recording import Commit, CommitRecording
from dualtone.usecases.finalize_recording import Finalized
from functions.finalize_recording.handler import handler as finalize
from functions.sweep_calls.handler import handler as sweep
from tests.adapters.finalize.cloud import AUDIT, INDEX, KEYS, Cloud, FakeClock, decode
from tests.adapters.finalize.test_handlers import NO_CONTEXT, arrived, message
from tests.call_samples import AGENT, ANSWERED_US, CALL, TENANT, Upload, blocks, packets, session, speech, stream_entry

ALICE: Final = speech("alice")[:32_000]
BOB: Final = speech("bob")[:32_000]
PREFIX: Final = call_files.ingest_prefix(TENANT, AGENT, CALL)
OPENING: Final = PREFIX + call_files.opening_name(0)
MANIFEST: Final = PREFIX + call_files.MANIFEST_NAME
FORMAT: Final = {"codec": "PCMU", "clock_hz": 8000, "channels": 1}


def sample(cloud: Cloud, **options: Any) -> Upload:
    """Four seconds of a call, both sides, in parts of one second."""
    kept = [*packets(ALICE), *packets(BOB, stream=1, ssrc=2)]
    return cloud.seal(blocks(kept), part_seconds=1, **options)


@dataclass
class World:
    """The cloud with its clock, and its functions called as their events call them."""

    cloud: Cloud
    time: FakeClock
    steps: list[dict[str, int]] = field(default_factory=list)

    def arrive(self, sent: Upload, *, without: tuple[str, ...] = ()) -> None:
        """Files arrive now, and S3 tells of opening and manifest."""
        self.cloud.receive(sent, without=without, at_ms=self.time.now_ms)
        for key in (OPENING, MANIFEST):
            if key in sent.files and key not in without:
                self.deliver(arrived(key))

    def deliver(self, *bodies: dict[str, Any]) -> None:
        """The finaliser gets messages."""
        for body in bodies:
            assert finalize({"Records": [message("1", body)]}, NO_CONTEXT) == {"batchItemFailures": []}

    def sweep(self) -> dict[str, int]:
        """The sweeper runs; returns the steps that it took."""
        return {name: count for name, count in sweep({}, NO_CONTEXT).items() if count}

    def swept(self) -> None:
        """Time passes until the call is interrupted, and on until it was swept."""
        self.time.pass_by(minutes=6)
        assert self.sweep() == {Step.INTERRUPT: 1}
        self.time.pass_by(hours=73)
        assert self.sweep() == {Step.FINALIZE: 1}
        self.deliver(*self.cloud.asked())

    def recording(self) -> dict[str, Any]:
        """The one recording in the index."""
        (found,) = self.cloud.recordings()
        return found

    def watches(self) -> list[dict[str, Any]]:
        """The watched calls."""
        return [item for item in self.cloud.items(INDEX, f"{TENANT}#call#") if item["sk"] == "watch"]

    def events(self, what: str) -> list[dict[str, Any]]:
        """The audit events of one kind."""
        return [event for event in self.cloud.items(AUDIT) if event["what"] == what]

    def number_rows(self) -> list[tuple[str, str]]:
        """Where the recording is found by its numbers."""
        return [(item["pk"], item["sk"]) for item in self.cloud.items(INDEX, f"{TENANT}#num#")]

    def put(self, item: dict[str, Any]) -> None:
        """Writes an item of the index as another function would."""
        self.cloud.dynamodb.put_item(TableName=INDEX, Item=to_item(item))

    def live(self, state: str) -> None:
        """What the agent's events said of the call."""
        said = {"agent_id": AGENT, "state": state, "started_at_ms": self.time.now_ms, "revision": 1}
        self.put({"pk": f"{TENANT}#call#{CALL}", "sk": "live", **said})

    def health(self, *live: str) -> None:
        """The agent's report is taken now."""
        self.put({"pk": f"{TENANT}#agents", "sk": AGENT, "seen_at_ms": self.time.now_ms, "live": list(live)})


@pytest.fixture
def world(cloud: Cloud, time: FakeClock) -> World:
    return World(cloud, time)


@contextmanager
def operations() -> Iterator[list[str]]:
    """Notes every call to AWS."""
    done: list[str] = []

    def notice(model: Any, **_: object) -> None:
        done.append(model.name)

    clients = (wiring.dynamodb(), wiring.s3(), wiring.sqs())
    for client in clients:
        client.meta.events.register("before-call", notice)
    try:
        yield done
    finally:
        for client in clients:
            client.meta.events.unregister("before-call", notice)


def test_a_silent_call_is_interrupted_and_after_72_hours_finalised(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """No event of the agent's ever came: S3's notice of the opening is enough. What came is kept, whole and flagged."""
    sent = sample(world.cloud)
    world.arrive(sent, without=(MANIFEST,))
    world.time.pass_by(minutes=4)
    assert world.sweep() == {}
    world.time.pass_by(minutes=2)
    assert world.sweep() == {Step.INTERRUPT: 1}
    assert '"CallInterrupted":[1.0]' in capsys.readouterr().out
    assert [event["which"] for event in world.events("calls:interrupt")] == [CALL]
    assert world.sweep() == {}
    world.time.pass_by(hours=71)
    assert world.sweep() == {Step.WAIT: 1}
    assert world.cloud.asked() == []
    world.time.pass_by(hours=1)
    assert world.sweep() == {Step.FINALIZE: 1}
    world.deliver(*world.cloud.asked())

    recording = world.recording()
    assert (recording["generation"], recording["state"], recording["flags"]) == (1, "recorded", ["interrupted"])
    assert recording["gaps"] == []  # nothing was heard of the call after its last record
    assert [(channel["channel"], channel["label"], channel["role"]) for channel in recording["channels"]] == [
        (0, "", "unknown"),
        (1, "", "unknown"),
    ]
    heard = decode(world.cloud.opened())
    assert np.abs(heard).max(axis=0).min() > 1000  # both sides
    assert sorted(world.cloud.ingest_keys()) == sorted(set(sent.files) - {MANIFEST})
    assert world.cloud.receipts() == []
    assert world.cloud.metadata()["sip_call_id"]
    world.time.pass_by(hours=2)
    assert world.sweep() == {Step.WAIT: 1}
    assert world.cloud.asked() == []


def test_what_was_negotiated_stands_in_for_the_manifest(world: World) -> None:
    """Labels, roles and dynamic payload types come from the SESSION records; what is unknown would be left out."""
    kept = [*packets(ALICE, law=Law.MU), *packets(BOB, law=Law.MU, stream=1, ssrc=2)]
    for one in (blocked := blocks(kept)):
        one.payload_type[:] = 111
    media = [
        {"stream": n, "label": label, "formats": [{"payload_type": 111, **FORMAT}]} for n, label in enumerate("10")
    ]
    streams = [stream_entry(n, label, Law.MU, payload_type=111) for n, label in enumerate("10")]
    sent = world.cloud.seal(blocked, streams=streams, session_content={**session(), "media": media})
    world.arrive(sent, without=(MANIFEST,))
    world.swept()
    recording = world.recording()
    assert [(one["channel"], one["label"], one["role"]) for one in recording["channels"]] == [
        (0, "1", "caller"),
        (1, "0", "callee"),
    ]
    assert recording["flags"] == ["interrupted"]
    assert np.abs(decode(world.cloud.opened())).max(axis=0).min() > 1000


def test_what_nobody_knows_of_a_call_is_declared(world: World) -> None:
    """A last part that never came is a gap until the call was last heard of; one in between is damage."""
    sent = sample(world.cloud)
    *_, last = sent.part_keys
    world.arrive(sent, without=(MANIFEST, last))
    world.time.pass_by(minutes=4)
    world.health(CALL)
    world.time.pass_by(minutes=2)
    assert world.sweep() == {Step.WAIT: 1}
    world.time.pass_by(minutes=5)
    assert world.sweep() == {Step.INTERRUPT: 1}
    world.time.pass_by(hours=72)
    world.sweep()
    world.deliver(*world.cloud.asked())
    gaps = world.recording()["gaps"]
    assert {(gap["channel"], gap["cause"]) for gap in gaps} == {(0, "interrupted"), (1, "interrupted")}
    assert all(2900 < gap["from_ms"] < 3100 and 235_000 < gap["to_ms"] <= 240_000 for gap in gaps)
    assert world.recording()["flags"] == ["interrupted"]


def test_a_part_that_is_missing_in_between_is_damage_as_always(world: World) -> None:
    """The chain shows it."""
    sent = sample(world.cloud)
    world.arrive(sent, without=(MANIFEST, sent.part_keys[1]))
    world.swept()
    assert world.recording()["flags"] == ["damaged", "interrupted"]
    assert {gap["cause"] for gap in world.recording()["gaps"]} == {"damaged"}


def test_a_manifest_a_day_late_makes_the_second_generation(world: World) -> None:
    """The index points to it: row, numbers and metadata are replaced. The first object stays locked, its keys stay."""
    sent = sample(world.cloud, answered_at_us=ANSWERED_US - 250_000)
    *_, last = sent.part_keys
    world.arrive(sent, without=(MANIFEST, last))
    world.swept()
    first, numbers = world.recording(), world.number_rows()
    world.time.pass_by(hours=24)
    world.arrive(sent, without=(OPENING,))

    second = world.recording()
    assert (second["generation"], second["flags"], second["recording_id"]) == (2, [], first["recording_id"])
    assert second["duration_ms"] >= first["duration_ms"] + 900
    assert len(world.cloud.vault_versions()) == 2
    assert all(world.cloud.locked(*version) for version in world.cloud.vault_versions())
    assert len(world.cloud.items(KEYS)) == 2
    assert len(world.number_rows()) == len(numbers) == 2
    position = f"{second['started_at_ms']:013d}#{second['recording_id']}"
    assert [sk for _, sk in world.number_rows()] == [position] * 2
    assert world.cloud.ingest_keys() == []
    (receipt,) = world.cloud.receipts()
    told = call_files.verified_receipt(receipt, world.cloud.signing_public_key())
    assert sent.manifest is not None
    assert (told.generation, told.parts) == (2, [entry.digest for entry in sent.manifest.parts])
    assert np.abs(decode(world.cloud.opened())).max(axis=0).min() > 1000
    assert world.cloud.items(INDEX, "attempts#") == []
    world.time.pass_by(hours=1)
    assert world.sweep() == {Step.FORGET: 1}
    assert world.watches() == []


def test_the_same_manifest_again_is_no_new_generation(world: World) -> None:
    """Nor is the sweeper's word that was overtaken by it, however late that comes."""
    sent = sample(world.cloud)
    world.arrive(sent, without=(MANIFEST,))
    world.time.pass_by(hours=73)
    assert world.sweep() == {Step.FINALIZE: 1}
    asked = world.cloud.asked()
    world.deliver(*asked)
    world.arrive(sent)
    before = world.cloud.items(KEYS), world.cloud.vault_versions(), world.recording()
    assert world.recording()["generation"] == 2
    world.arrive(sent)  # the agent lost its receipt, and sent everything again
    world.deliver(*asked, arrived(MANIFEST))
    assert (world.cloud.items(KEYS), world.cloud.vault_versions(), world.recording()) == before
    assert world.cloud.ingest_keys() == []
    assert len(world.cloud.receipts()) == 2


def test_silence_after_more_parts_makes_the_next_generation(world: World) -> None:
    """Still without a manifest: after another 72 hours, and only if something new came."""
    sent = sample(world.cloud)
    *others, last = sent.part_keys
    world.arrive(sent, without=(MANIFEST, last))
    world.swept()
    world.deliver({"interrupted": {"key": MANIFEST, "lasted_until_ms": world.time.now_ms}})
    assert world.recording()["generation"] == 1
    world.time.pass_by(hours=2)
    assert world.sweep() == {Step.WAIT: 1}
    world.arrive(sent, without=(MANIFEST, OPENING, *others))
    world.time.pass_by(hours=2)
    assert world.sweep() == {Step.WAIT: 1}
    world.time.pass_by(hours=72)
    assert world.sweep() == {Step.FINALIZE: 1}
    world.deliver(*world.cloud.asked())
    assert (world.recording()["generation"], world.recording()["flags"]) == (2, ["interrupted"])


def test_a_part_that_was_lacking_makes_the_next_generation(world: World) -> None:
    """The manifest was there all along; the sweeper sees that a file came after it was recorded, and asks."""
    sent = sample(world.cloud)
    lacking = sent.part_keys[2]
    world.arrive(sent, without=(lacking,))
    assert (world.recording()["generation"], world.recording()["flags"]) == (1, ["damaged"])
    world.deliver(arrived(MANIFEST))
    assert world.recording()["generation"] == 1
    world.time.pass_by(hours=2)
    world.arrive(sent, without=tuple(set(sent.files) - {lacking}))
    world.time.pass_by(minutes=10)
    assert world.sweep() == {Step.FINALIZE: 1}
    world.deliver(*world.cloud.asked())
    assert (world.recording()["generation"], world.recording()["flags"]) == (2, [])
    assert world.cloud.ingest_keys() == []
    assert len(world.cloud.receipts()) == 1


@pytest.mark.parametrize("state", ["ended", "spooled"])
def test_an_agent_that_lives_keeps_no_ended_call_from_being_looked_at(world: World, state: str) -> None:
    """Its word is no reason to overlook a lacking part, files that expire, or that a call is recorded as a whole."""
    world.live(state)
    sent = sample(world.cloud)
    lacking = sent.part_keys[2]
    world.arrive(sent, without=(lacking,))
    assert world.recording()["flags"] == ["damaged"]
    world.time.pass_by(hours=2)
    world.arrive(sent, without=tuple(set(sent.files) - {lacking}))
    world.health()
    assert world.sweep() == {Step.FINALIZE: 1}
    world.deliver(*world.cloud.asked())
    assert (world.recording()["generation"], world.recording()["flags"]) == (2, [])
    assert world.cloud.ingest_keys() == []
    world.time.pass_by(hours=2)
    world.health()
    assert world.sweep() == {Step.FORGET: 1}
    assert world.watches() == []


def test_files_that_are_about_to_expire_are_finalised_though_the_agent_lives(world: World) -> None:
    """The manifest never came, the agent keeps the call and says so: on the twelfth day what came is recorded."""
    sent = sample(world.cloud)
    world.arrive(sent, without=(MANIFEST,))
    world.live("spooled")
    for _ in range(12):
        world.health()
        assert set(world.sweep()) <= {Step.WAIT}
        world.time.pass_by(hours=24)
    world.health()
    assert world.sweep() == {Step.FINALIZE: 1}
    world.deliver(*world.cloud.asked())
    assert world.recording()["generation"] == 1


def test_a_later_generation_never_holds_less(world: World) -> None:
    """A manifest whose parts have expired meanwhile replaces nothing; a second manifest never does."""
    sent = sample(world.cloud)
    world.arrive(sent, without=(MANIFEST,))
    world.swept()
    first = world.recording()
    world.cloud.s3.delete_object(Bucket="dualtone-ingest", Key=sent.part_keys[0])
    world.cloud.receive(Upload({MANIFEST: sent.files[MANIFEST]}))
    with pytest.raises(IntegrityError, match="lacks parts of the one before"):
        finalizer()(MANIFEST)
    assert world.recording() == first
    world.cloud.receive(sent)
    assert finalizer()(MANIFEST) is Finalized.RECORDED
    second = world.recording()
    other = world.cloud.seal(blocks(packets(ALICE)))
    world.cloud.receive(other)
    with pytest.raises(IntegrityError, match="two manifests"):
        finalizer()(MANIFEST)
    assert world.recording() == second


def test_a_manifest_that_comes_while_the_sweeper_finalises_has_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever commits first: the other's event comes again, and the manifest's generation is the last."""
    sent = sample(world.cloud)
    world.cloud.receive(sent, without=(MANIFEST,))
    commit = CommitRecording.commit
    overtaken: list[Finalized] = []

    def overtake(self: CommitRecording, prepared: Commit) -> bool:
        if not overtaken:
            overtaken.append(Finalized.NOTHING)
            world.cloud.receive(Upload({MANIFEST: sent.files[MANIFEST]}))
            overtaken.append(finalizer()(MANIFEST))
        return commit(self, prepared)

    monkeypatch.setattr(CommitRecording, "commit", overtake)
    assert finalizer().interrupted(MANIFEST, 0) is Finalized.REPEATED
    assert overtaken[-1] is Finalized.RECORDED
    assert (world.recording()["generation"], world.recording()["flags"]) == (1, [])


def test_a_sweep_that_commits_first_leaves_the_manifest_the_second_generation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest's attempt loses the first generation; its event comes again and makes the second."""
    sent = sample(world.cloud)
    world.cloud.receive(sent)
    commit = CommitRecording.commit
    once: list[Finalized] = []

    def overtake(self: CommitRecording, prepared: Commit) -> bool:
        if not once:
            once.append(Finalized.NOTHING)
            world.cloud.s3.delete_object(Bucket="dualtone-ingest", Key=MANIFEST)
            once.append(finalizer().interrupted(MANIFEST, 0))
            world.cloud.receive(sent)
        return commit(self, prepared)

    monkeypatch.setattr(CommitRecording, "commit", overtake)
    with pytest.raises(Unavailable):
        finalizer()(MANIFEST)
    assert (once[-1], world.recording()["generation"]) == (Finalized.RECORDED, 1)
    assert finalizer()(MANIFEST) is Finalized.RECORDED
    assert (world.recording()["generation"], world.recording()["flags"]) == (2, [])


def test_nothing_but_an_opening_makes_no_recording(world: World) -> None:
    """There is nothing to hear; the sweeper asks once, and forgets the call when the bucket has."""
    sent = sample(world.cloud)
    world.arrive(sent, without=(MANIFEST, *sent.part_keys))
    world.swept()
    assert world.cloud.recordings() == []
    world.time.pass_by(hours=2)
    assert world.sweep() == {Step.WAIT: 1}
    world.cloud.s3.delete_object(Bucket="dualtone-ingest", Key=OPENING)
    world.time.pass_by(hours=2)
    assert world.sweep() == {Step.FORGET: 1}
    assert world.watches() == []


def test_a_live_call_is_marked_and_heard_again(world: World) -> None:
    """It leaves the list of live calls, and returns to it when its agent tells of it again."""
    wiring.begin_watch(TENANT, AGENT, CALL)
    live = {"pk": f"{TENANT}#call#{CALL}", "sk": "live", "agent_id": AGENT, "state": "live", "started_at_ms": 5}
    place = {"gsi1pk": f"{TENANT}#live", "gsi1sk": f"{5:013d}#{CALL}"}
    world.put(live | place)
    world.health(CALL)
    world.time.pass_by(minutes=6)
    assert world.sweep() == {Step.INTERRUPT: 1}
    (item,) = [item for item in world.cloud.items(INDEX) if item["sk"] == "live"]
    assert item == live | {"state": "interrupted"}
    world.time.pass_by(hours=1)
    world.health(CALL)
    assert world.sweep() == {Step.HEARD_AGAIN: 1}
    (item,) = [item for item in world.cloud.items(INDEX) if item["sk"] == "live"]
    assert item == live | place
    assert len(world.events("calls:hear-again")) == 1


def test_a_call_that_ended_and_waits_on_its_agents_disk_is_not_interrupted(world: World) -> None:
    """As long as the agent lives; a slow uplink is no silence."""
    wiring.begin_watch(TENANT, AGENT, CALL)
    world.put({"pk": f"{TENANT}#call#{CALL}", "sk": "live", "agent_id": AGENT, "state": "spooled"})
    for _ in range(20):
        world.health()
        world.time.pass_by(minutes=4)
        assert set(world.sweep()) <= {Step.WAIT}
    world.time.pass_by(minutes=4)
    assert world.sweep() == {Step.INTERRUPT: 1}


def test_a_sweep_costs_what_is_due(world: World) -> None:
    """Four queries of an index find nothing due; nothing is scanned or listed, and an agent is asked once a run."""
    for number in range(12):
        wiring.begin_watch(TENANT, AGENT, CallId(f"01JD00000000000000000{number:05d}"))
    with operations() as done:
        assert world.sweep() == {}
    assert done == ["Query"] * 4
    world.time.pass_by(minutes=4)
    world.health(*(f"01JD00000000000000000{number:05d}" for number in range(12)))
    world.time.pass_by(minutes=2)
    with operations() as done:
        assert world.sweep() == {Step.WAIT: 12}
    assert {name: done.count(name) for name in done} == {"Query": 4, "GetItem": 1, "UpdateItem": 12}


def test_one_call_that_cannot_be_looked_at_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is alarmed, and stays for the next run."""
    other = CallId("01JD0000000000000000000001")
    for call in (CALL, other):
        wiring.begin_watch(TENANT, AGENT, call)
    world.time.pass_by(minutes=6)
    listed = wiring.ingest_store().list

    def refuse(prefix: str) -> Any:
        if CALL in prefix:
            raise Unavailable("later")
        return listed(prefix)

    monkeypatch.setattr(wiring.ingest_store(), "list", refuse)
    assert world.sweep() == {Step.INTERRUPT: 1, "failed": 1}
    assert '"SweepFailed":[1.0]' in capsys.readouterr().out
    monkeypatch.undo()


@pytest.mark.parametrize("body", [[], {"interrupted": {}}, {"interrupted": {"key": "x", "lasted_until_ms": "soon"}}])
def test_a_message_that_asks_for_nothing_known_fails_by_itself(world: World, body: Any) -> None:
    """It comes again, and ends among the dead letters."""
    answer = finalize({"Records": [message("1", body)]}, NO_CONTEXT)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert json.dumps(body)
