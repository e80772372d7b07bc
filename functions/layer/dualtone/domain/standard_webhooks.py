"""Standard Webhooks: signing a message and checking that one was signed, recently, by who shares the secret. Pure.

REQ: Standard Webhooks specification 1.0: the signature is HMAC-SHA-256, in base64 with the prefix ``v1,``, over
``{webhook-id}.{webhook-timestamp}.{body}``. The header may carry several signatures with a space between, while a
sender changes its secret. A secret is 24 to 64 random bytes, written as ``whsec_`` and base64.

Not here: asymmetric signatures (``v1a``), which no payment system of ours uses, and the memory of ids that were used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

from dualtone.domain.errors import MalformedInput, PolicyViolation

WINDOW_S: Final = 300
SECRET_BYTES: Final = 32
MAX_BODY_BYTES: Final = 16 * 1024

_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"
_SHORTEST_SECRET, _LONGEST_SECRET = 24, 64
_LONGEST_HEADER: Final = 2048
# REQ: a full stop parts id, timestamp and body in what is signed, so an id holds none.
_ID: Final = re.compile(r"[A-Za-z0-9_~:+/=-]{1,256}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


class SignatureRefused(PolicyViolation):
    """No signature of the message was made with the secret."""


class TimestampRefused(PolicyViolation):
    """The message was signed too long ago, or says that it will be signed later than now."""


def write_secret(secret: bytes) -> str:
    """Writes a secret as it is shown to people; raises ValueError unless it has 24 to 64 bytes."""
    if not _SHORTEST_SECRET <= len(secret) <= _LONGEST_SECRET:
        raise ValueError("the secret of a webhook has 24 to 64 bytes")
    return _PREFIX + base64.b64encode(secret).decode("ascii")


def read_secret(text: str) -> bytes:
    """Reads a secret, with or without its prefix; raises MalformedInput."""
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedInput("the secret of a webhook is `whsec_` and base64") from error
    if not _SHORTEST_SECRET <= len(secret) <= _LONGEST_SECRET:
        raise MalformedInput("the secret of a webhook has 24 to 64 bytes")
    return secret


def sign(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Signs a message.

    Args:
        secret: The bytes, not their spelling.
        message_id: ``webhook-id``: unique for each message, the same when it is sent again.
        timestamp_s: ``webhook-timestamp``: Unix time in seconds of this attempt.
        body: As it is sent.

    Returns:
        The value of ``webhook-signature``.

    Raises:
        MalformedInput: If the id is not usable.
    """
    return f"{_VERSION},{_mac(secret, _usable(message_id), str(timestamp_s), body)}"


def verify(secret: bytes, message_id: str, timestamp: str, signatures: str, body: bytes, *, now_s: int) -> None:
    """Checks a message in three steps.

    1. The three header fields have their forms.
    2. One of the signatures is this secret's over id, timestamp and body; all are compared, each in constant time.
    3. The timestamp lies within five minutes of now. Only who holds the secret learns of this step.

    Args:
        secret: The bytes that both sides share.
        message_id: ``webhook-id`` as received.
        timestamp: ``webhook-timestamp`` as received.
        signatures: ``webhook-signature`` as received.
        body: As received, byte for byte.
        now_s: Unix time in seconds.

    Raises:
        MalformedInput: If a header field is missing or has another form.
        SignatureRefused: If no signature is right.
        TimestampRefused: If the message is too old, or from the future.
    """
    message_id = _usable(message_id)
    if not _TIMESTAMP.fullmatch(timestamp):
        raise MalformedInput("webhook-timestamp is Unix time in whole seconds")
    if not signatures or len(signatures) > _LONGEST_HEADER or not signatures.isascii():
        raise MalformedInput("webhook-signature holds one or more of `v1,<base64>`, with spaces between")
    expected = _mac(secret, message_id, timestamp, body)
    matches = [
        hmac.compare_digest(signature, expected)
        for version, _comma, signature in (entry.partition(",") for entry in signatures.split(" "))
        if version == _VERSION
    ]
    if not any(matches):
        raise SignatureRefused("the signature does not fit this body, id and timestamp under this endpoint's secret")
    if abs(now_s - int(timestamp)) > WINDOW_S:
        raise TimestampRefused("webhook-timestamp is more than five minutes from now: sign each attempt anew")


def _usable(message_id: str) -> str:
    if not _ID.fullmatch(message_id):
        raise MalformedInput("webhook-id is 1 to 256 letters, digits and `_~:+/=-`, without a full stop")
    return message_id


def _mac(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = f"{message_id}.{timestamp}.".encode("ascii") + body
    return base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode("ascii")
