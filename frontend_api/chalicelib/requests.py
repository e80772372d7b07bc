"""What a request may say. Docstrings and field descriptions are the API's documentation: `openapi` publishes them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from dualtone.usecases.recording_pages import MOST_ROWS, PageRequest


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class TimeQuery(_Request):
    """A span of time and a number of rows."""

    from_: AwareDatetime | None = Field(
        None, alias="from", description="First start time. Default: 90 days before `to`. RFC 3339 with a zone."
    )
    to: AwareDatetime | None = Field(None, description="Start times before this one. Default: now.")
    limit: int = Field(25, ge=1, le=MOST_ROWS, description="Most rows of a page.")
    cursor: str | None = Field(None, max_length=1024, description="`next_cursor` of the page before.")

    def page_request(self) -> PageRequest:
        """As the use cases take it."""
        return PageRequest(_ms(self.from_), _ms(self.to), self.limit, self.cursor)


class ListQuery(TimeQuery):
    """Query of the list of recordings."""


class SearchBody(TimeQuery):
    """Search for the recordings in which a number takes part. It is a body, because numbers stay out of URLs."""

    number: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
        description="A telephone number or address of record in any spelling.", examples=["+44 20 7946 0123"]
    )


class CallQuery(_Request):
    """Query for a call."""

    sip_call_id: str = Field(
        min_length=1, max_length=4096, description="The Call-ID of the recording session's INVITE (RFC 3261, 7866)."
    )


class InviteBody(_Request):
    """An agent to be."""

    name: str = Field(min_length=1, max_length=100, description="What people call it.", examples=["London SBC 1"])


class EnrolBody(_Request):
    """A machine that wants to be an agent."""

    code: str = Field(max_length=100, description="The one-time code from the invitation.")
    public_key: str = Field(max_length=2000, description="Its P-256 public key: SubjectPublicKeyInfo in PEM.")
    name: str | None = Field(None, max_length=100, description="What the machine calls itself.")


class TokenForm(BaseModel):
    """A grant by RFC 7523, as a form; unknown parameters are ignored (RFC 6749 section 3.2)."""

    model_config = ConfigDict(frozen=True)

    grant_type: Literal["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assertion: str = Field(
        max_length=4096,
        description="JWT, ES256: iss and sub the agent's id, aud this URL, iat, exp at most 300 s later, a fresh jti.",
    )


def _ms(moment: dt.datetime | None) -> int | None:
    return None if moment is None else (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(milliseconds=1)
