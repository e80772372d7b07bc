"""The certificate of a gap: one spelling, no way to read anything else as one."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import canonical, gap_certificate
from dualtone.domain.agent_events import SilentFrom
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.pause import How, Pause
from tests.vault_samples import ACME, CALL, RECORDING, P256Signer

PAUSE: Final = Pause(
    cause="payment",
    from_us=2_000_000_003_100_000,
    to_us=2_000_000_006_400_000,
    origin="lan",
    number=1_732_444_800_123,
    command="01JD0000000000000000C00001",
    by="endpoint:pay_1",
    effective_at_ms=2_000_000_003_350,
    silent_from=(SilentFrom(0, 4_294_901_760, 2_000_000_003_101_000), SilentFrom(1, None, 2_000_000_003_100_000)),
    how=How.DESTROYED,
)
CERTIFICATE: Final = gap_certificate.of_pause(
    PAUSE,
    tenant=ACME,
    recording=RECORDING,
    call=CALL,
    generation=1,
    agent_manifest_sha256="ab" * 32,
    signed_at_ms=2_000_000_100_000,
    segments=(3, 6),
)


def test_it_says_what_the_pause_was() -> None:
    """There and back."""
    assert gap_certificate.parse(CERTIFICATE.encode()) == CERTIFICATE
    assert CERTIFICATE.pause == PAUSE


def test_it_is_signed_as_what_it_is() -> None:
    """A signature of another kind of message is none of it."""
    signer = P256Signer()
    envelope = CERTIFICATE.sealed_by(signer)
    assert gap_certificate.parse(envelope.verified(signer.public_key_der, "gap-certificate")) == CERTIFICATE
    with pytest.raises(IntegrityError):
        envelope.verified(signer.public_key_der, "recording")
    with pytest.raises(IntegrityError):
        envelope.verified(P256Signer(2).public_key_der, "gap-certificate")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 2),
        ("how", "lost"),
        ("from_us", -1),
        ("from_us", "1"),
        ("segments", [3]),
        ("silent_from", [{"stream": 0, "rtp_timestamp": 2**32, "at_us": 0}]),
        ("agent_manifest_sha256", "ab"),
        ("by", None),
        ("number", "+442079460123"),
        ("extra", 1),
    ],
)
def test_anything_else_is_malformed(name: str, value: Any) -> None:
    """Every field is there and of its type, and there is no other."""
    content: dict[str, Any] = canonical.decode(CERTIFICATE.encode())
    with pytest.raises(MalformedInput):
        gap_certificate.parse(canonical.encode(content | {name: value}))
    content.pop(name, None)
    if name != "extra":
        with pytest.raises(MalformedInput):
            gap_certificate.parse(canonical.encode(content))


def test_another_spelling_is_malformed() -> None:
    """One certificate has one form."""
    with pytest.raises(MalformedInput):
        gap_certificate.parse(CERTIFICATE.encode() + b" ")


def changed(at: int, replacement: bytes) -> bytes:
    encoded = CERTIFICATE.encode()
    return encoded[:at] + replacement + encoded[at + len(replacement) :]


@given(st.binary(max_size=200) | st.builds(changed, st.integers(0, 500), st.binary(max_size=3)))
def test_whatever_comes_is_refused_or_read(data: bytes) -> None:
    """Only MalformedInput may escape."""
    try:
        assert gap_certificate.parse(data).encode() == data
    except MalformedInput:
        return
