"""What a request may say. Docstrings and field descriptions are the API's documentation: `openapi` publishes them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from dualtone.domain.call_command import LONGEST_LEASE_S, Cause
from dualtone.usecases.recording_pages import MOST_ROWS, PageRequest


class Request(BaseModel):
    """What all requests have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class TimeQuery(Request):
    """A span of time and a number of rows."""

    from_: AwareDatetime | None = Field(
        None, alias="from", description="First start time. Default: 90 days before `to`. RFC 3339 with a zone."
    )
    to: AwareDatetime | None = Field(None, description="Start times before this one. Default: now.")
    limit: int = Field(25, ge=1, le=MOST_ROWS, description="Most rows of a page.")
    cursor: str | None = Field(None, max_length=1024, description="`next_cursor` of the page before.")

    def page_request(self) -> PageRequest:
        """As the use cases take it."""
        return PageRequest(unix_ms(self.from_), unix_ms(self.to), self.limit, self.cursor)


class ListQuery(TimeQuery):
    """Query of the list of recordings."""


class SearchBody(TimeQuery):
    """Search for the recordings in which a number takes part. It is a body, because numbers stay out of URLs."""

    number: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
        description="A telephone number or address of record in any spelling.", examples=["+44 20 7946 0123"]
    )


class CallQuery(Request):
    """Query for calls."""

    sip_call_id: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="The Call-ID of the recording session's INVITE (RFC 3261, 7866): then one call is answered, live "
        "or not. Without it: all calls that are live.",
    )


Name = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class NamedCall(Request):
    """A call, by exactly one of the names that switches give it."""

    call_id: Name | None = Field(
        None, description="SIP Call-ID or session id of the call itself, not of the recording session."
    )
    ucid: Name | None = Field(None, description="Avaya UCID: hexadecimal, User-to-User, or 20 decimal digits.")
    extension: Name | None = Field(None, description="Number or user part of a party; every call of it is meant.")
    external_id: Name | None = Field(None, description="Any vendor's value in the SBC's metadata or headers.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("name the call by exactly one of call_id, ucid, extension and external_id")
        return self

    @property
    def name(self) -> tuple[str, str]:
        """Kind and value."""
        ((kind, value),) = self.model_dump(exclude_none=True).items()
        return kind, value


class _Span(Request):
    effective_at: AwareDatetime | None = Field(
        None, description="When the span began that must not be kept. Default: when the request is received."
    )
    until: AwareDatetime | None = Field(
        None, description="When it ended, if that is known: for a late report of a span that is over."
    )
    lease_s: int | None = Field(
        None, ge=1, le=LONGEST_LEASE_S, description="How long the pause lasts without another word, in seconds."
    )

    @property
    def effective_at_ms(self) -> int | None:
        """Unix time in milliseconds."""
        return unix_ms(self.effective_at)

    @property
    def until_ms(self) -> int | None:
        """Unix time in milliseconds."""
        return unix_ms(self.until)


class PauseBody(_Span):
    """A pause of one call."""

    cause: Cause = Field("manual", description="Audio is kept again when every cause that was set is lifted.")


class ResumeBody(Request):
    """A resume of one call; it acts when it is received, never earlier."""

    cause: Cause = Field("manual", description="The cause to lift; others stay.")


class NamedPauseBody(PauseBody):
    """A pause of every live call that goes by a name."""

    call: NamedCall


class NamedResumeBody(ResumeBody):
    """A resume of every live call that goes by a name."""

    call: NamedCall


class PaymentData(_Span):
    """Which call, and when card was entered; members that are not known here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    call: NamedCall


class PaymentReport(Request):
    """A system's message: card entry begins or ends, a party consents or refuses, or a call is to be kept."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    type: Literal["card_entry.started", "card_entry.ended", "consent.given", "consent.refused", "recording.keep"]
    data: PaymentData


class EndpointBody(Request):
    """A payment endpoint to be."""

    name: str = Field(min_length=1, max_length=100, description="What people call it.", examples=["Web shop"])


class InviteBody(Request):
    """An agent to be."""

    name: str = Field(min_length=1, max_length=100, description="What people call it.", examples=["London SBC 1"])


class EnrolBody(Request):
    """A machine that wants to be an agent."""

    code: str = Field(max_length=100, description="The one-time code from the invitation.")
    public_key: str = Field(max_length=2000, description="Its P-256 public key: SubjectPublicKeyInfo in PEM.")
    name: str | None = Field(None, max_length=100, description="What the machine calls itself.")


class RotateBody(Request):
    """An agent's next key."""

    assertion: str = Field(
        max_length=4096,
        description="As for /v1/token, but with this URL as aud, and next_key_sha256: SHA-256 of the next key in DER.",
    )
    public_key: str = Field(max_length=2000, description="The next P-256 key: SubjectPublicKeyInfo in PEM.")
    proof: dict[str, str] = Field(
        description="Envelope of kind agent-key, signed by the next key, over canonical JSON {agent, jti}."
    )


class TokenForm(BaseModel):
    """A grant by RFC 7523, as a form; unknown parameters are ignored (RFC 6749 section 3.2)."""

    model_config = ConfigDict(frozen=True)

    grant_type: Literal["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assertion: str = Field(
        max_length=4096,
        description="JWT, ES256: iss and sub the agent's id, aud this URL, iat, exp at most 300 s later, a fresh jti.",
    )


def unix_ms(moment: dt.datetime | None) -> int | None:
    """Unix time in milliseconds."""
    return None if moment is None else (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(milliseconds=1)
