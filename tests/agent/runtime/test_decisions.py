"""Judging calls: in whatever order facts, choices and time come, the stronger word holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.recording_policy import RecordingPolicy, Rule
from dualtone.domain.recording_ruling import Choice
from sbc_agent.media.messages import CallPolicy
from sbc_agent.runtime.decisions import Case, Decisions
from tests.agent.runtime.ruled import LINE, OTHER, policy, rule

START_US = 1_800_000_000_000_000
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("choose"),
            st.sampled_from(["keep", "discard"]),
            st.sampled_from(["consent", "personal", "on_demand"]),
            st.sampled_from(["dtmf", "lan", "webhook"]),
        ),
        st.tuples(st.just("learn"), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    max_size=12,
)
RULES = st.sampled_from(
    [
        rule("always"),
        rule("always", personal_allowed=True),
        rule("always", regulated=True),
        rule("consent", undecided="keep"),
        rule("consent", decide_within_s=20),
        rule("live_keep"),
        rule("on_demand"),
        rule("never"),
        rule("never", match={"lines": [LINE]}),
        rule("consent", match={"numbers": [OTHER]}),
    ]
)


def facts(parties: int) -> dict[str, Any]:
    people = [("caller", OTHER), ("callee", LINE)][:parties]
    return {
        "sip_call_id": "dialog",
        "participants": [
            {"participant_id": role, "aor": f"sip:{number}@example.com", "name": "", "role": role, "extensions": {}}
            for role, number in people
        ],
    }


def judged(found: RecordingPolicy, steps: list[tuple[Any, ...]]) -> tuple[Case, list[tuple[str, str | None]]]:
    """A call after these steps and its end; after each, what is wanted and what its fate is."""
    decisions = Decisions(lambda: found)
    now_us, known = START_US, facts(0)
    case = decisions.opened(known, {}, now_us)
    seen = [(case.wanted, case.fate)]
    for step in steps:
        if step[0] == "choose":
            decisions.choose(case, Choice(step[1], step[2], step[3], now_us, "desk:1"), known)
        elif step[0] == "learn":
            known = facts(step[1])
            decisions.consider(case, known, {}, now_us)
        else:
            now_us += 1_000_000 * step[1]
            decisions.pass_time(case, known, {}, now_us)
        seen.append((case.wanted, case.fate))
    decisions.end(case, known, {}, now_us)
    return case, [*seen, (case.wanted, case.fate)]


@given(RULES, STEPS)
def test_every_call_is_decided_at_its_end(found: Rule, steps: list[tuple[Any, ...]]) -> None:
    case, seen = judged(policy(found), steps)
    assert case.fate in ("keep", "discard")
    assert case.due_us is None
    assert all(wanted == "kept" for wanted, fate in seen if fate == "keep")
    assert all(wanted == "silent" for wanted, fate in seen if fate == "discard")


@given(STEPS)
def test_a_regulated_call_is_kept_whatever_comes(steps: list[tuple[Any, ...]]) -> None:
    case, seen = judged(policy(rule("always", regulated=True)), steps)
    assert {fate for _, fate in seen} == {"keep"}
    assert case.may_go_on


@given(RULES, STEPS, STEPS)
def test_who_refuses_is_not_recorded_any_more(found: Rule, before: list[Any], after: list[Any]) -> None:
    """Nothing that comes after a refusal of consent lets a call be kept that is not regulated."""
    steps = [("learn", 2), *before, ("choose", "discard", "consent", "dtmf"), ("learn", 2), *after]
    case, seen = judged(policy(found), steps)
    if not found.regulated:
        assert all(fate == "discard" for _, fate in seen[len(before) + 4 :])
        assert not case.may_go_on


@given(
    st.sampled_from(["keep", "discard"]), st.sampled_from([None, 5, 35]), st.sampled_from(["never", "always"]), STEPS
)
def test_who_refuses_before_the_queue_is_known_is_not_recorded(
    undecided: str, within_s: int | None, of_queue: str, steps: list[tuple[Any, ...]]
) -> None:
    """Whichever rule may yet win, and whatever times run out meanwhile."""
    first = rule(of_queue, id="queue", match={"queues": ["Board"]})
    rules = policy(first, rule("consent", undecided=undecided, decide_within_s=within_s))
    _, seen = judged(rules, [("choose", "discard", "consent", "dtmf"), *steps])
    assert all(wanted != "kept" for wanted, _ in seen)


@given(RULES, STEPS)
def test_a_call_of_which_nothing_may_be_known_is_never_kept(found: Rule, steps: list[tuple[Any, ...]]) -> None:
    if found.record == "never":
        _, seen = judged(policy(found), [("learn", 2), *steps])
        assert all(fate == "discard" for _, fate in seen[1:])


@given(RULES, STEPS)
def test_a_later_run_judges_as_the_one_before(found: Rule, steps: list[tuple[Any, ...]]) -> None:
    """What the journal says of a call is all that its fate depends on."""
    decisions = Decisions(lambda: policy(found))
    case, _ = judged(policy(found), steps)
    told = case.wanted
    again, was = decisions.restored(case.to_json(told), facts(0), START_US)
    assert (again.fate, again.choices, again.kept, again.wanted, was) == (
        case.fate,
        case.choices,
        case.kept,
        told,
        told,
    )


@pytest.mark.parametrize("note", [{}, {"told": "kept"}, {"told": "x", "rule": 1}], ids=range(3))
def test_a_note_that_cannot_be_read_is_judged_anew(note: dict[str, Any]) -> None:
    """And nothing of the earlier run is taken over for it."""
    case, told = Decisions(lambda: policy(rule("consent"))).restored(note | {"x": 1}, facts(2), START_US)
    assert (case.wanted, told) == ("waiting", "silent")


@pytest.mark.parametrize("last", [[], [rule("always", id="last", tones="keep", card="off")]], ids=["built-in", "rule"])
def test_digits_are_left_out_while_the_rule_is_not_known(last: list[Rule]) -> None:
    """A rule further up may want them blanked: what was stored of them could not be taken back."""
    usual = CallPolicy(tones="keep", card="off")
    decisions = Decisions(lambda: policy(rule("consent", match={"queues": ["Cards"]}), *last), usual=lambda: usual)
    case = decisions.opened(facts(2), {}, START_US)
    assert (decisions.profile(case).tones, decisions.profile(case).card) == ("blank", "pause")
    decisions.pass_time(case, facts(2), {}, START_US + 30_000_000)
    assert (decisions.profile(case).tones, decisions.profile(case).card) == ("keep", "off")


def test_how_keys_are_treated_follows_the_rule() -> None:
    usual = CallPolicy(lease_s=60)
    decisions = Decisions(lambda: policy(rule("consent", accept_keys="1", card="off")), usual=lambda: usual)
    case = decisions.opened(facts(2), {}, START_US)
    assert decisions.profile(case) == CallPolicy(tones="blank", card="off", accept_keys="1", lease_s=60)
    assert Decisions(usual=lambda: usual).profile(Case(START_US)) == usual
