"""What the control channel must remember over a kill -9: one SQLite file in the state directory, mode 0600.

Commits go to the write-ahead log without a forced write (``synchronous = NORMAL``): they outlive the process at once
and a power cut by a moment, and a command does not wait for the disk. A file that is damaged is put aside; one that the
disk refuses to open is left as it is, and this run remembers in memory alone. When the disk refuses a write, whoever
asked is told by Unavailable and goes on from memory: pausing a call never waits for a disk that is full.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from dualtone.domain.errors import Unavailable
from sbc_agent.runtime.checkpoints import Checkpoints
from sbc_agent.runtime.durable import PRIVATE_FILE

STATE_FILE: Final = "control.db"
DAMAGED_SUFFIX: Final = ".damaged"
_BUSY_S: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, droppable INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS call (
  call TEXT PRIMARY KEY, state TEXT NOT NULL, started_us INTEGER NOT NULL, ended_us INTEGER, revision INTEGER NOT NULL,
  sealed BLOB NOT NULL, causes TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS call_token (
  token TEXT NOT NULL, call TEXT NOT NULL REFERENCES call (call) ON DELETE CASCADE, PRIMARY KEY (token, call)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS call_tokens ON call_token (call);
CREATE TABLE IF NOT EXISTS pending (
  token TEXT NOT NULL, origin TEXT NOT NULL, cause TEXT NOT NULL, number INTEGER NOT NULL, expires_us INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (token, origin, cause)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS choice (
  token TEXT NOT NULL, way TEXT NOT NULL, decision TEXT NOT NULL, cause TEXT NOT NULL, how TEXT NOT NULL,
  at_us INTEGER NOT NULL, by TEXT NOT NULL, expires_us INTEGER NOT NULL,
  PRIMARY KEY (token, way, decision, cause, how, at_us, by)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS not_recorded (rule TEXT PRIMARY KEY, calls INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS line_chain (
  line TEXT NOT NULL, sequence INTEGER NOT NULL, call TEXT NOT NULL, PRIMARY KEY (line, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhook (
  endpoint TEXT NOT NULL, id TEXT NOT NULL, body_sha256 BLOB NOT NULL, received_ms INTEGER NOT NULL,
  number INTEGER NOT NULL, command TEXT NOT NULL, status INTEGER, answer BLOB, PRIMARY KEY (endpoint, id)
) WITHOUT ROWID;
"""

Value = int | str | bytes | None


class AgentState:
    """The file. Any thread may use it; a statement, or the statements of one call, are one transaction.

    Args:
        path: Its name; made if it is not there.

    Attributes:
        was_damaged: Whether an older file was put aside.
        in_memory: Whether the disk refused, so that nothing outlives this run.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._checkpoints = Checkpoints(path, self._lock)
        self.was_damaged = self.in_memory = False
        try:
            self._connection = self._opened(path)
        except (sqlite3.Error, OSError):
            self.in_memory = True
            self._connection = _connected(":memory:")

    def _opened(self, path: Path) -> sqlite3.Connection:
        try:
            return _open(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
        self.was_damaged = True
        for suffix in ("", "-wal", "-shm"):
            side = path.with_name(path.name + suffix)
            if side.exists():
                side.rename(path.with_name(path.name + suffix + DAMAGED_SUFFIX))
        return _open(path)

    def close(self) -> None:
        """Closes the file."""
        self._checkpoints.close()
        with self._lock:
            self._connection.close()

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        """Runs one statement; returns its rows; raises Unavailable if the disk refuses."""
        return self.run_all([(sql, values)])

    def run_all(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> list[tuple[Value, ...]]:
        """Runs statements, all or none.

        Returns:
            The rows of the last one.

        Raises:
            Unavailable: If the disk refuses.
        """
        rows: list[tuple[Value, ...]] = []
        with self._lock:
            try:
                with self._connection:
                    self._connection.execute("BEGIN")
                    for sql, values in statements:
                        rows = self._connection.execute(sql, values).fetchall()
                if not self.in_memory:
                    self._checkpoints.committed()
            except sqlite3.Error as error:
                raise Unavailable("the agent's state file refuses") from error
        return rows

    def next_number(self, name: str, at_least: int) -> int:
        """Counts on.

        Args:
            name: Which counter.
            at_least: The lowest number that may come, for example the time in milliseconds.

        Returns:
            A number above every one that this counter gave.

        Raises:
            Unavailable: If the disk refuses; then the number was not given.
        """
        sql = (
            "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = max(value + 1, ?2) "
            "RETURNING value"
        )
        ((value,),) = self.run(sql, (name, at_least))
        assert isinstance(value, int)
        return value


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    return _connected(path)


def _connected(path: Path | Literal[":memory:"]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see Checkpoints
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
