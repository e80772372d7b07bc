"""Whatever step a function is killed before, doing it again leads to where an undisturbed run leads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from botocore.client import BaseClient

from dualtone.adapters import clock, wiring
from dualtone.domain.agent_events import CallEvent
from dualtone.domain.ids import CallId
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import Turns
from tests.adapters.api.gateway import post_json
from tests.adapters.api.live_agent import LiveAgent, waiting
from tests.adapters.api.payments import ENDED, STARTED, PaymentSystem
from tests.call_samples import session

MOST_STEPS = 60


class Killed(BaseException):
    """The process is gone: no code of ours sees this."""


@contextmanager
def killed_before(step: int, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Kills before the n-th call of AWS, agents' own aside; yields whether there was one."""
    made = 0
    call = vars(BaseClient)["_make_api_call"]  # where all calls of all services pass

    def counted(client: Any, operation: str, parameters: Any) -> Any:
        nonlocal made
        if not turns.acting:
            made += 1
            if made == step:
                raise Killed
        return call(client, operation, parameters)

    with monkeypatch.context() as patched:
        patched.setattr(BaseClient, "_make_api_call", counted)
        yield lambda: made >= step


def take(agent: LiveAgent, body: str) -> None:
    wiring.take_agent_events()(body, "message", clock.now_ms())


def new_call(agent: LiveAgent, name: str) -> CallEvent:
    return agent.call(clock.now_ms(), facts=session() | {"extensions": {"order": name}})


def test_a_report_of_a_call_that_is_waited_for(
    cloud: LocalCloud, agent: LiveAgent, officer: str, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call, tokens, ledger and the waiting command: all there, once, wherever the first attempt ended."""
    steps = 0
    for step in range(1, MOST_STEPS):
        name = f"order-{clock.now_ms()}-{step}"
        post_json("/v1/pauses", {"call": {"external_id": name}, "cause": "payment"}, token=officer)
        (by_match,) = agent.commands()
        event = new_call(agent, name)
        body = json.dumps(agent.envelope(event).to_json())
        with killed_before(step, turns, monkeypatch) as was_killed:
            try:
                take(agent, body)
            except Killed:
                steps += 1
        for _ in range(2):
            take(agent, body)
        ledger = wiring.call_ledger().read(agent.tenant, CallId(event.call))
        assert ledger.live is not None
        assert [(one.command, one.number) for one in ledger.commands] == [(by_match.id, by_match.number)]
        assert {(one.call, one.id, one.number) for one in agent.commands()} == {
            (event.call, by_match.id, by_match.number)
        }
        agent.report(replace(event, revision=2, state="spooled", ended_at_us=agent.now_us()))
        if not was_killed():
            break
    assert 8 < steps < MOST_STEPS - 1


@pytest.mark.parametrize("outcome", ["acknowledged", "too_late"])
def test_an_answer(
    cloud: LocalCloud,
    agent: LiveAgent,
    officer: str,
    turns: Turns,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Any,
) -> None:
    """One answer in the ledger, one version more, and a late one orders its cut."""
    steps = 0
    for step in range(1, MOST_STEPS):
        event = new_call(agent, "x")
        agent.report(event)
        agent.commands()
        post_json("/v1/calls/{call_id}/pause", {}, token=officer, path={"call_id": event.call})
        (command,) = agent.commands()
        waiting(cloud, "CutQueue")
        body = json.dumps(agent.envelope(agent.ack(command, outcome)).to_json())
        with killed_before(step, turns, monkeypatch) as was_killed:
            try:
                take(agent, body)
            except Killed:
                steps += 1
        take(agent, body)
        ledger = wiring.call_ledger().read(agent.tenant, CallId(event.call))
        assert [(one.outcome, ledger.version) for one in ledger.commands] == [(outcome, 2)]
        ordered = waiting(cloud, "CutQueue")
        assert bool(ordered) is (outcome == "too_late")
        if not was_killed():
            break
    assert 4 < steps < MOST_STEPS - 1


@pytest.mark.parametrize("kind", [STARTED, ENDED])
def test_a_webhook(
    cloud: LocalCloud,
    agent: LiveAgent,
    administrator: str,
    turns: Turns,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """The sender's retry ends in one command, carried out; whatever the first attempt had done."""
    shop, steps = PaymentSystem.created(administrator), 0
    turns.actors.append(agent.obeys())
    for step in range(1, MOST_STEPS):
        name = f"order-{clock.now_ms()}-{step}"
        event = new_call(agent, name)
        agent.report(event)
        body = json.dumps({"type": kind, "data": {"call": {"external_id": name}}}).encode()
        with killed_before(step, turns, monkeypatch) as was_killed:
            try:
                shop.send(body, message_id=f"msg_{step}")
            except Killed:
                steps += 1
                turns.waited_ms += 31_000
        answer = shop.send(body, message_id=f"msg_{step}")
        assert answer.json["outcome"] == "acknowledged", (step, answer.json)
        commands = wiring.call_ledger().read(agent.tenant, CallId(event.call)).commands
        assert [one.outcome for one in commands] == ["acknowledged"]
        assert shop.send(body, message_id=f"msg_{step}").json == answer.json
        agent.report(replace(event, revision=2, state="spooled", ended_at_us=agent.now_us()))
        if not was_killed():
            break
    assert 8 < steps < MOST_STEPS - 1


def test_the_same_report_taken_by_several_at_once(agent: LiveAgent, officer: str, turns: Turns) -> None:
    """SQS delivers twice, and both copies may be taken at the same moment: one answer, one version, no error."""
    event = new_call(agent, "x")
    agent.report(event)
    agent.commands()
    post_json("/v1/calls/{call_id}/pause", {}, token=officer, path={"call_id": event.call})
    (command,) = agent.commands()
    ended = replace(event, revision=2, state="ended", ended_at_us=agent.now_us())
    body = json.dumps(agent.envelope(agent.ack(command), ended, agent.health()).to_json())
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: take(agent, body), range(6)))
    ledger = wiring.call_ledger().read(agent.tenant, CallId(event.call))
    assert ledger.live is not None
    assert ([one.outcome for one in ledger.commands], ledger.version, ledger.live.state) == (
        ["acknowledged"],
        2,
        "ended",
    )
