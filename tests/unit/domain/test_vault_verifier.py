"""Verification without keys: every change is detected, and the reason is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain import signing, vault_object, vault_verifier
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.vault_manifest import VaultManifest
from dualtone.domain.vault_verifier import Reason, VerificationError
from tests.vault_samples import ACME, GLOBEX, OTHER_RECORDING, RECORDING, P256Signer, pages_of, sealed

SIGNER = P256Signer()
SMALL = sealed(pages_of(3))
SIGNATURE = SIGNER.sign_manifest(SMALL.manifest_payload)
LARGE = sealed(pages_of(61, body_bytes=300, last_bytes=120))
LARGE_SIGNATURE = SIGNER.sign_manifest(LARGE.manifest_payload)


def verify(
    data: bytes = SMALL.data,
    payload: bytes = SMALL.manifest_payload,
    signature: bytes = SIGNATURE,
    key: bytes = SIGNER.public_key_der,
    tenant: TenantId = ACME,
    recording: RecordingId = RECORDING,
) -> VaultManifest:
    return vault_verifier.verify_object(data, payload, signature, key, tenant=tenant, recording=recording)


def reason_of(**changes: object) -> Reason:
    with pytest.raises(VerificationError) as caught:
        verify(**changes)  # type: ignore[arg-type]
    assert str(caught.value).startswith(caught.value.reason.value)
    return caught.value.reason


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    head = vault_object.parse_head(data)
    segments = head.split(0, head.segment_count - 1, data[head.size_bytes :])
    return data[: head.size_bytes], [bytes(segment) for segment in segments]


def test_what_was_sealed_verifies() -> None:
    """The verifier returns the manifest, now proven."""
    assert verify() == SMALL.manifest
    assert verify(LARGE.data, LARGE.manifest_payload, LARGE_SIGNATURE) == LARGE.manifest


@pytest.mark.parametrize("what", ["data", "payload", "signature"])
def test_every_changed_bit_anywhere_is_detected(what: str) -> None:
    """REQ: features Q47 and I6: a one-bit change of object, manifest or signature never verifies. Exhaustive."""
    original = {"data": SMALL.data, "payload": SMALL.manifest_payload, "signature": SIGNATURE}[what]
    expected = {
        "data": {Reason.ALTERED, Reason.SWAPPED},
        "payload": {Reason.WRONG_SIGNER},
        "signature": {Reason.WRONG_SIGNER},
    }[what]
    for bit in range(len(original) * 8):
        changed = bytearray(original)
        changed[bit // 8] ^= 1 << bit % 8
        assert reason_of(**{what: bytes(changed)}) in expected


@pytest.mark.long
@pytest.mark.parametrize("what", ["data", "payload", "signature"])
def test_every_changed_byte_anywhere_is_detected(what: str) -> None:
    """The same with all 255 other values of every byte."""
    original = {"data": SMALL.data, "payload": SMALL.manifest_payload, "signature": SIGNATURE}[what]
    for place in range(len(original)):
        for change in range(1, 256):
            changed = bytearray(original)
            changed[place] ^= change
            reason_of(**{what: bytes(changed)})


@given(st.sampled_from(["data", "payload", "signature"]), st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_anywhere_is_detected(what: str, data: st.DataObject) -> None:
    """A byte of any place may become any other byte: nothing verifies."""
    case = {"data": LARGE.data, "payload": LARGE.manifest_payload, "signature": LARGE_SIGNATURE}
    place = data.draw(st.integers(0, len(case[what]) - 1))
    value = data.draw(st.integers(1, 255))
    changed = bytearray(case[what])
    changed[place] ^= value
    reason_of(**(case | {what: bytes(changed)}))


@pytest.mark.parametrize("what", ["data", "payload", "signature"])
def test_nothing_may_be_missing_or_follow(what: str) -> None:
    """Every prefix is detected, and a byte at either end."""
    original = {"data": SMALL.data, "payload": SMALL.manifest_payload, "signature": SIGNATURE}[what]
    short = {"data": Reason.TRUNCATED}.get(what, Reason.WRONG_SIGNER)
    for length in range(len(original)):
        assert reason_of(**{what: original[:length]}) is short
    for behind in (b"\0", b"\n", original):
        long = {"data": Reason.EXTENDED}.get(what, Reason.WRONG_SIGNER)
        assert reason_of(**{what: original + behind}) is long
    reason_of(**{what: b"\0" + original})


def test_another_recording_is_named_swapped() -> None:
    """Object and manifest of another recording, together or one of them, by id and by tenant."""
    other = sealed(pages_of(9), recording=OTHER_RECORDING, root=bytes(32))
    other_signature = SIGNER.sign_manifest(other.manifest_payload)
    verify(other.data, other.manifest_payload, other_signature, recording=OTHER_RECORDING)
    assert reason_of(data=other.data) is Reason.SWAPPED
    assert reason_of(data=other.data, payload=other.manifest_payload, signature=other_signature) is Reason.SWAPPED
    assert reason_of(payload=other.manifest_payload, signature=other_signature) is Reason.SWAPPED
    assert reason_of(tenant=GLOBEX) is Reason.SWAPPED
    assert reason_of(recording=OTHER_RECORDING) is Reason.SWAPPED


def test_another_attempt_at_the_same_recording_is_not_it() -> None:
    """The same pages sealed under another root have the same head and other segments."""
    again = sealed(pages_of(3), root=bytes(32))
    assert reason_of(data=again.data) is Reason.ALTERED


def test_reordered_segments_are_named_so() -> None:
    """Any two segments of equal size that changed places, and any rotation of them."""
    head, segments = parts(LARGE.data)
    case = {"payload": LARGE.manifest_payload, "signature": LARGE_SIGNATURE}
    for first, second in ((0, 1), (0, 59), (17, 42)):
        exchanged = list(segments)
        exchanged[first], exchanged[second] = segments[second], segments[first]
        assert reason_of(data=head + b"".join(exchanged), **case) is Reason.REORDERED
    rotated = [*segments[1:60], segments[0], segments[60]]
    assert reason_of(data=head + b"".join(rotated), **case) is Reason.REORDERED


def test_a_segment_of_another_size_that_moved_is_detected() -> None:
    """Where the exchanged segments differ in size their borders are lost, and the object counts as altered."""
    head, segments = parts(SMALL.data)
    assert reason_of(data=head + b"".join(segments[::-1])) is Reason.ALTERED


def test_a_repeated_or_foreign_segment_is_detected() -> None:
    """The same second twice, or a second of another recording in its place."""
    head, segments = parts(LARGE.data)
    case = {"payload": LARGE.manifest_payload, "signature": LARGE_SIGNATURE}
    _, foreign = parts(sealed(pages_of(61, 300, 120), recording=OTHER_RECORDING).data)
    for replacement in (segments[1], foreign[0]):
        assert reason_of(data=head + b"".join([replacement, *segments[1:]]), **case) is Reason.ALTERED


def test_a_removed_segment_is_detected() -> None:
    """From the end, the middle and the beginning."""
    head, segments = parts(LARGE.data)
    case = {"payload": LARGE.manifest_payload, "signature": LARGE_SIGNATURE}
    for index in (60, 30, 0):
        rest = segments[:index] + segments[index + 1 :]
        assert reason_of(data=head + b"".join(rest), **case) is Reason.TRUNCATED


def test_another_signer_is_named() -> None:
    """Another key, a key of another curve or kind, no key at all, and a signature over another kind of message."""
    assert reason_of(key=P256Signer(2).public_key_der) is Reason.WRONG_SIGNER
    assert reason_of(signature=P256Signer(2).sign_manifest(SMALL.manifest_payload)) is Reason.WRONG_SIGNER
    assert reason_of(signature=SIGNER.sign(signing.message("manifest", SMALL.manifest_payload))) is Reason.WRONG_SIGNER
    assert reason_of(signature=SIGNER.sign(SMALL.manifest_payload)) is Reason.WRONG_SIGNER
    p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    for key in (p384, rsa_key):
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert reason_of(key=der) is Reason.WRONG_SIGNER
    assert reason_of(key=b"") is Reason.WRONG_SIGNER


@pytest.mark.parametrize(
    "change",
    [
        {"object_sha256": "0" * 64},
        {"segment_count": 4},
        {"segment_ms": 20},
        {"media_type": "audio/wav"},
        {"object_size_bytes": 5000},
        {"generation": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_signed_manifest_that_does_not_fit_its_object(change: dict[str, object]) -> None:
    """The signer's own contradictions do not verify either."""
    payload = replace(SMALL.manifest, **change).encode()  # type: ignore[arg-type]
    assert reason_of(payload=payload, signature=SIGNER.sign_manifest(payload)) is Reason.MALFORMED


def test_a_signed_manifest_that_is_none() -> None:
    """A signature over something else of the right kind is refused as malformed."""
    assert reason_of(payload=b"{}", signature=SIGNER.sign_manifest(b"{}")) is Reason.MALFORMED


def test_a_signed_head_that_is_none() -> None:
    """A head that was hashed and signed but is not of the format is the signer's fault."""
    data = b"DTV9" + SMALL.data[4:]
    size = SMALL.manifest.header_size_bytes
    manifest = replace(SMALL.manifest, header_sha256=hashlib.sha256(data[:size]).hexdigest())
    payload = manifest.encode()
    assert reason_of(data=data, payload=payload, signature=SIGNER.sign_manifest(payload)) is Reason.MALFORMED
