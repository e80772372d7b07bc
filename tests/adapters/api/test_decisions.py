"""Decisions on calls: to the agent that has the call, or to all; what became of it is told, and stays with the call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from dualtone.domain.agent_events import CallEvent, DecisionEvent
from dualtone.domain.call_decision import OBEYED_S, PENDING_S
from dualtone.domain.ids import ulid
from dualtone.domain.recording_ruling import Kept
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import AuditTrail, Turns
from tests.adapters.api.gateway import Answer, call, post_json
from tests.adapters.api.live_agent import LiveAgent, pump
from tests.adapters.api.payments import PaymentSystem

KEEP = {"decision": "keep", "cause": "on_demand"}
REFUSE = {"decision": "discard", "cause": "consent"}
RULE = Kept(3, "hotline", "consent", "consent", "keep", "dtmf", 1_800_000_000_000_000, "")


@pytest.fixture
def deciding(agent: LiveAgent) -> LiveAgent:
    """An agent that has read what it was told before."""
    agent.commands()
    agent.decided.clear()
    return agent


def decide(token: str, call_id: str, body: dict[str, str]) -> Answer:
    return post_json("/v1/calls/{call_id}/decision", body, path={"call_id": call_id}, token=token)


def tells(agent: LiveAgent, call_id: str, outcome: str) -> Callable[[], None]:
    """A turn in which the agent tells what became of each decision, which it has read."""

    def turn() -> None:
        before = len(agent.decided)
        agent.commands()
        for decision in agent.decided[before:]:
            agent.report(agent.chose(call_id, decision, outcome))

    return turn


def test_a_call_that_is_kept_is_stopped(
    officer: str, deciding: LiveAgent, live: CallEvent, turns: Turns, trail: AuditTrail
) -> None:
    """A refusal of a call that is known goes to its agent alone; the answer, the call and the audit log say so."""
    turns.actors.append(tells(deciding, live.call, "stopped"))
    answer = decide(officer, live.call, REFUSE)
    assert (answer.status, answer.json["outcome"]) == (200, "stopped")
    assert answer.json["calls"] == [{"call_id": live.call, "outcome": "stopped"}]
    (decision,) = deciding.decided
    assert (decision.call, decision.match, decision.decision, decision.cause, decision.how) == (
        live.call,
        None,
        "discard",
        "consent",
        "api",
    )
    assert decision.expires_at_ms - decision.issued_at_ms == 1000 * OBEYED_S
    (choice,) = call("GET", "/v1/calls/{call_id}", path={"call_id": live.call}, token=officer).json["choices"]
    assert (choice["choice"], choice["how"], choice["outcome"]) == ("decline", "api", "stopped")
    assert choice["by"] == decision.by
    asked, told, edge, _read = trail.new()
    assert (asked["what"], asked["who"], asked["which"]) == ("calls:decide", decision.by, live.call)
    assert (told["what"], told["who"]) == ("calls:tell-choice", f"agent:{deciding.agent_id}")
    assert told["details"]["command"] == asked["details"]["command"] == decision.id
    assert edge["details"] == {"outcome": "stopped", "calls": 1}


def test_a_call_that_waits_is_kept_though_the_cloud_does_not_know_it(
    cloud: LocalCloud, officer: str, deciding: LiveAgent, turns: Turns
) -> None:
    """The decision goes to all agents; the one that has the call announces it, and what became of it."""
    other = LiveAgent(cloud, "acme", "Leeds SBC")
    waiting = deciding.call(77)

    def turn() -> None:
        before = len(deciding.decided)
        deciding.commands()
        for decision in deciding.decided[before:]:
            deciding.report(replace(waiting, policy=RULE), deciding.chose(waiting.call, decision))

    turns.actors.append(turn)
    answer = decide(officer, waiting.call, KEEP)
    assert (answer.status, answer.json["outcome"]) == (200, "kept")
    other.commands()
    assert [one.id for one in other.decided] == [deciding.decided[0].id]
    shown = call("GET", "/v1/calls/{call_id}", path={"call_id": waiting.call}, token=officer).json
    assert (shown["policy"]["rule"], shown["policy"]["version"], shown["policy"]["basis"]) == ("hotline", 3, "consent")
    assert [choice["choice"] for choice in shown["choices"]] == ["keep"]


def test_of_a_call_that_is_discarded_nothing_is_told(officer: str, deciding: LiveAgent, turns: Turns) -> None:
    """Nobody waits for an answer that cannot come, and the call stays unknown."""
    unknown = ulid(1_800_000_000_000, bytes(10))
    answer = decide(officer, unknown, REFUSE)
    assert (answer.status, answer.json["outcome"], answer.json["calls"]) == (202, "requested", [])
    assert turns.waited_ms == 0
    deciding.commands()
    assert [one.call for one in deciding.decided] == [unknown]
    assert call("GET", "/v1/calls/{call_id}", path={"call_id": unknown}, token=officer).status == 404


def test_a_choice_by_name_waits_an_hour_for_its_call(
    officer: str, deciding: LiveAgent, names: dict[str, str], turns: Turns
) -> None:
    """Made in the queue, before the call is answered: every agent keeps it under the name's token."""
    answer = post_json("/v1/decisions", {"call": {"ucid": names["ucid"]}, **KEEP}, token=officer)
    assert (answer.status, answer.json["outcome"]) == (202, "requested")
    assert turns.waited_ms >= 3_000
    deciding.commands()
    (decision,) = deciding.decided
    assert decision.call is None
    assert decision.match is not None
    assert decision.expires_at_ms - decision.issued_at_ms == 1000 * PENDING_S
    assert names["ucid"] not in json.dumps(asdict(decision))


def test_a_choice_by_name_finds_the_call_that_is_kept(
    officer: str, deciding: LiveAgent, live: CallEvent, names: dict[str, str], turns: Turns
) -> None:
    """Of several calls' outcomes the gravest is the answer's."""
    turns.actors.append(tells(deciding, live.call, "ignored"))
    answer = post_json("/v1/decisions", {"call": {"call_id": names["call_id"]}, **REFUSE}, token=officer)
    assert (answer.status, answer.json["outcome"]) == (200, "ignored")
    assert answer.json["calls"] == [{"call_id": live.call, "outcome": "ignored"}]


def test_a_number_names_no_call_to_choose_for(
    officer: str, administrator: str, deciding: LiveAgent, names: dict[str, str]
) -> None:
    """A refusal stops that call only: whoever else calls the number in the hour has not refused."""
    named = {"call": {"extension": names["extension"]}}
    refused = post_json("/v1/decisions", named | REFUSE, token=officer)
    assert refused.status == 422
    assert "a number has many calls" in refused.json["detail"]
    system = PaymentSystem.created(administrator, "Announcements")
    assert system.send({"type": "consent.given", "data": named}).status == 422
    deciding.commands()
    assert deciding.decided == []


@pytest.mark.parametrize(
    ("kind", "decision", "cause"),
    [
        ("consent.given", "keep", "consent"),
        ("consent.refused", "discard", "consent"),
        ("recording.keep", "keep", "on_demand"),
    ],
)
def test_a_system_of_the_tenants_decides_by_signed_message(
    administrator: str,
    deciding: LiveAgent,
    live: CallEvent,
    names: dict[str, str],
    turns: Turns,
    kind: str,
    decision: str,
    cause: str,
) -> None:
    """An announcement system tells the caller's choice as a payment system tells of card entry; once, however often."""
    turns.actors.append(tells(deciding, live.call, "noted"))
    system = PaymentSystem.created(administrator, "Announcements")
    message = {"type": kind, "data": {"call": {"ucid": names["ucid"]}}}
    first = system.send(message, message_id="msg_1")
    again = system.send(message, message_id="msg_1")
    assert (first.status, first.json["outcome"]) == (200, "noted")
    assert again.json == first.json
    (told,) = deciding.decided
    assert (told.decision, told.cause, told.how, told.by) == (
        decision,
        cause,
        "webhook",
        f"endpoint:{system.endpoint_id}",
    )


def test_what_was_chosen_is_taken_once(officer: str, deciding: LiveAgent, live: CallEvent) -> None:
    """A report that comes twice tells one choice; the agents of others tell of no call but their own."""
    choice = DecisionEvent(live.call, None, "accept", "dtmf", deciding.now_us(), "", "noted")
    deciding.report(choice)
    deciding.report(choice)
    shown = call("GET", "/v1/calls/{call_id}", path={"call_id": live.call}, token=officer).json
    assert [(one["choice"], one["how"], one["by"], one["outcome"]) for one in shown["choices"]] == [
        ("accept", "dtmf", "", "noted")
    ]


def test_another_agents_call_is_not_its_to_tell_of(
    cloud: LocalCloud, officer: str, deciding: LiveAgent, live: CallEvent
) -> None:
    """A choice for a call that another agent reported is damage."""
    LiveAgent(cloud, "acme", "York SBC").report(
        DecisionEvent(live.call, None, "decline", "dtmf", deciding.now_us(), "", "stopped")
    )
    shown = call("GET", "/v1/calls/{call_id}", path={"call_id": live.call}, token=officer).json
    assert shown["choices"] == []
    assert pump(cloud, "AgentEventsQueue") == 0


def test_what_is_not_recorded_is_counted(administrator: str, deciding: LiveAgent) -> None:
    """All that the cloud hears of a call that a rule leaves unrecorded is a number."""
    deciding.report(replace(deciding.health(), not_recorded={"board": 4}))
    shown = call("GET", "/v1/agents", token=administrator).json["agents"]
    (mine,) = [one for one in shown if one["agent_id"] == deciding.agent_id]
    assert mine["health"]["not_recorded"] == {"board": 4}


@pytest.mark.parametrize(
    "body", [{}, {"decision": "keep"}, {"decision": "pause", "cause": "consent"}, KEEP | {"cause": "payment"}]
)
def test_a_decision_that_is_none_is_refused(officer: str, live: CallEvent, body: dict[str, Any]) -> None:
    """Nothing is sent for a body that does not say what is to happen, and why."""
    assert decide(officer, live.call, body).status == 422


def test_another_tenants_call_is_not_found_by_anybody(stranger: str, deciding: LiveAgent, live: CallEvent) -> None:
    """A decision of one tenant reaches no agent of another."""
    assert decide(stranger, live.call, REFUSE).status == 202
    deciding.commands()
    assert deciding.decided == []
