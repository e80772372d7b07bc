"""Reports of agents: signed, strict, and readable before their sender's key is known."""

from __future__ import annotations

import base64
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import agent_events, canonical
from dualtone.domain.agent_events import (
    AckEvent,
    CallEvent,
    ClockOffset,
    CutEvent,
    HealthEvent,
    LeaseEvent,
    Report,
    SilentFrom,
    SpoolState,
)
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput
from dualtone.domain.signing import Envelope
from tests.call_samples import AGENT, ANSWERED_US, CALL, TENANT, AgentKey

KEY = AgentKey()
COMMAND: Final = "01JD0000000000000000C0MMAN"
EVENTS: Final[list[agent_events.Event]] = [
    CallEvent(CALL, 1, "live", ANSWERED_US, None, ["a" * 32], base64.b64encode(b"sealed").decode(), []),
    AckEvent(
        CALL,
        COMMAND,
        7,
        "cloud",
        "pause",
        "payment",
        "acknowledged",
        ANSWERED_US,
        ANSWERED_US + 1,
        ANSWERED_US + 1,
        [SilentFrom(0, 160, ANSWERED_US), SilentFrom(1, None, ANSWERED_US)],
        ["payment"],
        "endpoint:01JD0000000000000000END01N",
        ANSWERED_US,
    ),
    CutEvent(CALL, COMMAND, ANSWERED_US, ANSWERED_US + 5, ["part-00-000001.dtp"]),
    LeaseEvent(CALL, "payment", "silent", ANSWERED_US),
    HealthEvent([CALL], SpoolState(1, 2, 3), {"disk": 1}, "0.1.0", 0),
]
REPORT: Final = Report(TENANT, AGENT, 1, ANSWERED_US, ClockOffset(-1_500, 800), EVENTS)


def test_round_trip() -> None:
    """Every kind of event arrives as it was signed."""
    assert agent_events.verified(REPORT.sealed_by(KEY), KEY.public_der) == REPORT
    assert EVENTS[0].sealed_bytes == b"sealed"  # type: ignore[union-attr]


def test_read_tells_whose_key_to_look_up() -> None:
    """It verifies nothing, so nothing else may be done with it."""
    assert agent_events.read(REPORT.sealed_by(AgentKey())).agent == AGENT


def test_another_key_is_refused() -> None:
    """An event that its agent did not sign is damage."""
    with pytest.raises(IntegrityError):
        agent_events.verified(REPORT.sealed_by(AgentKey()), KEY.public_der)


@pytest.mark.parametrize(
    ("place", "changed"),
    [
        (0, {"type": "ring"}),
        (0, {"matches": ["A" * 32]}),
        (0, {"matches": ["a" * 32] * 65}),
        (0, {"sealed": "not base64"}),
        (0, {"revision": -1}),
        (1, {"outcome": "perhaps"}),
        (1, {"origin": "moon"}),
        (1, {"number": True}),
        (1, {"silent_from": [{"stream": 0, "rtp_timestamp": 2**32, "at_us": 0}]}),
        (2, {"parts": ["../../etc/passwd"]}),
        (3, {"call": "acme#call"}),
        (4, {"alarms": {"+442079460123": 1}}),
        (4, {"extra": 1}),
    ],
)
def test_what_is_no_report(place: int, changed: dict[str, Any]) -> None:
    """One event of another form and the report is malformed; the message quotes nothing."""
    value = canonical.decode(REPORT.sealed_by(KEY).payload)
    value["events"][place] |= changed
    with pytest.raises(MalformedInput, match="well-formed report"):
        agent_events.read(Envelope.sealed_by(KEY, "agent-events", canonical.encode(value)))


def test_an_overlong_report_is_not_parsed() -> None:
    """Its size is looked at first."""
    with pytest.raises(MalformedInput, match="too long"):
        agent_events.read(Envelope.sealed_by(KEY, "agent-events", b"[" * 300_000))


@given(st.binary(max_size=300))
def test_no_other_error_escapes(payload: bytes) -> None:
    """Whatever was signed."""
    with pytest.raises(DualtoneError):
        agent_events.verified(Envelope.sealed_by(KEY, "agent-events", payload), KEY.public_der)


def test_events_are_parted_into_reports() -> None:
    """No report holds more than its limit, and none is lost."""
    parted = agent_events.batches(EVENTS * 100)
    assert [len(run) for run in parted] == [256, 244]
