"""Seal a recording: from Ogg pages to the bytes that go to the vault, the manifest to sign, and the keys to wrap.

Pure: the root, the times and the ids are arguments. The caller signs ``manifest_payload`` as a message of the kind
``recording``, stores the object, and wraps ``nodes`` (see ``wrap_keys``); the root dies with the caller's memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from dualtone.domain import keytree, merkle, ogg_page, vault_manifest, vault_object
from dualtone.domain.ids import AttemptId, CallId, RecordingId, TenantId
from dualtone.domain.keytree import NodeSet
from dualtone.domain.vault_manifest import VaultManifest
from dualtone.domain.vault_object import Head, Header

OPUS_MEDIA_TYPE: Final = "audio/ogg; codecs=opus"
SEGMENT_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class SealedRecording:
    """A sealed recording, ready to be stored.

    Attributes:
        data: The vault object.
        manifest: What is to be signed about it.
        manifest_payload: The manifest's bytes.
        nodes: The key tree, nothing punctured. To be wrapped, never to be stored as it is.
        vault_key: The name under which the object is stored.
    """

    data: bytes = field(repr=False)
    manifest: VaultManifest
    manifest_payload: bytes = field(repr=False)
    nodes: NodeSet = field(repr=False)
    vault_key: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the object in hexadecimal."""
        return self.manifest.object_sha256

    @property
    def segment_count(self) -> int:
        """How many segments the object has."""
        return self.manifest.segment_count


def seal(
    header_pages: bytes,
    pages: Sequence[bytes],
    *,
    tenant: TenantId,
    recording: RecordingId,
    generation: int,
    attempt: AttemptId,
    call: CallId,
    started_at_ms: int,
    created_at_ms: int,
    agent_manifest_sha256: str,
    root: bytes,
    media_type: str = OPUS_MEDIA_TYPE,
    segment_ms: int = SEGMENT_MS,
) -> SealedRecording:
    """Seals the pages of an encoded recording.

    Args:
        header_pages: The Ogg pages OpusHead and OpusTags, one after the other.
        pages: The audio, one complete Ogg page per segment; at least one.
        tenant: The tenant.
        recording: The recording.
        generation: Which version of the recording, from 1.
        attempt: This attempt to finalise it.
        call: The agent's id of the call.
        started_at_ms: When the first segment begins, Unix time.
        created_at_ms: Now, Unix time.
        agent_manifest_sha256: SHA-256 of the agent's manifest file, hexadecimal.
        root: 32 random bytes, drawn for this attempt and used for nothing else.
        media_type: Of the virtual file.
        segment_ms: How long a segment is.

    Returns:
        The sealed recording.

    Raises:
        MalformedInput: If a page is not one complete Ogg page, or a value is outside the format.
        ValueError: If the root is not 32 bytes.
    """
    _check_pages(header_pages, pages)
    header = Header(
        recording=recording,
        generation=generation,
        media_type=media_type,
        segment_ms=segment_ms,
        page_sizes=tuple(len(page) for page in pages),
        header_pages=header_pages,
    )
    encoded = vault_object.encode_head(header)
    head = Head(header, encoded)
    nodes = keytree.full(root, len(pages))
    # The object is the largest thing here, 97 MB for eight hours: it is written once, and getvalue does not copy it.
    written, leaves = BytesIO(), list[bytes]()
    written.write(encoded)
    for segment in vault_object.seal_segments(head, keytree.derive_range(nodes, 0, len(pages) - 1), pages):
        written.write(segment)
        leaves.append(merkle.leaf_hash(segment))
    data = written.getvalue()
    manifest = VaultManifest(
        tenant=tenant,
        recording=recording,
        generation=generation,
        attempt=attempt,
        call=call,
        media_type=media_type,
        segment_ms=segment_ms,
        segment_count=head.segment_count,
        header_size_bytes=head.size_bytes,
        header_sha256=head.sha256.hex(),
        merkle_root=merkle.root(leaves).hex(),
        leaves_sha256=vault_manifest.leaves_digest(leaves),
        object_size_bytes=len(data),
        object_sha256=hashlib.sha256(data).hexdigest(),
        agent_manifest_sha256=agent_manifest_sha256,
        started_at_ms=started_at_ms,
        created_at_ms=created_at_ms,
    )
    return SealedRecording(
        data=data,
        manifest=manifest,
        manifest_payload=manifest.encode(),
        nodes=nodes,
        vault_key=vault_manifest.object_key(tenant, recording, generation, attempt),
    )


def _check_pages(header_pages: bytes, pages: Sequence[bytes]) -> None:
    for _ in ogg_page.split_pages(header_pages):
        pass
    for page in pages:
        ogg_page.check_one(page)
