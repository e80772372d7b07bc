"""What requests say of the recording policy and of decisions. As in `requests`, this is the documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from chalicelib.requests import NamedCall, Request, unix_ms
from dualtone.domain import recording_policy, recording_rule_form
from dualtone.domain.direction import Party
from dualtone.domain.errors import MalformedInput
from dualtone.domain.numbers import normalise
from dualtone.domain.recording_policy import MOST_PATTERNS, MOST_RULES, Rule
from dualtone.domain.recording_ruling import CallFacts

_MOST_PARTIES = 16
EXAMPLE: dict[str, Any] = {
    "groups": {"dealers": ["21??"]},
    "rules": [
        {
            "id": "dealing-room",
            "name": "Dealing room: MiFID II article 16 (7)",
            "match": {"groups": ["dealers"]},
            "record": "always",
            "regulated": True,
            "basis": "legal_obligation",
        },
        {
            "id": "hotline",
            "name": "Hotline: 1 records, 2 does not",
            "match": {
                "queues": ["hotline"],
                "weekdays": ["mon", "tue", "wed", "thu", "fri"],
                "timezone": "Europe/London",
            },
            "record": "consent",
            "accept_keys": "1",
            "decline_keys": "2",
            "undecided": "discard",
            "basis": "consent",
        },
        {"id": "board", "match": {"lines": ["2900"]}, "record": "never", "basis": "legitimate_interests"},
    ],
}


def _read_rule(value: object) -> object:
    """Reads a rule by its own form, whose sentences say what to write."""
    if isinstance(value, Rule):
        return value
    try:
        return recording_rule_form.rule_of(value)
    except MalformedInput as error:
        raise ValueError(str(error)) from None


PolicyRule = Annotated[Rule, BeforeValidator(_read_rule)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Rules = Annotated[tuple[PolicyRule, ...], Field(max_length=MOST_RULES)]
Groups = Annotated[dict[str, tuple[Pattern, ...]], Field(max_length=MOST_PATTERNS)]


class PolicyQuery(Request):
    """Which version of the policy."""

    version: int | None = Field(None, ge=1, description="An earlier version. Default: the one in force.")


class PolicyBody(Request):
    """A whole policy: the first rule that matches a call decides; a call that none matches is recorded."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    rules: Rules = Field(description="In their order; regulated ones first.")
    groups: Groups = Field(default_factory=dict, description="Groups of lines: name and patterns of numbers.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        problems = recording_policy.contradictions(self.rules, self.groups)
        if problems:
            raise ValueError("; ".join(problems[:10]))
        return self


class PreviewParty(Request):
    """A party of a call."""

    role: Literal["caller", "callee", "unknown"] = "unknown"
    number: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
        description="Number or address of record in any spelling.", examples=["+44 20 7946 0123"]
    )


class PreviewCall(Request):
    """What is known of a call."""

    parties: Annotated[tuple[PreviewParty, ...], Field(max_length=_MOST_PARTIES)] = Field((), description="Who talks.")
    queues: Annotated[tuple[Pattern, ...], Field(max_length=_MOST_PARTIES)] = Field(
        (), description="Names or numbers of the queues that it came through."
    )
    at: AwareDatetime | None = Field(None, description="When it begins. Default: now.")

    def facts(self, now_ms: int) -> CallFacts:
        """As the policy sees it."""
        parties = tuple(Party(party.role, normalise(party.number)) for party in self.parties)
        queues = tuple(queue for queue in map(normalise, self.queues) if queue is not None)
        at_ms = unix_ms(self.at)
        return CallFacts(parties, queues, now_ms if at_ms is None else at_ms)


class PreviewBody(Request):
    """A call, and perhaps a policy that is not in force yet. It is a body, because numbers stay out of URLs."""

    call: PreviewCall
    policy: PolicyBody | None = Field(None, description="Default: the policy in force.")


class DecisionBody(Request):
    """What is to become of a call."""

    decision: Literal["keep", "discard"] = Field(
        description="Keep it from its start, or keep nothing of it; one that is kept already is stopped."
    )
    cause: Literal["consent", "personal", "on_demand"] = Field(
        description="`consent`: a party consents or refuses. `personal`: a user says that it is a personal call, or is "
        "not. `on_demand`: somebody wants the recording, or does not. The call's rule says which of them count."
    )


class NamedDecisionBody(DecisionBody):
    """What is to become of every call that goes by a name, now or within an hour; an extension is no such name."""

    call: NamedCall
