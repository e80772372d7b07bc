"""Open a recording, or the seconds of it that were asked for: a byte range of a file that exists nowhere.

The virtual .opus file is the header pages and all opened segments one after another. A range of it is served by one
ranged read of the vault and the leaf keys of exactly the segments that the range touches; nothing else is fetched, and
no other key is derived. The caller writes the audit event before it calls ``read``, from ``Layout.span_ms``.

A second whose key was destroyed is a page of silence in its place, of the same size, sequence number and granule
position: the file stays a valid one, and everything after it plays at its time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Final, Protocol

from dualtone.domain import keytree, ogg_page, vault_object, vault_verifier
from dualtone.domain.audio import ogg
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.kek import KeyItem, KeyScope
from dualtone.domain.vault_object import Head
from dualtone.usecases import wrap_keys
from dualtone.usecases.wrap_keys import Custody

_HEADS_KEPT: Final = 16
_RANGE_NOT_SATISFIABLE: Final = 416
_TICKS_PER_MS: Final = 48


class StoredRecording(Protocol):
    """What the index knows of a sealed recording; the index's own row fits."""

    @property
    def tenant(self) -> TenantId:
        """The tenant."""

    @property
    def recording_id(self) -> RecordingId:
        """The recording."""

    @property
    def generation(self) -> int:
        """Which version of the recording."""

    @property
    def duration_ms(self) -> int:
        """How long it is."""

    @property
    def vault_key(self) -> str:
        """The object's name."""

    @property
    def vault_version_id(self) -> str:
        """The object's version in S3."""

    @property
    def manifest(self) -> bytes:
        """The manifest as it was signed."""

    @property
    def manifest_signature(self) -> bytes:
        """The signature over it, DER."""

    @property
    def signing_key_arn(self) -> str:
        """Which key signed."""


class VaultReader(Protocol):
    """The vault, for reading."""

    def get_range(self, key: str, version_id: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of an object, ``end`` not included; raises IntegrityError if it has fewer."""


class KeyItems(Protocol):
    """The keys table, for reading."""

    def load(self, tenant: TenantId, recording: RecordingId, generation: int) -> KeyItem:
        """The item of a generation of a recording; raises NotFound if there is none or it was destroyed."""


class VaultAccess(Protocol):
    """Gives each tenant's session at the custodians."""

    def custody(self, tenant: TenantId) -> Custody:
        """The custodians' keys, with this tenant's rights and no other's."""


class SigningKeys(Protocol):
    """The public keys whose signatures on recordings are trusted."""

    def public_key(self, key_id: str) -> bytes:
        """SubjectPublicKeyInfo in DER; raises IntegrityError if the key is not trusted."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in the virtual file.

    Attributes:
        total_bytes: How long the file is.
        header_pages: Its first bytes.
        page_offsets: Where each page begins, and where the last one ends.
        segment_ms: How long a page lasts.
    """

    total_bytes: int
    header_pages: bytes = field(repr=False)
    page_offsets: tuple[int, ...] = field(repr=False)
    segment_ms: int

    def segments(self, first_byte: int, last_byte: int) -> range:
        """The segments that a byte range touches, both bounds included; empty if it lies in the header pages.

        Raises:
            MalformedInput: With HTTP status 416, if the range is not within the file.
        """
        if not 0 <= first_byte <= last_byte < self.total_bytes:
            raise MalformedInput("the range is not within the recording", http_status=_RANGE_NOT_SATISFIABLE)
        first = max(bisect_right(self.page_offsets, first_byte) - 1, 0)
        return range(first, bisect_left(self.page_offsets, last_byte + 1))

    def span_ms(self, first_byte: int, last_byte: int) -> tuple[int, int] | None:
        """Which time a byte range releases: from and to in ms after the start, or None for header pages alone.

        Raises:
            MalformedInput: As ``segments`` does.
        """
        touched = self.segments(first_byte, last_byte)
        return (touched.start * self.segment_ms, touched.stop * self.segment_ms) if touched else None


class OpenRecording:
    """Opens recordings. Keeps the verified heads of the last few objects, never a key."""

    def __init__(self, vault: VaultReader, keys: KeyItems, access: VaultAccess, signing_keys: SigningKeys) -> None:
        """Takes the ports: the vault bucket, the keys table, the custodians and the trusted signing keys."""
        self._vault = vault
        self._keys = keys
        self._access = access
        self._signing_keys = signing_keys
        self._heads: dict[tuple[str, str, str, str], Head] = {}

    def layout(self, recording: StoredRecording) -> Layout:
        """Tells how the virtual file is laid out, from the signed head; opens nothing.

        Raises:
            IntegrityError: If manifest or head are not those that were signed for this recording.
            NotFound: If the object is gone.
            Unavailable: If a store does not answer.
        """
        head = self._head(recording)
        offsets = head.page_offsets
        return Layout(offsets[-1], head.header.header_pages, offsets, head.header.segment_ms)

    def read(self, recording: StoredRecording, first_byte: int, last_byte: int) -> bytes:
        """Opens a range of the virtual file, both bounds included.

        Args:
            recording: What the index says.
            first_byte: The first byte, from 0.
            last_byte: The last byte.

        Returns:
            Exactly the bytes asked for.

        Raises:
            IntegrityError: If anything on the way is not what was sealed.
            MalformedInput: With HTTP status 416, if the range is not within the file.
            NotFound: If the object or all of its keys are gone.
            PolicyViolation: If a custodian refuses.
            Unavailable: If a store or a custodian does not answer.
        """
        layout = self.layout(recording)
        touched = layout.segments(first_byte, last_byte)
        if not touched:
            return layout.header_pages[first_byte : last_byte + 1]
        start = layout.page_offsets[touched.start]
        opened = b"".join(self._open(recording, touched))
        if first_byte < start:
            return layout.header_pages[first_byte:] + opened[: last_byte + 1 - start]
        return opened[first_byte - start : last_byte + 1 - start]

    def _open(self, recording: StoredRecording, touched: range) -> list[bytes]:
        head = self._head(recording)
        first, last = touched.start, touched.stop - 1
        # Step 1: both custodians, or nothing.
        item = self._keys.load(recording.tenant, recording.recording_id, recording.generation)
        scope = KeyScope(recording.tenant, recording.recording_id, item.version)
        nodes = wrap_keys.unwrap(self._access.custody(recording.tenant), item, scope)
        if nodes.count != head.segment_count:
            raise vault_verifier.VerificationError(
                vault_verifier.Reason.SWAPPED, "the keys are those of another version of the recording"
            )
        # Step 2: the leaf keys of these segments, of those that have one.
        leaf_keys = list(keytree.derive_kept(nodes, first, last))
        if not any(leaf_keys):
            return [_silence(head, index, recording.duration_ms) for index in touched]
        # Step 3: one contiguous read.
        sealed = self._vault.get_range(recording.vault_key, recording.vault_version_id, *head.span(first, last))
        # Step 4: open each in its place.
        return [
            vault_object.open_segment(head, index, key, segment)
            if key is not None
            else _silence(head, index, recording.duration_ms)
            for index, key, segment in zip(touched, leaf_keys, head.split(first, last, sealed), strict=True)
        ]

    def _head(self, recording: StoredRecording) -> Head:
        name = (recording.tenant, recording.recording_id, recording.vault_key, recording.vault_version_id)
        head = self._heads.get(name)
        if head is None:
            head = self._verified_head(recording)
            self._heads[name] = head
            for oldest in list(self._heads)[:-_HEADS_KEPT]:
                self._heads.pop(oldest, None)
        return head

    def _verified_head(self, recording: StoredRecording) -> Head:
        manifest = vault_verifier.verify_manifest(
            recording.manifest,
            recording.manifest_signature,
            self._signing_keys.public_key(recording.signing_key_arn),
            tenant=recording.tenant,
            recording=recording.recording_id,
        )
        head = self._vault.get_range(recording.vault_key, recording.vault_version_id, 0, manifest.header_size_bytes)
        return vault_verifier.verify_head(head, manifest)


def _silence(head: Head, index: int, duration_ms: int) -> bytes:
    """What is played for a segment whose key was destroyed.

    The last page's granule position tells where the audio ends; it is reckoned from the duration in milliseconds.
    """
    header = head.header
    ticks = _TICKS_PER_MS * header.segment_ms
    is_last = index == head.segment_count - 1
    end = ogg.pre_skip(header.header_pages) + _TICKS_PER_MS * duration_ms
    granule = min(max(end, ticks * index + 1), ticks * (index + 1)) if is_last else ticks * (index + 1)
    return ogg.silent_page(
        header.header_pages,
        number=index + sum(1 for _ in ogg_page.split_pages(header.header_pages)),
        granule=granule,
        packets=-((ticks * index - granule) // ogg.PACKET_TICKS),
        is_last=is_last,
        size_bytes=header.page_sizes[index],
    )
