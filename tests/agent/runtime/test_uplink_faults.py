"""The uplink over bad networks, to a foreign S3: whatever happens on the way, everything is there once in the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dualtone.domain.ids import CallId
from sbc_agent.runtime import ingest_bucket
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.credentials import AgentCredentials, TokenSource, agent_session
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.ingest_bucket import IngestBucket, s3_client
from sbc_agent.runtime.request_signing import sign_by
from sbc_agent.runtime.revocation import Revocation
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.uplink import Uplink
from tests.agent.runtime import aws, web
from tests.agent.runtime.spooled import AGENT, TENANT, Clock, CloudKey, Lines, call_id, write_call
from tests.faulty_link import Answer, Cut, Fault, FaultyLink, LoseAnswer, Plan, Request, Slow, Stall

BUCKET = "ingest-faults"
PREFIX = f"{TENANT}/{AGENT}/"
LONGEST_WAIT_S = 300
NEVER = threading.Event()
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


@pytest.fixture
def network(endpoint: str) -> Iterator[FaultyLink]:
    made = FaultyLink(urlsplit(endpoint).port or 0)
    yield made
    made.close()


class Site:
    """An agent's spool and uplink behind the network, with a clock that the test moves."""

    def __init__(self, spool_dir: Path, network: FaultyLink, s3: Any, session: Any = None, threads: int = 1) -> None:
        self.spool_dir, self.network, self.s3 = spool_dir, network, s3
        self.lines, self.clock = Lines(), Clock()
        client = s3_client(session or SESSION, threads=threads, endpoint_url=network.url)
        self.uplink = Uplink(
            spool=Spool(spool_dir),
            store=IngestBucket(client, BUCKET, PREFIX),
            log=self.lines.log,
            threads=threads,
            clock=self.clock,
            random=lambda: 1.0,
        )
        self.calls: dict[CallId, list[str]] = {}

    def spooled(self, calls: int, *, parts: int = 2, size: int = 50_000) -> None:
        """Puts finished calls into the spool."""
        for number in range(calls):
            call = call_id(1 + number, number)
            self.calls[call] = write_call(self.spool_dir, call, parts=parts, size=size)

    def send(self) -> None:
        """Sends until nothing can be sent now."""
        self.uplink.scan()
        while self.uplink.send_next():
            pass

    def send_all(self, attempts: int = 1_000) -> None:
        """Sends until everything is up, however often that must be tried; the clock goes on as it must."""
        self.send()
        while self.uplink.state().calls_waiting:
            attempts -= 1
            assert attempts, "this does not end"
            self.clock.now += LONGEST_WAIT_S
            self.send()

    def assert_there_once(self) -> None:
        """Every file is in the bucket, byte for byte, was stored once, and is freed by its receipt alone."""
        wanted = {
            f"{PREFIX}{path.relative_to(self.spool_dir)}": path.read_bytes()
            for path in self.spool_dir.glob("*/*")
            if path.name != "transfers.jsonl"
        }
        listed = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        assert {item["Key"] for item in listed} == set(wanted)
        for key, data in wanted.items():
            assert self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == data
            assert self.network.stored(f"/{BUCKET}/{key}") == 1
        assert {path.name for path in self.spool_dir.iterdir()} == set(self.calls), "nothing is freed without a receipt"
        for call, digests in self.calls.items():
            assert self.uplink.free(call, digests[1:]) == "differs"
            assert self.uplink.free(call, digests) == "freed"
        assert list(self.spool_dir.iterdir()) == []


@pytest.fixture
def site(tmp_path: Path, network: FaultyLink, s3: Any) -> Site:
    return Site(tmp_path, network, s3)


def of_each(fault: Fault) -> Plan:
    """A plan: the first upload of each object meets a fault."""
    met: set[str] = set()

    def plan(request: Request) -> Fault | None:
        if not request.is_upload or request.path in met:
            return None
        met.add(request.path)
        return fault

    return plan


def uploads(fault: Fault, times: int) -> Plan:
    """A plan: the first uploads meet a fault."""
    left = [times]

    def plan(request: Request) -> Fault | None:
        if not request.is_upload or not left[0]:
            return None
        left[0] -= 1
        return fault

    return plan


# REQ: FEATURES P5: the link killed mid-upload 100 times: nothing lost, nothing twice.
def test_a_hundred_uploads_cut_in_the_middle(site: Site) -> None:
    """Connections break at a hundred places of openings, parts and manifests: afterwards every object is there once."""
    draw = random.Random(20_261_124)

    def plan(request: Request) -> Fault | None:
        if not request.is_upload or site.network.faults["Cut"] >= 100 or draw.random() < 0.3:
            return None
        return Cut(draw.randrange(request.length))

    site.network.plan = plan
    site.spooled(12, parts=3)
    site.send_all()
    assert site.network.faults["Cut"] == 100
    site.assert_there_once()
    failed = [line for line in site.lines.named("transfer") if line["result"] == "failed"]
    assert len(failed) == 100


def test_answers_lost_after_the_object_was_stored(site: Site) -> None:
    """S3 has it, the agent does not know: the next attempt finds the same object and takes it for what it is."""
    site.network.plan = of_each(LoseAnswer())
    site.spooled(3)
    site.send_all()
    assert [line["result"] for line in site.lines.named("transfer")] == ["failed", "present"] * 12
    site.assert_there_once()


def test_answers_lost_where_the_agent_may_only_put(site: Site) -> None:
    """As the template has it: a name that is taken was taken by this agent, and the finaliser compares."""
    lose: Plan = of_each(LoseAnswer())
    site.network.plan = lambda request: Answer(403, "AccessDenied") if request.method == "HEAD" else lose(request)
    site.spooled(1)
    site.send_all()
    assert [line["result"] for line in site.lines.named("transfer")] == ["failed", "taken"] * 4
    site.assert_there_once()


def test_a_comparison_that_fails_is_no_comparison(site: Site) -> None:
    """An object is not taken for ours because S3 was too busy to say what it is."""
    lose, busy = uploads(LoseAnswer(), 1), [2]

    def plan(request: Request) -> Fault | None:
        if request.method == "HEAD" and busy[0]:
            busy[0] -= 1
            return Answer(503, "SlowDown")
        return lose(request)

    site.network.plan = plan
    site.spooled(1)
    site.send_all()
    results = [(line["object"], line["result"]) for line in site.lines.named("transfer")]
    assert results[:4] == [("opening-00.json", "failed")] * 3 + [("opening-00.json", "present")]
    site.assert_there_once()


def test_an_object_that_goes_between_refusal_and_comparison_is_put_again(site: Site) -> None:
    """The finaliser may take an object over and delete it at any moment."""
    gone = [1]

    def plan(request: Request) -> Fault | None:
        if request.method == "HEAD" and gone[0]:
            gone[0] = 0
            key = request.path.removeprefix(f"/{BUCKET}/")
            site.s3.delete_object(Bucket=BUCKET, Key=key)
            site.network.answers.clear()
        return lose(request)

    lose = uploads(LoseAnswer(), 1)
    site.network.plan = plan
    site.spooled(1)
    site.send_all()
    site.assert_there_once()


def test_a_link_that_is_down_for_hours(site: Site) -> None:
    """No connection for three hours of the clock: tried twice a minute in the end, all there half a minute after."""
    site.network.close()
    site.spooled(4)
    end = site.clock.now + 10_800
    while site.clock.now < end:
        site.send()
        site.clock.now += 30
    assert site.uplink.state().link == "down"
    assert site.uplink.state().reason == "EndpointConnectionError"
    assert len(site.lines.named("transfer")) > 10_800 / 30 - 10
    site.network.open()
    site.clock.now += 30
    site.send()
    site.assert_there_once()


def test_a_link_that_flaps(site: Site) -> None:
    """Every other connection breaks at a place of its own, before, in, and after the body."""
    draw = random.Random(7)

    def plan(request: Request) -> Fault | None:
        return draw.choice((None, None, None, LoseAnswer(), Cut(0), Cut(draw.randrange(max(request.length, 1)))))

    site.network.plan = plan
    site.spooled(8)
    site.send_all()
    assert site.network.faults.total() > 10
    site.assert_there_once()


@pytest.mark.parametrize(
    ("fault", "link"),
    [
        (Answer(500, "InternalError"), "down"),
        (Answer(502, "BadGateway"), "down"),
        (Answer(503, "SlowDown"), "down"),
        (Answer(503, "ServiceUnavailable"), "down"),
        (Answer(429, "TooManyRequests"), "down"),
        (Answer(409, "OperationAborted"), "down"),
        (Answer(409, "ConditionalRequestConflict"), "down"),
        (Answer(400, "RequestTimeout"), "down"),
        (Answer(400, "ExpiredToken"), "down"),
        (Answer(403, "RequestTimeTooSkewed"), "down"),
        (Answer(403, "AccessDenied"), "refused"),
        (Answer(404, "NoSuchBucket"), "refused"),
    ],
)
def test_answers_that_say_later_or_no(site: Site, fault: Answer, link: str) -> None:
    """Whatever S3 says but yes, the spool waits, the reason is told in S3's own word, and it goes on in the end."""
    site.network.plan = uploads(fault, 5)
    site.spooled(2)
    site.send()
    state = site.uplink.state()
    assert (state.link, state.reason, state.calls_waiting) == (link, fault.code, 2)
    site.send_all()
    assert site.network.faults["Answer"] == 5
    assert site.uplink.state().link == "up"
    failed = [line for line in site.lines.named("transfer") if line["result"] == "failed"]
    assert [line["reason"] for line in failed] == [fault.code] * 5
    site.assert_there_once()


def test_a_slow_link(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload may take many times longer than any single wait, as long as it moves."""
    monkeypatch.setattr(ingest_bucket, "_CONNECT_TIMEOUT_S", 0.4)
    slow = Site(site.spool_dir, site.network, site.s3)
    slow.network.plan = uploads(Slow(0.003), 10)
    slow.spooled(1, parts=1, size=5_000_000)
    slow.send()
    told = {line["object"]: line for line in slow.lines.named("transfer")}
    assert told["part-00-000000.dtp"]["result"] == "stored"
    slow.assert_there_once()


def test_a_link_that_hangs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes everything and says nothing is given up, not waited for."""
    monkeypatch.setattr(ingest_bucket, "_READ_TIMEOUT_S", 0.2)
    hung = Site(site.spool_dir, site.network, site.s3)
    hung.network.plan = uploads(Stall(), 2)
    hung.spooled(1)
    hung.send()
    assert hung.uplink.state().reason == "ReadTimeoutError"
    hung.send_all()
    hung.assert_there_once()


def skew(request: Request) -> Fault | None:
    """REQ: Amazon S3: a request whose time is more than 15 minutes off is refused with RequestTimeTooSkewed."""
    signed = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    off = abs(datetime.now(UTC) - signed) > timedelta(minutes=15)
    return Answer(403, "RequestTimeTooSkewed") if off else None


@pytest.mark.parametrize("off_s", [-3_600, 3_600])
def test_a_wrong_clock(tmp_path: Path, network: FaultyLink, s3: Any, off_s: float) -> None:
    """By a clock an hour off S3 refuses everything: told as such, nothing is lost, and all goes once it is right."""
    session, off = aws.session(), [off_s]
    sign_by(session, lambda: datetime.now(UTC).timestamp() + off[0])
    site = Site(tmp_path, network, s3, session)
    network.plan = skew
    site.spooled(2)
    site.send()
    assert site.uplink.state().reason == "RequestTimeTooSkewed"
    off[0] = 0
    site.send_all()
    site.assert_there_once()


def test_many_threads_over_the_worst_of_networks(tmp_path: Path, network: FaultyLink, s3: Any) -> None:
    """Four threads, every fault that there is, a hundred and more of them: everything is there once."""
    draw = random.Random(2_866)
    faults: list[Fault] = [
        LoseAnswer(),
        Answer(503, "SlowDown"),
        Answer(500, "InternalError"),
        Answer(403, "AccessDenied"),
    ]

    def plan(request: Request) -> Fault | None:
        if draw.random() < 0.4:
            return None
        return draw.choice([*faults, Cut(draw.randrange(max(request.length, 1))), Cut(0)])

    network.plan = plan
    site = Site(tmp_path, network, s3, threads=4)
    site.spooled(20, size=5_000)
    site.uplink.start()
    while site.uplink.state().calls_unconfirmed < 20:
        site.clock.now += LONGEST_WAIT_S
        site.uplink.scan()
        NEVER.wait(0.005)
    site.uplink.close()
    assert network.faults.total() > 100
    site.assert_there_once()


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken"])
def test_credentials_that_are_over_before_our_clock_says_so(
    tmp_path: Path, network: FaultyLink, s3: Any, code: str
) -> None:
    """AWS refuses the token of the session: the next attempt, a second later, comes with a new one and goes on."""
    issued, valid = [0], ["token-1"]

    def token(*_: str) -> web.Answer:
        issued[0] += 1
        ends = datetime.now(UTC) + timedelta(seconds=900)
        keys = {"access_key_id": "ASIAEXAMPLE", "secret_access_key": "secret", "session_token": f"token-{issued[0]}"}
        return 200, keys | {"expires_at": ends.isoformat()}

    def plan(request: Request) -> Fault | None:
        return None if request.headers["x-amz-security-token"] in valid else Answer(403, code)

    network.plan = plan
    with web.serving(token) as server:
        state = tmp_path / "state"
        state.mkdir()
        source = TokenSource(
            api=CloudApi(),
            key=AgentKey(AgentKey.generate().private_key, AGENT),
            identity=CloudKey().identity(token_url=f"{server.url}/v1/token"),
            state_dir=state,
            log=Lines().log,
            revocation=(revocation := Revocation(state, AGENT, Lines().log)),
        )
        session = agent_session(AgentCredentials(source), aws.REGION, revocation)
        site = Site(tmp_path / "spool", network, s3, session)
        site.spooled(1)
        site.send()
        assert issued == [1], "one token for all uploads"
        valid[:] = ["token-2"]
        call = call_id(9, 9)
        site.calls[call] = write_call(site.spool_dir, call)
        site.send()
        assert site.uplink.state().reason == code
        site.clock.now += 1
        site.send()
        assert site.uplink.state().link == "up"
        assert issued == [2]
        site.assert_there_once()
