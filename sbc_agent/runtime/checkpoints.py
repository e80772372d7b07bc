"""Carries SQLite's write-ahead log into its database, beside whoever writes: a commit never waits for the disk's fsync.

SQLite would do it within a commit, every thousand pages, and a call's answer would wait for it. Here a thread with a
connection of its own does it after some commits, passively: it waits for nobody and nobody waits for it. Where commits
come so thick that it never catches up, and the log has grown beyond a bound, one checkpoint is made that they wait for.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

EVERY_COMMITS: Final = 500
MOST_LOG_BYTES: Final = 64 << 20
_PASSES: Final = 3
_BUSY_S: Final = 1.0
_JOIN_S: Final = 5.0


class Checkpoints:
    """Checkpoints of one database.

    Args:
        path: The database.
        writers: Held by everybody who writes.
    """

    def __init__(self, path: Path, writers: threading.Lock) -> None:
        self._path = path
        self._writers = writers
        self._commits = 0
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """There was one more commit; the writers' lock is held."""
        self._commits += 1
        if self._commits % EVERY_COMMITS:
            return
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """Ends the thread; what is still in the log is SQLite's to carry over when the last connection closes."""
        self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while self._wanted.wait() and not self._closing:
            self._wanted.clear()
            with contextlib.suppress(sqlite3.Error):  # a disk that refuses: the log grows, and is tried again
                self._carry_over()

    def _carry_over(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)) as connection:
            for _ in range(_PASSES):  # what was committed during one pass is little for the next
                _, logged, carried = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if logged == carried:
                    return  # the next commit begins the log anew
            if self._log_bytes() > MOST_LOG_BYTES:
                with self._writers:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _log_bytes(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except OSError:
            return 0
