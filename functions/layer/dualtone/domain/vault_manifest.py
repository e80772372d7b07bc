"""The manifest of a recording: what was sealed, signed by the cloud (``infra/formats/manifest.md``).

It is signed as a message of the kind ``recording`` (see ``signing``), so that anyone with the public key can check with
openssl that an object is the one that was sealed. It holds no personal data. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import (
    AttemptId,
    CallId,
    RecordingId,
    TenantId,
    parse_attempt_id,
    parse_call_id,
    parse_recording_id,
    parse_tenant_id,
)

KIND: Final = "recording"
FORMAT: Final = 1

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class VaultManifest:
    """What the signature of a recording is about. All hashes are SHA-256 in lower-case hexadecimal.

    Attributes:
        tenant: The tenant.
        recording: The recording.
        generation: Which version of it, from 1.
        attempt: The sealing attempt, which is part of the object's name.
        call: The agent's id of the call.
        media_type: Of the opened recording.
        segment_ms: How long a segment is.
        segment_count: How many there are.
        header_size_bytes: The length of the object's head.
        header_sha256: Of the object's head.
        merkle_root: Root of the RFC 9162 tree whose leaves are the segments as stored.
        leaves_sha256: Over the leaf hashes of that tree in ascending order: tells reordered from altered.
        object_size_bytes: The length of the object.
        object_sha256: Of the object.
        agent_manifest_sha256: Of the manifest file that the agent signed.
        started_at_ms: When the recording's timeline begins, Unix time.
        created_at_ms: When it was sealed, Unix time.
    """

    tenant: TenantId
    recording: RecordingId
    generation: int
    attempt: AttemptId
    call: CallId
    media_type: str
    segment_ms: int
    segment_count: int
    header_size_bytes: int
    header_sha256: str
    merkle_root: str
    leaves_sha256: str
    object_size_bytes: int
    object_sha256: str
    agent_manifest_sha256: str
    started_at_ms: int
    created_at_ms: int

    def encode(self) -> bytes:
        """The payload that is signed: canonical JSON of all fields and ``format``."""
        return canonical.encode({"format": FORMAT, **asdict(self)})


_NAMES: Final = {field.name for field in fields(VaultManifest)} | {"format"}
_COUNTS: Final = ("generation", "segment_ms", "segment_count", "header_size_bytes", "object_size_bytes")
_TIMES: Final = ("started_at_ms", "created_at_ms")
_HASHES: Final = ("header_sha256", "merkle_root", "leaves_sha256", "object_sha256", "agent_manifest_sha256")


def parse(payload: bytes) -> VaultManifest:
    """Reads a payload whose signature has been checked.

    Raises:
        MalformedInput: If it is not a manifest of format 1 in canonical form.
    """
    value = canonical.decode(payload)
    if not isinstance(value, dict) or set(value) != _NAMES or value.pop("format") != FORMAT:
        raise MalformedInput("not a recording manifest of format 1")
    if any(type(value[name]) is not int or value[name] < 1 for name in _COUNTS):
        raise MalformedInput("the recording manifest counts from one")
    if any(type(value[name]) is not int or value[name] < 0 for name in _TIMES):
        raise MalformedInput("a time of the recording manifest is no Unix time")
    if any(type(value[name]) is not str or not _SHA256.fullmatch(value[name]) for name in _HASHES):
        raise MalformedInput("a hash of the recording manifest is not SHA-256 in hexadecimal")
    if type(value["media_type"]) is not str:
        raise MalformedInput("the recording manifest names no media type")
    parse_tenant_id(value["tenant"])
    parse_recording_id(value["recording"])
    parse_attempt_id(value["attempt"])
    parse_call_id(value["call"])
    manifest = VaultManifest(**value)
    if manifest.encode() != payload:
        raise MalformedInput("the recording manifest is not in canonical form")
    return manifest


def object_key(tenant: TenantId, recording: RecordingId, generation: int, attempt: AttemptId) -> str:
    """The name of the object in the vault. The attempt makes it unique, so that no attempt overwrites another."""
    return f"{tenant}/{recording}/{generation:04d}/{attempt}.dtv"


def leaves_digest(leaf_hashes: Sequence[bytes]) -> str:
    """SHA-256 over the leaf hashes in ascending order, in hexadecimal: the same for every order of the leaves."""
    return hashlib.sha256(b"".join(sorted(leaf_hashes))).hexdigest()
