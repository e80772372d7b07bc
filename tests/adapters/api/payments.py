"""A payment system as the API meets it: an endpoint, a secret, and signed messages."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from dualtone.adapters import clock
from dualtone.domain import standard_webhooks
from tests.adapters.api.gateway import Answer, call, post_json

STARTED: Final = "card_entry.started"
ENDED: Final = "card_entry.ended"
ROUTE: Final = "/v1/webhooks/payments/{endpoint_id}"


@dataclass(frozen=True, slots=True)
class PaymentSystem:
    endpoint_id: str
    url: str
    secret: bytes

    @classmethod
    def created(cls, administrator: str, name: str = "Web shop") -> PaymentSystem:
        """One that an administrator let in."""
        answer = post_json("/v1/payment-endpoints", {"name": name}, token=administrator)
        assert answer.status == 201
        created = answer.json
        return cls(created["endpoint_id"], created["url"], standard_webhooks.read_secret(created["secret"]))

    def report(self, kind: str, named: dict[str, str], **data: Any) -> Answer:
        """Reports card entry."""
        return self.send({"type": kind, "data": {"call": named, **data}})

    def send(self, body: object, **changes: Any) -> Answer:
        """Sends any body; ``changes``: message_id, timestamp_s, headers, endpoint_id, received_at_ms."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        message_id = changes.get("message_id") or f"msg_{secrets.token_hex(8)}"
        timestamp_s = changes.get("timestamp_s", clock.now_ms() // 1000)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": standard_webhooks.sign(self.secret, message_id, timestamp_s, raw),
            **changes.get("headers", {}),
        }
        return call(
            "POST",
            ROUTE,
            path={"endpoint_id": changes.get("endpoint_id", self.endpoint_id)},
            body=raw,
            headers={name: value for name, value in headers.items() if value is not None},
            received_at_ms=changes.get("received_at_ms"),
        )
