"""Identifiers: their types, their forms, and how they are made. Pure: time and randomness are arguments."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, NewType

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput

TenantId = NewType("TenantId", str)
AgentId = NewType("AgentId", str)
CallId = NewType("CallId", str)
RecordingId = NewType("RecordingId", str)
AttemptId = NewType("AttemptId", str)
EndpointId = NewType("EndpointId", str)

ULID_RANDOM_BYTES: Final = 10
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_LENGTH: Final = 26
_ULID_TIME_BITS: Final = 48

_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,31}")
_AGENT: Final = re.compile(r"agt_[0-7][0-9A-HJKMNP-TV-Z]{25}")
_ENDPOINT: Final = re.compile(r"pay_[0-7][0-9A-HJKMNP-TV-Z]{25}")
_RECORDING: Final = re.compile(r"rec_[a-z2-7]{26}")


def ulid(now_ms: int, randomness: bytes) -> str:
    """Makes a ULID: sortable by time, unique by chance.

    Args:
        now_ms: Unix time in milliseconds, below 2**48.
        randomness: Exactly 10 random bytes.

    Returns:
        26 characters of Crockford's base 32.

    Raises:
        ValueError: If an argument has the wrong size.
    """
    if len(randomness) != ULID_RANDOM_BYTES or not 0 <= now_ms < 1 << _ULID_TIME_BITS:
        raise ValueError("a ULID is made of 48 bits of milliseconds and 10 random bytes")
    value = now_ms << 80 | int.from_bytes(randomness, "big")
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(5 * (_ULID_LENGTH - 1), -1, -5))


def recording_id(tenant: TenantId, call: CallId, index: int = 0) -> RecordingId:
    """Names the recording of a call, the same whenever it is asked: that makes a repeated event find its own work.

    Args:
        tenant: The tenant that owns the call.
        call: The agent's id of the recording session.
        index: Which recording of the call, when a long call rolls over; 0 is the first.

    Returns:
        ``rec_`` and 26 base-32 characters: 130 bits of SHA-256 over tenant, call and index.
    """
    digest = hashlib.sha256(b"DUALTONE/v1/recording-id\0" + canonical.encode([tenant, call, index])).digest()
    return RecordingId("rec_" + base64.b32encode(digest).decode("ascii")[:26].lower())


def parse_tenant_id(text: str) -> TenantId:
    """Checks that ``text`` has the form of a tenant's id; raises MalformedInput."""
    return TenantId(_matching(_TENANT, text, "tenant id"))


def parse_agent_id(text: str) -> AgentId:
    """Checks that ``text`` has the form of an agent's id; raises MalformedInput."""
    return AgentId(_matching(_AGENT, text, "agent id"))


def parse_call_id(text: str) -> CallId:
    """Checks that ``text`` has the form of a call's id (a ULID, not the SIP Call-ID); raises MalformedInput."""
    return CallId(_matching(_ULID, text, "call id"))


def parse_recording_id(text: str) -> RecordingId:
    """Checks that ``text`` has the form of a recording's id; raises MalformedInput."""
    return RecordingId(_matching(_RECORDING, text, "recording id"))


def parse_endpoint_id(text: str) -> EndpointId:
    """Checks that ``text`` has the form of a payment endpoint's id; raises MalformedInput."""
    return EndpointId(_matching(_ENDPOINT, text, "payment endpoint id"))


def parse_attempt_id(text: str) -> AttemptId:
    """Checks that ``text`` has the form of an attempt's id (a ULID); raises MalformedInput."""
    return AttemptId(_matching(_ULID, text, "attempt id"))


def _matching(pattern: re.Pattern[str], text: object, what: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise MalformedInput(f"not a well-formed {what}")
    return text
