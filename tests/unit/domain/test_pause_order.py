"""Orders: what a caller may say of times, and what becomes of it in ledgers and commands."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import pause_order
from dualtone.domain.errors import MalformedInput
from tests.call_samples import AGENT, CALL, TENANT

NOW: Final = 2_000_000_000_000
COMMAND: Final = "01JD0000000000000000000000"
HOUR: Final = 3_600_000


def pause(**changed: Any) -> pause_order.Order:
    values: dict[str, Any] = {"command": COMMAND, "cause": "payment", "by": "endpoint:e", "received_at_ms": NOW}
    return pause_order.pause(**(values | changed))


@pytest.mark.parametrize(
    ("name", "said", "begins_ms"),
    [
        ("nothing said: receipt counts", {}, NOW),
        ("back-dated", {"effective_at_ms": NOW - 3_000}, NOW - 3_000),
        ("a clock that is ahead: now", {"effective_at_ms": NOW + 90_000}, NOW),
        ("three days back", {"effective_at_ms": NOW - 72 * HOUR}, NOW - 72 * HOUR),
        ("with its end", {"effective_at_ms": NOW - 9_000, "until_ms": NOW - 1_000}, NOW - 9_000),
        ("with an end to come", {"until_ms": NOW + 4 * HOUR}, NOW),
    ],
)
def test_when_a_pause_begins(name: str, said: dict[str, Any], begins_ms: int) -> None:
    """Never after we heard of it."""
    assert pause(**said).effective_at_ms == begins_ms, name


@pytest.mark.parametrize(
    "said",
    [
        {"effective_at_ms": NOW - 72 * HOUR - 1},
        {"until_ms": NOW},
        {"effective_at_ms": NOW - 5, "until_ms": NOW - 5},
        {"effective_at_ms": NOW + 10, "until_ms": NOW},
        {"until_ms": NOW + 4 * HOUR + 1},
    ],
)
def test_what_cannot_be_a_span(said: dict[str, Any]) -> None:
    """Too far back, empty, or longer than any lease."""
    with pytest.raises(MalformedInput) as refusal:
        pause(**said)
    assert refusal.value.http_status == 422


def test_a_command_to_a_call_keeps_until_its_queue_forgets() -> None:
    """A pause that an agent hears after three hours without an uplink still counts."""
    command = pause(effective_at_ms=NOW - 3_000).for_call(TENANT, AGENT, CALL, 7, NOW + 20)
    assert (command.call, command.match, command.number, command.effective_at_ms) == (CALL, None, 7, NOW - 3_000)
    assert not command.has_expired(NOW + 13 * 24 * HOUR)


def test_a_command_by_match_keeps_for_a_minute() -> None:
    """As long as the cloud keeps it itself."""
    command = pause().for_match(TENANT, AGENT, "a" * 32, 7, NOW)
    assert (command.call, command.match) == (None, "a" * 32)
    assert (command.has_expired(NOW + 59_999), command.has_expired(NOW + 60_000)) == (False, True)


def test_a_resume_carries_no_time() -> None:
    """It acts when it comes."""
    order = pause_order.resume(command=COMMAND, cause="payment", by="person:p", received_at_ms=NOW)
    command = order.for_call(TENANT, AGENT, CALL, 7, NOW)
    assert (command.action, command.effective_at_ms, command.until_ms) == ("resume", None, None)


@given(st.integers(NOW - 1000, NOW + 1000), st.sampled_from(["payment", "manual"]), st.booleans())
def test_a_resume_is_overtaken_by_newer_pauses_of_its_cause_alone(
    received_at_ms: int, cause: Any, was_superseded: bool
) -> None:
    """A pause is never overtaken: silence is the safe side."""
    newer = pause(received_at_ms=received_at_ms, cause=cause).for_ledger(5)
    if was_superseded:
        object.__setattr__(newer, "outcome", "superseded")
    order = pause_order.resume(command=COMMAND, cause="payment", by="person:p", received_at_ms=NOW)
    overtaken = received_at_ms > NOW and cause == "payment" and not was_superseded
    assert order.comes_after([newer]) is not overtaken
    assert pause(received_at_ms=NOW - 5_000).comes_after([newer])
