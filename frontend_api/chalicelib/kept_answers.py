"""What answers say of why a call is kept, and of what people chose for it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from chalicelib.shapes import Instant, Shape, instant
from dualtone.domain import pause_ledger
from dualtone.domain.pause_ledger import LiveCall
from dualtone.domain.recording_policy import Basis, Record
from dualtone.domain.recording_ruling import ChoiceName, Means
from dualtone.usecases.follow_calls import ToldChoice

ChoiceOutcome = Literal["kept", "stopped", "noted", "ignored"]


class KeptBy(Shape):
    """By which rule a call is kept."""

    rule: str
    version: int = Field(description="Of the policy in force when the call was judged; 0 if there was none.")
    record: Record
    basis: Basis = Field(description="The lawful basis (GDPR article 6).")
    how: Means = Field(description="How it was decided: by the rule itself, or by somebody's choice.")
    at: Instant
    by: str = Field(description="Opaque id of who decided; empty if nobody did.")

    @classmethod
    def live(cls, call: LiveCall) -> KeptBy | None:
        """From a call as its agent reports it; None if it says nothing of the policy."""
        kept = call.policy
        if kept is None:
            return None
        return cls(
            rule=kept.rule,
            version=kept.version,
            record=kept.record,
            basis=kept.basis,
            how=kept.how,
            at=instant(pause_ledger.true_ms(kept.at_us, call.clock)),
            by=kept.by,
        )

    @classmethod
    def recorded(cls, policy: dict[str, Any]) -> KeptBy:
        """From a recording's metadata, in which times are the agent's clock, as everywhere in a recording."""
        return cls.model_validate(_timed(policy))


class RecordedChoice(Shape):
    """A choice that was made for a call."""

    choice: ChoiceName = Field(
        description="accept, decline: a party's consent. keep, drop: the wish for a recording. personal, not_personal: "
        "what a user said of the call."
    )
    how: Means
    by: str = Field(description="Opaque id of who chose; empty if nobody knows.")
    at: Instant

    @classmethod
    def recorded(cls, chosen: dict[str, Any]) -> RecordedChoice:
        """From a recording's metadata."""
        return cls.model_validate(_timed(chosen))


class Choice(RecordedChoice):
    """A choice that was made for a call, and what became of the call by it."""

    outcome: ChoiceOutcome = Field(
        description="Kept: the call had waited. Stopped: it was being kept, and nothing more is. Noted: it changed "
        "nothing. Ignored: the rule does not leave the choice, as on a regulated line."
    )

    @classmethod
    def told(cls, told: ToldChoice) -> Choice:
        """From the use case's choice."""
        return cls.model_validate(
            {
                "choice": told.choice,
                "how": told.how,
                "by": told.by,
                "at": instant(told.at_ms),
                "outcome": told.outcome,
            }
        )


def _timed(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"at": instant(value["at_us"] // 1000)}
