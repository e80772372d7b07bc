"""What payment systems report: each message acted on once, and each way of being wrong with an answer of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from dualtone.adapters import api_wiring, clock, wiring
from dualtone.adapters.attribute_values import from_item
from dualtone.domain import standard_webhooks
from dualtone.domain.agent_events import CallEvent
from dualtone.domain.errors import Unavailable
from infra.local.cloud import LocalCloud
from tests.adapters.api.agents import ask, assertion, enrol, invite, new_key
from tests.adapters.api.conftest import AuditTrail, Turns
from tests.adapters.api.gateway import Answer, post_json
from tests.adapters.api.live_agent import LiveAgent
from tests.adapters.api.payments import ENDED, STARTED, PaymentSystem
from tests.adapters.api.test_pauses import moment, written


@pytest.fixture(scope="module")
def shop(administrator: str) -> PaymentSystem:
    return PaymentSystem.created(administrator)


@pytest.fixture
def obedient(agent: LiveAgent, turns: Turns) -> Iterator[LiveAgent]:
    """An agent that answers while the API waits."""
    agent.commands()
    agent.received.clear()
    turns.actors.append(agent.obeys())
    yield agent
    agent.received.clear()


@pytest.fixture
def ucid(names: dict[str, str]) -> dict[str, str]:
    """The name by which payment systems know the call here."""
    return {"ucid": names["ucid"]}


UNKNOWN = {"ucid": "0018803B69810C6D"}


def started(named: dict[str, str] = UNKNOWN) -> dict[str, Any]:
    return {"type": STARTED, "data": {"call": named}}


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["type"].rpartition(":")[2]


def test_card_entry_pauses_and_resumes(
    shop: PaymentSystem, live: CallEvent, ucid: dict[str, str], obedient: LiveAgent
) -> None:
    """By the switch's name for the call; the cause is payment, and the endpoint is who asked."""
    begun = shop.report(STARTED, ucid)
    assert (begun.status, begun.json["outcome"]) == (200, "acknowledged")
    assert begun.json["calls"][0]["causes"] == ["payment"]
    done = shop.report(ENDED, ucid)
    assert (done.status, done.json["outcome"], done.json["calls"][0]["paused"]) == (200, "acknowledged", False)
    pause, resume = obedient.received
    assert (pause.action, resume.action, pause.cause, pause.by) == (
        "pause",
        "resume",
        "payment",
        f"endpoint:{shop.endpoint_id}",
    )
    assert resume.number > pause.number


def test_a_late_report_of_a_span_that_is_over(
    shop: PaymentSystem, live: CallEvent, ucid: dict[str, str], obedient: LiveAgent
) -> None:
    """With its end: it needs no second message. What we do not know is ignored."""
    now_ms = clock.now_ms()
    answer = shop.report(
        STARTED, ucid, effective_at=written(now_ms - 4_000), until=written(now_ms - 1_000), amount="12.50"
    )
    assert moment(answer.json["calls"][0]["effective_at"]) == now_ms - 4_000
    (command,) = obedient.received
    assert (command.effective_at_ms, command.until_ms) == (now_ms - 4_000, now_ms - 1_000)


def test_an_unknown_call_is_pending(shop: PaymentSystem) -> None:
    """202, and at once."""
    answer = shop.report(STARTED, {"external_id": f"none-{clock.now_ms()}"})
    assert (answer.status, answer.json) == (202, {"outcome": "pending", "calls": []})


def test_a_wrong_signature_is_401(shop: PaymentSystem, trail: AuditTrail) -> None:
    """With a challenge; the event says who was pretended to be."""
    answer = replace(shop, secret=bytes(32)).send(started())
    assert problem(answer) == (401, "signature-refused")
    assert answer.headers["WWW-Authenticate"].startswith("StandardWebhooks")
    (event,) = trail.new()
    assert (event["what"], event["outcome"], event["tenant"]) == ("payments:report", "refused", "acme")
    assert event["which"] == shop.endpoint_id


@pytest.mark.parametrize("off_s", [-301, 301])
def test_an_old_timestamp_is_400(shop: PaymentSystem, off_s: int) -> None:
    """Five minutes both ways, rightly signed or not acted on."""
    answer = shop.send(started(), timestamp_s=clock.now_ms() // 1000 + off_s)
    assert problem(answer) == (400, "timestamp-refused")
    assert shop.send(started(), timestamp_s=clock.now_ms() // 1000 - 290).status in (200, 202)


def test_an_unknown_endpoint_is_404_whatever_the_signature(shop: PaymentSystem, trail: AuditTrail) -> None:
    """And the same answer for an id that cannot be one; nothing about it is in anybody's log."""
    answers = [
        shop.send(started(), endpoint_id="pay_01JD0000000000000000000000"),
        shop.send(started(), endpoint_id="nonsense"),
        shop.send(started(), endpoint_id="pay_01JD0000000000000000000000", headers={"webhook-signature": None}),
    ]
    assert {problem(answer) for answer in answers} == {(404, "not-found")}
    assert all(answer.without_instance() == answers[0].without_instance() for answer in answers)
    assert {event["tenant"] for event in trail.new()} == {"-"}


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_400(shop: PaymentSystem, name: str) -> None:
    """It says which."""
    answer = shop.send(started(), headers={name: None})
    assert problem(answer) == (400, "malformed-request")
    assert name in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        ({"type": "card_entry.paused", "data": {"call": UNKNOWN}}, 422),
        ({"type": STARTED}, 422),
        ({"type": STARTED, "data": {"call": {}}}, 422),
        ({"type": STARTED, "data": {"call": {"dialog": "x"}}}, 422),
        ({"type": STARTED, "data": {"call": {"ucid": "zz"}}}, 422),
        ({"type": STARTED, "data": {"call": UNKNOWN, "lease_s": 0}}, 422),
    ],
)
def test_a_signed_body_that_says_nothing_sensible(
    shop: PaymentSystem, body: object, status: int, trail: AuditTrail
) -> None:
    """It is refused after the signature was looked at, and as the endpoint's."""
    assert shop.send(body).status == status
    (event,) = trail.new()
    assert (event["tenant"], event["who"], event["outcome"]) == ("acme", f"endpoint:{shop.endpoint_id}", "refused")


def test_an_unsigned_body_is_not_even_read(shop: PaymentSystem) -> None:
    """Whoever has no secret learns nothing about what would be allowed."""
    assert problem(replace(shop, secret=bytes(32)).send(b"no json")) == (401, "signature-refused")


def test_the_same_message_again_gets_the_same_answer_and_has_no_second_effect(
    shop: PaymentSystem,
    live: CallEvent,
    ucid: dict[str, str],
    obedient: LiveAgent,
    trail: AuditTrail,
) -> None:
    """Signed anew, as senders do; a resume in between stays what it is."""
    body, now_s = started(ucid), clock.now_ms() // 1000
    first = shop.send(body, message_id="msg_again")
    shop.report(ENDED, ucid)
    before = len(obedient.received)
    trail.new()
    again = shop.send(body, message_id="msg_again", timestamp_s=now_s + 30)
    assert (again.status, again.json) == (first.status, first.json)
    assert len(obedient.received) == before
    (event,) = trail.new()
    assert event["details"]["repeated"] == 1


def test_the_same_id_with_another_body_is_409(
    shop: PaymentSystem, live: CallEvent, ucid: dict[str, str], obedient: LiveAgent
) -> None:
    """Also one that differs in a space."""
    shop.send(json.dumps(started(ucid)).encode(), message_id="msg_other")
    answer = shop.send(json.dumps(started(ucid)).encode() + b" ", message_id="msg_other")
    assert problem(answer) == (409, "message-id-reused")


def test_two_endpoints_have_their_own_ids(administrator: str, shop: PaymentSystem) -> None:
    """One shop's message is not another's; each has a secret of its own."""
    other = PaymentSystem.created(administrator, "Phone shop")
    assert other.secret != shop.secret
    for system in (shop, other):
        assert system.send(started(), message_id="msg_both").json["outcome"] in ("pending", "requested")
    assert problem(other.send(started(), endpoint_id=shop.endpoint_id)) == (401, "signature-refused")


def test_of_two_at_once_one_acts_and_both_get_its_answer(
    shop: PaymentSystem,
    live: CallEvent,
    ucid: dict[str, str],
    agent: LiveAgent,
    turns: Turns,
) -> None:
    """The second waits for the first, or asks again as it is told to; there is one command."""
    agent.commands()
    agent.received.clear()
    mine = threading.Lock()
    obey = agent.obeys()

    def one_at_a_time() -> None:
        with mine:
            obey()

    def persistent(_: int) -> Answer:
        # The tests' clock runs as fast as anybody waits: the second may have waited long before the first has acted.
        until_s = time.monotonic() + 30
        while (answer := shop.send(started(ucid), message_id="msg_twins")).status == 409:
            assert problem(answer) == (409, "message-in-progress")
            assert time.monotonic() < until_s
        return answer

    turns.actors.append(one_at_a_time)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(persistent, range(2)))
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json
    assert len(agent.received) == 1


def test_a_message_whose_first_attempt_failed_is_taken_over(
    shop: PaymentSystem,
    live: CallEvent,
    ucid: dict[str, str],
    obedient: LiveAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue was down after the ledger was written: the retry sends the same command, not another one."""
    queues = wiring.command_calls()._queues
    send = queues.send

    def down(*_: object) -> None:
        raise Unavailable("sending to an agent: down")

    monkeypatch.setattr(queues, "send", down)
    failed = shop.send(started(ucid), message_id="msg_retry")
    assert problem(failed) == (503, "unavailable")
    assert failed.headers["Retry-After"]
    monkeypatch.setattr(queues, "send", send)
    assert shop.send(started(ucid), message_id="msg_retry").json["outcome"] == "acknowledged"
    (command,) = obedient.received
    ledger = wiring.call_ledger().read(obedient.tenant, live.call)  # type: ignore[arg-type]
    assert [entry.command for entry in ledger.commands] == [command.id]


def test_a_resume_that_is_repeated_late_reopens_no_newer_pause(
    shop: PaymentSystem,
    live: CallEvent,
    ucid: dict[str, str],
    obedient: LiveAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first attempt was cut off, then came a new pause: the retry keeps the time at which it was first received."""
    shop.report(STARTED, ucid)
    ledger = wiring.call_ledger()

    def cut_off(*_: object) -> bool:
        raise Unavailable("writing items: down")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "issue", cut_off)
        assert shop.send({"type": ENDED, "data": {"call": ucid}}, message_id="msg_late").status == 503
    assert shop.report(STARTED, ucid, received=1).json["outcome"] == "acknowledged"
    obedient.received.clear()
    again = shop.send({"type": ENDED, "data": {"call": ucid}}, message_id="msg_late")
    assert (again.status, again.json["outcome"]) == (200, "superseded")
    assert again.json["calls"][0]["paused"] is True
    assert obedient.received == []


def test_an_attempt_that_never_ended_is_waited_for_and_then_refused(
    shop: PaymentSystem,
    live: CallEvent,
    ucid: dict[str, str],
    turns: Turns,
) -> None:
    """409 with Retry-After while its twin may be at work; after 30 seconds it is dead, and taken over."""
    endpoint, _secret = api_wiring._payment_endpoints().endpoint(shop.endpoint_id)  # type: ignore[arg-type]
    memory = api_wiring.take_payment_report()._memory
    body = json.dumps(started(ucid)).encode()
    stuck: dict[str, Any] = {}

    def act(command: str, received_at_ms: int) -> tuple[int, str]:
        stuck.update(command=command, received_at_ms=received_at_ms)
        raise KeyboardInterrupt  # the Lambda is killed: nothing is noted

    with pytest.raises(KeyboardInterrupt):
        api_wiring.take_payment_report().once(endpoint, "msg_stuck", body, 5, act)
    assert memory.find(endpoint, "msg_stuck") is not None
    answer = shop.send(body, message_id="msg_stuck")
    assert problem(answer) == (409, "message-in-progress")
    assert answer.headers["Retry-After"] == "1"
    turns.waited_ms += 31_000
    assert shop.send(body, message_id="msg_stuck").status == 202
    (entry,) = wiring.call_ledger().read(endpoint.tenant, live.call).commands  # type: ignore[arg-type]
    assert entry.command == stuck["command"]


def test_an_endpoint_is_created_by_an_administrator_and_its_secret_kept_sealed(
    cloud: LocalCloud, administrator: str, trail: AuditTrail
) -> None:
    """Shown once; in the table it is a data key that KMS wrapped for this tenant and purpose."""
    trail.new()
    answer = post_json("/v1/payment-endpoints", {"name": "Till 4"}, token=administrator)
    created = answer.json
    assert created["url"].endswith(f"/v1/webhooks/payments/{created['endpoint_id']}")
    secret = standard_webhooks.read_secret(created["secret"])
    table = wiring.settings().directory_table
    pages = wiring.dynamodb().get_paginator("scan").paginate(TableName=table)
    items = [from_item(item) for page in pages for item in page["Items"]]
    assert secret not in b"".join(value for item in items for value in item.values() if isinstance(value, bytes))
    (entry,) = [item for item in items if item.get("endpoint_id") == created["endpoint_id"]]
    context = {"tenant": "acme", "purpose": "webhook"}
    assert wiring.kms().decrypt(wiring.settings().metadata_key, entry["secret"], context) == secret
    (event,) = trail.new()
    assert (event["what"], event["which"]) == ("payment-endpoints:create", created["endpoint_id"])


def test_agents_are_told_every_endpoint_of_their_tenant(cloud: LocalCloud, shop: PaymentSystem) -> None:
    """At enrolment and with each credential, so that they take reports when the uplink is down; no other tenant's."""
    for tenant in ("acme", "globex"):
        key, invitation = new_key(), invite(cloud.tenants[tenant].tokens["administrator"])
        identity = enrol(invitation["code"], key).json
        told = ask(assertion(key, invitation["agent_id"], identity["token_url"])).json
        for answer in (identity, told):
            secrets = {one["endpoint_id"]: one["secret"] for one in answer["payment_endpoints"]}
            mine = standard_webhooks.write_secret(shop.secret)
            assert secrets.get(shop.endpoint_id) == (mine if tenant == "acme" else None)
            assert answer["events_queue_url"] == wiring.settings().agent_events_queue_url
            assert answer["pause"] == {"lease_s": 900, "on_expiry": "silent"}
        assert identity["live_key"] == told["live_key"]


def test_a_tenant_has_a_bounded_number_of_endpoints(cloud: LocalCloud) -> None:
    """Every agent is told all of them."""
    token = cloud.tenants["globex"].tokens["administrator"]
    statuses = [post_json("/v1/payment-endpoints", {"name": "x"}, token=token).status for _ in range(21)]
    assert statuses == [201] * 20 + [422]
