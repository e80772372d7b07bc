"""Whether the spool has room for new calls, and what becomes of them when it has not.

A disk is *full* before its last byte is gone: what is left is kept for the calls in progress. Beside what the file
system says, the media process tells when it was refused, for quotas and broken disks show in no figure; then nothing
but a write that succeeds shows that there is room again. Looked at once a second and at no packet and no call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sbc_agent.runtime.config import WhenFull
from sbc_agent.runtime.logs import Log, OwnWords

LOOK_EVERY_S: Final = 1.0
_AGAIN_EIGHTHS: Final = 9  # room again at nine eighths of the limit, so that the edge does not flutter
_FEW_FILES: Final = 1_000
_PROBE_BYTES: Final = 256 << 10
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """What a file system has left for the agent's user: bytes, and files that can be made (None: no limit known)."""

    free_bytes: int
    free_files: int | None = None

    @classmethod
    def of(cls, path: Path) -> DiskSpace:
        """Asks the file system that a path lies on; raises OSError."""
        stat = os.statvfs(path)
        return cls(stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else None)


def takes_a_write(path: Path) -> bool:
    """Whether a directory takes a file right now; it is gone at once."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


class SpoolRoom:
    """Looks after the room in the spool.

    Args:
        spool_dir: The spool.
        min_free_bytes: Free space below which it is full.
        when_full: What becomes of new calls then.
        log: Where its beginning and end are told.
        measure: What the file system says.
        probe: Whether it takes a write.

    Attributes:
        full: Whether it is full, as last seen.
    """

    def __init__(
        self,
        spool_dir: Path,
        *,
        min_free_bytes: int,
        when_full: WhenFull,
        log: Log,
        measure: Callable[[Path], DiskSpace] = DiskSpace.of,
        probe: Callable[[Path], bool] = takes_a_write,
    ) -> None:
        self._spool_dir = spool_dir
        self._min_free_bytes = min_free_bytes
        self._when_full = when_full
        self._log = log
        self._measure = measure
        self._probe = probe
        self._was_refused = False
        self.full = False

    @property
    def takes_calls(self) -> bool:
        """Whether a new call may be taken."""
        return not self.full or self._when_full == "record_in_memory"

    def refused(self) -> None:
        """The media process could not write: full, whatever the file system says, until it takes a write again."""
        self._was_refused = True
        self._begins("write_refused", self._space().free_bytes)

    def look(self) -> None:
        """Looks, and tells if something changed."""
        space = self._space()
        needed = self._min_free_bytes * _AGAIN_EIGHTHS // 8 if self.full else self._min_free_bytes
        if space.free_bytes < needed:
            self._begins("little_space", space.free_bytes)
        elif space.free_files is not None and space.free_files < _FEW_FILES:
            self._begins("few_files", space.free_bytes)
        elif self.full and (not self._was_refused or self._probe(self._spool_dir)):
            self.full = self._was_refused = False
            self._log.warning("spool_has_room", bytes=space.free_bytes)

    def _space(self) -> DiskSpace:
        try:
            return self._measure(self._spool_dir)
        except OSError:
            return DiskSpace(0)  # a directory or a disk that is gone has room for nothing

    def _begins(self, reason: str, free_bytes: int) -> None:
        if self.full:
            return
        self.full = True
        what = (
            "new calls are answered 503 until there is room (agent.when_full)"
            if self._when_full == "refuse_calls"
            else "new calls are recorded in memory as long as that lasts (agent.when_full)"
        )
        message = OwnWords(
            f"{self._spool_dir} counts as full (agent.min_free_mb = {self._min_free_bytes // _MEBIBYTE}): {what}"
        )
        self._log.error("spool_full", reason=reason, bytes=free_bytes, message=message)
