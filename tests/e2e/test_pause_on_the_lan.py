"""Pauses while the uplink is down: the agent's own endpoint takes them, and the cloud hears of them when it is back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from infra.local import payment, proofs
from infra.local.client import ApiClient, ApiProblem
from infra.local.payment import PaymentSystem
from infra.local.unsealing import SealedCopies
from tests.e2e.conftest import Local
from tests.e2e.talking import Talking, assert_left_out
from tests.e2e.test_uplink_faults import local_behind


def test_a_pause_while_the_uplink_is_down(tmp_path: Path) -> None:
    """A signed report pauses at the agent, a desk resumes there: both are in the recording, the audio is not."""
    with local_behind(tmp_path) as (local, network), SealedCopies(local.line) as sealed:
        endpoint, trusted = local.line["agent_lan"], local.line["agent_lan_certificate"]
        path = local.line["webhook_url"].partition("/v1/")[2]
        payments = PaymentSystem(f"{endpoint}/v1/{path}", local.line["webhook_secret"], verify=trusted)
        desk = ApiClient(endpoint, local.line["agent_lan_token"])
        network.down = True
        with Talking(local, 9, wait=False) as talking:
            time.sleep(3)
            began = time.time() - 0.3
            pause = payments.report(payment.STARTED, {"ucid": talking.ucid}, effective_at=proofs.rfc3339(began))
            assert (pause.status, pause.body["outcome"]) == (200, "acknowledged"), pause.body
            assert pause.ms < 1000
            calls = desk.request("GET", "/v1/calls", verify=trusted).json()["calls"]
            assert [one["causes"] for one in calls] == [["payment"]]
            time.sleep(2)
            answer = desk.request(
                "POST", "/v1/resumes", json={"call": {"ucid": talking.ucid}, "cause": "payment"}, verify=trusted
            )
            assert (answer.status_code, answer.json()["outcome"]) == (200, "acknowledged"), answer.text
            resumed = proofs.moment(answer.json()["calls"][0]["effective_at"])
            call = talking.ended()
        time.sleep(1.5)
        assert not sealed.calls("ingest"), "the uplink was not down"
        network.down = False
        recording = local.wait_recorded(call["sip_call_id"], 90)
        gap = assert_left_out(local, sealed, recording, began, resumed)
        assert gap["origin"] == "lan"
        until = time.monotonic() + 60  # what happened is told by a queue of its own, which tries again in its own time
        while (stored := known(local, recording["call_id"])) is None or len(stored["commands"]) < 2:
            assert time.monotonic() < until, stored
            time.sleep(0.2)
        assert {(one["origin"], one["action"]) for one in stored["commands"]} == {("lan", "pause"), ("lan", "resume")}


def known(local: Local, call: str) -> dict[str, Any] | None:
    """What the cloud was told of a call; None until then."""
    try:
        return local.officer.get(f"/v1/calls/{call}")
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        return None


def test_the_agents_own_endpoint_lets_nobody_in_without_its_token(tmp_path: Path) -> None:
    """Neither without a token nor with another, nor with a person's; and who it is can be checked."""
    with local_behind(tmp_path) as (local, _network):
        endpoint, trusted = local.line["agent_lan"], local.line["agent_lan_certificate"]
        for token in (None, "x" * 43, local.line["tenants"]["acme"]["officer"]):
            answer = ApiClient(endpoint, token).request("GET", "/v1/calls", verify=trusted)
            assert answer.status_code == 401
            assert answer.headers["Content-Type"].startswith("application/problem+json")
