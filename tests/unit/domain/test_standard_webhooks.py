"""Standard Webhooks: the specification's own example, and each way of being refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import standard_webhooks as webhooks
from dualtone.domain.errors import DualtoneError, MalformedInput
from dualtone.domain.standard_webhooks import SignatureRefused, TimestampRefused

# The example that the specification and its libraries share.
SECRET = webhooks.read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def verify(**changed: object) -> None:
    values = {"message_id": MESSAGE, "timestamp": str(TIME), "signatures": SIGNATURE, "body": BODY, "now_s": TIME}
    webhooks.verify(SECRET, **(values | changed))  # type: ignore[arg-type]


def test_the_specifications_example() -> None:
    """REQ: Standard Webhooks 1.0: same secret, id, timestamp and body give the published signature."""
    assert webhooks.sign(SECRET, MESSAGE, TIME, BODY) == SIGNATURE
    verify()


@pytest.mark.parametrize("signatures", [f"v1,AAAA {SIGNATURE}", f"v1a,xyz {SIGNATURE} v1,BBBB", f"{SIGNATURE} "])
def test_one_right_signature_among_several_is_enough(signatures: str) -> None:
    """A sender that changes its secret signs with both."""
    verify(signatures=signatures)


@pytest.mark.parametrize(
    "changed",
    [
        {"signatures": "v1,AAAA"},
        {"signatures": SIGNATURE.replace("v1,", "v2,")},
        {"signatures": SIGNATURE.removeprefix("v1,")},
        {"body": BODY + b" "},
        {"message_id": "msg_other"},
        {"timestamp": str(TIME + 1)},
        {"timestamp": "0" + str(TIME)},
    ],
)
def test_anything_changed_is_refused(changed: dict[str, object]) -> None:
    """The signature covers id, timestamp and body."""
    with pytest.raises(SignatureRefused):
        verify(**changed)


@pytest.mark.parametrize("off_s", [301, -301, 86_400])
def test_five_minutes_both_ways(off_s: int) -> None:
    """A recorded message is of no use later."""
    verify(now_s=TIME + (300 if off_s > 0 else -300))
    with pytest.raises(TimestampRefused):
        verify(now_s=TIME + off_s)


def test_an_old_message_with_a_wrong_signature_is_unsigned_first() -> None:
    """Only who holds the secret learns about the window."""
    with pytest.raises(SignatureRefused):
        verify(now_s=TIME + 9999, signatures="v1,AAAA")


@pytest.mark.parametrize(
    "changed",
    [
        {"message_id": ""},
        {"message_id": "a.b"},
        {"message_id": "x" * 257},
        {"message_id": "a b"},
        {"timestamp": ""},
        {"timestamp": "-5"},
        {"timestamp": "1.5"},
        {"timestamp": "\u0661"},
        {"signatures": ""},
        {"signatures": "v1,\u00e4"},
        {"signatures": "v1,AAAA " * 400},
    ],
)
def test_header_fields_have_their_forms(changed: dict[str, object]) -> None:
    """What cannot be a signed message is malformed, not refused."""
    with pytest.raises(MalformedInput):
        verify(**changed)


@given(st.text(max_size=300), st.text(max_size=40), st.text(max_size=300), st.binary(max_size=100))
def test_no_other_error_escapes(message_id: str, timestamp: str, signatures: str, body: bytes) -> None:
    """Whatever a stranger sends."""
    with pytest.raises(DualtoneError):
        webhooks.verify(SECRET, message_id, timestamp, signatures, body, now_s=TIME)


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200), st.integers(0, 10**11))
def test_round_trip(secret: bytes, body: bytes, now_s: int) -> None:
    """What is signed verifies, and a secret reads as it is written."""
    assert webhooks.read_secret(webhooks.write_secret(secret)) == secret
    webhooks.verify(secret, "m-1", str(now_s), webhooks.sign(secret, "m-1", now_s, body), body, now_s=now_s)


@pytest.mark.parametrize("text", ["whsec_", "whsec_AAAA", "whsec_not base64", "whsec_" + "A" * 200, "\u00e4"])
def test_no_secret(text: str) -> None:
    """Too short, too long, or no base64."""
    with pytest.raises(MalformedInput):
        webhooks.read_secret(text)


def test_secrets_have_a_size() -> None:
    """Sixteen bytes are too few."""
    with pytest.raises(ValueError, match="24 to 64"):
        webhooks.write_secret(b"x" * 16)
