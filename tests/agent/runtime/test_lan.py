"""The LAN endpoint over real sockets: what a payment page in the agent's network sees while the uplink is down."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import gzip
import hashlib
import hmac
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from dualtone.domain.standard_webhooks import MAX_BODY_BYTES
from sbc_agent.runtime import lan_bodies
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.desks import Desks
from sbc_agent.runtime.lan import Lan, LanSettings
from sbc_agent.runtime.lan_admission import Admission
from sbc_agent.runtime.lan_bodies import InvalidBody, NamedPause, NamedResume, Pause, Resume, Webhook
from sbc_agent.runtime.lan_credentials import bearer_token, server_context
from sbc_agent.runtime.lan_orders import LanOrders
from sbc_agent.runtime.lan_routes import LanRoutes
from sbc_agent.runtime.webhook_memory import WebhookMemory
from tests.agent.runtime.controlled import ENDPOINT, SECRET, START_US, Desk, facts
from tests.agent.runtime.spooled import AGENT, TENANT, call_id

UCID = "00FA080018803B69810C6D"
NOW_S = START_US / 1_000_000
WEBHOOK = f"/v1/webhooks/payments/{ENDPOINT}"

Answer = tuple[int, dict[str, Any]]


class Site:
    """An agent's endpoint, and a client that trusts its certificate alone."""

    def __init__(self, directory: Path, desk: Desk | None = None, **limits: Any) -> None:
        self.desk = desk or Desk(directory)
        self.directory = directory
        self.token = bearer_token(directory)
        self.lan_orders = LanOrders(
            tenant=TENANT,
            agent=AGENT,
            control=self.desk.control,
            state=self.desk.state,
            memory=WebhookMemory(self.desk.state, self.desk.lines.log),
            facts=lambda: self.desk.facts,
            clock=self.desk.time,
            true_time=self.desk.true_time,
            answer_within_s=0.05,
        )
        context = server_context(directory, "127.0.0.1", NOW_S)
        admission = Admission(self.token, Desks(directory, self.desk.lines.log))
        self.lan = Lan(
            LanSettings(Endpoint("127.0.0.1", 0), context),
            LanRoutes(self.lan_orders).routes(),
            admission.admit,
            self.desk.lines.log,
            **limits,
        )

    async def __aenter__(self) -> Self:
        self.url = await self.lan.start()
        trust = ssl.create_default_context(cafile=str(self.directory / "lan.crt"))
        trust.verify_flags |= ssl.VERIFY_X509_STRICT
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.lan.close()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request with the token, unless the headers say otherwise."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}"}
        if data is not None:
            sent["Content-Type"] = "application/json"
        async with self.session.request(method, self.url + path, data=data, headers=sent | headers) as response:
            return response.status, await response.json(content_type=None)

    async def report(
        self,
        what: str,
        *,
        message_id: str = "msg_1",
        at_s: float | None = None,
        path: str = WEBHOOK,
        body: bytes | None = None,
        **data: Any,
    ) -> Answer:
        """A payment system's webhook, signed as the standard says."""
        if body is None:
            body = json.dumps({"type": f"card_entry.{what}", "data": {"call": {"ucid": UCID}} | data}).encode()
        stamp = str(int(self.desk.true_time.now_ms() // 1000 if at_s is None else at_s))
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        mac = base64.b64encode(hmac.digest(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256)).decode()
        headers = {"webhook-id": message_id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{mac}"}
        return await self.ask("POST", path, body, Authorization="", **headers)


def serve(directory: Path, scenario: Callable[[Site], Awaitable[None]], **options: Any) -> Site:
    site = None

    async def run() -> None:
        nonlocal site
        async with Site(directory, **options) as site:
            await scenario(site)

    asyncio.run(run())
    assert site is not None
    return site


def at(seconds_ago: float) -> str:
    return dt.datetime.fromtimestamp(NOW_S - seconds_ago, dt.UTC).isoformat()


# -- webhooks ---------------------------------------------------------------------------------------------------------


def test_a_payment_pauses_and_resumes_its_call(tmp_path: Path) -> None:
    """No uplink anywhere: acknowledged, with the first silent packet; the ledger's events wait for the cloud."""

    async def scenario(site: Site) -> None:
        call = site.desk.begin()
        status, answer = await site.report("started", effective_at=at(2.0), lease_s=60, terminal="7")
        assert (status, answer["outcome"]) == (200, "acknowledged")
        (one,) = answer["calls"]
        assert one["state"] == "live"
        assert (one["call_id"], one["causes"], one["paused"], one["seconds_until_gone"]) == (
            call,
            ["payment"],
            True,
            None,
        )
        assert one["effective_at"] == "2027-01-15T07:59:58.000Z"
        assert one["gap_started_at"] == "2027-01-15T07:59:57.740Z"
        assert one["silent_from"] == [{"stream": 0, "rtp_timestamp": 160, "at": "2027-01-15T07:59:57.740Z"}]
        site.desk.time.pass_s(5)
        status, answer = await site.report("ended", message_id="msg_2")
        assert (status, answer["outcome"], answer["calls"][0]["paused"]) == (200, "acknowledged", False)
        assert answer["calls"][0]["gap_started_at"] is None

    site = serve(tmp_path, scenario)
    pause, resume = site.desk.told.acks
    assert (pause.origin, pause.by, pause.cause, pause.lease_s) == ("lan", f"endpoint:{ENDPOINT}", "payment", 60)
    assert pause.effective_at_us == START_US - 2_000_000
    assert resume.number > pause.number >= START_US // 1000
    text = site.desk.lines.stream.getvalue()
    assert UCID not in text
    assert "msg_1" not in text


def test_a_pause_before_the_call_is_pending(tmp_path: Path) -> None:
    """202, no calls; the call begins in silence."""

    async def scenario(site: Site) -> None:
        assert await site.report("started") == (202, {"outcome": "pending", "calls": []})
        site.desk.time.pass_s(30)
        assert site.desk.causes(site.desk.begin()) == ("payment",)

    serve(tmp_path, scenario)


@pytest.mark.parametrize(("seconds_ago", "outcome"), [(3, "acknowledged"), (15, "too_late")])
def test_a_late_report_says_whether_it_was_too_late(tmp_path: Path, seconds_ago: int, outcome: str) -> None:
    """Within the hold-back nothing had left; before that something had."""

    async def scenario(site: Site) -> None:
        site.desk.begin()
        site.desk.time.pass_s(20)
        began = at(seconds_ago - 20)
        status, answer = await site.report("started", effective_at=began)
        assert (status, answer["outcome"]) == (200, outcome)

    serve(tmp_path, scenario)


def test_while_the_media_process_is_busy_the_answer_is_requested(tmp_path: Path) -> None:
    """202: the page must not open card entry."""

    async def scenario(site: Site) -> None:
        site.desk.begin()
        site.desk.media.answers = False
        status, answer = await site.report("started")
        assert (status, answer["outcome"], answer["calls"][0]["paused"]) == (202, "requested", None)

    serve(tmp_path, scenario)


def test_the_same_message_again_gets_the_stored_answer(tmp_path: Path) -> None:
    """Also when it is signed anew, much later, and after a restart of the agent; it has no second effect."""

    async def scenario(site: Site) -> None:
        site.desk.begin()
        first = await site.report("started")
        site.desk.time.pass_s(600)
        assert await site.report("started") == first
        async with Site(tmp_path, Desk(tmp_path, time=site.desk.time, media=site.desk.media)) as second:
            assert await second.report("started") == first
        assert len(site.desk.media.commands) == 1

    serve(tmp_path, scenario)


def test_the_same_message_twice_at_once_acts_once(tmp_path: Path) -> None:
    """The second waits for the first one's answer."""

    async def scenario(site: Site) -> None:
        site.desk.begin()
        answers = await asyncio.gather(*(site.report("started") for _ in range(4)))
        assert answers == [answers[0]] * 4
        assert len(site.desk.media.commands) == 1

    serve(tmp_path, scenario)


def test_a_resume_that_is_replayed_after_a_newer_pause_opens_nothing(tmp_path: Path) -> None:
    """It gets its stored answer; the call stays silent."""

    async def scenario(site: Site) -> None:
        call = site.desk.begin()
        await site.report("started")
        resumed = await site.report("ended", message_id="msg_2")
        await site.report("started", message_id="msg_3")
        assert await site.report("ended", message_id="msg_2") == resumed
        assert site.desk.causes(call) == ("payment",)

    serve(tmp_path, scenario)


def test_a_resume_that_a_kill_cut_off_and_that_comes_again_opens_no_newer_pause(tmp_path: Path) -> None:
    """It was noted and not answered when the agent died; the sender repeats it after a newer pause."""

    async def scenario(site: Site) -> None:
        call = site.desk.begin()
        await site.report("started")
        site.desk.media.gone = True
        assert (await site.report("ended", message_id="msg_2"))[0] == 503
        site.desk.media.gone = False
        async with Site(tmp_path, Desk(tmp_path, time=site.desk.time, media=site.desk.media)) as second:
            second.desk.control.on_adopted(call, [], START_US)
            await second.report("started", message_id="msg_3")
            status, answer = await second.report("ended", message_id="msg_2")
            assert (status, answer["outcome"]) == (200, "superseded")
        assert site.desk.causes(call) == ("payment",)

    serve(tmp_path, scenario)


async def _bad_signature(site: Site) -> Answer:
    headers = {"webhook-id": "m", "webhook-timestamp": str(int(NOW_S)), "webhook-signature": "v1,AAAA"}
    return await site.ask("POST", WEBHOOK, b"{}", Authorization="", **headers)


async def _no_signature(site: Site) -> Answer:
    return await site.ask("POST", WEBHOOK, b"{}")


async def _old(site: Site) -> Answer:
    return await site.report("started", at_s=NOW_S - 301)


async def _from_the_future(site: Site) -> Answer:
    return await site.report("started", at_s=NOW_S + 301)


async def _other_body(site: Site) -> Answer:
    await site.report("started")
    return await site.report("ended")


async def _elsewhere(site: Site) -> Answer:
    return await site.report("started", path="/v1/webhooks/payments/pay_unknown")


async def _not_json(site: Site) -> Answer:
    return await site.report("started", body=b"{")


async def _no_call(site: Site) -> Answer:
    return await site.report("started", call={})


async def _two_names(site: Site) -> Answer:
    return await site.report("started", call={"ucid": UCID, "extension": "1001"})


async def _dialog(site: Site) -> Answer:
    return await site.report("started", call={"dialog": "abc"})


async def _no_ucid(site: Site) -> Answer:
    return await site.report("started", call={"ucid": "none"})


async def _too_long_ago(site: Site) -> Answer:
    return await site.report("started", effective_at=at(73 * 3600))


async def _no_time_zone(site: Site) -> Answer:
    return await site.report("started", effective_at="2027-01-15T07:59:58")


async def _unknown_type(site: Site) -> Answer:
    return await site.report("paid")


async def _too_large(site: Site) -> Answer:
    return await site.report("started", body=b" " * (MAX_BODY_BYTES + 1))


async def _no_live_key(site: Site) -> Answer:
    site.desk.facts = ControlFacts(payment_endpoints=site.desk.facts.payment_endpoints)
    return await site.report("started")


@pytest.mark.parametrize(
    ("ask", "status", "kind"),
    [
        (_bad_signature, 401, "signature-refused"),
        (_no_signature, 400, "malformed-request"),
        (_old, 400, "timestamp-refused"),
        (_from_the_future, 400, "timestamp-refused"),
        (_other_body, 409, "message-id-reused"),
        (_elsewhere, 404, "not-found"),
        (_not_json, 400, "malformed-request"),
        (_no_call, 422, "invalid-parameters"),
        (_two_names, 422, "invalid-parameters"),
        (_dialog, 422, "invalid-parameters"),
        (_no_ucid, 422, "invalid-parameters"),
        (_too_long_ago, 422, "invalid-parameters"),
        (_no_time_zone, 422, "invalid-parameters"),
        (_unknown_type, 422, "invalid-parameters"),
        (_too_large, 413, "content-too-large"),
        (_no_live_key, 503, "unavailable"),
    ],
)
def test_what_a_payment_system_does_wrong_has_its_own_answer(
    tmp_path: Path, ask: Callable[[Site], Awaitable[Answer]], status: int, kind: str
) -> None:
    """REQ: RFC 9457: type, title, status and instance; no effect, and nothing of the request repeated."""

    async def scenario(site: Site) -> None:
        site.desk.begin(told=facts("00FA080018803B69810000"))
        found, problem = await ask(site)
        assert (found, problem["status"], problem["type"]) == (status, status, f"urn:dualtone:problem:{kind}")
        assert problem["instance"].startswith("urn:dualtone:request:")
        assert UCID not in json.dumps(problem)
        assert site.desk.media.commands == []

    serve(tmp_path, scenario)


# -- by token ---------------------------------------------------------------------------------------------------------


def test_calls_are_listed_paused_and_resumed(tmp_path: Path) -> None:
    """As in the cloud's API, by call id and by name."""

    async def scenario(site: Site) -> None:
        call = site.desk.begin()
        listed: dict[str, Any] = {
            "call_id": call,
            "agent_id": AGENT,
            "state": "live",
            "started_at": "2027-01-15T08:00:00.000Z",
            "ended_at": None,
            "causes": [],
            "paused": False,
            "standing": "recorded",
            "parties": None,
        }
        assert await site.ask("GET", "/v1/calls") == (200, {"calls": [listed]})
        calls = site.desk.control.calls
        known = calls.get(CallId(call))
        assert known is not None
        for standing in ("waiting", "not_recorded", "recorded"):
            calls.put(replace(known, standing=standing))
            assert await site.ask("GET", f"/v1/calls/{call}") == (200, listed | {"standing": standing})
        status, answer = await site.ask("POST", f"/v1/calls/{call}/pause")
        assert (status, answer["outcome"], answer["calls"][0]["causes"]) == (200, "acknowledged", ["manual"])
        paused = listed | {"causes": ["manual"], "paused": True}
        assert await site.ask("GET", f"/v1/calls/{call}") == (200, paused)
        body = {"call": {"extension": "1001"}, "cause": "consent"}
        status, answer = await site.ask("POST", "/v1/pauses", body)
        assert answer["calls"][0]["causes"] == ["consent", "manual"]
        for path, cause in ((f"/v1/calls/{call}/resume", {"cause": "manual"}), ("/v1/resumes", body)):
            status, answer = await site.ask("POST", path, cause)
            assert (status, answer["outcome"]) == (200, "acknowledged")
        assert site.desk.causes(call) == ()

    site = serve(tmp_path, scenario)
    assert {ack.by for ack in site.desk.told.acks} == {"lan:bearer"}


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic {}", "{}"])
def test_without_the_token_nothing_is_told(tmp_path: Path, authorization: str) -> None:
    """REQ: RFC 9110 section 15.5.2: 401 names the scheme."""

    async def scenario(site: Site) -> None:
        for method, path in (("GET", "/v1/calls"), ("POST", "/v1/pauses"), ("GET", "/v1/nowhere")):
            headers = {"Authorization": authorization.format(site.token)}
            async with site.session.request(method, site.url + path, headers=headers) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Bearer")

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/calls/nonsense", None, 404),
        ("GET", f"/v1/calls/{call_id(1, 5)}", None, 404),
        ("POST", f"/v1/calls/{call_id(1, 5)}/pause", None, 404),
        ("POST", f"/v1/calls/{call_id(1, 5)}/pause", {"lease_s": 0}, 422),
        ("POST", f"/v1/calls/{call_id(1, 5)}/pause", {"cause": "boredom"}, 422),
        ("POST", f"/v1/calls/{call_id(1, 5)}/resume", {"effective_at": "2027-01-15T07:59:58Z"}, 422),
        ("POST", "/v1/pauses", None, 422),
        ("DELETE", "/v1/calls", None, 405),
        ("GET", "/", None, 404),
    ],
)
def test_what_a_caller_does_wrong(tmp_path: Path, method: str, path: str, body: Any, status: int) -> None:
    async def scenario(site: Site) -> None:
        found, problem = await site.ask(method, path, body)
        assert (found, problem["status"]) == (status, status)

    serve(tmp_path, scenario)


def test_a_body_of_another_type_is_refused(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        found, problem = await site.ask("POST", "/v1/pauses", b"call=1", **{"Content-Type": "text/plain"})
        assert (found, problem["type"]) == (415, "urn:dualtone:problem:unsupported-media-type")

    serve(tmp_path, scenario)


# -- connections ------------------------------------------------------------------------------------------------------


def test_certificate_and_token_stay_and_are_for_the_agent_alone(tmp_path: Path) -> None:
    """A second start has the same; another address, or one that is about to end, gets a new certificate."""
    token = bearer_token(tmp_path)
    server_context(tmp_path, "127.0.0.1", NOW_S)
    first = (tmp_path / "lan.crt").read_bytes()
    server_context(tmp_path, "0.0.0.0", NOW_S + 86_400)
    assert (bearer_token(tmp_path), (tmp_path / "lan.crt").read_bytes()) == (token, first)
    for name in ("lan.crt", "lan.key", "lan.token"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    for host, days in (("192.0.2.7", 0), ("192.0.2.7", 3_640)):
        before = (tmp_path / "lan.crt").read_bytes()
        server_context(tmp_path, host, NOW_S + 86_400 * days)
        assert (tmp_path / "lan.crt").read_bytes() != before


def test_who_trusts_another_certificate_does_not_connect(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(site.url + "/v1/calls")

    serve(tmp_path, scenario)


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["type", "data", "call", "ucid", "cause", "effective_at", "lease_s"]) | st.text(max_size=5)
    return st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=4)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


async def _connect(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    trust = ssl.create_default_context(cafile=str(tmp := site.directory / "lan.crt"))
    assert tmp.exists()
    return await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]), ssl=trust)


async def _closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/calls HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/webhooks/payments/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_is_slow_is_cut_off(tmp_path: Path, sent: bytes) -> None:
    """A request has its time to arrive."""

    async def scenario(site: Site) -> None:
        reader, writer = await _connect(site)
        writer.write(sent)
        answer = await asyncio.wait_for(_closed(reader), 5)
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")
        writer.close()

    serve(tmp_path, scenario, arrive_s=0.2)


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n"])
def test_who_goes_away_in_the_midst_of_a_body_is_no_alarm(tmp_path: Path, framing: bytes) -> None:
    """A stranger could have it rung as often as he likes."""

    async def scenario(site: Site) -> None:
        _, writer = await _connect(site)
        writer.write(b"POST /v1/webhooks/payments/x HTTP/1.1\r\nHost: x\r\n" + framing + b"{")
        await writer.drain()
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not site.desk.lines.named("lan"):  # noqa: ASYNC110 - what is waited for is a line of the log
                await asyncio.sleep(0)

    site = serve(tmp_path, scenario)
    assert [(line["level"], line["status"]) for line in site.desk.lines.named("lan")] == [("info", 400)]
    assert not site.desk.lines.named("lan_failed")


def test_a_body_that_is_packed_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """REQ: RFC 9110 section 15.5.16: 415. What is signed is what was sent, and nothing swells here."""

    async def scenario(site: Site) -> None:
        for body in (b"no gzip", gzip.compress(b"0" * 1_000_000)):
            status, problem = await site.ask("POST", WEBHOOK, body, **{"Content-Encoding": "gzip"})
            assert (status, problem["title"]) == (415, "The body has the wrong media type")

    assert not serve(tmp_path, scenario).desk.lines.named("lan_failed")


def test_connections_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    """Those that are open are served."""

    async def scenario(site: Site) -> None:
        reader, writer = await _connect(site)
        second, other = await _connect(site)
        assert await _closed(second) == b""
        other.close()
        writer.write(f"GET /v1/calls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n\r\n".encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        writer.close()

    serve(tmp_path, scenario, max_connections=1)


def test_a_token_of_any_octets_is_refused_like_another(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        reader, writer = await _connect(site)
        writer.write(b"GET /v1/calls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 40")
        writer.close()

    serve(tmp_path, scenario)


@given(st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text() | st.integers(), _containers).map(_json)))
@pytest.mark.parametrize("shape", [Webhook, NamedPause, NamedResume, Pause, Resume])
def test_whatever_a_body_holds_only_two_errors_say_so(shape: type[BaseModel], body: bytes) -> None:
    """A fuzz of one line: nothing else escapes."""
    with contextlib.suppress(MalformedInput, InvalidBody):
        lan_bodies.read(shape, body)


def test_a_head_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        status = (await site.session.get(site.url + "/v1/calls", headers={"X": "y" * 9_000})).status
        assert status in {400, 431}

    serve(tmp_path, scenario)


# -- decisions --------------------------------------------------------------------------------------------------------


def test_a_call_is_decided_on_by_its_id(tmp_path: Path) -> None:
    """With the agent's token; what became of it is in the answer, of a discarded call too."""

    async def scenario(site: Site) -> None:
        call = site.desk.begin()
        path = f"/v1/calls/{call}/decision"
        for outcome, decision in (("kept", "keep"), ("discarded", "discard"), ("stopped", "discard")):
            site.desk.chooser.outcome = outcome  # type: ignore[assignment]
            status, answer = await site.ask("POST", path, {"decision": decision, "cause": "consent"})
            assert (status, answer["outcome"]) == (200, outcome)
            assert answer["calls"] == [{"call_id": call, "outcome": outcome}]
        site.desk.chooser.outcome, site.desk.chooser.regulated = "ignored", True
        status, problem = await site.ask("POST", path, {"decision": "discard", "cause": "personal"})
        assert (status, problem["detail"]) == (403, "this line must be recorded: the call is kept")
        chosen = [(choice.decision, choice.cause, choice.how, choice.by) for _, choice, _ in site.desk.chooser.chosen]
        assert chosen[0] == ("keep", "consent", "lan", "lan:bearer")
        site.desk.chooser.outcome = "unknown"
        assert (await site.ask("POST", path, {"decision": "keep", "cause": "consent"}))[0] == 404

    serve(tmp_path, scenario)


def test_a_name_is_decided_on_now_or_when_its_call_comes(tmp_path: Path) -> None:
    """Every live call of that name; 202 while there is none. A number is no such name."""

    async def scenario(site: Site) -> None:
        body = {"call": {"ucid": UCID}, "decision": "keep", "cause": "on_demand"}
        status, answer = await site.ask("POST", "/v1/decisions", body)
        assert (status, answer["outcome"], answer["calls"]) == (202, "requested", [])
        call = site.desk.begin()
        status, answer = await site.ask("POST", "/v1/decisions", body)
        assert (status, answer["outcome"], answer["calls"]) == (200, "kept", [{"call_id": call, "outcome": "kept"}])
        status, _ = await site.ask("POST", "/v1/decisions", body | {"call": {"extension": "1001"}})
        assert status == 422

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("kind", "decision", "cause"),
    [
        ("consent.given", "keep", "consent"),
        ("consent.refused", "discard", "consent"),
        ("recording.keep", "keep", "on_demand"),
    ],
)
def test_a_signed_message_decides_as_in_the_cloud(tmp_path: Path, kind: str, decision: str, cause: str) -> None:
    """Once, however often it comes; by its endpoint; not by a number."""

    async def scenario(site: Site) -> None:
        site.desk.begin()
        body = json.dumps({"type": kind, "data": {"call": {"ucid": UCID}}}).encode()
        first = await site.report("", body=body)
        assert (first[0], first[1]["outcome"]) == (200, "kept")
        assert await site.report("", body=body) == first
        ((_, choice, _),) = site.desk.chooser.chosen
        assert (choice.decision, choice.cause, choice.how) == (decision, cause, "webhook")
        assert choice.by == f"endpoint:{ENDPOINT}"
        body = json.dumps({"type": kind, "data": {"call": {"extension": "1001"}}}).encode()
        assert (await site.report("", message_id="msg_2", body=body))[0] == 422

    serve(tmp_path, scenario)
