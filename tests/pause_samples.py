"""Pauses as an agent's manifest has them, in seconds of a test's call."""

from __future__ import annotations

from typing import Any, Final

from dualtone.domain.call_files import PauseEntry, SilentEntry
from tests.call_samples import ANSWERED_US

S: Final = 1_000_000
WHO: Final = "person:7b0e3f5a"


def entry(from_s: float, to_s: float, *, number: int = 1, cause: str = "payment", **changes: Any) -> PauseEntry:
    """A pause that the agent carried out, in seconds of the call."""
    values: dict[str, Any] = {
        "cause": cause,
        "from_us": at(from_s),
        "to_us": at(to_s),
        "origin": "cloud",
        "command": command_id(number),
        "number": number,
        "by": WHO,
        "effective_at_us": at(from_s) + 250_000,
        "received_at_us": at(from_s) + 400_000,
        "silent_from": [SilentEntry(0, 4_294_901_760, at(from_s)), SilentEntry(1, None, at(from_s))],
        "resumed_by": "person:7b0e3f5a",
        "lease_expired": False,
    }
    return PauseEntry(**(values | changes))


def at(second: float) -> int:
    """A second of the call by the agent's clock, microseconds."""
    return ANSWERED_US + round(second * S)


def command_id(number: int) -> str:
    """The id of a command."""
    return f"01JD0000000000000000C{number:05d}"
