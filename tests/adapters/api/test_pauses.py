"""Pause and resume through the API, with a real agent that answers, is late, or says nothing."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.attribute_values import to_item
from dualtone.domain.agent_events import CallEvent
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.ids import CallId
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import AuditTrail, Turns
from tests.adapters.api.gateway import Answer, call, post_json
from tests.adapters.api.live_agent import CLOCK, SECOND, LiveAgent, waiting


def act(verb: str, event: CallEvent | str, token: str, **body: Any) -> Answer:
    """Pauses or resumes one call."""
    call_id = event if isinstance(event, str) else event.call
    return post_json(f"/v1/calls/{{call_id}}/{verb}", body, token=token, path={"call_id": call_id})


def moment(text: str) -> int:
    """RFC 3339 as Unix time in milliseconds."""
    return round(1000 * dt.datetime.fromisoformat(text).timestamp())


def written(at_ms: int) -> str:
    """The reverse."""
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat()


def test_live_calls_are_listed_with_parties_for_officers_only(
    agent: LiveAgent, live: CallEvent, names: dict[str, str], officer: str, administrator: str, stranger: str
) -> None:
    """Who talks is sealed until somebody who may know asks; another tenant sees no call at all."""
    (shown,) = [one for one in call("GET", "/v1/calls", token=officer).json["calls"] if one["call_id"] == live.call]
    assert shown["parties"][0] == {
        "role": "caller",
        "aor": f"sip:{names['extension']}@pbx.invalid",
        "number": names["extension"],
        "name": "Alice Example",
    }
    assert (shown["state"], shown["paused"], shown["causes"], shown["agent_id"]) == ("live", False, [], agent.agent_id)
    # By our clock, not by the agent's.
    assert abs(moment(shown["started_at"]) - (live.started_at_us + CLOCK.offset_us) / 1000) <= 1
    other = call("GET", "/v1/calls", token=administrator).json["calls"]
    assert [one["parties"] for one in other if one["call_id"] == live.call] == [None]
    assert live.call not in str(call("GET", "/v1/calls", token=stranger).json)
    assert call("GET", "/v1/calls/{call_id}", path={"call_id": live.call}, token=stranger).status == 404


def test_a_call_that_ends_leaves_the_list(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """And can be asked for still; who talked is gone with it, until there is a recording."""
    agent.report(replace(live, revision=2, state="ended", ended_at_us=agent.now_us()))
    assert live.call not in str(call("GET", "/v1/calls", token=officer).json)
    shown = call("GET", "/v1/calls/{call_id}", path={"call_id": live.call}, token=officer).json
    assert (shown["state"], shown["parties"], shown["commands"]) == ("ended", None, [])
    item = wiring.dynamodb().get_item(
        TableName=wiring.settings().index_table, Key=to_item({"pk": f"acme#call#{live.call}", "sk": "live"})
    )["Item"]
    assert "sealed" not in item


def test_a_call_is_followed_by_its_sip_call_id(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """The Call-ID of the recording dialog, from the first report on."""
    event = agent.call(7, facts={"sip_call_id": "dialog-7@sbc.invalid"})
    query = {"sip_call_id": "dialog-7@sbc.invalid"}
    assert call("GET", "/v1/calls", query=query, token=officer).status == 404
    agent.report(event)
    found = call("GET", "/v1/calls", query=query, token=officer).json
    assert found == {"call_id": event.call, "state": "live", "recording_id": None}
    agent.report(replace(event, revision=2, state="spooled", ended_at_us=agent.now_us()))
    assert call("GET", "/v1/calls", query=query, token=officer).json["state"] == "ended"


def test_a_pause_that_the_agent_carries_out_is_acknowledged(
    agent: LiveAgent, live: CallEvent, officer: str, turns: Turns, trail: AuditTrail
) -> None:
    """200: where the gap begins, never after what was asked, and the first silent packet of each stream."""
    turns.actors.append(agent.obeys())
    effective_ms = clock.now_ms() - 1_500
    answer = act("pause", live, officer, effective_at=written(effective_ms))
    assert (answer.status, answer.json["outcome"]) == (200, "acknowledged")
    (one,) = answer.json["calls"]
    assert (one["call_id"], one["outcome"], one["causes"], one["paused"]) == (
        live.call,
        "acknowledged",
        ["manual"],
        True,
    )
    assert moment(one["effective_at"]) == effective_ms
    error_ms = moment(one["gap_started_at"]) - effective_ms
    assert -400 <= error_ms <= -250
    assert [(stream["stream"], stream["rtp_timestamp"]) for stream in one["silent_from"]] == [
        (0, 4_294_967_000),
        (1, None),
    ]
    assert one["seconds_until_gone"] is None
    command = agent.received[-1]
    assert (command.action, command.cause, command.lease_s, command.on_expiry) == ("pause", "manual", 900, "silent")
    assert command.by.startswith("person:")
    asked, told, ended = sorted(trail.new(), key=lambda event: event["sk"])
    kinds = {event["what"]: event for event in (asked, told, ended)}
    assert kinds["calls:answer-command"]["details"]["outcome"] == "acknowledged"
    assert {event["which"] for event in (asked, told, ended)} == {live.call}


def test_an_agent_that_says_nothing_makes_it_requested(live: CallEvent, officer: str, turns: Turns) -> None:
    """202 after three seconds: it will happen, but nobody says that it has; the call shows it as requested."""
    answer = act("pause", live, officer)
    assert (answer.status, answer.json["outcome"]) == (202, "requested")
    assert (answer.json["calls"][0]["paused"], answer.json["calls"][0]["gap_started_at"]) == (None, None)
    assert 3_000 <= turns.waited_ms < 3_100
    shown = call("GET", "/v1/calls/{call_id}", path={"call_id": live.call}, token=officer).json
    assert [(one["action"], one["outcome"]) for one in shown["commands"]] == [("pause", "requested")]


def test_without_a_time_receipt_at_the_edge_counts(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """However long the request then took to reach us; and a time that is still to come counts as now."""
    received_ms = clock.now_ms() - 700
    for body in ({}, {"effective_at": written(received_ms + 60_000)}):
        answer = post_json(
            "/v1/calls/{call_id}/pause", body, token=officer, path={"call_id": live.call}, received_at_ms=received_ms
        )
        assert moment(answer.json["calls"][0]["effective_at"]) == received_ms
    assert {command.effective_at_ms for command in agent.commands()} == {received_ms}


def test_numbers_rise_and_a_resume_is_never_back_dated(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """Also faster than the clock ticks."""
    for verb in ("pause", "resume", "pause", "resume"):
        act(verb, live, officer)
    commands = agent.commands()
    assert [command.action for command in sorted(commands, key=lambda command: command.number)] == [
        "pause",
        "resume",
        "pause",
        "resume",
    ]
    assert len({command.number for command in commands}) == 4
    assert {command.effective_at_ms for command in commands if command.action == "resume"} == {None}
    refused = act("resume", live, officer, effective_at=written(clock.now_ms()))
    assert refused.status == 422


def test_commands_at_the_same_moment_have_numbers_of_their_own(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """Six at once: six numbers, six entries, six versions; nobody's is lost."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: act("pause", live, officer), range(6)))
    assert {answer.status for answer in answers} == {202}
    found = wiring.call_ledger().read(agent.tenant, CallId(live.call))
    commands = agent.commands()
    assert len({command.number for command in commands}) == 6
    assert {entry.number for entry in found.commands} == {command.number for command in commands}
    assert (found.version, found.last_number) == (6, max(command.number for command in commands))


def test_an_answer_under_the_number_by_match_is_the_commands(
    agent: LiveAgent, live: CallEvent, officer: str, turns: Turns
) -> None:
    """A command that went by call and by match is answered under whichever number came first: it has one entry."""

    def obey() -> None:
        for command in agent.commands():
            agent.report(agent.ack(command, number=command.number + 1))

    turns.actors.append(obey)
    answer = act("pause", live, officer)
    assert (answer.status, answer.json["outcome"]) == (200, "acknowledged")
    (entry,) = wiring.call_ledger().read(agent.tenant, CallId(live.call)).commands
    assert entry.outcome == "acknowledged"


def test_causes_are_a_set(agent: LiveAgent, live: CallEvent, officer: str, turns: Turns) -> None:
    """Lifting one leaves the other: the agent's own word is what is shown."""
    turns.actors.append(agent.obeys(causes=["payment"]))
    answer = act("resume", live, officer, cause="manual")
    assert (answer.json["calls"][0]["causes"], answer.json["calls"][0]["paused"]) == (["payment"], True)


@pytest.mark.parametrize("kind", ["call_id", "ucid", "extension", "external_id"])
def test_a_call_is_paused_by_the_names_that_switches_give_it(
    agent: LiveAgent, live: CallEvent, names: dict[str, str], officer: str, turns: Turns, kind: str
) -> None:
    """Call-ID of the communication session, UCID, a party's number, any vendor's value."""
    value = names[kind]
    turns.actors.append(agent.obeys())
    answer = post_json("/v1/pauses", {"call": {kind: value}, "cause": "payment"}, token=officer)
    assert answer.json["outcome"] == "acknowledged"
    assert [one["call_id"] for one in answer.json["calls"]] == [live.call]
    answer = post_json("/v1/resumes", {"call": {kind: value}, "cause": "payment"}, token=officer)
    assert answer.json["outcome"] == "acknowledged"


def test_every_live_call_of_a_name_is_paused(
    agent: LiveAgent, live: CallEvent, names: dict[str, str], officer: str, turns: Turns
) -> None:
    """An extension in two calls: both; the gravest outcome is that of the whole."""
    second = agent.call(2, matches=live.matches)
    agent.report(second)

    def only_the_first() -> None:
        for command in agent.commands():
            if command.call == live.call:
                agent.report(agent.ack(command))

    turns.actors.append(only_the_first)
    answer = post_json("/v1/pauses", {"call": {"extension": names["extension"]}}, token=officer)
    assert (answer.status, answer.json["outcome"]) == (202, "requested")
    outcomes = {one["call_id"]: one["outcome"] for one in answer.json["calls"]}
    assert outcomes == {live.call: "acknowledged", second.call: "requested"}
    agent.report(replace(second, revision=2, state="spooled", ended_at_us=second.started_at_us))


def test_a_pause_waits_for_a_call_that_nobody_knows_yet(
    cloud: LocalCloud, agent: LiveAgent, officer: str, turns: Turns
) -> None:
    """202 pending at once; every active agent of the tenant is told, and the call that comes gets the command."""
    colleague, foreigner = LiveAgent(cloud, "acme", "SBC 2"), LiveAgent(cloud, "globex", "SBC 3")
    agent.commands()
    named = {"external_id": f"order-{clock.now_ms()}"}
    answer = post_json("/v1/pauses", {"call": named, "cause": "payment"}, token=officer)
    assert (answer.status, answer.json) == (202, {"outcome": "pending", "calls": []})
    assert turns.waited_ms == 0
    (first,), (second,) = agent.commands(), colleague.commands()
    assert (first.match, first.call, first.id, first.number) == (second.match, None, second.id, second.number)
    assert first.expires_at_ms - first.issued_at_ms == 60_000
    assert foreigner.commands() == []

    event = colleague.call(3, facts={"extensions": {"order": named["external_id"]}})
    assert first.match in event.matches
    colleague.report(event)
    (given,) = colleague.commands()
    assert (given.call, given.match, given.id, given.number) == (event.call, None, first.id, first.number)
    # The agent had it by match and says so; its answer to the copy, `superseded`, hides nothing.
    for outcome in ("acknowledged", "superseded"):
        colleague.report(colleague.ack(given, outcome))
    ledger = wiring.call_ledger().read(colleague.tenant, CallId(event.call))
    assert [(one.command, one.outcome) for one in ledger.commands] == [(first.id, "acknowledged")]


def test_a_pause_waits_for_sixty_seconds(agent: LiveAgent, officer: str) -> None:
    """Not for a call that comes later, and not if it was taken back meanwhile."""
    late, lifted = (f"order-{clock.now_ms()}-{number}" for number in range(2))
    old_ms = clock.now_ms() - 61_000
    post_json("/v1/pauses", {"call": {"external_id": late}}, token=officer, received_at_ms=old_ms)
    post_json("/v1/pauses", {"call": {"external_id": lifted}}, token=officer)
    answer = post_json("/v1/resumes", {"call": {"external_id": lifted}}, token=officer)
    assert (answer.status, answer.json["outcome"]) == (202, "pending")
    agent.commands()
    for number, name in enumerate((late, lifted)):
        agent.report(agent.call(20 + number, facts={"extensions": {"order": name}}))
    assert [command.action for command in agent.commands() if command.call] == ["resume"]


def test_metadata_that_comes_later_finds_a_waiting_pause_too(agent: LiveAgent, officer: str) -> None:
    """A call that is known already gets to be known by another name: by its second report."""
    named = {"external_id": f"order-{clock.now_ms()}-x"}
    event = agent.call(30)
    agent.report(event)
    post_json("/v1/pauses", {"call": named}, token=officer)
    agent.commands()
    more = agent.call(30, call=event.call, facts={"extensions": {"order": named["external_id"]}})
    agent.report(replace(more, revision=2))
    (given,) = agent.commands()
    assert given.call == event.call
    # The same report again, and an older one: nothing new.
    agent.report(replace(more, revision=2), event)
    assert {command.number for command in agent.commands()} <= {given.number}


def test_too_late_tells_how_long_the_last_copy_lived(
    cloud: LocalCloud, agent: LiveAgent, live: CallEvent, officer: str, turns: Turns
) -> None:
    """The span had left the ring: it is cut, and the seconds from receipt are told once nothing is left."""
    waiting(cloud, "CutQueue")
    received_ms = clock.now_ms()

    def late_then_gone() -> None:
        for command in agent.commands():
            agent.report(agent.ack(command, "too_late"))
        for message in waiting(cloud, "CutQueue"):
            assert message == {"tenant": "acme", "call": live.call}
            tenant, late, gone_at_ms = agent.tenant, CallId(live.call), received_ms + 2_250
            entry = wiring.call_ledger().read(tenant, late).commands[-1]
            event = AuditEvent(
                tenant, "function:cut", Work.CUT_PAUSED_SPAN, gone_at_ms, Outcome.GRANTED, "cloud", late, ""
            )
            assert wiring.call_ledger().gone(tenant, late, entry, gone_at_ms, event)

    turns.actors.append(late_then_gone)
    answer = post_json(
        "/v1/calls/{call_id}/pause",
        {"effective_at": written(received_ms - 9_000)},
        token=officer,
        path={"call_id": live.call},
        received_at_ms=received_ms,
    )
    assert (answer.status, answer.json["outcome"]) == (200, "too_late")
    (one,) = answer.json["calls"]
    assert one["seconds_until_gone"] == 2.25
    assert one["paused"] is True
    agent.report(agent.cut(agent.received[-1]))
    assert waiting(cloud, "CutQueue") == [{"tenant": "acme", "call": live.call}]
    (entry,) = wiring.call_ledger().read(agent.tenant, CallId(live.call)).commands
    assert entry.agent_clean_at_ms is not None


def test_too_late_is_answered_before_everything_is_gone(
    agent: LiveAgent, live: CallEvent, officer: str, turns: Turns
) -> None:
    """Ten more seconds, not for ever."""
    turns.actors.append(agent.obeys("too_late"))
    answer = act("pause", live, officer)
    assert (answer.json["outcome"], answer.json["calls"][0]["seconds_until_gone"]) == ("too_late", None)
    assert 10_000 <= turns.waited_ms <= 13_200


def test_a_call_that_is_over_is_cut(
    cloud: LocalCloud, agent: LiveAgent, live: CallEvent, names: dict[str, str], officer: str
) -> None:
    """Two seconds after BYE: what is kept of it is made to agree with the ledger, and the agent cuts its spool."""
    ended_us, named = agent.now_us() - 60 * SECOND, {"external_id": names["external_id"]}
    agent.report(replace(live, revision=2, state="spooled", started_at_us=ended_us - 60 * SECOND, ended_at_us=ended_us))
    waiting(cloud, "CutQueue")
    during = written((ended_us + CLOCK.offset_us) // 1000 - 3_000)
    answer = post_json("/v1/pauses", {"call": named, "effective_at": during}, token=officer)
    assert answer.json["outcome"] == "too_late"
    assert [(one["call_id"], one["state"]) for one in answer.json["calls"]] == [(live.call, "ended")]
    assert waiting(cloud, "CutQueue") == [{"tenant": "acme", "call": live.call}]
    # The entry lasts, as far as anybody said: whatever call goes by that name next is paused too.
    assert [command.call for command in agent.commands()] == [live.call, None]
    # What began after the call is no business of its own: it waits for another call.
    afterwards = post_json("/v1/pauses", {"call": named}, token=officer)
    assert afterwards.json["outcome"] == "pending"


def test_a_resume_that_was_overtaken_lifts_nothing(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """Received before a newer pause, however late it comes to be carried out."""
    before_ms = clock.now_ms() - 500
    act("pause", live, officer)
    agent.commands()
    answer = post_json(
        "/v1/calls/{call_id}/resume", {}, token=officer, path={"call_id": live.call}, received_at_ms=before_ms
    )
    assert (answer.status, answer.json["outcome"]) == (200, "superseded")
    assert agent.commands() == []


def test_the_tenants_lease_and_policy_apply(agent: LiveAgent, live: CallEvent, officer: str) -> None:
    """MiFID first: 120 seconds and then resume; a request may ask for its own lease, up to four hours."""
    table, key = wiring.settings().directory_table, to_item({"pk": "tenant#acme", "sk": "config"})
    wiring.dynamodb().update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET pause_lease_s = :lease, pause_on_expiry = :policy",
        ExpressionAttributeValues=to_item({":lease": 120, ":policy": "resume"}),
    )
    act("pause", live, officer)
    act("pause", live, officer, lease_s=14_400)
    wiring.dynamodb().update_item(TableName=table, Key=key, UpdateExpression="REMOVE pause_lease_s, pause_on_expiry")
    assert [
        (command.lease_s, command.on_expiry) for command in sorted(agent.commands(), key=lambda one: one.number)
    ] == [
        (120, "resume"),
        (14_400, "resume"),
    ]
    assert act("pause", live, officer, lease_s=14_401).status == 422


@pytest.mark.parametrize(
    ("resource", "body"),
    [
        ("/v1/pauses", {"call": {}}),
        ("/v1/pauses", {"call": {"ucid": None}}),
        ("/v1/pauses", {"call": {"ucid": "0018803B69810C6D", "call_id": "x"}}),
        ("/v1/pauses", {"call": {"dialog": "x"}}),
        ("/v1/pauses", {"call": {"ucid": "not a ucid"}}),
        ("/v1/pauses", {"call": {"extension": "anonymous"}}),
        ("/v1/pauses", {"call": {"call_id": "x"}, "cause": "boredom"}),
        ("/v1/pauses", {"call": {"call_id": "x"}, "effective_at": "2026-11-24T10:00:00"}),
        ("/v1/pauses", {"call": {"call_id": "x"}, "effective_at": "1970-01-02T00:00:00Z"}),
        ("/v1/pauses", {"call": {"call_id": "x"}, "until": "1970-01-02T00:00:00Z"}),
        ("/v1/pauses", {"call": {"call_id": "x"}, "until": "9999-01-02T00:00:00Z"}),
        ("/v1/pauses", {"call": {"call_id": "x"}, "surprise": 1}),
        ("/v1/resumes", {"call": {"call_id": "x"}, "until": "2026-11-24T10:00:00Z"}),
    ],
)
def test_what_cannot_be_meant_is_422(officer: str, resource: str, body: dict[str, Any]) -> None:
    """And is repeated nowhere in the answer."""
    answer = post_json(resource, body, token=officer)
    assert answer.status == 422
    assert "anonymous" not in answer.body.decode()


@pytest.mark.parametrize("call_id", ["01JD0000000000000000000000", "x", "01jd0000000000000000000000"])
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_call_that_was_never_reported_is_not_found(officer: str, verb: str, call_id: str) -> None:
    """Whatever is wrong with its id."""
    assert act(verb, call_id, officer).status == 404


def test_another_tenants_call_is_beyond_reach(
    agent: LiveAgent, live: CallEvent, names: dict[str, str], stranger: str
) -> None:
    """By its id, and by its names: the same words are other tokens there."""
    assert act("pause", live, stranger).status == 404
    answer = post_json("/v1/pauses", {"call": {"external_id": names["external_id"]}}, token=stranger)
    assert answer.json["outcome"] == "pending"
    assert agent.commands() == []


def test_a_pause_of_a_time_outside_the_call_is_refused(live: CallEvent, officer: str) -> None:
    """By its id it can only be meant for that call."""
    began_ms = (live.started_at_us + CLOCK.offset_us) // 1000
    answer = act("pause", live, officer, effective_at=written(began_ms - 60_000), until=written(began_ms - 30_000))
    assert answer.status == 422
