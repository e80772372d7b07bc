"""What agents report: verified, taken in any order, and never in the way of others' reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.attribute_values import to_item
from dualtone.domain import pause_ledger
from dualtone.domain.agent_events import AckEvent, CallEvent, CutEvent, LeaseEvent
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import call, post_json
from tests.adapters.api.live_agent import CLOCK, SECOND, LiveAgent, pump, waiting


def ledger(agent: LiveAgent, event: CallEvent) -> pause_ledger.Ledger:
    return wiring.call_ledger().read(agent.tenant, CallId(event.call))


def set_state(agent: LiveAgent, state: str) -> None:
    wiring.dynamodb().update_item(
        TableName=wiring.settings().directory_table,
        Key=to_item({"pk": f"tenant#{agent.tenant}", "sk": f"agent#{agent.agent_id}"}),
        UpdateExpression="SET #state = :state",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues=to_item({":state": state}),
    )


def lan_ack(agent: LiveAgent, event: CallEvent, **changes: Any) -> AckEvent:
    """The answer to a command that came to the agent itself."""
    now_us = agent.now_us()
    ack = AckEvent(
        call=event.call,
        command="01JD000000000000000000000A",
        number=7,
        origin="lan",
        action="pause",
        cause="payment",
        outcome="acknowledged",
        from_us=now_us - 280_000,
        at_us=now_us,
        received_at_us=now_us,
        silent_from=[],
        causes=["payment"],
        by="lan:token",
        effective_at_us=None,
    )
    return replace(ack, **changes)


@pytest.fixture
def refusals(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """What the log says of reports and events that were refused."""
    return lambda: [record for record in caplog.records if record.getMessage() == "AgentEventRefused"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no json",
        "[]",
        '{"kind":"agent-events"}',
        '{"kind":"agent-events","key_id":"x","payload":"e30=","signature":""}',
        '{"kind":"agent-events","key_id":"x","payload":"\\ud800","signature":""}',
    ],
)
def test_a_poison_message_is_said_and_dropped(
    cloud: LocalCloud, agent: LiveAgent, body: str, refusals: Callable[[], list[Any]]
) -> None:
    """It never comes again, and nobody waits for it; SQS takes no empty body, the function would."""
    if body:
        agent.send(body)
        assert pump(cloud, "AgentEventsQueue") == 0
    else:
        record = {"messageId": "m", "body": body, "eventSource": "aws:sqs"}
        assert cloud.invoke("IngestAgentEventsFunction", {"Records": [record]}) == {"batchItemFailures": []}
    assert len(refusals()) == 1


def test_a_forged_report_changes_nothing(
    cloud: LocalCloud, agent: LiveAgent, refusals: Callable[[], list[Any]]
) -> None:
    """Signed by another agent, by one of another tenant, for another agent, or altered afterwards."""
    colleague, foreigner = LiveAgent(cloud, "acme"), LiveAgent(cloud, "globex")
    event = agent.call(1)
    genuine = agent.envelope(event)
    altered = bytearray(genuine.payload)
    altered[-2] ^= 1
    for envelope in (
        colleague.envelope(event, agent=agent.agent_id),
        foreigner.envelope(event, tenant="acme", agent=agent.agent_id),
        foreigner.envelope(event, tenant="acme"),
        replace(genuine, payload=bytes(altered)),
        replace(genuine, kind="manifest"),
    ):
        agent.send(json.dumps(envelope.to_json()))
    assert ledger(agent, event).live is None
    assert len(refusals()) == 5


@pytest.mark.parametrize("state", ["pending", "revoked"])
def test_an_agent_that_is_not_active_is_not_heard(cloud: LocalCloud, state: str) -> None:
    """Revoked is revoked at once."""
    agent = LiveAgent(cloud, "acme")
    event = agent.call(1)
    set_state(agent, state)
    agent.report(event)
    assert ledger(agent, event).live is None


def test_a_damaged_message_takes_no_other_one_down(cloud: LocalCloud, agent: LiveAgent) -> None:
    """One batch: poison, a forgery, and a report that is taken."""
    event = agent.call(1)
    stranger = LiveAgent(cloud, "globex").envelope(event, tenant="acme", agent=agent.agent_id)
    for body in ("poison", json.dumps(stranger.to_json()), json.dumps(agent.envelope(event).to_json())):
        wiring.sqs().send_message(QueueUrl=agent.identity["events_queue_url"], MessageBody=body)
    pump(cloud, "AgentEventsQueue")
    assert ledger(agent, event).live is not None


def test_what_is_unavailable_comes_again(cloud: LocalCloud, agent: LiveAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """That message and no other."""
    first, second = agent.call(1), agent.call(2)
    live_calls, take = wiring.live_calls(), wiring.live_calls().take

    def sometimes(*arguments: Any, **named: Any) -> Any:
        if arguments[2].call == first.call:
            raise Unavailable("throttled")
        return take(*arguments, **named)

    monkeypatch.setattr(live_calls, "take", sometimes)
    records = [
        {"messageId": f"m{number}", "body": json.dumps(agent.envelope(event).to_json()), "eventSource": "aws:sqs"}
        for number, event in enumerate((first, second))
    ]
    answer = cloud.invoke("IngestAgentEventsFunction", {"Records": records})
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert (ledger(agent, first).live, ledger(agent, second).live is None) == (None, False)


def test_an_agent_speaks_of_its_own_calls_only(
    cloud: LocalCloud, agent: LiveAgent, refusals: Callable[[], list[Any]]
) -> None:
    """A colleague of the same tenant can neither end a call nor acknowledge for it; its other events count."""
    colleague, event = LiveAgent(cloud, "acme"), agent.call(1)
    agent.report(event)
    colleague.report(
        replace(event, revision=5, state="spooled", ended_at_us=agent.now_us()),
        lan_ack(colleague, event),
        colleague.cut(replace_call(event)),
        colleague.health([event.call]),
    )
    found = ledger(agent, event)
    assert found.live is not None
    assert (found.live.agent_id, found.live.state, found.commands) == (agent.agent_id, "live", ())
    assert sorted(record.kind for record in refusals()) == ["ack", "call", "cut"]
    health = wiring.agent_health().of_tenant(agent.tenant)
    assert health[colleague.agent_id].live_calls == 1  # type: ignore[index]


def replace_call(event: CallEvent) -> Any:
    """A command that names a call, for an event that only needs that."""

    class Named:
        call, id = event.call, "01JD000000000000000000000A"

    return Named()


def test_reports_come_late_twice_and_in_any_order(agent: LiveAgent) -> None:
    """The highest revision stays, whatever comes after it."""
    event = agent.call(1)
    ended = replace(event, revision=3, state="ended", ended_at_us=agent.now_us(), causes=["payment"])
    for one in (event, ended, replace(event, revision=2), ended, event):
        agent.report(one)
    live = ledger(agent, event).live
    assert live is not None
    assert (live.state, live.revision, live.causes) == ("ended", 3, ("payment",))


def test_an_answer_that_comes_before_its_call_is_kept(agent: LiveAgent, trail: AuditTrail) -> None:
    """A LAN command in one report, the call in a later one: the ledger has both, by the agent's clock."""
    event = agent.call(1)
    trail.new()
    agent.report(lan_ack(agent, event, effective_at_us=agent.now_us() - SECOND))
    assert ledger(agent, event).live is None
    agent.report(event)
    found = ledger(agent, event)
    (command,) = found.commands
    assert (command.origin, command.number, command.outcome, command.by) == ("lan", 7, "acknowledged", "lan:token")
    assert abs(command.effective_at_ms - (clock.now_ms() - 1000)) < 2000
    (span,) = pause_ledger.spans(found.commands, None)
    assert (span.from_us, span.to_us, span.acknowledged) == (command.from_us, None, True)
    (told,) = trail.new()
    assert (told["what"], told["who"], told["details"]["origin"]) == (
        "calls:answer-command",
        f"agent:{agent.agent_id}",
        "lan",
    )


def test_every_answer_raises_the_ledgers_version_and_a_repeated_one_does_not(agent: LiveAgent) -> None:
    """What was made of a ledger is made again only if it has to be."""
    event = agent.call(1)
    agent.report(event)
    assert ledger(agent, event).version == 0
    ack = lan_ack(agent, event)
    other = replace(ack, number=8, command="01JD000000000000000000000B")
    versions = []
    for one in (ack, ack, replace(ack, outcome="superseded"), replace(ack, outcome="too_late"), other):
        agent.report(one)
        versions.append(ledger(agent, event).version)
    assert versions == [1, 1, 1, 2, 3]


def test_a_ledger_that_changed_stops_what_was_made_of_it(agent: LiveAgent) -> None:
    """The finaliser's transaction holds the version that it read."""
    event, store = agent.call(1), wiring.call_ledger()
    call_id = CallId(event.call)
    agent.report(event)
    table = wiring.live_calls()._table
    table.transact(store.transact_unchanged(agent.tenant, call_id, 0))
    agent.report(lan_ack(agent, event))
    with pytest.raises(Exception, match="writing items"):
        table.transact(store.transact_unchanged(agent.tenant, call_id, 0))
    table.transact(store.transact_unchanged(agent.tenant, call_id, ledger(agent, event).version))


def test_the_clouds_numbers_stay_above_what_an_agent_got_by_match(agent: LiveAgent, officer: str) -> None:
    """A command that the agent applied by match counts among the call's."""
    event = agent.call(1)
    agent.report(event)
    ahead = clock.now_ms() + 3_600_000
    agent.report(lan_ack(agent, event, origin="cloud", number=ahead))
    agent.commands()
    post_json("/v1/calls/{call_id}/pause", {}, token=officer, path={"call_id": event.call})
    (command,) = agent.commands()
    assert command.number == ahead + 1


def test_what_was_never_answered_is_silent_by_reckoning(agent: LiveAgent, officer: str) -> None:
    """From before the pause to after the resume, by the agent's own clock, whose offset it reported."""
    event = agent.call(1)
    agent.report(event)
    pause_ms = clock.now_ms()
    for verb in ("pause", "resume"):
        post_json(f"/v1/calls/{{call_id}}/{verb}", {}, token=officer, path={"call_id": event.call})
    resume_ms = clock.now_ms()
    (span,) = pause_ledger.spans(ledger(agent, event).commands, agent.now_us())
    assert span.from_us <= 1000 * pause_ms - CLOCK.offset_us - 250_000 - CLOCK.uncertainty_us + 100_000
    assert span.to_us is not None
    assert 1000 * pause_ms - CLOCK.offset_us < span.to_us
    assert span.to_us <= 1000 * resume_ms - CLOCK.offset_us + CLOCK.uncertainty_us
    assert not span.acknowledged


def test_a_lease_that_runs_out_alarms_and_is_on_record(
    agent: LiveAgent, trail: AuditTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the line's policy the call stays silent; somebody must look."""
    event = agent.call(1)
    agent.report(event)
    trail.new()
    agent.report(LeaseEvent(event.call, "payment", "silent", agent.now_us()))
    (told,) = trail.new()
    assert (told["what"], told["which"], told["details"]) == (
        "calls:lease-expired",
        event.call,
        {"cause": "payment", "on_expiry": "silent"},
    )
    assert '"PauseLeaseExpired":[1.0]' in capsys.readouterr().out


def test_a_call_that_paused_itself_alarms_once_and_is_in_the_ledger(
    agent: LiveAgent, trail: AuditTrail, capsys: pytest.CaptureFixture[str], officer: str
) -> None:
    """A card's number was typed, and nobody had paused: on record as any pause, shown with where it came from."""
    event = agent.call(1)
    agent.report(event)
    trail.new()
    ack = lan_ack(agent, event, origin="agent", cause="dtmf", causes=["dtmf"], by=f"agent:{agent.agent_id}")
    for _ in range(2):
        agent.report(ack)
    (told,) = trail.new()
    assert (told["what"], told["details"]["origin"], told["details"]["cause"]) == (
        "calls:answer-command",
        "agent",
        "dtmf",
    )
    assert capsys.readouterr().out.count('"PaymentWithoutPause":[1.0]') == 1
    (span,) = pause_ledger.spans(ledger(agent, event).commands, None)
    assert (span.origin, span.cause, span.to_us) == ("agent", "dtmf", None)
    shown = call("GET", "/v1/calls/{call_id}", token=officer, path={"call_id": event.call}).json
    assert [(command["origin"], command["cause"]) for command in shown["commands"]] == [("agent", "dtmf")]
    post_json("/v1/calls/{call_id}/resume", {"cause": "dtmf"}, token=officer, path={"call_id": event.call})
    (span,) = pause_ledger.spans(ledger(agent, event).commands, None)
    assert span.to_us is not None


@pytest.mark.parametrize("outcome", ["too_late", "unknown"])
def test_a_pause_that_came_too_late_orders_a_cut(cloud: LocalCloud, agent: LiveAgent, outcome: str) -> None:
    """By LAN too; and once more when it is reported again, since an order may have been lost."""
    event = agent.call(1)
    agent.report(event)
    waiting(cloud, "CutQueue")
    ack = lan_ack(agent, event, outcome=outcome)
    for _ in range(2):
        agent.report(ack)
        assert waiting(cloud, "CutQueue") == [{"tenant": "acme", "call": event.call}]
    agent.report(lan_ack(agent, event, number=8, action="resume", outcome=outcome))
    assert waiting(cloud, "CutQueue") == []


def test_a_cut_that_overtakes_its_answer_comes_again(cloud: LocalCloud, agent: LiveAgent) -> None:
    """A LAN command is known by its answer alone; without it nobody would know what was cut."""
    event = agent.call(1)
    agent.report(event)
    ack = lan_ack(agent, event, outcome="too_late")
    cut = CutEvent(event.call, ack.command, ack.from_us, ack.at_us, [])
    another = agent.call(2)
    report = agent.envelope(cut, another)
    record = {"messageId": "m", "body": json.dumps(report.to_json()), "eventSource": "aws:sqs"}
    failed = {"batchItemFailures": [{"itemIdentifier": "m"}]}
    assert cloud.invoke("IngestAgentEventsFunction", {"Records": [record]}) == failed
    assert ledger(agent, another).live is not None  # the rest of the report did not wait
    agent.report(ack)
    for _ in range(2):
        assert cloud.invoke("IngestAgentEventsFunction", {"Records": [record]}) == {"batchItemFailures": []}
    (command,) = ledger(agent, event).commands
    assert command.agent_clean_at_ms is not None


def test_a_call_that_its_agent_knows_nothing_of_is_over(agent: LiveAgent, officer: str) -> None:
    """It cannot stay among the live ones and spoil every later pause of the same extension."""
    event = agent.call(1)
    agent.report(event, lan_ack(agent, event, origin="cloud", outcome="unknown"))
    live = ledger(agent, event).live
    assert live is not None
    assert (live.state, live.ended_at_ms is None, live.sealed) == ("spooled", False, b"")
    assert event.call not in str(call("GET", "/v1/calls", token=officer).json)


def test_calls_that_an_agent_lists_no_more_are_over(cloud: LocalCloud, agent: LiveAgent) -> None:
    """Not those that it lists, those of others, those that just began, and those of which it spoke a moment ago."""
    minutes_us = 60 * SECOND
    long_ago = {"started_at_us": agent.now_us() - 10 * minutes_us}
    lost, listed, spoken = (agent.call(number, **long_ago) for number in (1, 2, 4))
    fresh, colleague = agent.call(3), LiveAgent(cloud, "acme")
    others = colleague.call(5, **long_ago)
    colleague.report(others, sent_at_us=colleague.now_us() - 5 * minutes_us)
    agent.report(lost, listed, fresh, sent_at_us=agent.now_us() - 5 * minutes_us)
    agent.report(spoken)
    agent.report(agent.health([listed.call]))

    def states(*events: CallEvent) -> list[str]:
        return [live.state for event in events if (live := ledger(agent, event).live) is not None]

    assert states(lost, listed, fresh, spoken, others) == ["spooled", "live", "live", "live", "live"]
    agent.report(replace(lost, revision=2))
    assert states(lost) == ["live"]


def test_agents_are_listed_with_their_health(cloud: LocalCloud, administrator: str, officer: str) -> None:
    """As they last said themselves; a report that is overtaken changes nothing; one that never spoke has none."""
    agent, silent = LiveAgent(cloud, "acme", "Paris SBC"), LiveAgent(cloud, "acme", "Rome SBC")
    agent.report(agent.health(["01JD0000000000000000000000"]))
    old = replace(agent.health(), version="0.0.9")
    agent.report(old, sequence=agent.sequence - 5)
    shown = {one["agent_id"]: one for one in call("GET", "/v1/agents", token=administrator).json["agents"]}
    assert (shown[silent.agent_id]["name"], shown[silent.agent_id]["health"]) == ("Rome SBC", None)
    health = shown[agent.agent_id]["health"]
    assert (shown[agent.agent_id]["state"], health["version"], health["live_calls"]) == ("active", "0.1.0", 1)
    assert (health["clock_offset_us"], health["clock_uncertainty_us"]) == (CLOCK.offset_us, CLOCK.uncertainty_us)
    assert (health["spooled_calls"], health["free_bytes"], health["alarms"]) == (2, 40_000, {"disk": 1})
    assert call("GET", "/v1/agents", token=officer).status == 403


def test_nothing_personal_is_in_queue_or_table(agent: LiveAgent, live: CallEvent, names: dict[str, str]) -> None:
    """Names that the switch gives the call are keyed hashes; who talks is sealed."""
    written = json.dumps(agent.envelope(live).to_json()) + agent.envelope(live).payload.decode()
    items = wiring.dynamodb().query(
        TableName=wiring.settings().index_table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues=to_item({":pk": f"acme#call#{live.call}"}),
    )["Items"]
    assert items
    for secret in (*names.values(), names["extension"][1:], "Alice", "pbx.invalid"):
        assert secret not in written
        assert secret not in repr(items)
