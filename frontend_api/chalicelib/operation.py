"""What a route is, what its view is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from chalicelib.http_request import HttpRequest
from dualtone.domain.audit_event import Details, RequestFacts
from dualtone.domain.problem import ProblemType
from dualtone.domain.tenancy import PaymentEndpoint, Principal, Unauthenticated, Verb

SIGN_IN: Final = "sign in and send the access token as `Authorization: Bearer ...`"


class Access(Enum):
    """What proves that the caller may call a route."""

    PERSON = "a person's access token"
    CREDENTIAL_IN_BODY = "a one-time code or a signed assertion in the body"
    SIGNED_MESSAGE = "the signature of a payment system over the body (Standard Webhooks)"
    PUBLIC = "nothing: the answer is the same for everyone"


class Source(Enum):
    """Where a route's parameters are."""

    QUERY = "query"
    JSON = "application/json"
    FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route is.

    Attributes:
        method: HTTP method.
        path: Template of the path, as API Gateway spells it.
        name: Its name in code and description.
        summary: What it does, in one line.
        verb: What the caller must be allowed to do, and what audit events call it.
        access: What proves that.
        parameters: Shape of query or body, or None.
        source: Where they are.
        answer: Shape of the answer; None if it is not JSON of ours.
        status: Of the answer.
        also: Other statuses under which the same shape is answered.
        audio: Whether the answer is audio, by ranges.
        problems: What can go wrong here, beside what can go wrong anywhere.
        records_itself: Whether the use case writes the event of its success, before or together with its effect.
        versioned: Whether what is answered has a version, which a change must name.
    """

    method: str
    path: str
    name: str
    summary: str
    verb: Verb
    access: Access = Access.PERSON
    parameters: type[BaseModel] | None = None
    source: Source = Source.QUERY
    answer: type[BaseModel] | None = None
    status: HTTPStatus = HTTPStatus.OK
    also: tuple[HTTPStatus, ...] = ()
    audio: bool = False
    problems: tuple[ProblemType, ...] = ()
    records_itself: bool = False
    versioned: bool = False

    @property
    def audited(self) -> bool:
        """Public documents are the same for everyone and tell of nobody; everything else leaves an event."""
        return self.access is not Access.PUBLIC


Caller = Principal | PaymentEndpoint
"""Who has proved what they are, and thereby of which tenant."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a route, as its view sees it.

    Attributes:
        request: The request.
        facts: What its audit events have in common.
        parameters: Query or body, as the operation's shape.
    """

    request: HttpRequest
    facts: RequestFacts
    parameters: Any
    _caller: Caller | None

    @property
    def principal(self) -> Principal:
        """Who calls; routes that need no token have none."""
        if not isinstance(self._caller, Principal):
            raise Unauthenticated(SIGN_IN)
        return self._caller

    @property
    def endpoint(self) -> PaymentEndpoint:
        """The payment system that calls; routes that need no signature have none."""
        if not isinstance(self._caller, PaymentEndpoint):
            raise Unauthenticated(SIGN_IN)
        return self._caller


@dataclass(frozen=True, slots=True)
class Answer:
    """What a view returns.

    Attributes:
        body: A shape, or the bytes of audio.
        media_type: Of the body.
        status: If it is another than the operation's.
        headers: Further header fields.
        which: The id of the object, for the audit event.
        details: Further facts for the audit event.
    """

    body: BaseModel | dict[str, Any] | bytes = field(repr=False)
    media_type: str = "application/json"
    status: HTTPStatus | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    which: str = ""
    details: Details = field(default_factory=dict)

    def as_text(self) -> tuple[int, str]:
        """Status and body of a JSON answer with a status of its own, to be kept and given again."""
        assert isinstance(self.body, BaseModel)
        assert self.status is not None
        return self.status.value, self.body.model_dump_json(by_alias=True)


View = Callable[[Call], Answer]
