"""What the author of a rule reads when it is not right."""

from __future__ import annotations

from typing import Any

import pytest

from dualtone.domain import canonical, recording_policy, recording_rule_form
from dualtone.domain.errors import MalformedInput

RULE: dict[str, Any] = {"id": "r", "record": "always", "basis": "contract"}
CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("regulated but never", {"regulated": True, "record": "never"}, "write `record` = always"),
    ("regulated but on demand", {"regulated": True, "record": "on_demand"}, "write `record` = always"),
    ("regulated but live-keep", {"regulated": True, "record": "live_keep"}, "write `record` = always"),
    ("regulated but by consent", {"regulated": True, "record": "consent"}, "write `record` = always"),
    ("regulated and personal", {"regulated": True, "personal_allowed": True}, "leave `personal_allowed` out"),
    ("regulated and asking", {"regulated": True, "decline_keys": "2"}, "leave out `accept_keys`, `decline_keys`"),
    ("regulated and asking the SBC", {"regulated": True, "headers": {"name": "X", "decline": ["no"]}}, "`headers`"),
    ("regulated on the basis of consent", {"regulated": True, "basis": "consent"}, "write `basis` = legal_obligation"),
    ("never, yet personal", {"record": "never", "personal_allowed": True}, "leave `personal_allowed` out"),
    ("never, yet asking", {"record": "never", "accept_keys": "1"}, "leave out keys"),
    ("never, yet closed", {"record": "never", "on_failure": "closed"}, "`on_failure`"),
    ("one key for both", {"accept_keys": "12", "decline_keys": "2"}, "cannot be both"),
    ("a default that nothing asks for", {"undecided": "keep"}, "`record` = consent alone"),
    ("a time to decide without a decision", {"decide_within_s": 10}, "this rule's calls do not"),
    ("a header without values", {"headers": {"name": "X-Consent"}}, "needs a value"),
    ("a header value for both", {"headers": {"name": "X", "accept": ["Yes"], "decline": ["yes "]}}, "cannot both"),
    ("hours in another form", {"match": {"hours": "9-17", "timezone": "UTC"}}, "HH:MM-HH:MM"),
    ("an hour that is none", {"match": {"hours": "09:00-24:30", "timezone": "UTC"}}, "HH:MM-HH:MM"),
    ("hours without length", {"match": {"hours": "09:00-09:00", "timezone": "UTC"}}, "leave them out"),
    ("hours without a zone", {"match": {"hours": "09:00-17:00"}}, "`timezone`"),
    ("days without a zone", {"match": {"weekdays": ["mon"]}}, "`timezone`"),
    ("a zone that is none", {"match": {"timezone": "Europe/Atlantis"}}, "IANA"),
    ("a zone that leaves the database", {"match": {"timezone": "../UTC"}}, "IANA"),
    ("a line that is everything", {"match": {"lines": ["*"]}}, "write each of `lines`"),
    ("a number that is a host", {"match": {"numbers": ["sip:host.example"]}}, "write each of `numbers`"),
]


@pytest.mark.parametrize(
    ("changed", "says"), [case[1:] for case in CONTRADICTIONS], ids=[case[0] for case in CONTRADICTIONS]
)
def test_a_contradiction_is_refused_with_what_to_write(changed: dict[str, Any], says: str) -> None:
    """A rule that contradicts itself never reaches an agent, and its author reads how to mend it."""
    policy = {"tenant": "acme", "version": 1, "issued_at_ms": 0, "rules": [RULE | changed]}
    with pytest.raises(MalformedInput):
        recording_policy.read(canonical.encode(policy))
    with pytest.raises(MalformedInput, match=r"^rule `r`: ") as refused:
        recording_rule_form.rule_of(RULE | changed)
    assert says in str(refused.value)
    assert refused.value.http_status == 422


FORMS: list[tuple[str, object, str]] = [
    ("no table", "always", "a member: write"),
    ("no id", {"record": "always", "basis": "contract"}, "`id`: write lower-case letters"),
    ("an id with capitals", RULE | {"id": "Sales"}, "`id`: write lower-case letters"),
    ("no basis", {"id": "r", "record": "always"}, "rule `r`: `basis`: write consent, contract,"),
    ("no such record", RULE | {"record": "sometimes"}, "rule `r`: `record`: write always, on_demand,"),
    ("no such day", RULE | {"match": {"weekdays": ["monday"]}}, "`match.weekdays`: write a list of mon,"),
    ("lines that are no list", RULE | {"match": {"lines": "2*"}}, "`match.lines`: write a list"),
    ("a key that no telephone has", RULE | {"accept_keys": "x"}, "`accept_keys`: write keys"),
    ("a member in another table", RULE | {"lines": ["2*"]}, "a member that a rule does not have: `lines`"),
    ("a member that is a number", RULE | {"+441632960001": 1}, "a member that a rule does not have"),
    ("a fraction", RULE | {"decide_within_s": 1.5}, "rule `r`: write numbers without a fraction"),
    ("too long a time", RULE | {"record": "consent", "decide_within_s": 99_999}, "seconds from 1 to 14400"),
]


@pytest.mark.parametrize(("value", "says"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_a_form_that_is_not_right_is_refused_with_what_to_write(value: object, says: str) -> None:
    """Whoever writes a rule reads which member is wrong and what it may be; the rule's numbers are not repeated."""
    with pytest.raises(MalformedInput) as refused:
        recording_rule_form.rule_of(value)
    assert says in str(refused.value)
    assert "441632960001" not in str(refused.value)
