"""Small recordings for tests of the vault, and the ports of its use cases made real in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualtone.domain import canonical, signing, vault_manifest
from dualtone.domain.errors import IntegrityError, NotFound
from dualtone.domain.ids import AttemptId, CallId, RecordingId, TenantId
from dualtone.domain.kek import KeyItem, KeyScope
from dualtone.usecases import wrap_keys
from dualtone.usecases.open_recording import OpenRecording
from dualtone.usecases.seal_recording import SealedRecording, seal

ACME = TenantId("acme")
GLOBEX = TenantId("globex")
RECORDING = RecordingId("rec_mfrggzdfmztwq2lkmfrggzdfmz")
OTHER_RECORDING = RecordingId("rec_aaaaaaaaaaaaaaaaaaaaaaaaaa")
CALL = CallId("01JD0000000000000000000000")
ATTEMPT = AttemptId("01JD0000000000000000000001")
KEY_A = "arn:aws:kms:eu-west-1:111111111111:key/a"
KEY_B = "arn:aws:kms:eu-west-1:222222222222:key/b"


def ogg_page(body: bytes, sequence: int = 0) -> bytes:
    """An Ogg page with one packet of at most 65,024 bytes."""
    lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
    fixed = b"OggS\x00\x00" + bytes(12) + sequence.to_bytes(4, "little") + bytes(4)
    return fixed + bytes([len(lacing)]) + lacing + body


HEADER_PAGES = ogg_page(b"OpusHead", 0) + ogg_page(b"OpusTags", 1)


def pages_of(seconds: int, body_bytes: int = 12, last_bytes: int = 5) -> list[bytes]:
    """Pages of equal size but for the last, each of another content."""
    sizes = [body_bytes] * (seconds - 1) + [last_bytes]
    return [
        ogg_page(hashlib.shake_128(number.to_bytes(4, "big")).digest(size), number + 2)
        for number, size in enumerate(sizes)
    ]


def sealed(
    pages: list[bytes], *, root: bytes = bytes(range(32)), recording: RecordingId = RECORDING
) -> SealedRecording:
    """A sealed recording of these pages."""
    return seal(
        HEADER_PAGES,
        pages,
        tenant=ACME,
        recording=recording,
        generation=1,
        attempt=ATTEMPT,
        call=CALL,
        started_at_ms=1_732_444_800_000,
        created_at_ms=1_732_444_870_000,
        agent_manifest_sha256=hashlib.sha256(b"manifest").hexdigest(),
        root=root,
    )


class P256Signer:
    """A signer with its key in memory; signatures are RFC 6979."""

    def __init__(self, secret: int = 1) -> None:
        self._private = ec.derive_private_key(secret, ec.SECP256R1())
        self.key_id = f"arn:aws:kms:eu-west-1:000000000000:key/signing-{secret}"
        self.public_key_der = self._private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def public_key(self, key_id: str) -> bytes:
        """The port ``SigningKeys``: trusts this key alone."""
        if key_id != self.key_id:
            raise IntegrityError("not trusted")
        return self.public_key_der

    def sign_manifest(self, payload: bytes) -> bytes:
        return self.sign(signing.message(vault_manifest.KIND, payload))


@dataclass
class Custodians:
    """KMS keys in memory, for the port ``Custody``: wrapping is authenticated and bound to key and context."""

    keys: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _draw: count[int] = field(default_factory=lambda: count(1))

    def generate_data_key(self, key: str, context: dict[str, str]) -> tuple[bytes, bytes]:
        plain = self._random(32)
        nonce = self._random(12)
        return plain, nonce + self._aead(key).encrypt(nonce, plain, canonical.encode(context))

    def decrypt(self, key: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        self.asked.append((key, context))
        try:
            return self._aead(key).decrypt(wrapped[:12], wrapped[12:], canonical.encode(context))
        except InvalidTag as error:
            raise IntegrityError("unwrapping a data key: InvalidCiphertextException") from error

    def custody(self, tenant: TenantId) -> Custodians:
        """The port ``VaultAccess``; who may ask for which tenant is IAM's to decide, not this fake's."""
        return self

    def _aead(self, key: str) -> AESGCM:
        return AESGCM(self.keys.setdefault(key, self._random(32)))

    def _random(self, size: int) -> bytes:
        return hashlib.shake_256(b"custodians" + next(self._draw).to_bytes(8, "big")).digest(size)


@dataclass
class MemoryVault:
    """The vault bucket in memory; notes every range that was fetched."""

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    fetched: list[tuple[int, int]] = field(default_factory=list)

    def get_range(self, key: str, version_id: str, start: int, end: int) -> bytes:
        self.fetched.append((start, end))
        data = self.objects.get((key, version_id))
        if data is None:
            raise NotFound("reading a sealed object: NoSuchVersion")
        if end > len(data):
            raise IntegrityError("the sealed object is shorter than its head says")
        return data[start:end]

    @property
    def fetched_bytes(self) -> int:
        return sum(end - start for start, end in self.fetched)


@dataclass
class MemoryKeys:
    """The keys table in memory."""

    items: dict[tuple[TenantId, RecordingId, int], KeyItem] = field(default_factory=dict)

    def load(self, tenant: TenantId, recording: RecordingId, generation: int) -> KeyItem:
        if (tenant, recording, generation) not in self.items:
            raise NotFound("the recording has no keys")
        return self.items[tenant, recording, generation]


@dataclass(frozen=True)
class Row:
    """A row of the index, as far as opening needs it."""

    tenant: TenantId
    recording_id: RecordingId
    generation: int
    duration_ms: int
    vault_key: str
    vault_version_id: str
    manifest: bytes
    manifest_signature: bytes
    signing_key_arn: str


class Vault:
    """A vault with its custodians, tables and signer, into which recordings are put as the finaliser does."""

    def __init__(self) -> None:
        self.objects = MemoryVault()
        self.keys = MemoryKeys()
        self.custodians = Custodians()
        self.signer = P256Signer()
        self.opener = OpenRecording(self.objects, self.keys, self.custodians, self.signer)

    def store(self, recording: SealedRecording) -> Row:
        manifest = recording.manifest
        self.objects.objects[recording.vault_key, "v1"] = recording.data
        self.keys.items[manifest.tenant, manifest.recording, manifest.generation] = wrap_keys.wrap(
            self.custodians,
            nodes=recording.nodes,
            scope=KeyScope(manifest.tenant, manifest.recording),
            key_a=KEY_A,
            key_b=KEY_B,
            nonce=bytes(12),
            created_at_ms=manifest.created_at_ms,
        )
        return Row(
            manifest.tenant,
            manifest.recording,
            manifest.generation,
            manifest.segment_ms * manifest.segment_count,
            recording.vault_key,
            "v1",
            recording.manifest_payload,
            self.signer.sign_manifest(recording.manifest_payload),
            self.signer.key_id,
        )
