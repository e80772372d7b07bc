"""What answers say of the recording policy and of decisions. As in `answers`, this is the documentation."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from pydantic import Field

from chalicelib.kept_answers import ChoiceOutcome
from chalicelib.shapes import Instant, Shape, instant
from dualtone.domain.recording_policy import Basis, Fate, Record, Rule
from dualtone.domain.recording_ruling import Ruling
from dualtone.usecases.decide_calls import Decided as DecidedCalls
from dualtone.usecases.read_recording_policy import StoredPolicy

_NO_VERSION = 0


class RecordingPolicy(Shape):
    """A version of the policy."""

    version: int = Field(description="0: there is no policy, and every call is recorded.")
    issued_at: Instant | None = Field(description="Null if there is no policy.")
    changed_by: str | None = Field(description="`person:` and subject id; null if there is no policy.")
    rules: tuple[Rule, ...]
    groups: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, stored: StoredPolicy | None) -> RecordingPolicy:
        """From the store."""
        if stored is None:
            return cls(version=_NO_VERSION, issued_at=None, changed_by=None, rules=(), groups={})
        policy = stored.policy
        return cls(
            version=policy.version,
            issued_at=instant(policy.issued_at_ms),
            changed_by=stored.by,
            rules=policy.rules,
            groups=dict(policy.groups),
        )

    @property
    def etag(self) -> str:
        """The version as an entity tag."""
        return f'"{self.version}"'


class ChangedPolicy(Shape):
    """That a version is in force."""

    version: int
    issued_at: Instant
    rules: int = Field(description="How many there are.")
    agents_told: int = Field(description="Agents that hear of it now; others within a quarter of an hour.")


class RulingAnswer(Shape):
    """What a policy says of a call."""

    rule: str = Field(description="Id of the rule; `default` if none matches.")
    name: str
    version: int
    record: Record
    basis: Basis
    regulated: bool
    waits: bool = Field(description="Whether the call waits on site for a decision.")
    silent: bool = Field(description="Whether, besides, nothing of it is gathered meanwhile.")
    undecided: Fate = Field(description="What becomes of it if nobody says anything.")

    @classmethod
    def of(cls, ruling: Ruling) -> RulingAnswer:
        """From the domain's ruling."""
        rule = ruling.rule
        return cls(
            rule=rule.id,
            name=rule.name,
            version=ruling.version,
            record=rule.record,
            basis=rule.basis,
            regulated=rule.regulated,
            waits=ruling.waits,
            silent=ruling.silent,
            undecided="discard" if rule.record == "never" else rule.by_default,
        )


class Preview(Shape):
    """What a policy says of a call."""

    provisional: bool = Field(description="Whether more facts of the call may lead to another rule.")
    now: RulingAnswer = Field(description="By what is known.")
    settled: RulingAnswer = Field(description="If nothing more is known 30 seconds after the answer.")


class DecidedCall(Shape):
    """What became of a decision for one call."""

    call_id: str
    outcome: ChoiceOutcome


class Decided(Shape):
    """What became of a decision."""

    command: str
    outcome: Literal["kept", "stopped", "noted", "ignored", "requested"] = Field(
        description="Of the calls, the gravest. `requested`: no agent has told of a call that it keeps; of a call that "
        "is discarded nothing is ever told, and one by name waits an hour for its call."
    )
    calls: tuple[DecidedCall, ...]

    @classmethod
    def of(cls, decided: DecidedCalls) -> Decided:
        """From the use case's answer."""
        return cls.model_validate(
            {
                "command": decided.command,
                "outcome": decided.outcome,
                "calls": [{"call_id": call, "outcome": outcome} for call, outcome in decided.calls],
            }
        )

    @property
    def status(self) -> HTTPStatus:
        """200 once an agent has answered, 202 before."""
        return HTTPStatus.ACCEPTED if self.outcome == "requested" else HTTPStatus.OK
