"""The uplink against a foreign S3: everything arrives once, in order, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain.errors import IntegrityError, MalformedInput, PolicyViolation, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.runtime.ingest_bucket import IngestBucket, s3_client
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.uplink import Uplink
from tests.agent.runtime import aws, spooled
from tests.agent.runtime.spooled import AGENT, BUCKET, TENANT, Clock, Lines, call_id, write_call

PREFIX = f"{TENANT}/{AGENT}/"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws.moto_server() as url:
        yield url


@pytest.fixture
def s3(endpoint: str) -> Iterator[Any]:
    client = aws.client("s3", endpoint)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


class Recorder:
    """A store that is a port's fake: keeps what was put, and fails as told."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.order: list[str] = []
        self.attempts = 0
        self.fail: Exception | None = None
        self.fail_keys: dict[str, Exception] = {}

    def put(self, key: str, body: bytes, sha256: bytes) -> str:
        self.attempts += 1
        if self.fail or key in self.fail_keys:
            raise self.fail or self.fail_keys[key]
        assert hashlib.sha256(body).digest() == sha256
        if key in self.objects:
            return "present"
        self.objects[key] = body
        self.order.append(key)
        return "stored"


def real_store(url: str) -> IngestBucket:
    return IngestBucket(s3_client(aws.session(), threads=2, endpoint_url=url), BUCKET, PREFIX)


def uplink(tmp_path: Path, store: Any, lines: Lines, clock: Clock | None = None, wall: Clock | None = None) -> Uplink:
    return Uplink(
        spool=Spool(tmp_path),
        store=store,
        log=lines.log,
        clock=clock or Clock(),
        wall=wall or Clock(1_800_000_000.0),
        random=lambda: 1.0,
    )


def run(link: Uplink) -> None:
    """Sends until nothing can be sent now."""
    link.scan()
    while link.send_next():
        pass


def keys(s3: Any) -> set[str]:
    return {item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_a_finished_call_arrives_whole(tmp_path: Path, s3: Any, endpoint: str) -> None:
    """Opening, parts and manifest lie under the agent's prefix, byte for byte, each in the transfer log."""
    call, lines = call_id(1), Lines()
    write_call(tmp_path, call)
    run(uplink(tmp_path, real_store(endpoint), lines))
    names = ["opening-00.json", "part-00-000000.dtp", "part-00-000001.dtp", "manifest.json"]
    assert keys(s3) == {f"{PREFIX}{call}/{name}" for name in names}
    for name in names:
        body = s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}{call}/{name}")["Body"].read()
        assert body == (tmp_path / call / name).read_bytes()
    told = lines.named("transfer")
    assert [line["object"] for line in told] == names
    assert all(line["result"] == "stored" and line["bytes"] and len(str(line["sha256"])) == 64 for line in told)


def test_the_oldest_call_first_and_its_manifest_last(tmp_path: Path) -> None:
    """Calls go by age; within a call opening, parts in order, manifest."""
    store, young, old = Recorder(), call_id(2), call_id(1)
    write_call(tmp_path, young, parts=1)
    write_call(tmp_path, old, parts=2)
    run(uplink(tmp_path, store, Lines()))
    assert store.order == [
        f"{old}/opening-00.json",
        f"{old}/part-00-000000.dtp",
        f"{old}/part-00-000001.dtp",
        f"{old}/manifest.json",
        f"{young}/opening-00.json",
        f"{young}/part-00-000000.dtp",
        f"{young}/manifest.json",
    ]


def test_a_live_call_goes_up_as_its_parts_close(tmp_path: Path) -> None:
    """What is closed goes, what is being written stays, and what closes later follows without a second copy."""
    store, call = Recorder(), call_id(1)
    write_call(tmp_path, call, parts=1, finished=False)
    link = uplink(tmp_path, store, Lines())
    run(link)
    assert store.order == [f"{call}/opening-00.json", f"{call}/part-00-000000.dtp"]
    (tmp_path / call / "part-00-000001.dtp.open").rename(tmp_path / call / "part-00-000001.dtp")
    link.notify(call)
    while link.send_next():
        pass
    assert store.order[2:] == [f"{call}/part-00-000001.dtp"]
    assert store.attempts == 3


def test_a_scan_finds_what_nobody_told(tmp_path: Path) -> None:
    """Without any notification a later scan finds a closed part, also when an earlier scan had found nothing new."""
    store, call, wall = Recorder(), call_id(1), Clock(2_000_000_000.0)
    write_call(tmp_path, call, parts=1, finished=False)
    link = uplink(tmp_path, store, Lines(), wall=wall)
    run(link)
    run(link)
    assert store.attempts == 2
    (tmp_path / call / "part-00-000001.dtp.open").rename(tmp_path / call / "part-00-000001.dtp")
    run(link)
    assert store.order[-1] == f"{call}/part-00-000001.dtp"


def test_days_without_an_uplink_lose_nothing(tmp_path: Path) -> None:
    """A link that is down is tried ever more seldom by one call at a time, and everything arrives when it is back."""
    store, lines, clock = Recorder(), Lines(), Clock()
    calls = [call_id(number, number) for number in range(5)]
    for call in calls:
        write_call(tmp_path, call)
    link = uplink(tmp_path, store, lines, clock)
    store.fail = Unavailable("no answer")
    run(link)
    assert store.attempts == 1, "one failure closes the link for all"
    end = clock.now + 3 * 86_400
    while clock.now < end:
        clock.now += link.wait_s() or 0.001
        run(link)
    assert 3 * 86_400 / 300 - 10 < store.attempts < 3 * 86_400 / 300 + 20
    assert link.state().link == "down"
    assert link.state().calls_waiting == 5
    store.fail = None
    clock.now += 300
    run(link)
    assert link.state().link == "up"
    assert len(store.objects) == 5 * 4
    assert lines.named("uplink_up")


def test_a_refused_agent_keeps_its_spool_and_alarms(tmp_path: Path) -> None:
    """When the cloud says no, nothing is lost, the state says so, and an alarm is logged."""
    store, lines, call = Recorder(), Lines(), call_id(1)
    write_call(tmp_path, call)
    link = uplink(tmp_path, store, lines)
    store.fail = PolicyViolation("answered 403")
    run(link)
    assert link.state().link == "refused"
    assert lines.named("uplink_refused")[0]["level"] == "error"
    assert (tmp_path / call / "manifest.json").exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MalformedInput("refused with EntityTooLarge"), "refused"), (IntegrityError("other"), "conflict")],
)
def test_one_bad_object_does_not_hold_up_other_calls(tmp_path: Path, error: Exception, kind: str) -> None:
    """A call whose object is refused waits alone; the others go, and its manifest never overtakes its parts."""
    store, lines, bad, good, clock = Recorder(), Lines(), call_id(1), call_id(2), Clock()
    write_call(tmp_path, bad)
    write_call(tmp_path, good)
    store.fail_keys[f"{bad}/part-00-000000.dtp"] = error
    link = uplink(tmp_path, store, lines, clock)
    run(link)
    assert f"{good}/manifest.json" in store.objects
    assert f"{bad}/manifest.json" not in store.objects
    alarm = lines.named("object_not_sent")[0]
    assert (alarm["level"], alarm["kind"], alarm["call"]) == ("error", kind, bad)
    store.fail_keys.clear()
    run(link)
    assert f"{bad}/manifest.json" not in store.objects, "it waits for its own back-off"
    clock.now += 1
    run(link)
    assert f"{bad}/manifest.json" in store.objects


def test_a_restart_sends_nothing_twice(tmp_path: Path) -> None:
    """A second agent over the same spool reads what the first one noted."""
    store, call = Recorder(), call_id(1)
    write_call(tmp_path, call)
    run(uplink(tmp_path, store, Lines()))
    attempts = store.attempts
    again = uplink(tmp_path, store, Lines())
    run(again)
    assert store.attempts == attempts
    assert again.state().calls_unconfirmed == 1


def test_a_crash_between_upload_and_note_finds_the_object_present(tmp_path: Path, s3: Any, endpoint: str) -> None:
    """Objects that are there already (412) count as sent when they are the same."""
    call, lines = call_id(1), Lines()
    write_call(tmp_path, call)
    run(uplink(tmp_path, real_store(endpoint), Lines()))
    transfers = tmp_path / call / "transfers.jsonl"
    begun, first, *_ = transfers.read_text().splitlines()
    transfers.write_text(f"{begun}\n{first}\n{first[:20]}")  # the rest was lost, the last line torn
    run(uplink(tmp_path, real_store(endpoint), lines))
    assert [line["result"] for line in lines.named("transfer")] == ["present"] * 3
    assert len(keys(s3)) == 4


def test_another_object_of_that_name_is_an_alarm(tmp_path: Path, s3: Any, endpoint: str) -> None:
    """A name taken by other bytes is never taken for sent, and the file stays."""
    call, lines = call_id(1), Lines()
    write_call(tmp_path, call)
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}{call}/part-00-000001.dtp", Body=b"foreign")
    run(uplink(tmp_path, real_store(endpoint), lines))
    assert lines.named("object_not_sent")[0]["kind"] == "conflict"
    assert f"{PREFIX}{call}/manifest.json" not in keys(s3)


def test_no_endpoint_at_all_is_unavailable(tmp_path: Path) -> None:
    """A port where nobody listens is an outage, not an error of the call."""
    write_call(tmp_path, call_id(1))
    link = uplink(tmp_path, real_store("http://127.0.0.1:1"), Lines())
    run(link)
    assert link.state().link == "down"


def test_a_missing_bucket_is_a_refusal(tmp_path: Path, endpoint: str) -> None:
    """The cloud answers, but not as it should: an alarm, and the call waits."""
    write_call(tmp_path, call_id(1))
    store = IngestBucket(s3_client(aws.session(), threads=1, endpoint_url=endpoint), "nowhere", PREFIX)
    link = uplink(tmp_path, store, Lines())
    run(link)
    assert link.state().link == "refused"


def test_threads_send_everything_and_drain_waits_for_it(tmp_path: Path, s3: Any, endpoint: str) -> None:
    """With its threads running, many calls are sent side by side, each once; drain returns when all are up."""
    calls = [call_id(number, number) for number in range(12)]
    for call in calls:
        write_call(tmp_path, call, parts=1)
    lines = Lines()
    link = Uplink(spool=Spool(tmp_path), store=real_store(endpoint), log=lines.log, threads=4)
    link.start()
    assert link.drain(60) == 0
    link.close()
    assert len(keys(s3)) == 12 * 3
    sent = [(line["call"], line["object"]) for line in lines.named("transfer")]
    assert len(sent) == len(set(sent)) == 12 * 3


def test_drain_gives_up_when_the_link_is_down(tmp_path: Path) -> None:
    """A stopping agent tries a lost link once more and does not wait out its grace time."""
    store, clock = Recorder(), Clock()
    store.fail = Unavailable("no answer")
    write_call(tmp_path, call_id(1))
    link = Uplink(spool=Spool(tmp_path), store=store, log=Lines().log, threads=1, clock=clock, random=lambda: 1.0)
    run(link)
    link.start()
    assert link.drain(1e9) == 1
    link.close()
    assert store.attempts == 2


def test_an_overdue_receipt_is_asked_for_by_putting_the_manifest_again(tmp_path: Path) -> None:
    """Hours after a call went up without a receipt, its manifest alone is put once more."""
    store, time, call = Recorder(), Clock(1_800_000_000.0), call_id(1)
    write_call(tmp_path, call)
    link = uplink(tmp_path, store, Lines(), time, time)
    run(link)
    store.objects.clear()  # the cloud has committed the call and removed its parts; the receipt was lost
    time.now += 5 * 3_600
    run(link)
    assert not store.objects
    time.now += 2 * 3_600
    run(link)
    assert list(store.objects) == [f"{call}/manifest.json"]
    run(link)
    assert len(store.objects) == 1


def test_what_the_bucket_forgets_is_put_again(tmp_path: Path) -> None:
    """A week without a receipt: parts, then the manifest, are put again; what is still there is found there, daily."""
    store, lines, time, call = Recorder(), Lines(), Clock(1_800_000_000.0), call_id(1)
    write_call(tmp_path, call)
    link = uplink(tmp_path, store, lines, time, time)
    run(link)
    first = list(store.order)
    time.now += 7 * 86_400
    run(link)
    assert store.order == first, "all is there still, and stays as it was"
    assert [line["result"] for line in lines.named("transfer")] == ["stored"] * 4 + ["present"] * 4
    store.objects.clear()  # two weeks old by now
    time.now += 7 * 86_400
    run(link)
    assert store.order == first * 2
    assert store.order[-1].endswith("manifest.json"), "its arrival starts the finaliser: everything is there before"
    assert [line["result"] for line in lines.named("transfer")][-4:] == ["stored"] * 4


def test_what_the_bucket_forgets_is_put_again_after_a_restart_too(tmp_path: Path) -> None:
    """When it went up stands in the notes; a call without a manifest is looked after as well."""
    store, time, call = Recorder(), Clock(1_800_000_000.0), call_id(1)
    write_call(tmp_path, call, finished=False)
    run(uplink(tmp_path, store, Lines(), time, time))
    first = list(store.order)
    store.objects.clear()
    time.now += 7 * 86_400
    run(uplink(tmp_path, store, Lines(), Clock(), time))
    assert store.order == first * 2


def test_a_wall_clock_that_goes_back_puts_again_and_harms_nothing(tmp_path: Path) -> None:
    """Nobody knows how old the notes of a clock that stood later are: what is up is looked after once more."""
    store, lines, wall, call = Recorder(), Lines(), Clock(1_800_003_600.0), call_id(1)
    write_call(tmp_path, call)
    run(uplink(tmp_path, store, Lines(), wall=wall))
    wall.now -= 3_600
    again = uplink(tmp_path, store, lines, wall=wall)
    run(again)
    run(again)
    assert [line["result"] for line in lines.named("transfer")] == ["present"] * 4
    assert again.state().calls_unconfirmed == 1


def test_a_directory_that_is_taken_away_holds_up_nothing(tmp_path: Path) -> None:
    """A call that vanishes while it waits, while it is sent, or when it was sent: the others go, and drain returns."""
    lines, clock = Lines(), Clock()
    sent, waiting, other = call_id(1), call_id(2), call_id(4)

    class Vanishing(Recorder):
        def put(self, key: str, body: bytes, sha256: bytes) -> str:
            if key == f"{sending}/part-00-000000.dtp":
                shutil.rmtree(tmp_path / sending)
            return super().put(key, body, sha256)

    sending, store = call_id(3), Vanishing()
    write_call(tmp_path, sent)
    link = uplink(tmp_path, store, lines, clock)
    run(link)
    for call in (waiting, sending, other):
        write_call(tmp_path, call)
    link.scan()
    shutil.rmtree(tmp_path / sent)
    shutil.rmtree(tmp_path / waiting)
    run(link)
    assert f"{other}/manifest.json" in store.objects
    assert f"{sending}/part-00-000000.dtp" in store.objects
    assert not [key for key in store.objects if key.startswith(waiting)]
    assert not lines.named("object_not_sent")
    state = link.state()
    assert (state.calls_waiting, state.calls_unconfirmed) == (0, 1)
    assert link.drain(0) == 0


# REQ: FEATURES P7: a log of every transfer: bytes, hash, result.
def test_every_attempt_is_in_the_log(tmp_path: Path) -> None:
    """Uploads, failures, what was there already, and what is put again: a line each, all of one form, ids alone."""
    store, lines, time, call = Recorder(), Lines(), Clock(1_800_000_000.0), call_id(1)
    write_call(tmp_path, call, parts=1)
    link = uplink(tmp_path, store, lines, time, time)
    attempts = 0
    for error in (Unavailable("no answer"), PolicyViolation("no"), MalformedInput("no"), IntegrityError("no")):
        store.fail = error
        run(link)
        attempts += 1
        time.now += 300
    store.fail = None
    run(link)
    time.now += 6 * 3_600
    run(link)
    attempts += 4
    told = lines.named("transfer")
    assert len(told) == attempts == store.attempts
    assert [line["result"] for line in told] == ["failed"] * 4 + ["stored"] * 3 + ["present"]
    assert [line["reason"] for line in told[:4]] == [
        "Unavailable", "PolicyViolation", "MalformedInput", "IntegrityError",
    ]  # fmt: skip
    form = {"time", "level", "event", "call", "object", "bytes", "sha256", "result", "ms"}
    assert all(set(line) - {"reason"} == form for line in told)
    assert "withheld" not in lines.stream.getvalue()


def test_a_full_disk_does_not_stop_the_uplink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When what is up cannot be noted, it is an alarm, and sending, which makes room, goes on."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store, lines, call = Recorder(), Lines(), call_id(1)
    write_call(tmp_path, call)
    monkeypatch.setattr(Spool, "note", full)
    run(uplink(tmp_path, store, lines))
    assert f"{call}/manifest.json" in store.objects
    assert lines.named("transfer_not_noted")


class TestFree:
    """Only the same parts free a call's directory."""

    @pytest.fixture
    def call(self, tmp_path: Path) -> CallId:
        return call_id(1)

    def test_equal_parts_free_it(self, tmp_path: Path, call: CallId) -> None:
        """The directory goes, and with it the call from the state."""
        parts = write_call(tmp_path, call)
        link = uplink(tmp_path, Recorder(), Lines())
        run(link)
        assert link.free(call, list(reversed(parts))) == "freed"
        assert list(tmp_path.iterdir()) == []
        assert link.state().calls_unconfirmed == 0
        assert link.free(call, parts) == "unknown"

    def test_it_is_freed_without_the_transfer_log_too(self, tmp_path: Path, call: CallId) -> None:
        """Where the notes are lost the parts themselves are hashed."""
        parts = write_call(tmp_path, call)
        assert uplink(tmp_path, Recorder(), Lines()).free(call, parts) == "freed"

    @pytest.mark.parametrize("change", ["missing", "extra", "other", "none"])
    def test_other_parts_do_not(self, tmp_path: Path, call: CallId, change: str) -> None:
        """One part less, one more, or one other than ours: the directory stays as it is."""
        parts = write_call(tmp_path, call)
        other = hashlib.sha256(b"other").hexdigest()
        told = {"missing": parts[:1], "extra": [*parts, other], "other": [parts[0], other], "none": []}[change]
        assert uplink(tmp_path, Recorder(), Lines()).free(call, told) == "differs"
        assert len(list((tmp_path / call).iterdir())) == 4

    def test_a_call_without_manifest_stays(self, tmp_path: Path, call: CallId) -> None:
        """What the cloud finalised of an unfinished call does not free what is still being written."""
        parts = write_call(tmp_path, call, finished=False)
        assert uplink(tmp_path, Recorder(), Lines()).free(call, parts) == "unfinished"
        assert (tmp_path / call).is_dir()

    @pytest.mark.parametrize(
        ("damage", "result"), [("torn", "differs"), ("no part", "differs"), ("gone", "unreadable")]
    )
    def test_damaged_parts_do_not(
        self, tmp_path: Path, call: CallId, monkeypatch: pytest.MonkeyPatch, damage: str, result: str
    ) -> None:
        """What the disk changed, or cannot read, is not what the cloud took over: it stays for a person to look at."""
        parts = write_call(tmp_path, call)
        path = tmp_path / call / "part-00-000001.dtp"
        if damage == "gone":
            monkeypatch.setattr(Spool, "read", lambda *_: path.with_name("nowhere").read_bytes())
        else:
            path.write_bytes(path.read_bytes()[:500] if damage == "torn" else b"noise")
        assert uplink(tmp_path, Recorder(), Lines()).free(call, parts) == result
        assert path.exists()

    def test_a_crash_while_freeing_is_finished_at_the_next_start(self, tmp_path: Path, call: CallId) -> None:
        """A half-removed directory is no call any more, and goes at the next start."""
        write_call(tmp_path, call)
        (tmp_path / call).rename(tmp_path / f".freed-{call}")
        link = Uplink(spool=Spool(tmp_path), store=Recorder(), log=Lines().log, threads=1)
        link.start()
        link.close()
        assert list(tmp_path.iterdir()) == []


def test_the_transfer_log_holds_bytes_hash_and_result(tmp_path: Path) -> None:
    """P7: beside a call lie two lines for each of its objects: when its upload began, and what came of it."""
    call = call_id(1)
    write_call(tmp_path, call)
    parts = sorted(tmp_path.glob("*/part-*.dtp"))
    run(uplink(tmp_path, Recorder(), Lines()))
    noted = [json.loads(line) for line in (tmp_path / call / "transfers.jsonl").read_text().splitlines()]
    assert [entry["sha256"] for entry in noted if entry["name"].startswith("part")] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in parts for _ in range(2)
    ]
    assert [entry["result"] for entry in noted] == ["begun", "stored"] * 4
    assert noted[3]["size_bytes"] == parts[0].stat().st_size


def test_spool_usage_counts_calls_and_bytes(tmp_path: Path) -> None:
    """The status shows how much waits."""
    assert Spool(tmp_path / "nowhere").usage().calls == 0
    write_call(tmp_path, spooled.call_id(1), parts=2, size=1_000)
    usage = Spool(tmp_path).usage()
    assert usage.calls == 1
    assert 2_000 < usage.size_bytes < 3_000


def test_spool_usage_says_nothing_of_a_call_that_waits_for_a_decision(tmp_path: Path) -> None:
    """The cloud is told of the spool: how long a call was that nobody may know of is not among it."""
    write_call(tmp_path, spooled.call_id(1), parts=2, size=1_000)
    before = Spool(tmp_path).usage()
    write_call(tmp_path, spooled.call_id(2), parts=2, size=1_000)
    for name in ("opening-00.json", "manifest.json"):
        (tmp_path / spooled.call_id(2) / name).unlink(missing_ok=True)
    (tmp_path / spooled.call_id(3)).mkdir()
    (tmp_path / spooled.call_id(3) / "part-00-000000.dtp.open").write_bytes(bytes(8_000))
    assert Spool(tmp_path).usage() == before
