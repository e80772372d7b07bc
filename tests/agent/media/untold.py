"""What somebody can read who has all of a spool's bytes, the tenant's private key and the agent's memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import part
from dualtone.domain.call_files import OpeningFile
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import CallId
from tests.agent.media.desk import Desk
from tests.agent.media.sealed_call import CALL, _call_key


def files(spool_dir: Path) -> list[str]:
    """Every file of the call, by whatever name."""
    return sorted(path.name for path in _contents(spool_dir) if CALL in path.parts)


def _contents(spool_dir: Path) -> dict[Path, bytes]:
    """All files as they lie there at one look; what is renamed or removed under it means another look."""
    while True:
        with suppress(FileNotFoundError):
            return {path: path.read_bytes() for path in spool_dir.rglob("*") if path.is_file()}


def readable(spool_dir: Path) -> list[bytes]:
    """The plaintexts of all records that any opening record in the spool opens."""
    keys, found = [], []
    contents = _contents(spool_dir)
    for data in (data for path, data in contents.items() if "opening" in path.name):
        with suppress(MalformedInput):
            keys.append(AESGCM(_call_key(OpeningFile.decode(data).wrapped_key, CallId(CALL))))
    for data in (data for path, data in contents.items() if "part-" in path.name):
        with suppress(MalformedInput):
            parsed = part.read(data)
            for record in parsed.records:
                for key in keys:
                    with suppress(IntegrityError):
                        found.append(part.unseal(key, parsed.header, record))
    return found


def remembers(desk: Desk, speech: bytes) -> bool:
    """Whether rings and buffers of the engine hold some speech."""
    return any(speech in buffer.tobytes() for buffer in (desk.ports.buffer, *desk.engine.buffers))
