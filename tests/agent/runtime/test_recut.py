"""A late pause cuts parts in the spool while they are on their way: whatever the race, no older byte stays there.

The cloud's part in it is played by the test: as soon as the agent says that no older bytes can arrive any more, what is
in the bucket is cut once. After that nothing of what was cut may be there, whatever else the uplink sends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dualtone.domain import part
from dualtone.domain.ids import CallId
from dualtone.domain.part import RecordType
from sbc_agent.media import cuts
from sbc_agent.runtime.ingest_bucket import IngestBucket, s3_client
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.uplink import Uplink
from tests.agent.runtime import aws
from tests.agent.runtime.spooled import AGENT, TENANT, Clock, Lines, call_id, write_call
from tests.faulty_link import Answer, Cut, Fault, FaultyLink, Hold, LoseAnswer, Plan, Request

BUCKET = "ingest-recut"
PREFIX = f"{TENANT}/{AGENT}/"
CALL = call_id(1)
FIRST, SECOND = "part-00-000000.dtp", "part-00-000001.dtp"
SPAN = (0, 70_000_000)  # all of the first part, and of the second what overlaps it: its one record
PATIENCE_S = 20
SESSION = aws.session()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws.moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def client(endpoint: str) -> Iterator[Any]:
    made: Any = SESSION.create_client("s3", endpoint_url=endpoint)
    made.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
    yield made
    made.delete_bucket(Bucket=BUCKET)
    made.close()


@pytest.fixture
def s3(client: Any) -> Iterator[Any]:
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])


class Site:
    """An agent's spool with one call of two parts, its uplink, the network, and the bucket behind it."""

    def __init__(self, spool_dir: Path, port: int, s3: Any) -> None:
        self.spool_dir, self.s3 = spool_dir, s3
        self.network = FaultyLink(port)
        self.digests = write_call(spool_dir, CALL)
        self.secrets = [bytes(record.sealed) for name in (FIRST, SECOND) for record in self.part(name).records]
        self.clock = Clock()
        self.uplink = self.started()

    def started(self) -> Uplink:
        """An uplink over the spool, as after a start of the agent."""
        self.lines = Lines()
        client = s3_client(SESSION, threads=1, endpoint_url=self.network.url)
        store = IngestBucket(client, BUCKET, PREFIX)
        return Uplink(
            spool=Spool(self.spool_dir), store=store, log=self.lines.log, threads=1, clock=self.clock, random=lambda: 1
        )

    def part(self, name: str) -> part.Part:
        return part.read((self.spool_dir / CALL / name).read_bytes())

    def cut_spool(self) -> None:
        """What the media process does: each part is rewritten whole, under its name."""
        for name in (FIRST, SECOND):
            path = self.spool_dir / CALL / name
            if path.exists():
                path.with_suffix(".new").write_bytes(part.cut(path.read_bytes(), [SPAN]))
                path.with_suffix(".new").rename(path)

    def recut(self) -> Future[None]:
        return self.uplink.recut(CALL, [FIRST, SECOND])

    def cut_bucket(self) -> None:
        """What the cloud does when it is told."""
        for item in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            if item["Key"].endswith(".dtp"):
                data = self.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
                self.s3.put_object(Bucket=BUCKET, Key=item["Key"], Body=part.cut(data, [SPAN]))

    def send(self) -> None:
        self.uplink.scan()
        while self.uplink.send_next():
            pass

    def send_all(self) -> None:
        """Sends the rest, and looks: all is there, nothing of what was cut, and the receipt's digests still fit."""
        for _ in range(20):
            self.clock.now += 300
            self.send()
        assert self.uplink.state().calls_unconfirmed == 1
        objects = {
            item["Key"].rpartition("/")[2]: self.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            for item in self.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        }
        assert set(objects) == {"opening-00.json", FIRST, SECOND, "manifest.json"}
        assert not [name for name, data in objects.items() for secret in self.secrets if secret in data]
        assert [part.read(objects[name]).digest.hex() for name in (FIRST, SECOND)] == self.digests
        assert {record.head.type for record in part.read(objects[FIRST]).records} == {RecordType.REMOVED}
        assert not [line for line in self.lines.events() if line["level"] == "error"]
        assert self.uplink.free(CALL, self.digests) == "freed"

    def notes(self) -> list[str]:
        return [f"{entry.name} {entry.result}" for entry in Spool(self.spool_dir).transfers(CALL)]


@pytest.fixture
def site(tmp_path: Path, endpoint: str, s3: Any) -> Iterator[Site]:
    made = Site(tmp_path, urlsplit(endpoint).port or 0, s3)
    yield made
    made.uplink.close()
    made.network.close()


def on_upload(name: str, fault: Fault) -> Plan:
    """A plan: the first upload of an object meets a fault."""
    met: set[str] = set()

    def plan(request: Request) -> Fault | None:
        if not request.is_upload or not request.path.endswith(name) or met:
            return None
        met.add(name)
        return fault

    return plan


def test_before_the_upload(site: Site) -> None:
    """What was not sent yet goes up in its cut form only; there is nothing to wait for."""
    site.cut_spool()
    assert site.recut().done()
    site.cut_bucket()
    site.send_all()


def test_after_the_upload(site: Site) -> None:
    """What is up is the cloud's to cut, at once; the notes say that these bytes are not what lies here any more."""
    site.send()
    site.cut_spool()
    assert site.recut().done()
    assert site.notes()[-2:] == [f"{FIRST} cut", f"{SECOND} cut"]
    site.cut_bucket()
    site.send_all()


def test_during_the_upload(site: Site) -> None:
    """While the server holds the upload of older bytes nobody is told; when it has ended, the cut form is not sent."""
    hold = Hold()
    site.network.plan = on_upload(SECOND, hold)
    sending = threading.Thread(target=site.send)
    sending.start()
    assert hold.held.wait(PATIENCE_S)
    site.cut_spool()
    recut = site.recut()
    assert not recut.done()
    assert not site.uplink.recut(CALL, [FIRST, SECOND]).done(), "whoever asks again waits too"
    assert site.uplink.recut(CALL, [FIRST]).done(), "the first part is up, and not under way"
    hold.go.set()
    recut.result(PATIENCE_S)
    site.cut_bucket()
    sending.join()
    site.send_all()


def test_during_an_upload_that_breaks(site: Site) -> None:
    """Older bytes of a broken upload may still arrive: only when S3 has answered for the name they cannot."""
    site.network.plan = on_upload(FIRST, Cut(100))
    site.send()
    site.cut_spool()
    recut = site.recut()
    assert not recut.done()
    site.clock.now += 1
    site.send()
    assert recut.done()
    site.cut_bucket()
    site.send_all()


def test_an_upload_whose_answer_is_lost(site: Site) -> None:
    """The older bytes are there and the agent does not know: the cut form is refused as the same part, and told."""
    site.network.plan = on_upload(FIRST, LoseAnswer())
    site.send()
    site.cut_spool()
    recut = site.recut()
    assert not recut.done()
    site.clock.now += 1
    site.send()
    assert recut.done()
    assert site.secrets[0] in site.s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}{CALL}/{FIRST}")["Body"].read()
    site.cut_bucket()
    site.send_all()
    results = [line["result"] for line in site.lines.named("transfer") if line["object"] == FIRST]
    assert results == ["failed", "present"]


def test_the_cloud_was_quicker(site: Site) -> None:
    """The cloud has cut what it got while the agent, without an answer, still has the older form: it is the same."""
    site.network.plan = on_upload(FIRST, LoseAnswer())
    site.send()
    site.cut_bucket()
    site.clock.now += 1
    site.send()
    site.cut_spool()
    assert site.recut().done()
    site.cut_bucket()
    site.send_all()


def test_a_restart_in_between(site: Site) -> None:
    """The notes say which uploads were begun and not answered: the next run waits for them as this one would have."""
    site.network.plan = on_upload(FIRST, LoseAnswer())
    site.send()
    assert site.notes()[-1] == f"{FIRST} begun"
    site.uplink.close()
    site.uplink = site.started()
    site.cut_spool()
    recut = site.recut()
    assert not recut.done()
    site.send()
    assert recut.done()
    site.cut_bucket()
    site.send_all()


def test_a_link_that_is_down_keeps_everybody_waiting(site: Site) -> None:
    """As long as nobody knows what arrived, nobody is told; once the link is back, all are."""
    lose = on_upload(FIRST, LoseAnswer())
    site.network.plan = lose
    site.send()
    site.cut_spool()
    recut = site.recut()
    site.network.plan = lambda request: Answer(503, "SlowDown") if request.is_upload else None
    for _ in range(10):
        site.clock.now += 300
        site.send()
        assert not recut.done()
    site.network.plan = lose
    site.clock.now += 300
    site.send()
    assert recut.done()
    site.cut_bucket()
    site.send_all()


def test_a_call_that_is_freed_or_gone_keeps_nobody_waiting(site: Site) -> None:
    """The cloud has taken the call over, or somebody took its directory away: nothing of it is sent any more."""
    site.network.plan = on_upload(FIRST, Cut(0))
    site.send()
    recut = site.recut()
    assert not recut.done()
    for path in (site.spool_dir / CALL).iterdir():
        path.unlink()
    (site.spool_dir / CALL).rmdir()
    site.clock.now += 1
    site.send()
    assert recut.done()
    assert site.uplink.recut(CALL, [FIRST]).done(), "a call that is not here"


def test_an_uplink_that_ends_lets_nobody_wait(site: Site) -> None:
    """Whoever waits for what will not be known any more is told so."""
    site.network.plan = on_upload(FIRST, Cut(0))
    site.send()
    recut = site.recut()
    site.uplink.close()
    assert recut.cancelled()


def test_someone_who_lost_patience_holds_nobody_up(site: Site) -> None:
    """A waiter that was cancelled is passed over; the upload and the next waiter go on."""
    site.network.plan = on_upload(FIRST, Cut(0))
    site.send()
    first, second = site.recut(), site.recut()
    assert first.cancel()
    site.clock.now += 1
    site.send()
    assert second.done()


@pytest.mark.parametrize("call", [call_id(77)])
def test_a_call_nobody_knows(site: Site, call: CallId) -> None:
    """There is nothing to wait for, and nothing is remembered."""
    assert site.uplink.recut(call, [FIRST]).done()
    site.send()
    assert site.uplink.state().calls_waiting == 0


def test_a_part_that_is_cut_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The media process overwrites the older file with zeros, also under the hands of who has just opened it."""
    write_call(tmp_path, CALL, parts=1)
    path = tmp_path / CALL / FIRST
    cut_form = part.cut(path.read_bytes(), [SPAN])
    opened, forms = Path.open, [cut_form]

    def open_then_cut(self: Path, *args: Any, **kwargs: Any) -> Any:
        file = opened(self, *args, **kwargs)
        if self == path and forms:
            cuts._replace(path, forms.pop())
        return file

    monkeypatch.setattr(Path, "open", open_then_cut)
    assert Spool(tmp_path).read(CALL, FIRST) == cut_form
    assert not forms
