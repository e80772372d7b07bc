"""Structured logs without personal data: one JSON object a line, and nothing in it that was not let in by name.

A line holds time, level, event and fields. Each field has a name known here and a form that its value must have; a
value of another form is written as ``withheld``, and a field of another name is not written at all. There is no free
text and no exception text, because either could carry a phone number, a name or a key: an error appears as its class
and the places in our code where it passed. A SIP Call-ID is personal data (many SBCs build it from numbers and hosts)
and appears only as a salted hash, the same over restarts of one agent and different on every other.

Warnings and errors of one event are written a hundred at once and ten a second from then on: what a stranger can cause
as often as he likes must not fill the disk nor hold up calls. What was left out is counted in the next such line.
Transfers are written each (FEATURES P7): their back-off bounds them, and no stranger can cause one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import re
import secrets
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from sbc_agent.protocol.limits import Bucket, Rate
from sbc_agent.runtime.durable import write_private

LEVELS: Final = ("debug", "info", "warning", "error")
_BOUNDED: Final = frozenset({"warning", "error"})
_EVERY_ONE: Final = frozenset({"transfer"})
WITHHELD: Final = "withheld"
_SALT_BYTES: Final = 32
_REFERENCE_BYTES: Final = 8
_ALIKE: Final = Rate(per_s=10, burst=100)


class OwnWords(str):
    """A sentence that this program made of its own words, settings and paths: nothing in it came with a call."""

    __slots__ = ()


def _pattern(expression: str) -> Callable[[object], bool]:
    compiled = re.compile(expression, re.ASCII)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _number(highest: int) -> Callable[[object], bool]:
    return lambda value: type(value) in {int, float} and 0 <= value <= highest  # type: ignore[operator]


def _each(form: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list | tuple) and all(form(item) for item in value)


_WORD: Final = _pattern(r"(?!.*\d{3})[A-Za-z_][A-Za-z0-9_-]{0,59}")  # never three digits in a row: no number is a word
_ULID: Final = _pattern(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_COUNT: Final = _number(9_999_999)

FIELDS: Final[dict[str, Callable[[object], bool]]] = {
    # ids that Dualtone itself draws
    "call": _ULID,
    "agent": _pattern(r"agt_[0-7][0-9A-HJKMNP-TV-Z]{25}"),
    "recording": _pattern(r"rec_[a-z2-7]{26}"),
    "tenant": _pattern(r"(?=.*[a-z])[a-z0-9][a-z0-9-]{1,31}"),
    "sip": _pattern(r"sip_[a-z2-7]{12}"),
    "object": _pattern(r"opening-\d\d\.json|part-\d\d-\d{6}\.dtp|manifest\.json"),
    "sha256": _pattern(r"[0-9a-f]{64}"),
    # words from a fixed vocabulary
    **dict.fromkeys(
        (
            "kind",
            "result",
            "state",
            "reason",
            "error",
            "method",
            "transport",
            "check",
            "severity",
            "signal",
            "logger",
            "codec",
            "cause",
            "direction",
            "process",
        ),
        _WORD,
    ),
    "version": _pattern(r"\d{1,2}\.\d{1,3}\.\d{1,3}(?:[.a-z][0-9a-z]{0,6})?"),
    "where": _each(_pattern(r"(?!.*\d{6})[A-Za-z0-9_]{1,40}\.py:\d{1,5} [\w<>]{1,60}")),
    # figures with their units
    **dict.fromkeys(
        ("calls", "streams", "parts", "objects", "packets", "lost", "attempts", "revision", "stream", "left_out"),
        _COUNT,
    ),
    **dict.fromkeys(("ms", "us", "ms_left"), _COUNT),
    "bytes": _number(2**40 - 1),
    "retry_s": _number(86_400),
    "port": _number(65_535),
    "pid": _number(2**22),
    "status": _number(699),
    "exit": lambda value: isinstance(value, int) and -64 <= value <= 255,  # noqa: PLR2004 - signals and exit codes
    # words that the program wrote about this machine
    "message": lambda value: isinstance(value, OwnWords),
}


class Log:
    """Writes events. One object for the whole process; any thread may write.

    Args:
        stream: Where the lines go.
        level: The lowest level that is written.
        salt: Keys the hash of SIP Call-IDs.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        level: str = "info",
        salt: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._lowest = LEVELS.index(level)
        self._salt = salt if salt is not None else secrets.token_bytes(_SALT_BYTES)
        self._clock = clock
        self._lock = threading.Lock()
        self._alarms: Counter[str] = Counter()
        self._alike: dict[str, Bucket] = {}
        self._left_out: Counter[str] = Counter()

    @property
    def alarms(self) -> dict[str, int]:
        """How often each event was written at level error since the start."""
        with self._lock:
            return dict(self._alarms)

    def reference(self, sip_call_id: str) -> str:
        """The short form of a SIP Call-ID that may be logged: ``sip_`` and 60 bits of a keyed hash."""
        # REQ: RFC 7693 section 2.9: BLAKE2 takes a key; several times a call, so that what it costs counts.
        data = sip_call_id.encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(data, key=self._salt, digest_size=_REFERENCE_BYTES).digest()
        return "sip_" + base64.b32encode(digest)[:12].decode("ascii").lower()

    def debug(self, event: str, **fields: object) -> None:
        """Writes what helps to understand a fault and is silent otherwise."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Writes what happened as it should."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Writes what someone should look at in the next days."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Writes what costs recordings or integrity if nobody acts: an alarm."""
        self._write("error", event, fields)

    def failure(self, event: str, error: BaseException, **fields: object) -> None:
        """Writes an error that nobody expected: its class and where it passed, never its text."""
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        self._write("error", event, {"error": type(error).__name__, "where": where, **fields})

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if level == "error":
            with self._lock:
                self._alarms[event if _WORD(event) else WITHHELD] += 1
        if LEVELS.index(level) < self._lowest:
            return
        now_s = self._clock()
        if level in _BOUNDED and event not in _EVERY_ONE and not self._may_write(event, now_s):
            return
        now = datetime.fromtimestamp(now_s, UTC)
        line: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "event": event if _WORD(event) else WITHHELD,
        }
        if left_out := self._left_out.pop(event, 0):
            fields = {**fields, "left_out": left_out}
        for name, value in fields.items():
            form = FIELDS.get(name)
            if form is not None and value is not None:
                line[name] = value if form(value) else WITHHELD
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def _may_write(self, event: str, now_s: float) -> bool:
        """Whether one more line of this event is written; else it is counted."""
        with self._lock:
            bucket = self._alike.setdefault(event, Bucket(_ALIKE))
            if bucket.wait(now_s):
                self._left_out[event] += 1
                return False
            bucket.take(1)
            return True


class LibraryLines(logging.Handler):
    """Turns records of Python's own logging into events: logger, level and error class, never the message."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record of a library."""
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        name = record.name.partition(".")[0]
        self._log.warning("library", logger=name, state=record.levelname.lower(), error=error)


def capture_libraries(log: Log) -> None:
    """Makes every library of this process log through ``log`` alone."""
    root = logging.getLogger()
    root.handlers[:] = [LibraryLines(log)]
    root.setLevel(logging.WARNING)


def salt(state_dir: Path) -> bytes:
    """Reads the agent's salt, and draws it at the first call; 0600 like the key beside it.

    Where the disk is full it is good for this run alone: a call's lines are told apart, but not over a restart.
    """
    path = state_dir / "log.salt"
    drawn = secrets.token_bytes(_SALT_BYTES)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            write_private(path, drawn)
        return drawn
