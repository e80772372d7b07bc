"""Which calls are kept: the tables below read like a written policy, and the properties hold for every policy."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import asdict, replace
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.recording_policy import Match, Record, RecordingPolicy, Rule
from dualtone.domain.recording_ruling import (
    CallFacts,
    Cause,
    Choice,
    Ruling,
    decide,
    evaluate,
    settle,
)
from tests.call_samples import TENANT

Person = tuple[str, str]

CUSTOMER, OTHER = ("caller", "sip:+441632960001@carrier"), ("caller", "sip:+33123456789@carrier")
DESK, DEALER, BOARD = ("callee", "sip:2001@pbx"), ("callee", "sip:2150@pbx"), ("callee", "sip:2900@pbx")


def rule(name: str, record: Record = "always", match: Match | None = None, **members: Any) -> Rule:
    return Rule(id=name, record=record, basis="contract", match=match or Match(), **members)


RULES = (
    rule("dealers", match=Match(groups=("dealing",)), regulated=True),
    rule("hotline", "consent", Match(queues=("Hotline", "5000"), directions=("inbound",)), undecided="discard"),
    rule("board", "never", Match(lines=("29??",))),
    rule("friends-of-the-board", "never", Match(lines=("2001",), numbers=("+3312345????",))),
    rule("night", "live_keep", Match(lines=("20*",), hours="22:00-06:00", timezone="Europe/London")),
    rule("saturday", "on_demand", Match(weekdays=("sat",), timezone="Europe/London")),
    rule("outbound", match=Match(directions=("outbound",)), personal_allowed=True),
)
POLICY = RecordingPolicy(TENANT, 3, 0, RULES, {"dealing": ("21??",)}, ("2*",))
LONDON = ZoneInfo("Europe/London")
NOON, NIGHT, LATE = "2026-11-24 12:00", "2026-11-25 05:59", "2026-11-24 21:59"
SATURDAY, AFTER_MIDNIGHT = "2026-11-28 12:00", "2026-11-29 00:30"


def at(local: str, zone: ZoneInfo = LONDON) -> int:
    return int(dt.datetime.fromisoformat(local).replace(tzinfo=zone).timestamp() * 1000)


def call(*parties: Person, when: str = NOON, **extensions: str) -> CallFacts:
    people = [{"role": role, "aor": aor} for role, aor in parties]
    return CallFacts.of_session({"participants": people, "extensions": extensions}, at(when))


def back(party: Person) -> Person:
    return ("callee" if party[0] == "caller" else "caller", party[1])


WRITTEN_POLICY: list[tuple[str, CallFacts, str]] = [
    ("a customer calls a desk in office hours", call(CUSTOMER, DESK), "default"),
    ("a customer calls a dealer", call(CUSTOMER, DEALER), "dealers"),
    ("a dealer calls a customer", call(back(CUSTOMER), back(DEALER)), "dealers"),
    ("a dealer calls the board", call(back(DEALER), BOARD), "dealers"),
    ("a customer calls the hotline", call(CUSTOMER, DESK, queue_name="HOTLINE"), "hotline"),
    ("a customer calls the number of the hotline", call(CUSTOMER, DESK, dialedDigits="sip:5000@pbx"), "hotline"),
    ("the hotline calls back", call(back(CUSTOMER), back(DESK), queue_name="hotline"), "outbound"),
    ("a customer comes through another queue", call(CUSTOMER, DESK, queue_name="sales"), "default"),
    ("a customer comes through a queue to a dealer", call(CUSTOMER, DEALER, queue_name="hotline"), "dealers"),
    ("anybody calls the board", call(CUSTOMER, BOARD), "board"),
    ("the board calls anybody", call(back(CUSTOMER), back(BOARD)), "board"),
    ("a desk calls the board", call(("caller", "2001"), BOARD), "board"),
    ("a friend of the board calls a desk", call(OTHER, DESK), "friends-of-the-board"),
    ("a friend of the board calls another desk", call(OTHER, ("callee", "2002")), "default"),
    ("a withheld number calls a desk", call(("caller", "sip:anonymous@anonymous.invalid"), DESK), "default"),
    ("a desk is called a minute before the night", call(CUSTOMER, DESK, when=LATE), "default"),
    ("a desk is called in the last minute of the night", call(CUSTOMER, DESK, when=NIGHT), "night"),
    ("a dealer is called at night", call(CUSTOMER, DEALER, when=NIGHT), "dealers"),
    ("a desk is called on a Saturday", call(CUSTOMER, DESK, when=SATURDAY), "saturday"),
    ("a desk is called in the night after Saturday", call(CUSTOMER, DESK, when=AFTER_MIDNIGHT), "night"),
    ("another line calls out", call(back(CUSTOMER), ("caller", "2300")), "outbound"),
    ("line to line", call(("caller", "2300"), ("callee", "2301")), "default"),
    ("strangers in transit", call(CUSTOMER, ("callee", "+441632960002")), "default"),
    ("nobody is named at all", call(), "default"),
]


@pytest.mark.parametrize(
    ("facts", "expected"), [case[1:] for case in WRITTEN_POLICY], ids=[case[0] for case in WRITTEN_POLICY]
)
def test_the_written_policy(facts: CallFacts, expected: str) -> None:
    """The first rule that matches a call decides; one that none matches is recorded."""
    ruling = evaluate(POLICY, facts, final=True)
    assert (ruling.rule.id, ruling.version, ruling.provisional) == (expected, 3, False)


def test_without_a_policy_every_call_is_recorded() -> None:
    """Nobody has to write rules to be recorded."""
    ruling = evaluate(None, call(CUSTOMER, DESK))
    assert (ruling.rule.id, ruling.rule.record, ruling.version, ruling.waits) == ("default", "always", 0, False)


NEVER_2001 = (rule("a", "never", Match(lines=("2001",))),)
BY_QUEUE = Match(queues=("q",))
CONSENT_BY_QUEUE = (rule("q", "consent", BY_QUEUE),)
CONSENT_BY_QUEUE_FROM_ONE = (rule("q", "consent", replace(BY_QUEUE, hours="13:00-14:00", timezone="UTC")),)
REGULATED_BY_QUEUE = rule("q", match=BY_QUEUE, regulated=True)
NEVER_BY_QUEUE, ON_DEMAND_BY_QUEUE = rule("q", "never", BY_QUEUE), rule("q", "on_demand", BY_QUEUE)
NEVER_OUTBOUND = (rule("o", "never", Match(directions=("outbound",))),)
PLACEHOLDER = ("callee", "sip:ASBCE@sbc")

PROVISIONAL: list[tuple[str, tuple[Rule, ...], CallFacts, str, bool, bool, bool]] = [
    # name, rules, what is known, rule by now, provisional, waits, silent
    ("line known, enough", NEVER_2001, call(DESK), "a", False, False, False),
    ("line not known yet", NEVER_2001, call(CUSTOMER), "default", True, True, False),
    ("nobody known yet", NEVER_2001, call(), "default", True, True, False),
    ("a placeholder is nobody", NEVER_2001, call(CUSTOMER, PLACEHOLDER), "default", True, True, False),
    ("both known, no match", NEVER_2001, call(CUSTOMER, DEALER), "default", False, False, False),
    ("queue not told yet", CONSENT_BY_QUEUE, call(CUSTOMER, DESK), "default", True, True, False),
    ("another queue told", CONSENT_BY_QUEUE, call(CUSTOMER, DESK, queue="p"), "default", False, False, False),
    ("not its hours anyway", CONSENT_BY_QUEUE_FROM_ONE, call(CUSTOMER, DESK), "default", False, False, False),
    ("recorded whatever the queue", (REGULATED_BY_QUEUE,), call(CUSTOMER, DESK), "default", True, False, False),
    ("regulated, or by consent", (REGULATED_BY_QUEUE, rule("c", "consent")), call(CUSTOMER), "c", True, True, False),
    ("never, or on demand", (NEVER_BY_QUEUE, rule("d", "on_demand")), call(CUSTOMER), "d", True, True, True),
    ("on demand, or never", (ON_DEMAND_BY_QUEUE, rule("n", "never")), call(CUSTOMER), "n", True, True, True),
    ("on demand, or recorded", (ON_DEMAND_BY_QUEUE,), call(CUSTOMER), "default", True, True, False),
    ("way unknown", NEVER_OUTBOUND, call(("unknown", "2001"), ("unknown", "+331")), "default", True, True, False),
    ("on demand", (rule("d", "on_demand"),), call(), "d", False, True, True),
    ("live-keep", (rule("l", "live_keep"),), call(), "l", False, True, False),
    ("consent", (rule("c", "consent"),), call(), "c", False, True, False),
    ("recorded, though it may be personal", (rule("p", personal_allowed=True),), call(), "p", False, True, False),
]


@pytest.mark.parametrize(
    ("rules", "facts", "by_now", "provisional", "waits", "silent"),
    [case[1:] for case in PROVISIONAL],
    ids=[case[0] for case in PROVISIONAL],
)
def test_what_is_not_known_yet_makes_a_call_wait(
    rules: tuple[Rule, ...], facts: CallFacts, by_now: str, *, provisional: bool, waits: bool, silent: bool
) -> None:
    """A call waits while a rule that comes first may still match, unless it is recorded at once whichever matches."""
    ruling = evaluate(replace(POLICY, rules=rules), facts)
    assert (ruling.rule.id, ruling.provisional, ruling.waits, ruling.silent) == (by_now, provisional, waits, silent)


def test_vendors_name_parties_that_the_metadata_does_not() -> None:
    """A call whose parties stand in vendor data alone is judged by these."""
    told = {"extensions": {"callingPartyNumber": "sip:+441632960001@c", "calledPartyNumber": "sip:2900@pbx"}}
    assert evaluate(POLICY, CallFacts.of_session(told, at(NOON)), final=True).rule.id == "board"
    cisco = {"extensions": {"X-Cisco-Recording-Participant": "sip:2900@pbx"}}
    assert evaluate(POLICY, CallFacts.of_session(cisco, at(NOON)), final=True).rule.id == "board"


def test_a_header_field_may_tell_the_queue() -> None:
    """What the SBC says beside the metadata counts as what it says in it."""
    facts = {"participants": [{"role": role, "aor": aor} for role, aor in (CUSTOMER, DESK)]}
    told = CallFacts.of_session(facts, at(NOON), {"x-queue-name": "Hotline", "x-other": "5000"})
    assert told.queues == ("hotline",)
    assert evaluate(POLICY, told).rule.id == "hotline"


CLOCKS: list[tuple[str, str, ZoneInfo, bool]] = [
    ("the minute before spring forward: 00:59 by the wall", "2026-03-29T00:59+00:00", LONDON, False),
    ("the minute after: 02:00 by the wall", "2026-03-29T01:00+00:00", LONDON, False),
    ("01:30 in summer time, the first", "2026-10-25T00:30+00:00", LONDON, True),
    ("01:30 in winter time, the second", "2026-10-25T01:30+00:00", LONDON, True),
    ("02:00 in winter time", "2026-10-25T02:00+00:00", LONDON, False),
    ("01:30 on the other side of the world", "2026-06-01T12:30+00:00", ZoneInfo("Pacific/Tongatapu"), True),
    ("a quarter to two in Kathmandu", "2026-06-01T20:00+00:00", ZoneInfo("Asia/Kathmandu"), True),
]


@pytest.mark.parametrize(
    ("moment", "zone", "expected"), [case[1:] for case in CLOCKS], ids=[case[0] for case in CLOCKS]
)
def test_clocks_that_change(moment: str, zone: ZoneInfo, *, expected: bool) -> None:
    """Hours are those of the wall clock: an hour that comes twice counts twice, one that is left out never."""
    match = Match(hours="01:00-02:00", timezone=zone.key)
    facts = replace(call(), at_ms=int(dt.datetime.fromisoformat(moment).timestamp() * 1000))
    assert (evaluate(replace(POLICY, rules=(rule("r", "never", match),)), facts).rule.id == "r") is expected


YES = Choice("keep", "consent", "dtmf", 1)
NO = Choice("discard", "consent", "dtmf", 2)
PERSONAL = Choice("discard", "personal", "lan", 3)
NOT_PERSONAL = Choice("keep", "personal", "lan", 3)
KEEP = Choice("keep", "on_demand", "api", 4)
DROP = Choice("discard", "on_demand", "api", 5)

REGULATED = rule("regulated", regulated=True)
ALWAYS = rule("always")
MAYBE_PERSONAL = rule("maybe-personal", personal_allowed=True)
CONSENT = rule("consent", "consent")
CONSENT_OR_KEPT = rule("consent-or-kept", "consent", undecided="keep", personal_allowed=True)
ON_DEMAND = rule("on-demand", "on_demand")
LIVE_KEEP = rule("live-keep", "live_keep", personal_allowed=True)
NEVER = rule("never", "never")

CHOICES: list[tuple[str, Rule, list[Choice], str | None, str]] = [
    # name, rule, choices, what is decided, what becomes of the call at its end
    ("a regulated call is kept", REGULATED, [], "keep", "keep"),
    ("a regulated call is kept though a party refuses", REGULATED, [NO], "keep", "keep"),
    ("a regulated call is never personal", REGULATED, [PERSONAL, NO, DROP], "keep", "keep"),
    ("an ordinary call is kept", ALWAYS, [], "keep", "keep"),
    ("an ordinary call ends with a refusal", ALWAYS, [NO], "discard", "discard"),
    ("nobody may make an ordinary call personal", ALWAYS, [PERSONAL], "keep", "keep"),
    ("a call that may be personal waits, and is kept", MAYBE_PERSONAL, [], None, "keep"),
    ("a personal call is discarded", MAYBE_PERSONAL, [PERSONAL], "discard", "discard"),
    ("a call that is not personal is kept at once", MAYBE_PERSONAL, [NOT_PERSONAL], "keep", "keep"),
    ("personal and not: the stronger word counts", MAYBE_PERSONAL, [PERSONAL, NOT_PERSONAL], "discard", "discard"),
    ("consent says nothing of whether it is personal", MAYBE_PERSONAL, [YES], None, "keep"),
    ("opt-in, no key pressed: nothing is kept", CONSENT, [], None, "discard"),
    ("opt-in, 1: kept", CONSENT, [YES], "keep", "keep"),
    ("opt-in, 2: not kept", CONSENT, [NO], "discard", "discard"),
    ("opt-in, 2 then 1: a refusal stays one", CONSENT, [NO, YES], "discard", "discard"),
    ("opt-in, 1 then 2: consent is withdrawn", CONSENT, [YES, NO], "discard", "discard"),
    ("an agent's wish to keep is not the caller's consent", CONSENT, [KEEP], None, "discard"),
    ("opt-in, and a user calls it personal: not for them to say", CONSENT, [PERSONAL, YES], "keep", "keep"),
    ("opt-out, no key pressed: kept", CONSENT_OR_KEPT, [], None, "keep"),
    ("opt-out, personal", CONSENT_OR_KEPT, [YES, PERSONAL], "discard", "discard"),
    ("on demand, not asked for", ON_DEMAND, [], None, "discard"),
    ("on demand, asked for", ON_DEMAND, [KEEP], "keep", "keep"),
    ("on demand, asked for and dropped", ON_DEMAND, [KEEP, DROP], "discard", "discard"),
    ("consent is no request", ON_DEMAND, [YES], None, "discard"),
    ("on demand, asked for, but a party refuses", ON_DEMAND, [KEEP, NO], "discard", "discard"),
    ("live-keep, nobody asked", LIVE_KEEP, [], None, "discard"),
    ("live-keep, asked for late", LIVE_KEEP, [KEEP], "keep", "keep"),
    ("live-keep, asked for, but personal", LIVE_KEEP, [KEEP, PERSONAL], "discard", "discard"),
    ("never is never", NEVER, [KEEP, YES], "discard", "discard"),
]


def ruling(of: Rule) -> Ruling:
    return evaluate(replace(POLICY, rules=(of,)), call(), final=True)


@pytest.mark.parametrize(
    ("of", "choices", "decided", "ends"), [case[1:] for case in CHOICES], ids=[case[0] for case in CHOICES]
)
def test_what_becomes_of_a_call(of: Rule, choices: list[Choice], decided: str | None, ends: str) -> None:
    """Who wins: the duty to record, then a refusal, then consent or the wish to keep, then the rule's default."""
    assert (decide(ruling(of), choices), settle(ruling(of), choices)) == (decided, ends)


def test_while_the_rule_is_not_known_nothing_is_decided() -> None:
    """A refusal of a call that may turn out to be regulated destroys nothing yet."""
    rules = (rule("q", match=Match(queues=("q",)), regulated=True), CONSENT)
    unsure = evaluate(replace(POLICY, rules=rules), call(CUSTOMER, DESK))
    assert decide(unsure, [NO]) is None
    assert decide(evaluate(replace(POLICY, rules=rules), call(CUSTOMER, DESK, queue="q")), [NO]) == "keep"
    assert decide(evaluate(replace(POLICY, rules=rules), call(CUSTOMER, DESK), final=True), [NO]) == "discard"


def test_a_key_asks_for_the_recording_where_it_is_on_demand() -> None:
    """The same key consents where consent is asked, and keeps where keeping is."""
    assert Choice.answered(ruling(CONSENT), "accept", "dtmf", 9) == Choice("keep", "consent", "dtmf", 9)
    assert Choice.answered(ruling(LIVE_KEEP), "accept", "dtmf", 9) == Choice("keep", "on_demand", "dtmf", 9)
    assert Choice.answered(ruling(LIVE_KEEP), "decline", "header", 9) == Choice("discard", "consent", "header", 9)


def test_what_the_record_says() -> None:
    """A kept call names rule, version and basis, and every choice with its time and its way."""
    assert asdict(ruling(CONSENT).kept("dtmf", 12, "person:x")) == {
        "version": 3,
        "rule": "consent",
        "record": "consent",
        "basis": "contract",
        "decision": "keep",
        "how": "dtmf",
        "at_us": 12,
        "by": "person:x",
    }
    assert asdict(NO.chosen) == {"choice": "decline", "how": "dtmf", "at_us": 2, "by": ""}


records = st.sampled_from(get_args(Record))
causes = st.sampled_from(get_args(Cause))
choices = st.lists(
    st.builds(Choice, st.sampled_from(["keep", "discard"]), causes, st.just("api"), st.integers(0, 9)), max_size=4
)
matches = st.builds(
    Match,
    lines=st.sampled_from([(), ("2001",), ("2*",)]),
    queues=st.sampled_from([(), ("q",), ("5000",)]),
    directions=st.sampled_from([(), ("inbound",), ("outbound", "internal")]),
    numbers=st.sampled_from([(), ("+44*",)]),
)


@st.composite
def rule_lists(draw: st.DrawFn) -> tuple[Rule, ...]:
    regulated = draw(st.lists(matches, max_size=2))
    others = draw(st.lists(st.tuples(records, matches, st.booleans()), max_size=3))
    return (
        *(rule(f"r{place}", match=match, regulated=True) for place, match in enumerate(regulated)),
        *(
            rule(f"o{place}", record, match, personal_allowed=personal and record != "never")
            for place, (record, match, personal) in enumerate(others)
        ),
    )


parties: st.SearchStrategy[list[Person]] = st.lists(
    st.sampled_from([CUSTOMER, OTHER, DESK, DEALER, ("unknown", "2001"), ("unknown", "anonymous@x")]), max_size=3
)
queue_names = st.sampled_from([{}, {"queue": "q"}, {"queue": "other"}])


@given(rule_lists(), parties, queue_names, choices)
def test_precedence(rules: tuple[Rule, ...], people: list[Person], queue: dict[str, str], chosen: list[Choice]) -> None:
    """Regulated > refusal > consent or keep > default, whatever the rules and in whatever order choices were made."""
    ruled = evaluate(replace(POLICY, rules=rules), call(*people, **queue), final=True)
    outcome = decide(ruled, chosen)
    if ruled.rule.regulated:
        assert outcome == "keep"
    elif ruled.rule.record == "never" or NO in [replace(one, how="dtmf", at_us=2) for one in chosen]:
        assert outcome == "discard"
    assert {decide(ruled, list(order)) for order in itertools.permutations(chosen)} == {outcome}
    assert settle(ruled, chosen) == (outcome or ruled.rule.by_default)


@given(rule_lists(), parties, queue_names, parties, queue_names)
def test_a_ruling_that_is_not_provisional_is_the_last_one(
    rules: tuple[Rule, ...],
    people: list[Person],
    queue: dict[str, str],
    more: list[Person],
    later: dict[str, str],
) -> None:
    """A ruling that is not provisional is the one that `final` gives, and only a call that waits can be silent."""
    policy = replace(POLICY, rules=rules)
    for facts in (call(*people, **queue), call(*people, *more, **(queue | later))):
        first, last = evaluate(policy, facts), evaluate(policy, facts, final=True)
        assert not last.provisional
        assert first.provisional or first == last
        assert first.waits or not first.silent
        # What records at once in the end was never left out: it waited, or was recorded from the start.
        assert last.rule.record == "never" or first.waits or first.rule.record != "never"


@given(rule_lists(), parties, queue_names, choices)
def test_a_regulated_call_is_never_silent_and_never_lost(
    rules: tuple[Rule, ...], people: list[Person], queue: dict[str, str], chosen: list[Choice]
) -> None:
    """Whatever is chosen while its rule is unknown, a call that turns out to be regulated is kept from its start."""
    policy = replace(POLICY, rules=rules)
    facts = call(*people, **queue)
    first, last = evaluate(policy, facts), evaluate(policy, facts, final=True)
    if last.rule.regulated:
        assert not first.silent
        assert decide(first, chosen) != "discard"
        assert decide(last, chosen) == "keep"
