"""What shapes of answers are made of."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, RootModel, WithJsonSchema

Instant = Annotated[
    AwareDatetime,
    PlainSerializer(lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-24T10:15:00.000Z"]}),
]
RecordingId = Annotated[str, Field(pattern="^rec_[a-z2-7]{26}$", examples=["rec_abcdefghijklmnopqrstuvwxyz"])]


class Shape(BaseModel):
    """What all answers have in common."""

    model_config = ConfigDict(frozen=True)


class OneOf(RootModel[BaseModel]):
    """One of several shapes."""

    model_config = ConfigDict(frozen=True)


def instant(at_ms: int) -> dt.datetime:
    """Unix time in milliseconds as answers say it."""
    return dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC).replace(microsecond=at_ms % 1000 * 1000)
