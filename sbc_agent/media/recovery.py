"""What an earlier run of the agent left behind: its calls are closed with what reached the disk.

No key is needed, for records are sealed already: a torn tail is cut, the part is signed as it is, and a manifest says
that the call ended in an error. Nothing that is whole is lost; only a part without a single record is deleted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dualtone.domain import canonical, part, signing
from dualtone.domain.call_files import MANIFEST_NAME, EpochEntry, OpeningFile, PartEntry
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, CallId, TenantId, parse_call_id
from sbc_agent.media.call import manifest_of_state
from sbc_agent.media.messages import Alarm, Event
from sbc_agent.media.seal import AgentKey
from sbc_agent.media.spool import OPEN_SUFFIX, STATE_NAME, write_manifest
from sbc_agent.runtime.durable import PRIVATE_FILE, sync_directory

_SUFFIX: Final = ".dtp"


@dataclass(frozen=True, slots=True)
class Recovery:
    """Closes unfinished calls.

    Attributes:
        spool_dir: Where they lie.
        tenant: Owner of the calls.
        agent: This agent.
        version: Of its software.
        key: The agent's key.
        wall_offset_us: Wall clock minus agent's clock: file times are the wall clock's.
    """

    spool_dir: Path
    tenant: TenantId
    agent: AgentId
    version: str
    key: AgentKey
    wall_offset_us: int

    def unfinished(self) -> list[CallId]:
        """The calls that have a directory but no manifest, oldest first."""
        return sorted(self._unfinished())

    def close(self, call: CallId) -> list[Event]:
        """Closes a call.

        Returns:
            What to tell: that it is finished, or that nothing can ever open it.

        Raises:
            OSError: If the spool cannot be read or written; it can be tried again.
        """
        directory = self.spool_dir / call
        try:
            epochs, state = self._opened(directory)
            ended_at_us = self._last_write_us(directory)
            for path in sorted(directory.glob(f"*{_SUFFIX}{OPEN_SUFFIX}")):
                self._close_part(path, call)
            manifest = manifest_of_state(
                state,
                tenant=self.tenant,
                agent=self.agent,
                call=call,
                version=self.version,
                epochs=epochs,
                parts=[_entry(path) for path in sorted(directory.glob(f"*{_SUFFIX}"))],
                ended_at_us=ended_at_us,
            )
        except (MalformedInput, IntegrityError):
            return [Alarm(kind="unrecoverable", call=call)]
        finished = write_manifest(directory / MANIFEST_NAME, manifest.sealed_by(self.key), call)
        return [Alarm(kind="recovered", call=call), *finished]

    def _unfinished(self) -> Iterator[CallId]:
        for path in self.spool_dir.iterdir():
            with suppress(MalformedInput):
                call = parse_call_id(path.name)
                if path.is_dir() and not (path / MANIFEST_NAME).exists():
                    yield call

    def _opened(self, directory: Path) -> tuple[list[EpochEntry], dict[str, Any]]:
        """The call's keys, and what was noted of it; without a note, when it began is all that is known."""
        epochs, started_at_us = [], 0
        for path in sorted(directory.glob("opening-*.json")):
            data = path.read_bytes()
            opening = OpeningFile.decode(data).verified(self.key.public_key_der)
            epochs.append(EpochEntry(opening.epoch, hashlib.sha256(data).hexdigest()))
            started_at_us = started_at_us or opening.started_at_us
        if not epochs:
            raise MalformedInput("a call without an opening record")
        with suppress(FileNotFoundError, MalformedInput):
            state = canonical.decode((directory / STATE_NAME).read_bytes())
            if isinstance(state, dict):
                return epochs, state
        return epochs, {"answered_at_us": started_at_us, "streams": [], "gaps": [], "open_gaps": [], "flags": []}

    def _last_write_us(self, directory: Path) -> int:
        newest = max(path.stat().st_mtime_ns for path in directory.iterdir())
        return newest // 1000 - self.wall_offset_us

    def _close_part(self, path: Path, call: CallId) -> None:
        data = path.read_bytes()
        try:
            found = part.read(data)
        except MalformedInput:
            path.unlink()  # the run ended before the head of the part was written
            return
        header = found.header
        if (header.tenant, header.agent, header.call) != (self.tenant, self.agent, call):
            raise IntegrityError("a part of another call")
        if not found.records:
            path.unlink()
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            if found.signature is None:
                message = signing.message("part", found.digest)
                os.ftruncate(descriptor, found.signed_length)
                trailer = part.encode_trailer(self.key.sign(message), len(found.records))
                os.pwrite(descriptor, trailer, found.signed_length)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.rename(path.with_name(path.name.removesuffix(OPEN_SUFFIX)))
        sync_directory(path.parent)


def _entry(path: Path) -> PartEntry:
    data = path.read_bytes()
    found = part.read(data)
    return PartEntry(found.header.epoch, found.header.index, found.digest.hex(), len(data), len(found.records))
