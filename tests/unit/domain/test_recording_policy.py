"""The form of a recording policy: signed, strict, and refused with a word on what to write instead."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import canonical, recording_policy
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput
from dualtone.domain.recording_policy import HeaderConsent, Match, RecordingPolicy, Rule
from dualtone.domain.signing import Envelope
from tests.call_samples import TENANT, AgentKey

KEY = AgentKey()
POLICY = RecordingPolicy(
    tenant=TENANT,
    version=7,
    issued_at_ms=2_000_000_000_000,
    rules=(
        Rule(
            id="dealers",
            record="always",
            basis="legal_obligation",
            name="Dealing room (MiFID II)",
            match=Match(groups=("dealers",)),
            regulated=True,
            tones="keep",
            on_failure="closed",
        ),
        Rule(
            id="sales",
            record="consent",
            basis="consent",
            match=Match(queues=("Sales",), weekdays=("mon", "fri"), hours="22:00-06:00", timezone="Europe/London"),
            accept_keys="1",
            decline_keys="2",
            headers=HeaderConsent(name="X-Consent", accept=("yes",), decline=("no",)),
            undecided="keep",
            decide_within_s=60,
        ),
    ),
    groups={"dealers": ("21??", "+44207946*")},
    lines=("2*",),
)


def test_what_the_cloud_signs_the_agent_reads() -> None:
    """A policy survives its envelope unchanged."""
    assert recording_policy.verified(POLICY.sealed_by(KEY), KEY.public_der) == POLICY


def test_another_key_is_refused() -> None:
    """A policy that the cloud did not sign decides nothing."""
    with pytest.raises(IntegrityError):
        recording_policy.verified(POLICY.sealed_by(AgentKey()), KEY.public_der)


def test_another_kind_of_message_is_no_policy() -> None:
    """A signature of the right key under another kind does not pass."""
    with pytest.raises(IntegrityError):
        recording_policy.verified(Envelope.sealed_by(KEY, "command", b"{}"), KEY.public_der)


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"version": 0},
        {"version": "7"},
        {"tenant": "ACME"},
        {"rules": [{}]},
        {"rules": [asdict(POLICY.rules[1]), asdict(POLICY.rules[0])]},
        {"rules": [asdict(POLICY.rules[1])] * 2},
        {"groups": {}},
        {"groups": {"dealers": ["*"]}},
        {"lines": ["*"]},
        {"more": 1},
    ],
)
def test_another_form_is_refused(changed: dict[str, Any]) -> None:
    """An agent obeys no policy that it cannot read to the last member."""
    with pytest.raises(MalformedInput):
        recording_policy.read(canonical.encode(asdict(POLICY) | changed))


@given(st.binary(max_size=200))
def test_only_malformed_input_escapes(data: bytes) -> None:
    """Whatever stands in the place of a policy, one error says so."""
    with pytest.raises(DualtoneError):
        recording_policy.read(data)


def test_a_regulated_rule_stands_above_what_could_hide_it() -> None:
    """The order of rules cannot take a line out of what must be recorded."""
    never = Rule(id="quiet", record="never", basis="legitimate_interests")
    (problem,) = recording_policy.contradictions((never, POLICY.rules[0]), {"dealers": ("21??",)})
    assert problem == "rule `dealers` is regulated: move it above `quiet`, which could hide it"


def test_the_built_in_rule_keeps_its_id() -> None:
    """Nobody's rule passes for the one that records what no rule matches."""
    (problem,) = recording_policy.contradictions((Rule(id="default", record="never", basis="contract"),), {})
    assert "this `id` is taken" in problem


@pytest.mark.parametrize(
    ("hours", "expected"),
    [("00:00-24:00", (0, 1440)), ("09:00-17:30", (540, 1050)), ("22:00-06:00", (1320, 360))],
)
def test_hours_are_minutes_of_the_day(hours: str, expected: tuple[int, int]) -> None:
    """A time of day is read to the minute, midnight as its end included."""
    assert recording_policy.minutes(hours) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["Yes"], "accept"), ([" no "], "decline"), (["yes", "no"], "decline"), (["yes please"], None), ([], None)],
)
def test_a_header_tells_the_choice(values: list[str], expected: str | None) -> None:
    """Whole values count, in any case; where both are told, the refusal does."""
    assert HeaderConsent(name="X-Consent", accept=("yes",), decline=("no",)).read(values) == expected
