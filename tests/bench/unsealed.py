"""What the spool of a benchmark's agent holds: opened with the ingest key's private half, counted by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import media_record, part
from dualtone.domain.call_files import OpeningFile, unbound_call_key
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.part import RecordType

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def packets(spool_dir: Path, tenant: str, key: rsa.RSAPrivateKey) -> int:
    """How many RTP packets lie in the spool, each sequence number of a stream once.

    Args:
        spool_dir: Calls of less than 65,536 packets a stream, one SSRC each.
        tenant: Whose they are.
        key: What their keys are wrapped to.
    """
    return sum(_of_call(directory, TenantId(tenant), key) for directory in spool_dir.glob("[!.]*"))


def _of_call(directory: Path, tenant: TenantId, key: rsa.RSAPrivateKey) -> int:
    wrapped = OpeningFile.decode((directory / "opening-00.json").read_bytes()).wrapped_key
    call_key = AESGCM(unbound_call_key(tenant, CallId(directory.name), key.decrypt(wrapped, _OAEP)))
    seen: dict[int, list[np.ndarray]] = {}
    for path in directory.glob("part-*.dtp"):
        found = part.read(path.read_bytes())
        for record in found.records:
            if record.head.type is RecordType.MEDIA:
                for block in media_record.decode(part.unseal(call_key, found.header, record)):
                    seen.setdefault(block.stream, []).append(block.sequence)
    return sum(np.unique(np.concatenate(numbers)).size for numbers in seen.values())
