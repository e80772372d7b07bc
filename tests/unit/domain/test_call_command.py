"""Commands to agents: signed, strict, and numbered so that an old one never undoes a newer one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import call_command, canonical
from dualtone.domain.call_command import Command
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput
from dualtone.domain.signing import Envelope
from tests.call_samples import AGENT, CALL, TENANT, AgentKey

KEY = AgentKey()
PAUSE = Command(
    id="01JD0000000000000000C0MMAN"[:26],
    tenant=TENANT,
    agent=AGENT,
    issued_at_ms=2_000_000_000_000,
    expires_at_ms=2_000_000_060_000,
    action="pause",
    call=CALL,
    match=None,
    number=2_000_000_000_000,
    cause="payment",
    effective_at_ms=1_999_999_997_000,
    until_ms=None,
    lease_s=900,
    on_expiry="silent",
    by="endpoint:01JD0000000000000000END01N",
)


def signed(value: dict[str, Any]) -> Envelope:
    return Envelope.sealed_by(KEY, "command", canonical.encode(value))


def test_round_trip() -> None:
    """What the cloud signed is what the agent reads."""
    assert call_command.verified(PAUSE.sealed_by(KEY), KEY.public_der) == PAUSE


def test_another_key_is_refused() -> None:
    """A command that the cloud did not sign is damage, not an order."""
    with pytest.raises(IntegrityError):
        call_command.verified(PAUSE.sealed_by(AgentKey()), KEY.public_der)


@pytest.mark.parametrize(
    "changed",
    [
        {"match": "a" * 32},
        {"call": None},
        {"call": "x"},
        {"action": "stop"},
        {"action": "resume"},
        {"number": 0},
        {"number": "1"},
        {"lease_s": 0},
        {"lease_s": 14_401},
        {"cause": "boredom"},
        {"by": "someone"},
        {"format": 2},
        {"surprise": 1},
        {"tenant": "A"},
        {"agent": "agt_"},
    ],
)
def test_what_is_no_command(changed: dict[str, Any]) -> None:
    """Signed or not, another form is no command; the refusal quotes nothing of it."""
    value = canonical.decode(PAUSE.sealed_by(KEY).payload) | changed
    with pytest.raises(MalformedInput):
        call_command.verified(signed(value), KEY.public_der)


def test_a_match_goes_without_a_call() -> None:
    """The form that is sent while no call is known."""
    pending = replace(PAUSE, call=None, match="a" * 32)
    assert call_command.verified(pending.sealed_by(KEY), KEY.public_der) == pending


def test_commands_grow_old() -> None:
    """From its last millisecond on a command is refused."""
    assert not PAUSE.has_expired(PAUSE.expires_at_ms - 1)
    assert PAUSE.has_expired(PAUSE.expires_at_ms)


@given(st.integers(0, 2**52), st.integers(0, 2**52))
def test_numbers_only_grow(last: int, now_ms: int) -> None:
    """Above the last one, and never behind the time."""
    number = call_command.next_number(last, now_ms)
    assert number > last
    assert number >= now_ms


@given(st.binary(max_size=200))
def test_no_other_error_escapes(payload: bytes) -> None:
    """Whatever was signed."""
    with pytest.raises(DualtoneError):
        call_command.verified(Envelope.sealed_by(KEY, "command", payload), KEY.public_der)
