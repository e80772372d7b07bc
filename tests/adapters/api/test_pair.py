"""A call that two agents record: who pauses or decides on one of its copies does so on both."""

from __future__ import annotations

from dataclasses import replace

from dualtone.domain import call_match, call_session
from dualtone.domain.agent_events import CallEvent
from infra.local.cloud import LocalCloud
from tests.adapters.api.gateway import post_json
from tests.adapters.api.live_agent import LiveAgent
from tests.call_samples import session


def told(agent: LiveAgent, number: int, ucid: str) -> CallEvent:
    """A call of that UCID, as an agent tells of it."""
    sessions = [{"session_id": ucid, "sip_session_id": f"{ucid}@pbx.invalid"}]
    facts = {"extensions": {"ucid": ucid}, "sip_call_id": f"{number}@sbc.invalid", "sessions": sessions, "groups": []}
    links = call_match.links(agent.live_key, call_session.from_facts(session() | facts))
    event = agent.call(number, facts=facts)
    return replace(event, links=sorted(set(links) & set(event.matches)))


def test_a_pause_and_a_decision_by_id_reach_both_copies(cloud: LocalCloud) -> None:
    """The answer names both calls; each agent is told of its own."""
    one, other = LiveAgent(cloud, "acme", "one"), LiveAgent(cloud, "acme", "other")
    calls = [told(one, 901, "00FA0800A1B2C3D4E5F6"), told(other, 902, "00FA0800A1B2C3D4E5F6")]
    for agent, call in zip((one, other), calls, strict=True):
        agent.report(call)
    token = cloud.tenants["acme"].tokens["officer"]
    path = {"call_id": calls[0].call}
    answer = post_json("/v1/calls/{call_id}/pause", {"cause": "manual"}, token=token, path=path)
    assert {call["call_id"] for call in answer.json["calls"]} == {call.call for call in calls}
    assert [command.call for command in one.commands()] == [calls[0].call]
    assert [command.call for command in other.commands()] == [calls[1].call]
    decision = {"decision": "discard", "cause": "consent"}
    assert post_json("/v1/calls/{call_id}/decision", decision, token=token, path=path).status in {200, 202}
    one.commands()
    other.commands()
    assert [decided.call for decided in one.decided] == [calls[0].call]
    assert [decided.call for decided in other.decided] == [calls[1].call]


def test_links_outlive_a_report_without_them(cloud: LocalCloud) -> None:
    """An agent that was started again knows them when it is told anew; until then they stay."""
    one, other = LiveAgent(cloud, "acme", "one"), LiveAgent(cloud, "acme", "other")
    calls = [told(one, 903, "00FA0800A1B2C3D4E5F7"), told(other, 904, "00FA0800A1B2C3D4E5F7")]
    for agent, call in zip((one, other), calls, strict=True):
        agent.report(call)
    one.report(replace(calls[0], revision=2, links=[]))
    token = cloud.tenants["acme"].tokens["officer"]
    post_json("/v1/calls/{call_id}/pause", {"cause": "manual"}, token=token, path={"call_id": calls[0].call})
    assert [command.call for command in other.commands()] == [calls[1].call]
