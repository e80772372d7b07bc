"""What a running call notes of itself beside its parts, so that a restart can go on with it, or close it.

Nothing secret and nothing of what was said; who asked for a pause is an opaque id. The file is whole or not there after
a crash of the process. It is written from the media loop where an answer depends on it, else from a thread of ``Disk``:
whichever comes later, the newer note stays.
"""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path
from threading import Lock
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain.call_files import GapEntry, StreamFormat
from dualtone.domain.errors import MalformedInput
from sbc_agent.media.key_profile import KeyProfile
from sbc_agent.media.silence import Silence
from sbc_agent.runtime.durable import PRIVATE_FILE

STATE_NAME: Final = "state.json"
_STRICT: Final = ConfigDict(strict=True, extra="forbid")


@checked(config=_STRICT, slots=True)
class StreamState:
    """A stream: index, label, since when the call has it, formats over time, since when it is inactive."""

    stream: int
    label: str
    from_us: int
    formats: list[StreamFormat]
    inactive_since_us: int | None


@checked(config=_STRICT, slots=True)
class CallState:
    """A call: when it was answered, its streams and how often they changed, closed gaps, pauses, flags, and keys."""

    answered_at_us: int
    stream_set: int
    streams: list[StreamState]
    gaps: list[GapEntry]
    silence: Silence
    flags: list[str]
    profile: KeyProfile = field(default_factory=KeyProfile)

    @classmethod
    def unknown(cls, answered_at_us: int) -> CallState:
        """Of a call of which nothing is known but when it began."""
        return cls(answered_at_us, 0, [], [], Silence(), [])

    @classmethod
    def read(cls, directory: Path) -> CallState:
        """Reads a call's note.

        Raises:
            FileNotFoundError: If there is none.
            MalformedInput: If it is not one.
        """
        data = (directory / STATE_NAME).read_bytes()
        try:
            return _STATE.validate_json(data)
        except ValidationError:
            raise MalformedInput("the state of a call of an earlier run cannot be read") from None

    def encode(self) -> bytes:
        """The file's bytes."""
        return _STATE.dump_json(self)


_STATE: Final = TypeAdapter(CallState)


class StateFile:
    """A call's ``state.json``.

    Args:
        directory: The call's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATE_NAME
        self._lock = Lock()
        self._given = self._written = 0

    def next_number(self) -> int:
        """Numbers a note; called in the media loop, in the order of what the notes say."""
        self._given += 1
        return self._given

    def write(self, number: int, data: bytes) -> tuple[()]:
        """Writes a note if no newer one is written, from any thread; raises OSError if the disk refuses it."""
        with self._lock:
            if number > self._written:
                replace_file(self._path, data)
                self._written = number
        return ()


def replace_file(path: Path, data: bytes, *, durably: bool = False, suffix: str = ".new") -> None:
    """Writes a file that is whole or not there after a crash of this process; after a power failure if ``durably``.

    Of two threads that may write a file at once, each has a suffix of its own.
    """
    temporary = path.with_name(f".{path.name}{suffix}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durably:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
