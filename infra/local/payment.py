"""A payment system, as the demo and the tests play it: it signs what it reports (Standard Webhooks), sharing no code.

https://www.standardwebhooks.com: the signature is HMAC-SHA256 of ``id.timestamp.body`` under the shared secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

import requests

STARTED: Final = "card_entry.started"
ENDED: Final = "card_entry.ended"
_TIMEOUT_S: Final = 35


@dataclass(frozen=True, slots=True)
class Answer:
    """What the recorder said to a report.

    Attributes:
        status: The HTTP status.
        body: The JSON object.
        sent_at: When the report left, Unix time in seconds.
        ms: How long the answer took.
    """

    status: int
    body: dict[str, Any]
    sent_at: float
    ms: float

    @property
    def call(self) -> dict[str, Any]:
        """The one call that the report was about; raises ValueError if there is not exactly one."""
        (call,) = self.body["calls"]
        return dict(call)


class PaymentSystem:
    """Reports card entry to one endpoint.

    Args:
        url: The endpoint.
        secret: Its secret, ``whsec_`` and base64.
        verify: A certificate file to trust, for an agent's own endpoint.
    """

    def __init__(self, url: str, secret: str, *, verify: str | bool = True) -> None:
        self._url = url
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._session = requests.Session()
        self._session.trust_env = False
        self._verify = verify

    def report(
        self,
        what: str,
        call: dict[str, str],
        *,
        message_id: str | None = None,
        timestamp: float | None = None,
        **more: Any,
    ) -> Answer:
        """Sends one report.

        Args:
            what: ``card_entry.started`` or ``card_entry.ended``.
            call: What names the call, for example ``{"ucid": "00FA..."}``.
            message_id: Of the message; a new one unless it is a repetition.
            timestamp: When it says that it was sent; now.
            more: Further fields of ``data``, such as ``effective_at``.
        """
        return self.send(json.dumps({"type": what, "data": {"call": call, **more}}).encode(), message_id, timestamp)

    def send(
        self,
        body: bytes,
        message_id: str | None = None,
        timestamp: float | None = None,
        signature: str | None = None,
    ) -> Answer:
        """Sends any body, signed unless ``signature`` says otherwise."""
        name = message_id or f"msg_{secrets.token_hex(12)}"
        stamp = str(int(time.time() if timestamp is None else timestamp))
        mac = hmac.digest(self._key, f"{name}.{stamp}.".encode() + body, hashlib.sha256)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": stamp,
            "webhook-signature": signature or f"v1,{base64.b64encode(mac).decode('ascii')}",
        }
        sent_at, began = time.time(), time.monotonic()
        answer = self._session.post(self._url, data=body, headers=headers, timeout=_TIMEOUT_S, verify=self._verify)
        took_ms = 1000 * (time.monotonic() - began)
        return Answer(answer.status_code, answer.json(), sent_at, round(took_ms, 1))
