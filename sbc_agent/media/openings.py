"""The numbers of an agent's opening records: they count on over all its runs, so that a missing call shows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class OpeningCounter:
    """Numbers the agent's opening records over all its runs, so that a missing call shows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0
        with suppress(FileNotFoundError, ValueError):  # a power failure may have emptied it: then counting begins anew
            self._last = int(path.read_text(encoding="ascii"))

    def __call__(self) -> int:
        """The next number. Kept over a crash of the process; after a power failure a number may come twice.

        A full disk must not end the calls that run: the number is then kept in memory, and written with the next one.
        """
        self._last += 1
        temporary = self._path.with_name(f"{self._path.name}.new")
        with suppress(OSError):
            temporary.write_text(f"{self._last}\n", encoding="ascii")
            temporary.rename(self._path)
        return self._last
