"""Take what a payment system reports: prove that it is one, act on each message once, answer repetitions alike.

REQ: Standard Webhooks 1.0: a message that is sent again has the same id, a new timestamp and a new signature. So an id
is remembered with the hash of its body and the answer: the same message again gets the same answer and has no second
effect, and another body under the same id is refused.

A message whose first attempt was cut off is taken over with the first attempt's command id and time of receipt, so that
a resume that is repeated late lifts no pause that came in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain import standard_webhooks
from dualtone.domain.audit_event import Refusal, RequestFacts
from dualtone.domain.errors import MalformedInput, NotFound
from dualtone.domain.ids import ULID_RANDOM_BYTES, EndpointId, parse_endpoint_id, ulid
from dualtone.domain.problem import ProblemType
from dualtone.domain.standard_webhooks import SignatureRefused, TimestampRefused
from dualtone.domain.tenancy import PaymentEndpoint

ANSWERED_WITHIN_MS: Final = 30_000
"""After which an attempt without an answer is dead: the API's function runs for less."""
WAIT_FOR_TWIN_MS: Final = 10_000
"""How long a repetition waits for its twin's answer; the twin may be waiting itself, for a little longer."""
STEP_MS: Final = 100
_NOBODYS_SECRET: Final = bytes(standard_webhooks.SECRET_BYTES)


class MessageRefused(Refusal):
    """A message was refused; unlike other credentials' holders, its sender is told why.

    Attributes:
        problem: What the answer calls it.
    """

    def __init__(self, problem: ProblemType, message: str, endpoint: PaymentEndpoint) -> None:
        super().__init__(message, reason=problem.slug, tenant=endpoint.tenant, who=endpoint.actor)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is remembered.

    Attributes:
        message_id: ``webhook-id``.
        body_sha256: Hexadecimal.
        command: The id of the order that it becomes.
        received_at_ms: When its first attempt was received at the edge.
        attempt_at_ms: When its latest attempt began.
        failed: Whether that ended without an answer.
        status: HTTP status of the answer; None while there is none.
        answer: Its body, JSON.
    """

    message_id: str
    body_sha256: str
    command: str
    received_at_ms: int
    attempt_at_ms: int
    failed: bool = False
    status: int | None = None
    answer: str | None = None


class Endpoints(Protocol):
    """Endpoints and their secrets."""

    def endpoint(self, endpoint: EndpointId) -> tuple[PaymentEndpoint, bytes]:
        """Reads an endpoint and its secret; raises NotFound."""


class Memory(Protocol):
    """What was answered to which message."""

    def begin(self, endpoint: PaymentEndpoint, message: Message) -> Message | None:
        """Remembers a new message, or returns what is known of it."""

    def find(self, endpoint: PaymentEndpoint, message_id: str) -> Message | None:
        """Reads what is known of a message."""

    def take_over(self, endpoint: PaymentEndpoint, message: Message, now_ms: int) -> bool:
        """Makes a message ours whose attempt came to nothing; False if somebody else did."""

    def finish(self, endpoint: PaymentEndpoint, message: Message, status: int, answer: str) -> None:
        """Remembers the answer."""

    def fail(self, endpoint: PaymentEndpoint, message: Message) -> None:
        """Notes that an attempt ended without an answer."""


class Patience(Protocol):
    """A clock that can be waited by."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""

    def wait_ms(self, duration_ms: int) -> None:
        """Lets that much time pass."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a message; ``repeated`` if it had been given before."""

    status: int
    answer: str
    repeated: bool


class TakePaymentReport:
    """Takes messages."""

    def __init__(
        self, endpoints: Endpoints, memory: Memory, patience: Patience, random_bytes: Callable[[int], bytes]
    ) -> None:
        """Takes the endpoints, the memory of messages, what waits, and a source of randomness for ids."""
        self._endpoints = endpoints
        self._memory = memory
        self._patience = patience
        self._random_bytes = random_bytes

    def sender(self, endpoint_id: str, headers: Mapping[str, str], body: bytes, facts: RequestFacts) -> PaymentEndpoint:
        """Verifies who sent a message. An endpoint that does not exist costs the same work as one that does.

        Args:
            endpoint_id: From the path.
            headers: The request's, by lower-case name.
            body: As received.
            facts: The request.

        Raises:
            NotFound: If there is no such endpoint, whatever the signature.
            MessageRefused: If no signature is right, or the message is too old.
            MalformedInput: If it lacks a header field.
        """
        endpoint: PaymentEndpoint | None
        try:
            endpoint, secret = self._endpoints.endpoint(parse_endpoint_id(endpoint_id))
        except (NotFound, MalformedInput):
            endpoint, secret = None, _NOBODYS_SECRET
        message_id, timestamp, signatures = (
            headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        try:
            standard_webhooks.verify(secret, message_id, timestamp, signatures, body, now_s=facts.now_ms // 1000)
        except SignatureRefused as error:
            if endpoint is not None:
                raise MessageRefused(ProblemType.SIGNATURE_REFUSED, str(error), endpoint) from error
        except TimestampRefused as error:
            if endpoint is not None:
                raise MessageRefused(ProblemType.TIMESTAMP_REFUSED, str(error), endpoint) from error
        except MalformedInput:
            if endpoint is not None:
                raise
        if endpoint is None:
            raise NotFound("no such payment endpoint")
        return endpoint

    def once(
        self,
        endpoint: PaymentEndpoint,
        message_id: str,
        body: bytes,
        received_at_ms: int,
        act: Callable[[str, int], tuple[int, str]],
    ) -> Reply:
        """Acts on a message, unless that was done.

        Args:
            endpoint: Who sent it, verified.
            message_id: ``webhook-id``.
            body: As received.
            received_at_ms: When it was received at the edge.
            act: Acts under a command id and the time of first receipt; returns status and body of the answer.

        Raises:
            MessageRefused: If the id was used for another body, or its first attempt still goes on.
        """
        now_ms = self._patience.now_ms()
        command = ulid(now_ms, self._random_bytes(ULID_RANDOM_BYTES))
        fresh = Message(message_id, hashlib.sha256(body).hexdigest(), command, received_at_ms, now_ms)
        known = self._memory.begin(endpoint, fresh)
        if known is None:
            return self._act(endpoint, fresh, act)
        if known.body_sha256 != fresh.body_sha256:
            text = "this webhook-id was used for another body: give each message an id of its own"
            raise MessageRefused(ProblemType.MESSAGE_ID_REUSED, text, endpoint)
        deadline_ms = now_ms + WAIT_FOR_TWIN_MS
        while known is not None:
            if known.status is not None and known.answer is not None:
                return Reply(known.status, known.answer, repeated=True)
            now_ms = self._patience.now_ms()
            if known.failed or now_ms > known.attempt_at_ms + ANSWERED_WITHIN_MS:
                if self._memory.take_over(endpoint, known, now_ms):
                    return self._act(endpoint, known, act)
            elif now_ms >= deadline_ms:
                break
            self._patience.wait_ms(STEP_MS)
            known = self._memory.find(endpoint, message_id)
        raise MessageRefused(ProblemType.MESSAGE_IN_PROGRESS, "this message is being acted on: ask again", endpoint)

    def _act(self, endpoint: PaymentEndpoint, message: Message, act: Callable[[str, int], tuple[int, str]]) -> Reply:
        try:
            status, answer = act(message.command, message.received_at_ms)
        except Exception:
            self._memory.fail(endpoint, message)
            raise
        self._memory.finish(endpoint, message, status, answer)
        return Reply(status, answer, repeated=False)
