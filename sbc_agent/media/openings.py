"""The numbers of an agent's opening records: they count on over all its runs, so that a missing call shows."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from sbc_agent.runtime.durable import PRIVATE_FILE

_DIGITS: Final = 20


class OpeningCounter:
    """Numbers the agent's opening records over all its runs, so that a missing call shows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._last = 0
        with suppress(FileNotFoundError, ValueError):  # a power failure may have emptied it: then counting begins anew
            self._last = int(path.read_text(encoding="ascii"))

    def __call__(self) -> int:
        """The next number. Kept over a crash of the process; after a power failure a number may come twice.

        A full disk must not end the calls that run: the number is then kept in memory, and written with the next one.
        """
        self._last += 1
        with suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
            # In place, always of one length, by one call: a kill leaves this number or the one before it.
            os.pwrite(self._descriptor, f"{self._last:0{_DIGITS}d}\n".encode("ascii"), 0)
        return self._last
