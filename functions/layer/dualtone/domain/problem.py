"""Problem details for HTTP APIs: RFC 9457. What can go wrong, under which status, and what it is called. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

MEDIA_TYPE: Final = "application/problem+json"


class ProblemType(Enum):
    """Every kind of problem that the API answers with: slug of its type URI, status, title."""

    MALFORMED = ("malformed-request", HTTPStatus.BAD_REQUEST, "The request cannot be read")
    GRANT_REFUSED = ("grant-refused", HTTPStatus.BAD_REQUEST, "The grant was not accepted")
    TIMESTAMP_REFUSED = ("timestamp-refused", HTTPStatus.BAD_REQUEST, "The message was signed too long ago")
    UNAUTHENTICATED = ("unauthenticated", HTTPStatus.UNAUTHORIZED, "An access token is required")
    SIGNATURE_REFUSED = ("signature-refused", HTTPStatus.UNAUTHORIZED, "The message's signature is not right")
    FORBIDDEN = ("forbidden", HTTPStatus.FORBIDDEN, "You may not do this")
    AGENT_REVOKED = ("agent-revoked", HTTPStatus.FORBIDDEN, "This agent was revoked")
    CODE_REFUSED = ("enrolment-refused", HTTPStatus.FORBIDDEN, "The enrolment code was not accepted")
    NOT_FOUND = ("not-found", HTTPStatus.NOT_FOUND, "There is no such resource")
    METHOD_NOT_ALLOWED = ("method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The resource has no such method")
    MESSAGE_ID_REUSED = ("message-id-reused", HTTPStatus.CONFLICT, "The message's id was used for another body")
    SEVERAL_CALLS = ("several-calls", HTTPStatus.CONFLICT, "More than one call is live")
    MESSAGE_IN_PROGRESS = ("message-in-progress", HTTPStatus.CONFLICT, "The same message is being acted on")
    VERSION_CHANGED = ("version-changed", HTTPStatus.PRECONDITION_FAILED, "Somebody else has changed it")
    TOO_LARGE = ("content-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
    RANGE_REQUIRED = ("range-required", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Ask for a part: send a Range header")
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported-media-type",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body has the wrong media type",
    )
    RANGE_NOT_SATISFIABLE = (
        "range-not-satisfiable",
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "The recording has no such bytes",
    )
    INVALID = ("invalid-parameters", HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter does not have an allowed value")
    TOO_MANY_REQUESTS = ("too-many-requests", HTTPStatus.TOO_MANY_REQUESTS, "Too many requests")
    VERSION_REQUIRED = ("version-required", HTTPStatus.PRECONDITION_REQUIRED, "Say which version you have read")
    INTERNAL = ("internal", HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed")
    INTEGRITY = (
        "integrity",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "What is stored is not what was sealed: operators have been alarmed",
    )
    UNAVAILABLE = ("unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Try again in a moment")

    def __init__(self, slug: str, status: HTTPStatus, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def uri(self) -> str:
        """The problem type's URI (RFC 9457 section 3.1.1), the same for every occurrence."""
        return f"urn:dualtone:problem:{self.slug}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One occurrence of a problem.

    Attributes:
        type: Its kind.
        detail: What happened and what to do about it, without personal data; None where that is nobody's business.
        instance: A URI of this occurrence: names the request, for support.
        extensions: Further members (RFC 9457 section 3.2).
        headers: HTTP header fields that go with it.
    """

    type: ProblemType
    detail: str | None
    instance: str
    extensions: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The problem details object."""
        members: dict[str, Any] = {
            "type": self.type.uri,
            "title": self.type.title,
            "status": self.type.status.value,
            "instance": self.instance,
        }
        if self.detail is not None:
            members["detail"] = self.detail
        return members | self.extensions
