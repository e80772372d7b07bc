"""Checking a recording without being able to open it: is this object the one that was sealed and signed?

Needs no key but the public one, and trusts nothing else. The steps, numbered here and in the code:

1. The signature is this key's over this manifest. Nothing unsigned is looked at.
2. The manifest is one, and is about the recording that was asked for.
3. The object's head is the one in the manifest.
4. The object is as long as the manifest says: nothing missing, nothing behind.
5. Head and manifest agree on what is in the object.
6. The segments, in order, are the leaves of the signed Merkle root.
7. The object's SHA-256 is the signed one.

Every failure names its reason. Segments that changed places are told from altered ones where the exchanged ones are of
equal length, as all but a recording's last are at constant bit rate. Pure.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from dualtone.domain import merkle, signing, vault_manifest, vault_object
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.vault_manifest import VaultManifest
from dualtone.domain.vault_object import Head


class Reason(StrEnum):
    """Why an object is refused."""

    WRONG_SIGNER = "wrong signer"
    """The manifest is not signed by this key: another signer, or a manifest or signature altered since."""
    SWAPPED = "swapped"
    """Manifest or object belong to another recording, tenant or version."""
    ALTERED = "altered"
    """Bytes of the object are not those that were sealed."""
    TRUNCATED = "truncated"
    """The end of the object is missing."""
    EXTENDED = "extended"
    """Something stands behind the object's end."""
    REORDERED = "reordered"
    """All segments are there, unaltered, in another order."""
    MALFORMED = "malformed"
    """Signed, but not a manifest and an object that fit each other: the signer's fault."""


class VerificationError(IntegrityError):
    """A recording that does not verify.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason


def verify_manifest(
    payload: bytes, signature: bytes, public_key_der: bytes, *, tenant: TenantId, recording: RecordingId
) -> VaultManifest:
    """Steps 1 and 2: is this the signed manifest of this recording?

    Args:
        payload: The manifest as it was signed.
        signature: DER-coded ECDSA signature over ``signing.message("recording", payload)``.
        public_key_der: SubjectPublicKeyInfo of the P-256 key that is trusted.
        tenant: The tenant that is expected.
        recording: The recording that is expected.

    Returns:
        The manifest.

    Raises:
        VerificationError: With the reason WRONG_SIGNER, MALFORMED or SWAPPED.
    """
    # Step 1.
    try:
        signing.verify(public_key_der, vault_manifest.KIND, payload, signature)
    except IntegrityError as error:
        raise VerificationError(Reason.WRONG_SIGNER, "the manifest is not signed by this key") from error
    # Step 2.
    try:
        manifest = vault_manifest.parse(payload)
    except MalformedInput as error:
        raise VerificationError(Reason.MALFORMED, str(error)) from error
    if (manifest.tenant, manifest.recording) != (tenant, recording):
        raise VerificationError(Reason.SWAPPED, "the manifest is about another recording")
    return manifest


def verify_head(data: bytes | memoryview, manifest: VaultManifest) -> Head:
    """Steps 3 and 5: is this the head that the manifest speaks of?

    Args:
        data: The object's first ``manifest.header_size_bytes`` bytes, or more of it.
        manifest: A verified manifest.

    Returns:
        The head.

    Raises:
        VerificationError: With the reason TRUNCATED, SWAPPED, ALTERED or MALFORMED.
    """
    # Step 3.
    encoded = data[: manifest.header_size_bytes]
    if hashlib.sha256(encoded).hexdigest() != manifest.header_sha256:
        raise VerificationError(_why_another_head(data, manifest), "the head is not the one that was signed")
    # Step 5.
    try:
        head = vault_object.parse_head(encoded)
    except MalformedInput as error:
        raise VerificationError(Reason.MALFORMED, str(error)) from error
    header = head.header
    signed = (
        manifest.recording,
        manifest.generation,
        manifest.media_type,
        manifest.segment_ms,
        manifest.segment_count,
        manifest.header_size_bytes,
        manifest.object_size_bytes,
    )
    said = (
        header.recording,
        header.generation,
        header.media_type,
        header.segment_ms,
        head.segment_count,
        head.size_bytes,
        head.object_size_bytes,
    )
    if signed != said:
        raise VerificationError(Reason.MALFORMED, "head and manifest were signed as one but do not agree")
    return head


def verify_object(
    data: bytes | memoryview,
    payload: bytes,
    signature: bytes,
    public_key_der: bytes,
    *,
    tenant: TenantId,
    recording: RecordingId,
) -> VaultManifest:
    """Checks a whole object against its signed manifest.

    Args:
        data: The object.
        payload: The manifest as it was signed.
        signature: DER-coded ECDSA signature over ``signing.message("recording", payload)``.
        public_key_der: SubjectPublicKeyInfo of the P-256 key that is trusted.
        tenant: The tenant that is expected.
        recording: The recording that is expected.

    Returns:
        The manifest, now proven.

    Raises:
        VerificationError: With the reason of the first step that fails.
    """
    view = memoryview(data)
    # Steps 1 and 2: signature, manifest, recording.
    manifest = verify_manifest(payload, signature, public_key_der, tenant=tenant, recording=recording)
    # Steps 3 to 5: head and length. A foreign object is called swapped before its length is looked at.
    head = verify_head(view, manifest)
    if len(view) < manifest.object_size_bytes:
        raise VerificationError(Reason.TRUNCATED, "the object is shorter than it was signed")
    if len(view) > manifest.object_size_bytes:
        raise VerificationError(Reason.EXTENDED, "the object is longer than it was signed")
    # Step 6: the segments.
    segments = head.split(0, head.segment_count - 1, view[head.size_bytes :])
    leaves = [merkle.leaf_hash(segment) for segment in segments]
    if merkle.root(leaves).hex() != manifest.merkle_root:
        if vault_manifest.leaves_digest(leaves) == manifest.leaves_sha256:
            raise VerificationError(Reason.REORDERED, "segments changed places")
        raise VerificationError(Reason.ALTERED, "a segment is not the one that was signed")
    # Step 7: the whole.
    if hashlib.sha256(view).hexdigest() != manifest.object_sha256:
        raise VerificationError(Reason.MALFORMED, "the signed hashes of object and segments do not agree")
    return manifest


def _why_another_head(data: bytes | memoryview, manifest: VaultManifest) -> Reason:
    """Swapped if the data begin with a well-formed head of another recording or version, else cut short or altered."""
    try:
        header = vault_object.parse_head(data).header
    except MalformedInput:
        return Reason.TRUNCATED if len(data) < manifest.header_size_bytes else Reason.ALTERED
    same = (header.recording, header.generation) == (manifest.recording, manifest.generation)
    return Reason.ALTERED if same else Reason.SWAPPED
