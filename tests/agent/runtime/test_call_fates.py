"""Calls under a recording policy: what the media process is told, what the cloud is, and what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.call_command import Command
from dualtone.domain.errors import PolicyViolation, Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Choice
from sbc_agent.media.messages import Alarm, CallPolicy, Pause, Resume, SelfPaused
from sbc_agent.protocol.message import Request
from sbc_agent.runtime.orders import of_command
from tests.agent.protocol.builders import Src
from tests.agent.runtime.ruled import LINE, OTHER, Site, in_loop, metadata, rule, token

COMMAND = "01HZX3Q8W0ABCDEFGHJKMNPQRT"
KEYS = {"accept_keys": "1", "decline_keys": "2"}


def last(facts: Any) -> dict[str, Any]:
    return dict(facts[-1])


@pytest.mark.parametrize(
    ("record", "members", "waits", "silent", "standing"),
    [
        ("always", {}, False, False, "recorded"),
        ("always", {"regulated": True}, False, False, "recorded"),
        ("always", {"personal_allowed": True}, True, False, "waiting"),
        ("live_keep", {}, True, False, "waiting"),
        ("consent", {}, True, False, "waiting"),
        ("on_demand", {}, True, True, "on_demand"),
        ("never", {}, True, True, "not_recorded"),
    ],
)
@in_loop
async def test_how_a_call_begins(
    tmp_path: Path, record: str, members: dict[str, Any], waits: bool, silent: bool, standing: str
) -> None:
    """Before the answer leaves it is said whether the call is kept, waits sealed for nobody, or is not gathered."""
    site = Site(tmp_path, rule(record, **members))
    call = site.call(Src())
    assert (site.of(call).waits, site.of(call).silent) == (waits, silent)
    assert site.standing(call) == standing
    assert site.silent_to_the_cloud == waits
    assert bool(site.of(call).sessions) == (not silent)
    assert bool(site.of(call).signalling) == (not silent)
    assert [known.call for known in site.calls.live_with([token("extension", LINE)])] == [call]


@in_loop
async def test_a_call_that_is_never_recorded_leaves_a_count(tmp_path: Path) -> None:
    """The SBC is answered as ever; no event, no id on disk, no line of the log, and one more in its rule's counter."""
    site, src = Site(tmp_path, rule("never", id="board")), Src()
    call = site.call(src)
    assert [known.call for known in site.calls.inherited()] == []
    site.hang_up(src)
    assert site.of(call).decisions == []
    assert site.of(call).ended is not None
    assert (site.standing(call), site.silent_to_the_cloud) == ("gone", True)
    assert site.tally.counts == {"board": 1}
    assert call not in site.lines.getvalue()
    assert OTHER[1:] not in site.lines.getvalue()
    again = Site(tmp_path, rule("never", id="board"))
    again.call(src2 := Src(call_id="second"))
    again.hang_up(src2)
    assert again.tally.counts == {"board": 2}, "counted over a restart"


@in_loop
async def test_a_key_gives_consent(tmp_path: Path) -> None:
    """The call is kept from its beginning, the record says by whom and when, and the cloud hears of it now."""
    site, src = Site(tmp_path, rule("consent", **KEYS)), Src()
    call = site.call(src)
    assert site.of(call).policies[-1] == CallPolicy(tones="blank", accept_keys="1", decline_keys="2")
    site.pass_time(7)
    site.press(call, "accept")
    site.press(call, "accept")
    told = site.of(call)
    assert told.decisions == [True]
    facts = last(told.sessions)
    at_us = site.now_us()
    assert facts["policy"] == {
        "version": 3,
        "rule": "rule",
        "record": "consent",
        "basis": "contract",
        "decision": "keep",
        "how": "dtmf",
        "at_us": at_us,
        "by": "",
    }
    assert facts["consents"] == [{"choice": "accept", "how": "dtmf", "at_us": at_us, "by": ""}]
    assert told.policies[-1] == CallPolicy(tones="blank"), "no key is an answer any more"
    (event, *_) = site.states(call)
    assert event.started_at_us == told.began_us
    assert event.policy is not None
    assert (event.policy.rule, event.policy.how) == ("rule", "dtmf")
    assert site.choices()[0] == ("accept", "dtmf", "kept")
    assert site.standing(call) == "recorded"
    assert [known.call for known in site.calls.inherited()] == [call], "now it is kept for a later run"


@in_loop
async def test_a_key_refuses(tmp_path: Path) -> None:
    """What was gathered is discarded, also if the key for consent is pressed afterwards."""
    site, src = Site(tmp_path, rule("consent", **KEYS)), Src()
    call = site.call(src)
    site.press(call, "decline")
    site.press(call, "accept")
    site.hang_up(src)
    assert site.of(call).decisions == [False]
    assert site.silent_to_the_cloud
    assert site.tally.counts == {"rule": 1}


@in_loop
async def test_a_call_on_demand_is_kept_from_the_key_on(tmp_path: Path) -> None:
    site, src = Site(tmp_path, rule("on_demand", accept_keys="1")), Src()
    call = site.call(src)
    site.pass_time(20)
    site.press(call, "accept")
    told = site.of(call)
    assert told.decisions == [True]
    assert last(told.sessions)["consents"][0]["choice"] == "keep"
    assert site.states(call)[0].started_at_us == site.now_us()


@pytest.mark.parametrize(("undecided", "decisions"), [("keep", [True]), ("discard", [False])])
@in_loop
async def test_nobody_decided_by_the_end(tmp_path: Path, undecided: str, decisions: list[bool]) -> None:
    """The rule does, before the media process hears of the end."""
    site, src = Site(tmp_path, rule("consent", undecided=undecided)), Src()
    call = site.call(src)
    site.pass_time(60)
    site.hang_up(src)
    assert site.of(call).decisions == decisions
    assert site.silent_to_the_cloud == (undecided == "discard")
    if undecided == "keep":
        assert last(site.of(call).sessions)["policy"]["how"] == "end"
        assert [event.state for event in site.states(call)][-1] == "ended"


@in_loop
async def test_nobody_decided_in_time(tmp_path: Path) -> None:
    site = Site(tmp_path, rule("consent", undecided="keep", decide_within_s=10))
    call = site.call(Src())
    site.pass_time(9.9)
    assert site.of(call).decisions == []
    site.pass_time(0.2)
    assert site.of(call).decisions == [True]
    assert last(site.of(call).sessions)["policy"]["how"] == "timeout"
    assert site.recorder.timer() is None


@in_loop
async def test_a_call_without_consent_may_give_it_after_its_time(tmp_path: Path) -> None:
    """It is kept from then on, for what was before is gone."""
    site = Site(tmp_path, rule("consent", undecided="discard", decide_within_s=10, **KEYS))
    call = site.call(Src())
    site.pass_time(11)
    site.press(call, "accept")
    assert site.of(call).decisions == [False, True]
    assert site.states(call)[0].started_at_us == site.now_us()


@pytest.mark.parametrize(("value", "waits", "kept"), [("yes", False, True), ("no", True, False), ("?", True, None)])
@in_loop
async def test_a_header_field_tells_the_choice(tmp_path: Path, value: str, waits: bool, kept: bool | None) -> None:
    headers = {"name": "X-Consent", "accept": ["yes"], "decline": ["no"]}
    site = Site(tmp_path, rule("consent", headers=headers))
    call = site.call(Src(), ("X-Consent", value))
    assert site.of(call).waits == waits
    if kept:
        assert last(site.of(call).sessions)["policy"]["how"] == "header"
        assert last(site.of(call).sessions)["consents"][0]["how"] == "header"
    else:
        assert site.of(call).silent == (kept is False), "refused before the call: nothing is gathered"


@in_loop
async def test_a_header_field_of_a_later_request_tells_it_too(tmp_path: Path) -> None:
    site, src = Site(tmp_path, rule("consent", headers={"name": "X-Consent", "accept": ["yes"]})), Src()
    call = site.call(src)
    site.receive(src.invite(("X-Consent", "YES"), metadata=metadata()))
    assert site.of(call).decisions == [True]


@in_loop
async def test_who_the_parties_are_is_learnt_later(tmp_path: Path) -> None:
    """Until they are known a call that may be one of a line that is never recorded waits, and tells nobody."""
    site, src = Site(tmp_path, rule("never", match={"lines": [LINE]})), Src()
    call = site.call(src, text=_placeholder())
    assert (site.of(call).waits, site.of(call).silent, site.silent_to_the_cloud) == (True, False, True)
    site.update(src, metadata())
    assert site.of(call).decisions == [False]
    site.hang_up(src)
    assert site.silent_to_the_cloud


@in_loop
async def test_what_is_known_after_half_a_minute_is_enough(tmp_path: Path) -> None:
    site, src = Site(tmp_path, rule("never", match={"lines": [LINE]})), Src()
    call = site.call(src, text=_placeholder())
    site.pass_time(29)
    assert site.of(call).decisions == []
    site.pass_time(1.1)
    assert site.of(call).decisions == [True]
    assert site.standing(call) == "recorded"


@in_loop
async def test_a_call_that_is_kept_already_falls_silent_when_somebody_refuses(tmp_path: Path) -> None:
    """It cannot be taken back; nothing more is kept, without an end, and the cloud is told why."""
    site, src = Site(tmp_path, rule("always")), Src()
    call = site.call(src)
    outcome = site.recorder.choose(
        CallId(call), Choice("discard", "consent", "api", site.now_us(), "person:7"), COMMAND
    )
    assert outcome == "stopped"
    (pause,) = site.of(call).pauses
    assert isinstance(pause, Pause)
    assert (pause.cause, pause.origin, pause.from_us, pause.lease_us, pause.until_us) == (
        "consent",
        "agent",
        site.now_us(),
        0,
        None,
    )
    site.paused(pause)
    (ack,) = site.acks()
    assert (ack.cause, ack.origin, ack.outcome, ack.by) == ("consent", "agent", "acknowledged", "agent:policy")
    assert site.choices() == [("decline", "api", "stopped")]
    assert site.states(call)[-1].causes == ["consent"]
    assert site.of(call).decisions == []
    assert last(site.of(call).sessions)["consents"][0]["by"] == "person:7"
    site.hang_up(src)
    assert site.tally.counts == {}


@in_loop
async def test_a_regulated_call_goes_on_whatever_anybody_chooses(tmp_path: Path) -> None:
    site = Site(tmp_path, rule("always", regulated=True))
    call = site.call(Src())
    outcome = site.recorder.choose(CallId(call), Choice("discard", "consent", "api", site.now_us(), "person:7"))
    assert (outcome, site.of(call).pauses, site.of(call).decisions) == ("ignored", [], [])
    assert site.choices() == [("decline", "api", "ignored")]


@in_loop
async def test_a_call_whose_line_changes_is_judged_anew(tmp_path: Path) -> None:
    """Transferred within its dialog: to a line that is never recorded it falls silent, and back it is heard again."""
    site, src = Site(tmp_path, rule("never", match={"lines": ["+442079460999"]})), Src()
    call = site.call(src)
    assert site.standing(call) == "recorded"
    site.update(src, metadata(line="+442079460999"))
    site.pass_time(1)
    site.update(src, metadata())
    assert [type(order) for order in site.of(call).pauses] == [Pause, Resume]
    assert site.of(call).pauses[0].number < site.of(call).pauses[1].number


@in_loop
async def test_a_call_that_was_not_recorded_is_transferred_to_a_line_that_must_be(tmp_path: Path) -> None:
    """It is kept from that moment on, and the cloud knows it from then."""
    never = rule("never", id="board", match={"lines": [LINE]})
    must = rule("always", id="dealers", regulated=True, match={"lines": ["+442079460999"]})
    site, src = Site(tmp_path, must, never), Src()
    call = site.call(src)
    assert site.standing(call) == "not_recorded"
    site.pass_time(30)
    site.update(src, metadata(line="+442079460999"))
    assert site.of(call).decisions == [True]
    assert site.states(call)[0].started_at_us == site.now_us()
    assert last(site.of(call).sessions)["policy"]["rule"] == "dealers"
    site.hang_up(src)
    assert site.tally.counts == {}


@in_loop
async def test_a_policy_that_changes_is_for_calls_to_come(tmp_path: Path) -> None:
    site, src = Site(tmp_path, rule("always")), Src()
    call = site.call(src)
    site.policy = Site(tmp_path, rule("never")).policy
    site.update(src, metadata(other="+447700900333"))
    assert site.of(call).pauses == []
    assert site.standing(site.call(Src(call_id="later"))) == "not_recorded"


@in_loop
async def test_pauses_of_a_call_that_waits_are_told_when_it_is_kept(tmp_path: Path) -> None:
    """While it waits they act, and stay on the site; of a call that is discarded nobody ever hears of them."""
    for keep in (True, False):
        site = Site(tmp_path / str(keep), rule("consent", **KEYS))
        call = site.call(Src())
        pause = _pause(site, call)
        site.paused(pause)
        assert site.of(call).pauses == [pause]
        known = site.calls.get(CallId(call))
        assert known is not None
        assert known.causes == ("payment",)
        assert site.silent_to_the_cloud
        site.press(call, "accept" if keep else "decline")
        assert [ack.command for ack in site.acks()] == ([pause.command] if keep else [])
        assert site.silent_to_the_cloud == (not keep)
        if keep:
            assert site.states(call)[0].causes == ["payment"]


@pytest.mark.parametrize(("on_failure", "is_ended"), [("closed", True), ("open", False)])
@in_loop
async def test_a_call_that_cannot_be_recorded_any_more(tmp_path: Path, on_failure: str, is_ended: bool) -> None:
    """Where its rule says so it is ended by BYE; by default the call is not harmed."""
    site = Site(tmp_path, rule("always", on_failure=on_failure))
    call = site.call(Src())
    site.media.tell(Alarm(kind="records_lost", call=call))
    assert site.woken == 1
    sent = [message.method for message in site.pass_now() if isinstance(message, Request)]
    assert sent == (["BYE"] if is_ended else [])


@pytest.mark.parametrize(("on_failure", "is_ended"), [("closed", True), ("open", False)])
@in_loop
async def test_a_media_process_that_is_gone(tmp_path: Path, on_failure: str, is_ended: bool) -> None:
    site, src = Site(tmp_path, rule("always", on_failure=on_failure)), Src()
    site.call(src)
    site.media.gone = True
    sent = site.receive(src.invite(metadata=metadata(other="+447700900333")))
    assert ("BYE" in [message.method for message in sent if isinstance(message, Request)]) == is_ended


@in_loop
async def test_nothing_is_asked_of_the_disk_where_nobody_has_a_policy(tmp_path: Path, monkeypatch: Any) -> None:
    """The common case costs what it cost: a call that is kept by the built-in rule, without any choice."""
    site, src = Site(tmp_path, attached=False), Src()
    asked: list[str] = []

    def asks(statements: object) -> list[object]:
        asked.append(str(statements))
        return []

    monkeypatch.setattr(site.state, "run_all", asks)
    call = site.call(src)
    site.update(src, metadata(other="+447700900333"))
    site.hang_up(src)
    assert asked == []
    assert (site.of(call).waits, site.of(call).decisions, site.of(call).policies) == (False, [], [CallPolicy()])


# -- desks and the cloud -----------------------------------------------------------------------------------------------


@in_loop
async def test_a_desk_keeps_and_discards(tmp_path: Path) -> None:
    site = Site(tmp_path, rule("live_keep", personal_allowed=True))
    call, other = CallId(site.call(Src())), CallId(site.call(Src(call_id="other"), text=metadata(session="other")))
    assert await site.control.decide(call, keep=True, cause="on_demand", by="desk:7") == "kept"
    assert await site.control.decide(call, keep=True, cause="on_demand", by="desk:7") == "kept"
    assert await site.control.decide(other, keep=False, cause="personal", by="desk:7") == "discarded"
    assert (site.of(call).decisions, site.of(other).decisions) == ([True], [False])
    assert last(site.of(call).sessions)["consents"] == [
        {"choice": "keep", "how": "lan", "at_us": site.now_us(), "by": "desk:7"}
    ]
    assert await site.control.decide(CallId("0" * 26), keep=True, cause="on_demand", by="desk:7") == "unknown"


@pytest.mark.parametrize(
    ("members", "keep", "cause", "words"),
    [
        ({"record": "always", "regulated": True}, False, "personal", "must be recorded"),
        ({"record": "always"}, False, "personal", "does not leave that choice"),
        ({"record": "consent"}, True, "on_demand", "does not leave that choice"),
        ({"record": "never"}, True, "on_demand", "does not leave that choice"),
    ],
)
@in_loop
async def test_what_a_rule_does_not_leave_to_a_desk(
    tmp_path: Path, members: dict[str, Any], keep: bool, cause: Any, words: str
) -> None:
    site = Site(tmp_path, rule(**members))
    call = CallId(site.call(Src()))
    with pytest.raises(PolicyViolation, match=words):
        await site.control.decide(call, keep=keep, cause=cause, by="desk:7")
    assert (site.of(call).decisions, site.of(call).pauses) == ([], [])


@in_loop
async def test_a_desk_whose_media_process_is_gone(tmp_path: Path) -> None:
    site = Site(tmp_path, rule("live_keep"))
    call = CallId(site.call(Src()))
    site.media.gone = True
    with pytest.raises(Unavailable):
        await site.control.decide(call, keep=True, cause="on_demand", by="desk:7")


# -- after a restart ---------------------------------------------------------------------------------------------------


@in_loop
async def test_a_waiting_call_begins_anew_as_waiting(tmp_path: Path) -> None:
    """Nobody has its old key: it is another call, flagged, silent for what the old one was silent for."""
    rules = rule("consent", **KEYS)
    first, src = Site(tmp_path, rules), Src()
    old = first.call(src)
    first.paused(_pause(first, old))
    second = Site(tmp_path, rules, now=1003.0)
    (call,) = second.media.calls
    told = second.of(call)
    assert call != old
    assert (told.waits, told.adopted, told.policies[-1].accept_keys) == (True, False, "1")
    assert second.silent_to_the_cloud
    (pause,) = told.pauses
    assert isinstance(pause, Pause)
    assert (pause.cause, pause.from_us) == ("payment", told.began_us)
    assert second.standing(call) == "waiting"
    assert "policy" not in told.sessions[-1]
    second.press(call, "accept")
    assert told.decisions == [True]
    assert last(told.sessions)["policy"]["how"] == "dtmf"
    src.cseq += 10
    second.hang_up(src)
    assert told.ended is not None
    assert told.ended[2] == ("restarted",)
    assert old not in [event.call for event in second.told.events if hasattr(event, "call")]


@in_loop
async def test_a_refusal_survives_a_restart(tmp_path: Path) -> None:
    rules = rule("consent", **KEYS)
    first, src = Site(tmp_path, rules), Src()
    first.press(first.call(src), "decline")
    second = Site(tmp_path, rules, now=1003.0)
    (call,) = second.media.calls
    assert (second.of(call).waits, second.of(call).silent) == (True, True)
    assert second.standing(call) == "not_recorded"
    second.press(call, "accept")
    src.cseq += 10
    second.hang_up(src)
    assert second.of(call).decisions == []
    assert second.tally.counts == {"rule": 1}
    assert second.silent_to_the_cloud


@in_loop
async def test_why_a_call_is_kept_survives_a_restart(tmp_path: Path) -> None:
    """It is adopted, and its record says the same; one whose rule was deleted meanwhile is kept all the same."""
    first, src = Site(tmp_path, rule("consent", **KEYS)), Src()
    call = first.call(src)
    first.press(call, "accept")
    decided = last(first.of(call).sessions)
    for rules in (rule("consent", **KEYS), rule("never", id="other")):
        again = Site(tmp_path, rules, now=1003.0)
        assert again.of(call).adopted
        facts = last(again.of(call).sessions)
        assert facts["consents"] == decided["consents"]
        assert (facts["policy"]["how"], facts["policy"]["at_us"]) == ("dtmf", decided["policy"]["at_us"])
        assert again.standing(call) == "recorded"
        assert not again.of(call).pauses


@pytest.mark.parametrize("record", ["consent", "never", "on_demand"])
@in_loop
async def test_no_line_of_the_log_names_a_call_that_is_not_recorded(tmp_path: Path, record: str) -> None:
    """Whatever is done with it: it is paused, it pauses itself, somebody refuses; one that is kept is named."""
    for found, is_named in ((rule(record), False), (rule("always"), True)):
        site, src = Site(tmp_path / found.record, found), Src()
        call = site.call(src)
        pause = _pause(site, call)
        site.paused(pause)
        site.control.media_event(SelfPaused(pause=pause.model_copy(update={"command": "7" * 26, "cause": "dtmf"})))
        site.press(call, "decline")
        assert site.recorder.may_be_named(call) == is_named
        site.hang_up(src)
        assert (call in site.lines.getvalue()) == is_named


@pytest.mark.parametrize("undecided", ["keep", "discard"])
@in_loop
async def test_a_rule_that_may_not_be_the_calls_decides_nothing_by_its_time(tmp_path: Path, undecided: str) -> None:
    """While the queue is not known the time of the rule that would win is not over, and a refusal holds all along."""
    never = rule("never", id="board", match={"queues": ["Board"]})
    asks = rule("consent", id="hotline", undecided=undecided, decide_within_s=10, **KEYS)
    for refused in (False, True):
        site, src = Site(tmp_path / f"{refused}", never, asks), Src()
        call = site.call(src)
        if refused:
            site.press(call, "decline")
        site.pass_time(11)
        assert (site.of(call).decisions, site.silent_to_the_cloud) == ([], True)
        site.pass_time(20)
        kept = undecided == "keep" and not refused
        assert site.of(call).decisions == [kept]
        assert site.silent_to_the_cloud != kept


@in_loop
async def test_a_regulated_call_is_one_after_a_restart_under_another_policy(tmp_path: Path) -> None:
    """A later version is for later calls: nobody can refuse this one, whatever became of its rule."""
    first, src = Site(tmp_path, rule("always", id="dealers", regulated=True)), Src()
    call = first.call(src)
    second = Site(tmp_path, rule("consent", id="dealers", **KEYS), now=1003.0, version=4)
    second.press(call, "decline")
    second.update(src, metadata(other="+447700900333"))
    assert (second.standing(call), second.of(call).pauses) == ("recorded", [])
    policy = last(second.of(call).sessions)["policy"]
    assert (policy["rule"], policy["version"], policy["record"]) == ("dealers", 3, "always")


@in_loop
async def test_a_call_that_may_not_be_recorded_is_not_after_a_restart_under_another_policy(tmp_path: Path) -> None:
    first, src = Site(tmp_path, rule("never", id="board")), Src()
    first.call(src)
    second = Site(tmp_path, rule("always"), now=1003.0, version=4)
    (call,) = second.media.calls
    second.update(src, metadata(other="+447700900333"))
    assert (second.of(call).silent, second.standing(call)) == (True, "not_recorded")
    assert second.silent_to_the_cloud


@in_loop
async def test_a_call_on_a_line_that_is_not_recorded_is_not_after_a_restart(tmp_path: Path) -> None:
    """Although the run after it does not know its parties any more."""
    never = rule("never", id="board", match={"lines": [LINE]})
    first, src = Site(tmp_path, never), Src()
    first.call(src)
    second = Site(tmp_path, never, now=1003.0)
    (call,) = second.media.calls
    assert second.of(call).silent
    second.pass_time(60)
    assert (second.of(call).decisions, second.standing(call)) == ([], "not_recorded")


def _placeholder() -> str:
    """Metadata that names the other party only."""
    text = metadata()
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if 'participant_id="A"' not in line)


def _pause(site: Site, call: str) -> Pause:
    """A payment system pauses a call by its Call-ID."""
    number = 1000 * round(site.now)
    command = Command(
        id=f"{'7' * 22}{number % 10000:04d}",
        tenant="acme",
        agent="agt_01HZX3Q8W0ABCDEFGHJKMNPQRS",
        issued_at_ms=number,
        expires_at_ms=number + 1,
        action="pause",
        call=None,
        match=token("call_id", "abc@example.com"),
        number=number,
        cause="payment",
        effective_at_ms=None,
        until_ms=None,
        lease_s=900,
        on_expiry="silent",
        by="endpoint:pay",
    )
    order = of_command(command, received_us=site.now_us(), clock=ClockOffset(0, 0))
    site.control.carry_out_by_match(str(command.match), order)
    (pause,) = [one for one in site.of(call).pauses if one.cause == "payment"]
    assert isinstance(pause, Pause)
    return pause
