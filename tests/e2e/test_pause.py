"""Payment pauses as payment systems cause them, at the wrong moment above all: nothing of the span is kept anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from infra.local import payment, proofs
from infra.local.payment import PaymentSystem
from infra.local.unsealing import SealedCopies
from tests.e2e.conftest import Local, start_local, stop_local
from tests.e2e.talking import Talking, assert_left_out, new_ucid

HOLD_BACK_S = 5.0


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local cloud with the hold-back that the product has by default."""
    running = start_local(tmp_path_factory.mktemp("held"), "--hold-back", str(HOLD_BACK_S))
    yield running
    assert stop_local(running) == 0


@pytest.fixture
def payments(held: Local) -> PaymentSystem:
    return PaymentSystem(held.line["webhook_url"], held.line["webhook_secret"])


@pytest.fixture
def sealed(held: Local) -> Iterator[SealedCopies]:
    with SealedCopies(held.line) as copies:
        yield copies


def at(unix_s: float) -> str:
    return proofs.rfc3339(unix_s)


def test_a_pause_three_seconds_late(held: Local, payments: PaymentSystem, sealed: SealedCopies) -> None:
    """The report comes three seconds after the customer began to speak digits: the hold-back still has them."""
    with Talking(held, 12) as talking:
        time.sleep(4)
        began = time.time() - 3
        pause = payments.report(payment.STARTED, {"ucid": talking.ucid}, effective_at=at(began))
        assert (pause.status, pause.body["outcome"]) == (200, "acknowledged"), pause.body
        assert {one["stream"] for one in pause.call["silent_from"]} == {0, 1}
        assert all(isinstance(one["rtp_timestamp"], int) for one in pause.call["silent_from"])
        time.sleep(2)
        resume = payments.report(payment.ENDED, {"ucid": talking.ucid})
        assert (resume.status, resume.body["outcome"]) == (200, "acknowledged"), resume.body
        assert not resume.call["paused"]
        call = talking.ended()
    recording = held.wait_recorded(call["sip_call_id"])
    resumed = proofs.moment(resume.call["effective_at"])
    gap = assert_left_out(held, sealed, recording, began, resumed)
    assert gap["by"], "who caused it"
    assert 0 <= proofs.moment(recording["started_at"]) + gap["to_ms"] / 1000 - resumed <= 0.12


def test_a_pause_two_seconds_after_the_call_ended(held: Local, payments: PaymentSystem, sealed: SealedCopies) -> None:
    """The call is over, its last seconds are still in memory: they are blanked there."""
    with Talking(held, 6) as talking:
        call = talking.ended()
        ended = proofs.moment(call["ended_at"])
        time.sleep(max(0, ended + 2 - time.time()))
        began = ended - 1.5
        pause = payments.report(payment.STARTED, {"ucid": talking.ucid}, effective_at=at(began))
        assert (pause.status, pause.body["outcome"]) == (200, "acknowledged"), pause.body
    recording = held.wait_recorded(call["sip_call_id"])
    assert_left_out(held, sealed, recording, began, ended - 0.3)


def test_a_pause_before_the_call_exists(held: Local, payments: PaymentSystem, sealed: SealedCopies) -> None:
    """The payment system is faster than the SBC: the pause waits for the call, which begins in silence."""
    ucid = new_ucid()
    pause = payments.report(payment.STARTED, {"ucid": ucid})
    assert (pause.status, pause.body["outcome"], pause.body["calls"]) == (202, "pending", []), pause.body
    time.sleep(1)
    with Talking(held, 9, ucid) as talking:
        time.sleep(2.5)
        (live,) = [one for one in held.officer.get("/v1/calls")["calls"] if one["call_id"] == talking.call_id]
        assert live["paused"]
        assert live["causes"] == ["payment"]
        resume = payments.report(payment.ENDED, {"ucid": ucid})
        assert resume.body["outcome"] == "acknowledged", resume.body
        call = talking.ended()
    recording = held.wait_recorded(call["sip_call_id"])
    began = proofs.moment(call["started_at"]) + call["answered_ms"] / 1000
    assert_left_out(held, sealed, recording, began, proofs.moment(resume.call["effective_at"]))


def test_a_resume_that_comes_again_after_a_newer_pause(
    held: Local, payments: PaymentSystem, sealed: SealedCopies
) -> None:
    """The same message gets the stored answer and opens nothing; neither does another order of delivery."""
    with Talking(held, 11) as talking:
        name = {"ucid": talking.ucid}
        time.sleep(1)
        assert payments.report(payment.STARTED, name).body["outcome"] == "acknowledged"
        first = payments.report(payment.ENDED, name, message_id="msg_resume_that_repeats")
        assert first.body["outcome"] == "acknowledged"
        time.sleep(1)
        began = time.time()
        assert payments.report(payment.STARTED, name).body["outcome"] == "acknowledged"
        again = payments.report(payment.ENDED, name, message_id="msg_resume_that_repeats")
        assert (again.status, again.body) == (first.status, first.body)
        other = payments.report(payment.STARTED, name, message_id="msg_resume_that_repeats")
        assert other.status == 409
        time.sleep(2)
        paused_until = time.time()
        (live,) = [one for one in held.officer.get("/v1/calls")["calls"] if one["call_id"] == talking.call_id]
        assert live["paused"]
        call = talking.ended()
    recording = held.wait_recorded(call["sip_call_id"])
    assert_left_out(held, sealed, recording, began, paused_until)


def test_a_pause_that_is_too_late_for_a_running_call(
    held: Local, payments: PaymentSystem, sealed: SealedCopies
) -> None:
    """Longer ago than the hold-back: what went out is cut from spool and ingest, and how long it lay there is told."""
    with Talking(held, 16) as talking:
        time.sleep(9)
        began, until = time.time() - 8, time.time() - 6.5
        pause = payments.report(payment.STARTED, {"ucid": talking.ucid}, effective_at=at(began), until=at(until))
        assert (pause.status, pause.body["outcome"]) == (200, "too_late"), pause.body
        assert 0 <= pause.call["seconds_until_gone"] < 15
        call = talking.ended()
    recording = held.wait_recorded(call["sip_call_id"])
    assert_left_out(held, sealed, recording, began, until, earliest_ms=-1600, ever=False)


def test_a_pause_that_is_too_late_for_a_finished_call(
    held: Local, payments: PaymentSystem, sealed: SealedCopies
) -> None:
    """The recording is made: the span is punctured in the vault, the rest plays on."""
    with Talking(held, 7) as talking:
        call = talking.ended()
    recording = held.wait_recorded(call["sip_call_id"])
    began = proofs.moment(recording["started_at"]) + 2.2
    pause = payments.report(payment.STARTED, {"ucid": talking.ucid}, effective_at=at(began), until=at(began + 1))
    assert (pause.status, pause.body["outcome"]) == (200, "too_late"), pause.body
    assert 0 <= pause.call["seconds_until_gone"] < 15
    changed = held.officer.get(f"/v1/recordings/{recording['recording_id']}")
    assert changed["duration_ms"] == recording["duration_ms"]
    assert_left_out(held, sealed, changed, began, began + 1, earliest_ms=-1600, ever=False)


def test_what_a_payment_system_does_wrong_is_said_clearly(held: Local, payments: PaymentSystem) -> None:
    """Bad signature, old timestamp, unknown endpoint, nonsense: each its own answer, none with an effect."""
    body = b'{"type":"card_entry.started","data":{"call":{"ucid":"00FA080018803B69810C6D"}}}'
    assert payments.send(body, signature="v1,AAAA").status == 401
    old = payments.send(body, timestamp=time.time() - 600)
    assert old.status in {400, 401}
    assert old.body["type"] != payments.send(body, signature="v1,AAAA").body["type"]
    assert payments.send(b"{}").status in {400, 422}
    elsewhere = PaymentSystem(f"{held.line['webhook_url'][:-3]}zzz", held.line["webhook_secret"])
    assert elsewhere.send(body).status == 404
