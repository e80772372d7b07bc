"""A pause that came too late: nothing of its span can be opened any more, wherever the cut is killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.adapters import wiring
from dualtone.adapters.attribute_values import to_item
from dualtone.adapters.cutter import cutter
from dualtone.adapters.finalizer import finalizer
from dualtone.adapters.kms import TrustedSigningKeys
from dualtone.adapters.recording_queries import RecordingQueries
from dualtone.adapters.uploaded_parts import UploadedParts
from dualtone.domain import gap_certificate, kek, keytree, part, vault_verifier
from dualtone.domain.errors import IntegrityError, NotFound, Unavailable
from dualtone.domain.gap_certificate import GapCertificate
from dualtone.domain.kek import KeyItem, KeyScope
from dualtone.domain.part import RecordType
from dualtone.domain.pause import How
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.usecases import wrap_keys
from dualtone.usecases.finalize_recording import Finalized
from dualtone.usecases.open_recording import OpenRecording
from functions.cut_paused_spans.handler import handler
from tests.adapters.finalize.cloud import AUDIT, INDEX, INGEST, KEYS, VAULT, Cloud, decode
from tests.adapters.finalize.pauses import command, tell
from tests.call_samples import CALL, TENANT, Upload, blocks, packets, speech
from tests.pause_samples import at

ALICE, BOB = speech("alice"), speech("bob")
RATE: Final = 8000
LATE: Final = command(3.1, 6.4, agent_clean_at_ms=1)
SEGMENTS: Final = (3, 6)
UPLOAD: Final = ["PutObject", "PutObject", "TransactWriteItems"]
"""What is changed of an upload in parts of five seconds, two of which the span touches; then, that it is gone."""
RECORDING: Final = ["TransactWriteItems", "TransactWriteItems"]
"""Keys, certificates, gaps and event at once; then, that the last copy is gone."""


class Killed(BaseException):
    """The process ended here."""


def two_sides(cloud: Cloud) -> Upload:
    return cloud.seal(blocks([*packets(ALICE), *packets(BOB, stream=1, ssrc=2)]))


def cut() -> None:
    """Cuts the call."""
    cutter()(TENANT, CALL)


@contextmanager
def killed_after(changes: int) -> Iterator[list[str]]:
    """Ends the process after so many changes; yields the list in which they are written down."""
    done: list[str] = []

    def notice(model: Any, **_: object) -> None:
        if model.name.startswith(("Put", "Transact", "Update", "Delete", "Send")):
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


def recorded(cloud: Cloud) -> RecordingEntry:
    (item,) = cloud.recordings()
    return RecordingQueries(cloud.dynamodb, INDEX).recording(TENANT, item["recording_id"])[0]


def certified(cloud: Cloud) -> list[GapCertificate]:
    public = wiring.kms().public_key_der(cloud.certificate_key)
    return [gap_certificate.parse(one.verified(public, gap_certificate.KIND)) for one in recorded(cloud).certificates]


def key_item(cloud: Cloud, generation: int = 1) -> KeyItem:
    return wiring.key_store().load(TENANT, recorded(cloud).recording_id, generation)


def nodes(cloud: Cloud, item: KeyItem) -> keytree.NodeSet:
    custody = wiring.vault_access().custody(TENANT)
    return wrap_keys.unwrap(custody, item, KeyScope(TENANT, recorded(cloud).recording_id, item.version))


def peak(heard: Any, from_s: float, to_s: float) -> int:
    inside = slice(round(from_s * RATE) + 480, round(to_s * RATE) - 480)
    return int(np.abs(heard[inside].astype(np.int32)).max())


def kept_in_ingest(cloud: Cloud) -> list[tuple[int, int]]:
    """From and to of every media record that lies in the ingest bucket still."""
    found = []
    for key in cloud.ingest_keys():
        if key.endswith(".dtp"):
            data = cloud.s3.get_object(Bucket=INGEST, Key=key)["Body"].read()
            heads = [record.head for record in part.read(data).records]
            found += [(head.from_us, head.from_us + head.span_us) for head in heads if head.type is RecordType.MEDIA]
    return found


def assert_cut_from_ingest(cloud: Cloud) -> None:
    spans = kept_in_ingest(cloud)
    assert spans
    assert not [span for span in spans if span[0] < at(6.4) and span[1] >= at(3.1)]


def assert_gone_from_vault(cloud: Cloud) -> None:
    """Nobody can derive the keys of those seconds; all others open; the object still verifies; the row says it all."""
    row, item = recorded(cloud), key_item(cloud)
    left = nodes(cloud, item)
    assert item.version == 2
    for segment in range(left.count):
        if SEGMENTS[0] <= segment <= SEGMENTS[1]:
            with pytest.raises(NotFound):
                keytree.derive(left, segment)
        else:
            assert keytree.derive(left, segment)
    heard = decode(cloud.opened())
    assert len(heard) == ALICE.size
    assert peak(heard, 3, 7) <= 2
    assert (peak(heard, 0, 3) > 1000, peak(heard, 7.2, 12) > 1000) == (True, True)
    assert [(gap.channel, gap.from_ms, gap.to_ms, gap.cause, gap.pause) for gap in row.gaps] == [
        (0, 3000, 7000, "payment", 0),
        (1, 3000, 7000, "payment", 0),
    ]
    assert row.flags == ("paused_audio_destroyed",)
    (certificate,) = certified(cloud)
    assert (certificate.how, certificate.segments) == (How.DESTROYED, SEGMENTS)
    assert (certificate.from_us, certificate.to_us, certificate.by) == (at(3.1), at(6.4), "endpoint:pay_1")
    stored = cloud.s3.get_object(Bucket=VAULT, Key=row.vault_key, VersionId=row.vault_version_id)["Body"].read()
    vault_verifier.verify_object(
        stored,
        row.manifest,
        row.manifest_signature,
        cloud.signing_public_key(),
        tenant=TENANT,
        recording=row.recording_id,
    )


def events(cloud: Cloud, what: str) -> list[dict[str, Any]]:
    return [item for item in cloud.items(AUDIT) if item["what"] == what]


def gone_at_ms(cloud: Cloud) -> int | None:
    items = cloud.items(INDEX, f"{TENANT}#call#{CALL}")
    (found,) = [item.get("gone_at_ms") for item in items if item["sk"].startswith("cmd#")]
    return found


def test_a_late_pause_is_cut_out_of_uploads(cloud: Cloud) -> None:
    """While the call lasts: its parts lose the records of the span, keep their digests, and become a recording."""
    sent = two_sides(cloud)
    for key, data in sent.files.items():
        if not key.endswith("manifest.json"):
            cloud.s3.put_object(Bucket=INGEST, Key=key, Body=data)
    tell(cloud, LATE, state="live")
    cut()
    assert_cut_from_ingest(cloud)
    assert finalizer()(cloud.receive_manifest(sent)) is Finalized.RECORDED
    assert recorded(cloud).flags == ()
    assert peak(decode(cloud.opened()), 3.1, 6.4) <= 2
    assert [certificate.how for certificate in certified(cloud)] == [How.REMOVED]


def test_a_late_pause_makes_seconds_of_a_recording_unreadable(cloud: Cloud) -> None:
    """Two seconds after BYE, or a day: keys, gaps, certificate and event change at once."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, LATE)
    cut()
    assert_gone_from_vault(cloud)
    (event,) = events(cloud, "recordings:puncture")
    assert event["details"] == {"call": CALL, "generation": 1, "segments": [3, 6], "pauses": 1}
    (gone,) = events(cloud, "calls:cut")
    assert gone["details"] == {"cause": "payment", "from_us": at(3.1), "until_gone_ms": 0}
    assert (gone["which"], gone["request_id"], gone["when"]) == (CALL, LATE["command"], gone_at_ms(cloud))


def test_saved_keys_open_nothing_together_with_the_new_item(cloud: Cloud) -> None:
    """Who kept the old shares, opened, has nothing of them: the new node set is sealed under two others."""
    finalizer()(cloud.receive(two_sides(cloud)))
    before, custody = key_item(cloud), wiring.vault_access().custody(TENANT)
    scope = KeyScope(TENANT, recorded(cloud).recording_id, 1)
    share_a = custody.decrypt(before.key_a_arn, before.share_a, scope.context("A"))
    share_b = custody.decrypt(before.key_b_arn, before.share_b, scope.context("B"))
    tell(cloud, LATE)
    cut()
    after = key_item(cloud)
    assert (after.share_a, after.share_b, after.nodes) != (before.share_a, before.share_b, before.nodes)
    for version in (1, 2):
        with pytest.raises(IntegrityError):
            kek.open_nodes(after.nodes, share_a, share_b, KeyScope(TENANT, scope.recording, version))
    mixed = KeyItem(2, after.nodes, before.share_a, after.share_b, after.key_a_arn, after.key_b_arn, 0)
    with pytest.raises(IntegrityError):
        wrap_keys.unwrap(custody, mixed, KeyScope(TENANT, scope.recording, 2))
    assert cloud.items(KEYS, TENANT) == cloud.items(KEYS, f"{TENANT}#{scope.recording}")
    assert len(cloud.items(KEYS, TENANT)) == 1


def test_a_node_of_the_new_set_opens_no_punctured_segment(cloud: Cloud) -> None:
    """Every key that can be derived from what is left, tried on the ciphertext of what is gone."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, LATE)
    cut()
    row, left = recorded(cloud), nodes(cloud, key_item(cloud))
    stored = cloud.s3.get_object(Bucket=VAULT, Key=row.vault_key, VersionId=row.vault_version_id)["Body"].read()
    head = vault_verifier.verify_head(
        stored,
        vault_verifier.verify_manifest(
            row.manifest, row.manifest_signature, cloud.signing_public_key(), tenant=TENANT, recording=row.recording_id
        ),
    )
    gone = list(head.split(*SEGMENTS, stored[slice(*head.span(*SEGMENTS))]))
    keys = [node.key for node in left.nodes] + [key for key in keytree.derive_kept(left, 0, left.count - 1) if key]
    for segment in gone:
        for key in keys:
            for candidate in (key, keytree.leaf_keys(key).encrypt):
                with pytest.raises(InvalidTag):
                    AESGCM(candidate).decrypt(bytes(12), segment[32:], head.place(SEGMENTS[0]))


@pytest.mark.parametrize("changes", range(1, 4))
@pytest.mark.parametrize("expected", [UPLOAD, RECORDING], ids=["upload", "recording"])
def test_killed_anywhere_and_told_again_it_ends_the_same(cloud: Cloud, expected: list[str], changes: int) -> None:
    """After every single change to the outside, and the last one too."""
    key = cloud.receive(two_sides(cloud))
    if expected is RECORDING:
        finalizer()(key)
    tell(cloud, LATE)
    with killed_after(changes) as done:
        try:
            cut()
        except Killed:
            assert len(done) == changes
    assert done == expected[:changes]
    with killed_after(99) as done:
        cut()
    assert done == expected[changes:]
    if expected is RECORDING:
        assert_gone_from_vault(cloud)
        assert len(events(cloud, "recordings:puncture")) == 1
    else:
        assert_cut_from_ingest(cloud)
    assert len(events(cloud, "calls:cut")) == 1
    assert gone_at_ms(cloud) is not None


def test_many_at_once_puncture_once(cloud: Cloud) -> None:
    """Two more versions would do no harm; one is what is needed."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, LATE)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            cut()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells of it
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error for error in failures if "conflict" not in str(error)] == []
    cut()
    assert_gone_from_vault(cloud)
    assert len(events(cloud, "recordings:puncture")) == 1
    assert len(events(cloud, "calls:cut")) == 1


@contextmanager
def meanwhile(client: Any, operation: str, act: Callable[[], object]) -> Iterator[None]:
    """Does something once, just before the next such operation."""
    done: list[str] = []

    def before(model: Any, **_: object) -> None:
        if model.name == operation and not done:
            done.append(operation)
            act()

    client.meta.events.register("before-call", before)
    try:
        yield
    finally:
        client.meta.events.unregister("before-call", before)


def test_a_finaliser_that_runs_meanwhile_keeps_nothing(cloud: Cloud) -> None:
    """The pause and its cut come just before its commit: it does not commit, and renders what is left."""
    key = cloud.receive(two_sides(cloud))

    def late() -> None:
        tell(cloud, LATE)
        cut()

    with meanwhile(wiring.dynamodb(), "TransactWriteItems", late):
        assert finalizer()(key) is Finalized.RECORDED
    assert recorded(cloud).flags == ()
    assert peak(decode(cloud.opened()), 3.1, 6.4) <= 2
    assert key_item(cloud).version == 1
    cut()
    assert key_item(cloud).version == 1


def test_a_finaliser_that_commits_meanwhile_is_punctured(cloud: Cloud) -> None:
    """The commit comes while the cut is at the uploads: an upload that was deleted does not come back."""
    key = cloud.receive(two_sides(cloud))
    committed: list[Finalized] = []

    def commit() -> None:
        committed.append(finalizer()(key))

    tell(cloud, LATE)
    with meanwhile(wiring.s3(), "PutObject", commit):
        cut()
    assert committed == [Finalized.RECORDED]
    assert cloud.ingest_keys() == []
    assert peak(decode(cloud.opened()), 3.1, 6.4) <= 2


def test_a_part_that_comes_late_is_cut_when_the_agent_says_so(cloud: Cloud) -> None:
    """An older copy was in flight: the last copy is gone only when the agent is clean, and the cut ran after that."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    tell(cloud, command(3.1, 6.4))
    cut()
    assert_cut_from_ingest(cloud)
    assert gone_at_ms(cloud) is None
    key = sent.part_keys[0]
    cloud.s3.put_object(Bucket=INGEST, Key=key, Body=sent.files[key])
    tell(cloud, LATE)
    cut()
    assert_cut_from_ingest(cloud)
    assert gone_at_ms(cloud) is not None


def test_an_agent_that_knows_nothing_of_the_call_is_clean(cloud: Cloud) -> None:
    """Its spool was freed: neither ring nor spool holds anything."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, command(3.1, 6.4, outcome="unknown"))
    cut()
    assert_gone_from_vault(cloud)
    assert gone_at_ms(cloud) is not None


def test_a_pause_that_came_in_time_costs_nothing(cloud: Cloud) -> None:
    """No record beside it is cut, no second punctured."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    tell(cloud, command(3.1, 6.4, outcome="acknowledged"))
    cut()
    assert all(cloud.s3.get_object(Bucket=INGEST, Key=key)["Body"].read() == data for key, data in sent.files.items())
    assert gone_at_ms(cloud) is None


def test_an_unanswered_pause_of_a_live_call_waits_for_its_answer(cloud: Cloud) -> None:
    """The agent knows best where its gap begins."""
    cloud.receive(two_sides(cloud))
    tell(cloud, command(3.1, None, outcome=None), state="live")
    before = kept_in_ingest(cloud)
    cut()
    assert kept_in_ingest(cloud) == before


def test_every_generation_is_punctured(cloud: Cloud) -> None:
    """The index shows the latest; the objects of all stay locked, so the keys of all must go."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    cloud.s3.delete_object(Bucket=INGEST, Key=sent.part_keys[2])
    finalizer()(sent.manifest_key)
    finalizer()(cloud.receive(sent))
    assert recorded(cloud).generation == 2
    tell(cloud, LATE)
    cut()
    for generation in (1, 2):
        item = key_item(cloud, generation)
        assert item.version == 2
        assert list(keytree.derive_kept(nodes(cloud, item), *SEGMENTS)) == [None] * 4
    assert peak(decode(cloud.opened()), 3, 7) <= 2
    assert [(one.generation, one.segments) for one in certified(cloud)] == [(2, SEGMENTS)]
    assert sorted(event["details"]["generation"] for event in events(cloud, "recordings:puncture")) == [1, 2]


def test_a_span_of_which_nothing_was_recorded_destroys_nothing(cloud: Cloud) -> None:
    """The call was answered; its first packet came later, and the pause was over by then."""
    late = [*packets(ALICE, start_us=at(5)), *packets(BOB, stream=1, ssrc=2, start_us=at(5))]
    finalizer()(cloud.receive(cloud.seal(blocks(late))))
    tell(cloud, command(1, 3))
    cut()
    assert key_item(cloud).version == 1
    assert (recorded(cloud).flags, recorded(cloud).gaps) == ((), ())
    assert [(one.how, one.segments) for one in certified(cloud)] == [(How.REMOVED, None)]


def test_a_second_late_pause_in_the_same_seconds_is_declared_too(cloud: Cloud) -> None:
    """Its seconds are gone already: no new keys, a second certificate."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, LATE)
    cut()
    tell(cloud, command(4, 5, number=2, cause="manual"))
    cut()
    assert key_item(cloud).version == 2
    assert [(one.cause, one.segments) for one in certified(cloud)] == [("payment", (3, 6)), ("manual", (3, 5))]
    assert {(gap.cause, gap.pause) for gap in recorded(cloud).gaps} == {("payment", 0), ("manual", 1)}


def test_a_pause_that_turns_out_longer_replaces_its_certificate(cloud: Cloud) -> None:
    """A later answer says so: the rest is punctured as well."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, LATE)
    cut()
    tell(cloud, command(3.1, 8.3))
    cut()
    assert key_item(cloud).version == 3
    (certificate,) = certified(cloud)
    assert (certificate.to_us, certificate.segments) == (at(8.3), (3, 8))
    assert [(gap.channel, gap.from_ms, gap.to_ms) for gap in recorded(cloud).gaps] == [(0, 3000, 9000), (1, 3000, 9000)]
    assert peak(decode(cloud.opened()), 3, 9) <= 2


def test_something_that_is_no_part_is_no_reason_to_stop(cloud: Cloud) -> None:
    """All others are cut; then the failure is told, since nobody knows what that one holds."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    cloud.s3.put_object(Bucket=INGEST, Key=sent.part_keys[0], Body=b"no part")
    tell(cloud, LATE)
    with pytest.raises(IntegrityError, match="cannot be read"):
        cut()
    cloud.s3.delete_object(Bucket=INGEST, Key=sent.part_keys[0])
    assert_cut_from_ingest(cloud)
    assert gone_at_ms(cloud) is None


def test_a_call_that_no_agent_reports_any_more_is_cut_where_its_recording_says(cloud: Cloud) -> None:
    """Its row has expired; a kept upload is found by the agent that recorded it."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    cloud.s3.delete_object(Bucket=INGEST, Key=sent.part_keys[2])
    finalizer()(sent.manifest_key)
    tell(cloud, LATE)
    key = to_item({"pk": f"{TENANT}#call#{CALL}", "sk": "live"})
    cloud.dynamodb.delete_item(TableName=INDEX, Key=key)
    cut()
    assert_cut_from_ingest(cloud)
    assert key_item(cloud).version == 2


def test_a_recording_that_was_destroyed_has_nothing_left_to_puncture(cloud: Cloud) -> None:
    """All of its keys are gone already."""
    finalizer()(cloud.receive(two_sides(cloud)))
    (item,) = cloud.items(KEYS)
    cloud.dynamodb.delete_item(TableName=KEYS, Key=to_item({"pk": item["pk"], "sk": item["sk"]}))
    tell(cloud, LATE)
    cut()
    assert events(cloud, "recordings:puncture") == []
    assert gone_at_ms(cloud) is not None


def test_parts_that_others_put_back_without_end_are_tried_again_later(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever does that, it is not called gone."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    tell(cloud, LATE)
    names = UploadedParts.names

    def restless(parts: UploadedParts, prefix: str) -> list[str]:
        cloud.receive(sent)
        return names(parts, prefix)

    monkeypatch.setattr(UploadedParts, "names", restless)
    with pytest.raises(Unavailable, match="without end"):
        cut()
    assert gone_at_ms(cloud) is None


def test_a_call_that_nobody_knows_is_nothing_to_cut(cloud: Cloud) -> None:
    """A message for it is done at once."""
    cut()
    assert cloud.items(AUDIT) == []


def test_the_handler_takes_what_the_queue_brings(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """One message per call; one that fails comes again, and is counted."""
    sent = two_sides(cloud)
    cloud.receive(sent)
    tell(cloud, LATE)
    good, bad = ({"tenant": TENANT, "call": CALL}, {"tenant": TENANT, "call": CALL})
    records = [
        {"messageId": str(number), "body": json.dumps(body), "attributes": {}, "eventSource": "aws:sqs"}
        for number, body in enumerate((good, bad))
    ]
    context: Any = None
    assert handler({"Records": records}, context) == {"batchItemFailures": []}
    assert_cut_from_ingest(cloud)
    cloud.s3.put_object(Bucket=INGEST, Key=sent.part_keys[0], Body=b"no part")
    assert handler({"Records": records[:1]}, context) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert '"CutFailed"' in capsys.readouterr().out


def test_a_range_of_a_punctured_recording_is_what_the_whole_has_there(cloud: Cloud) -> None:
    """Seeking into silence and out of it."""
    finalizer()(cloud.receive(two_sides(cloud)))
    tell(cloud, LATE)
    cut()
    reader = OpenRecording(
        wiring.vault_store(),
        wiring.key_store(),
        wiring.vault_access(),
        TrustedSigningKeys(wiring.kms(), frozenset({cloud.signing_key})),
    )
    row, whole = recorded(cloud), cloud.opened()
    offsets = reader.layout(row).page_offsets
    for first, last in ((offsets[2] + 7, offsets[4] + 9), (offsets[3], offsets[4] - 1), (offsets[6], offsets[9])):
        assert reader.read(row, first, last) == whole[first : last + 1]
