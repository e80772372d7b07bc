"""Hand out what proves a recording: signed manifest, certificates of gaps, and what checks them with openssl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dualtone.domain import gap_certificate, signing, vault_manifest
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.signing import Envelope


class RecordingIndex(Protocol):
    """The index, by id."""

    def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[RecordingEntry, dict[str, Any]]:
        """Reads a recording; raises NotFound, also if it is another tenant's."""


class SigningKeys(Protocol):
    """The public keys whose signatures on recordings are trusted."""

    def public_key(self, key_id: str) -> bytes:
        """SubjectPublicKeyInfo in DER; raises IntegrityError if the key is not trusted."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What proves a recording.

    Attributes:
        manifest: Canonical JSON: hashes, sizes and times.
        message: The bytes that were signed: a prefix that names their kind, and the manifest.
        signature: DER-coded ECDSA signature over SHA-256 of the message.
        public_key_der: SubjectPublicKeyInfo of the key that verifies it.
        key_id: The name of that key.
        gap_certificates: The certificates of the recording's pauses.
        gap_public_key_der: SubjectPublicKeyInfo of the key that verifies them.
        gap_key_id: The name of that key.
    """

    manifest: bytes
    message: bytes
    signature: bytes
    public_key_der: bytes
    key_id: str
    gap_certificates: tuple[Envelope, ...]
    gap_public_key_der: bytes
    gap_key_id: str


class ReadEvidence:
    """Reads what proves a tenant's recording."""

    def __init__(
        self, index: RecordingIndex, signing_keys: SigningKeys, certificate_keys: SigningKeys, certificate_key: str
    ) -> None:
        """Takes the index, the trusted keys for recordings and for certificates, and today's one for the latter."""
        self._index = index
        self._signing_keys = signing_keys
        self._certificate_keys = certificate_keys
        self._certificate_key = certificate_key

    def read(self, tenant: TenantId, recording: RecordingId) -> Evidence:
        """Reads the evidence, after checking that it is one.

        Raises:
            NotFound: If the tenant has no such recording.
            IntegrityError: If a signature in the index does not verify.
        """
        entry, _metadata = self._index.recording(tenant, recording)
        public_key = self._signing_keys.public_key(entry.signing_key_arn)
        signing.verify(public_key, vault_manifest.KIND, entry.manifest, entry.manifest_signature)
        message = signing.message(vault_manifest.KIND, entry.manifest)
        for certificate in entry.certificates:
            certificate.verified(self._certificate_keys.public_key(certificate.key_id), gap_certificate.KIND)
        gap_key = entry.certificates[-1].key_id if entry.certificates else self._certificate_key
        return Evidence(
            manifest=entry.manifest,
            message=message,
            signature=entry.manifest_signature,
            public_key_der=public_key,
            key_id=entry.signing_key_arn,
            gap_certificates=entry.certificates,
            gap_public_key_der=self._certificate_keys.public_key(gap_key),
            gap_key_id=gap_key,
        )
