"""What is sent to the LAN endpoint, and what it answers: the bodies of the cloud's API, so one client serves both.

Pure. Times on the wire are RFC 3339; within they are milliseconds of true Unix time.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dualtone.domain import canonical
from dualtone.domain.call_command import Cause, LeaseSeconds
from dualtone.domain.call_match import LONGEST_VALUE, WEBHOOK_KINDS, MatchKind
from dualtone.domain.errors import DualtoneError
from dualtone.domain.recording_policy import Fate
from dualtone.domain.recording_ruling import Cause as ChoiceCause
from dualtone.usecases.await_answers import CallAnswer, overall

STARTED: Final = "card_entry.started"
ENDED: Final = "card_entry.ended"
_DECISIONS: Final[dict[str, tuple[Fate, ChoiceCause]]] = {
    "consent.given": ("keep", "consent"),
    "consent.refused": ("discard", "consent"),
    "recording.keep": ("keep", "on_demand"),
}

Answer = tuple[int, dict[str, Any]]
"""Status and JSON object."""

_Body_ = TypeVar("_Body_", bound=BaseModel)


class InvalidBody(DualtoneError):  # noqa: N818 - named as the problem type is
    """A body that has not the operation's shape.

    Attributes:
        errors: Where and what, never the value: it may be a number.
    """

    def __init__(self, error: ValidationError) -> None:
        super().__init__("the body does not have the shape that the description gives")
        self.errors = [
            {"parameter": ".".join(map(str, fault["loc"])) or "body", "detail": fault["msg"]}
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Resume(_Body):
    """Which cause is lifted."""

    cause: Cause = "manual"


class Pause(Resume):
    """Which cause is set, and the span, as far as the caller knows it."""

    effective_at: AwareDatetime | None = None
    until: AwareDatetime | None = None
    lease_s: LeaseSeconds | None = None


class _Named(_Body):
    call: Annotated[dict[str, Annotated[str, Field(min_length=1, max_length=LONGEST_VALUE)]], Field(max_length=1)]

    @model_validator(mode="after")
    def _names_one(self) -> _Named:
        if len(self.call) != 1 or not WEBHOOK_KINDS.issuperset(self.call):
            raise ValueError("`call` has exactly one of call_id, ucid, extension, external_id")
        return self

    @property
    def kind(self) -> str:
        """What the call is named by."""
        return next(iter(self.call))

    @property
    def value(self) -> str:
        """Its name."""
        return self.call[self.kind]


class Decision(_Body):
    """What is to become of a call, and why."""

    decision: Fate
    cause: ChoiceCause


class NamedDecision(Decision, _Named):
    """What is to become of every call with a name; an extension is no such name.

    A decision waits for an hour, and under a number it would touch other calls than the one that was meant.
    """

    @model_validator(mode="after")
    def _names_no_number(self) -> NamedDecision:
        if self.kind == MatchKind.EXTENSION:
            raise ValueError("a decision names a call by call_id, ucid or external_id")
        return self


class NamedResume(Resume, _Named):
    """A resume of every call with a name."""


class NamedPause(Pause, _Named):
    """A pause of every call with a name."""


class CardEntry(_Named):
    """What a payment system says of a card entry; members that are not known here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=True)

    effective_at: AwareDatetime | None = None
    until: AwareDatetime | None = None
    lease_s: LeaseSeconds | None = None


class Webhook(_Body):
    """A payment system's message; further members of it are its own affair."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=True)

    type: Literal["card_entry.started", "card_entry.ended", "consent.given", "consent.refused", "recording.keep"]
    data: CardEntry

    @property
    def decision(self) -> NamedDecision | None:
        """What it decides; None if it tells of card entry.

        Raises:
            InvalidBody: If it decides on a number.
        """
        found = _DECISIONS.get(self.type)
        if found is None:
            return None
        decided, cause = found
        try:
            return NamedDecision(decision=decided, cause=cause, call=self.data.call)
        except ValidationError as error:
            raise InvalidBody(error) from None


def read(shape: type[_Body_], body: bytes) -> _Body_:
    """Reads a body; an empty one counts as ``{}``.

    Raises:
        MalformedInput: If it is no JSON.
        InvalidBody: If it has another shape.
    """
    try:
        return shape.model_validate(canonical.decode(body) if body.strip() else {})
    except ValidationError as error:
        raise InvalidBody(error) from None


def ms(moment: dt.datetime | None) -> int | None:
    """A moment in milliseconds of Unix time."""
    return None if moment is None else round(moment.timestamp() * 1000)


def instant(at_ms: int) -> str:
    """A moment as RFC 3339, in UTC, with milliseconds."""
    moment = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer(found: list[CallAnswer]) -> dict[str, Any]:
    """The answer to an order."""
    return {"outcome": overall(found), "calls": [_call(one) for one in found]}


def _call(one: CallAnswer) -> dict[str, Any]:
    return {
        "call_id": one.call,
        "state": "live" if one.state == "live" else "ended",
        "command": one.command,
        "outcome": one.outcome,
        "causes": list(one.causes),
        "paused": one.paused,
        "effective_at": instant(one.effective_at_ms),
        "gap_started_at": None if one.gap_started_at_ms is None else instant(one.gap_started_at_ms),
        "silent_from": [
            {"stream": each.stream, "rtp_timestamp": each.rtp_timestamp, "at": instant(each.at_ms)}
            for each in one.silent_from
        ],
        "seconds_until_gone": one.seconds_until_gone,
    }
