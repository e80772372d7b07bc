"""Reads a rule of the recording policy as a person wrote it, and says in sentences what to write instead. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from dualtone.domain.recording_policy import LONGEST_WAIT_S, Rule

_RULE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_MEMBER: Final = re.compile(r"[a-z_]{1,30}")
_MOST_TOLD: Final = 5
# What to write in a member of a rule that has another form.
_WRITE: Final = {
    "id": "lower-case letters, digits and hyphens, at most 40",
    "record": "always, on_demand, live_keep, consent or never",
    "basis": "consent, contract, legal_obligation, vital_interests, public_task or legitimate_interests",
    "name": "a name of at most 100 characters",
    "match": "a table of lines, groups, queues, directions, numbers, weekdays, hours and timezone",
    "lines": "a list of numbers and patterns, at most 200",
    "numbers": "a list of numbers and patterns, at most 200",
    "queues": "a list of names and numbers of queues, at most 200",
    "groups": "a list of names of groups",
    "directions": "a list of inbound, outbound and internal",
    "weekdays": "a list of mon, tue, wed, thu, fri, sat and sun",
    "hours": "HH:MM-HH:MM, for example 09:00-17:30",
    "timezone": "a name of the IANA database, for example Europe/London",
    "regulated": "true or false",
    "personal_allowed": "true or false",
    "accept_keys": "keys of a telephone, for example 1",
    "decline_keys": "keys of a telephone, for example 2",
    "headers": "a table of name, accept and decline",
    "accept": "a list of values, at most 16",
    "decline": "a list of values, at most 16",
    "undecided": "keep or discard",
    "decide_within_s": f"seconds from 1 to {LONGEST_WAIT_S}",
    "tones": "blank or keep",
    "card": "pause or off",
    "on_failure": "open or closed",
}


def rule_of(value: object) -> Rule:
    """Reads one rule as a person wrote it.

    Args:
        value: What its JSON or TOML says.

    Raises:
        MalformedInput: With a sentence on each member that is not right, which says what to write; the rule's own
            values, which may be numbers, are never quoted.
    """
    named = value.get("id") if isinstance(value, dict) else None
    of = f"rule `{named}`: " if isinstance(named, str) and _RULE_ID.fullmatch(named) else ""
    try:
        return _RULE.validate_json(canonical.encode(value))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise MalformedInput(of + "; ".join(map(_problem, found[:_MOST_TOLD])), http_status=422) from None
    except ValueError:
        raise MalformedInput(of + "write numbers without a fraction", http_status=422) from None


def _problem(error: Any) -> str:  # noqa: ANN401 - what pydantic says of one member
    """What is wrong with a member, and what to write."""
    path = [str(step) for step in error["loc"] if not isinstance(step, int)]
    name, text = path[-1] if path else "", str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return text
    if error["type"] == "unexpected_keyword_argument":
        return "a member that a rule does not have" + (f": `{name}`" if _MEMBER.fullmatch(name) else "")
    member = f"`{'.'.join(path)}`" if path and all(map(_MEMBER.fullmatch, path)) else "a member"
    return f"{member}: write {_WRITE.get(name, 'what the description says')}"


_RULE: Final = TypeAdapter(Rule)
