"""Decisions to agents: signed, strict, and for one call or one name of calls."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import call_decision, canonical
from dualtone.domain.call_decision import Decision, Refresh
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput
from dualtone.domain.recording_ruling import Choice
from tests.call_samples import AGENT, CALL, TENANT, AgentKey

KEY = AgentKey()
KEEP = Decision(
    id="01JD0000000000000000DEC1DE"[:26],
    tenant=TENANT,
    agent=AGENT,
    issued_at_ms=2_000_000_000_000,
    expires_at_ms=2_000_000_060_000,
    call=CALL,
    match=None,
    decision="keep",
    cause="on_demand",
    how="api",
    by="person:b0b",
)
REFRESH = Refresh(KEEP.id, TENANT, AGENT, 2_000_000_000_000, 2_000_000_900_000)


def test_what_the_cloud_signs_the_agent_reads() -> None:
    """Decisions and refreshes survive their envelopes unchanged."""
    assert call_decision.verified(KEEP.sealed_by(KEY), KEY.public_der) == KEEP
    assert call_decision.verified_refresh(REFRESH.sealed_by(KEY), KEY.public_der) == REFRESH


def test_one_kind_of_message_is_not_another() -> None:
    """Neither another key nor another kind of message decides anything."""
    for envelope in (KEEP.sealed_by(AgentKey()), REFRESH.sealed_by(KEY)):
        with pytest.raises(IntegrityError):
            call_decision.verified(envelope, KEY.public_der)


@pytest.mark.parametrize(
    "changed",
    [
        {"match": "a" * 32},
        {"call": None},
        {"decision": "pause"},
        {"cause": "payment"},
        {"how": "dtmf"},
        {"by": ""},
        {"by": "+441632960001"},
        {"tenant": "ACME"},
        {"agent": "x"},
        {"format": 2},
        {"number": 1},
    ],
)
def test_another_form_is_refused(changed: dict[str, Any]) -> None:
    """An agent obeys no decision that it cannot read to the last member."""
    with pytest.raises(MalformedInput):
        call_decision.read(canonical.encode(asdict(KEEP) | changed))


def test_it_expires() -> None:
    """A decision is obeyed until the moment at which it expires, and not at it."""
    assert not KEEP.has_expired(2_000_000_059_999)
    assert KEEP.has_expired(2_000_000_060_000)
    assert REFRESH.has_expired(2_000_000_900_000)


def test_it_stands_for_a_choice() -> None:
    """What the cloud decides counts among the choices that were made for the call."""
    assert replace(KEEP, call=None, match="a" * 32).choice(7) == Choice("keep", "on_demand", "api", 7, "person:b0b")


@given(st.binary(max_size=200))
def test_only_malformed_input_escapes(data: bytes) -> None:
    """Whatever stands in the place of a decision, one error says so."""
    with pytest.raises(DualtoneError):
        call_decision.read(data)
