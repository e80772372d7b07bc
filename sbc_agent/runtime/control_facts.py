"""What the cloud tells an agent about pauses: its events queue, the live key, who may sign webhooks, the defaults.

The answers of ``/v1/agents/enrol`` and ``/v1/token`` carry these members beside the others. They come over the
verified connection, are kept in the identity file (0600), and are good for as long as the agent has no uplink. A cloud
that tells nothing of them leaves what is known as it is. Pure.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from dualtone.domain.errors import MalformedInput

OnExpiry = Literal["silent", "resume"]

DEFAULT_LEASE_S: Final = 900
LONGEST_LEASE_S: Final = 4 * 3600
_LIVE_KEY_BYTES: Final = 32
_MOST_ENDPOINTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class PaymentEndpoint:
    """A payment system that may pause and resume by signed webhooks.

    Attributes:
        endpoint_id: Its id, as in the webhook's path.
        secret: What it signs with, ``whsec_`` and base64.
    """

    endpoint_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ControlFacts:
    """What the control channel needs to know.

    Attributes:
        events_queue_url: Where the agent's events go; empty if the cloud has no such queue.
        live_key: The tenant's 32 octets that match tokens are made with; empty if the cloud gave none.
        payment_endpoints: Who may send webhooks.
        lease_s: How long a pause lasts that names no lease.
        on_expiry: What a lease that runs out does, where a pause does not say.
    """

    events_queue_url: str = ""
    live_key: bytes = field(default=b"", repr=False)
    payment_endpoints: tuple[PaymentEndpoint, ...] = ()
    lease_s: int = DEFAULT_LEASE_S
    on_expiry: OnExpiry = "silent"

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> ControlFacts:
        """Reads an answer; raises MalformedInput if a member that is there has the wrong form."""
        return cls().updated(answer)

    def updated(self, answer: dict[str, Any]) -> ControlFacts:
        """These facts with those that an answer names.

        Raises:
            MalformedInput: If a member that is there has the wrong form.
        """
        facts = self
        if "events_queue_url" in answer:
            facts = replace(facts, events_queue_url=_text(answer["events_queue_url"], "events_queue_url"))
        if "live_key" in answer:
            facts = replace(facts, live_key=_live_key(answer["live_key"]))
        if "payment_endpoints" in answer:
            facts = replace(facts, payment_endpoints=_endpoints(answer["payment_endpoints"]))
        if "pause" in answer:
            lease_s, on_expiry = _pause_defaults(answer["pause"])
            facts = replace(facts, lease_s=lease_s, on_expiry=on_expiry)
        return facts

    def secret(self, endpoint_id: str) -> str | None:
        """The secret of a payment endpoint, or None if there is none of that id."""
        return next((known.secret for known in self.payment_endpoints if known.endpoint_id == endpoint_id), None)

    def to_json(self) -> dict[str, Any]:
        """The members of the answer that these facts are read from."""
        return {
            "events_queue_url": self.events_queue_url,
            "live_key": base64.b64encode(self.live_key).decode("ascii"),
            "payment_endpoints": [
                {"endpoint_id": known.endpoint_id, "secret": known.secret} for known in self.payment_endpoints
            ],
            "pause": {"lease_s": self.lease_s, "on_expiry": self.on_expiry},
        }


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise MalformedInput(f"{name} is no text")
    return value


def _live_key(value: object) -> bytes:
    try:
        key = base64.b64decode(_text(value, "live_key"), validate=True)
    except ValueError as error:  # not base64, or not even ASCII
        raise MalformedInput("live_key is not coded in base64") from error
    if len(key) not in {0, _LIVE_KEY_BYTES}:
        raise MalformedInput(f"live_key has not {_LIVE_KEY_BYTES} octets")
    return key


def _endpoints(value: object) -> tuple[PaymentEndpoint, ...]:
    if not isinstance(value, list) or len(value) > _MOST_ENDPOINTS or not all(isinstance(item, dict) for item in value):
        raise MalformedInput("payment_endpoints is no list of endpoints")
    return tuple(
        PaymentEndpoint(_text(item.get("endpoint_id"), "endpoint_id"), _text(item.get("secret"), "secret"))
        for item in value
    )


def _pause_defaults(value: object) -> tuple[int, OnExpiry]:
    if not isinstance(value, dict):
        raise MalformedInput("pause is no object")
    lease_s, on_expiry = value.get("lease_s", DEFAULT_LEASE_S), value.get("on_expiry", "silent")
    if type(lease_s) is not int or not 0 < lease_s <= LONGEST_LEASE_S or on_expiry not in {"silent", "resume"}:
        raise MalformedInput("the defaults of a pause have the wrong form")
    return lease_s, cast("OnExpiry", on_expiry)
