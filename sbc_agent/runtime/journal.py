"""What a run of the agent leaves for the next one: the dialogs that live, and the ports that rest.

One file, ``state_dir/journal/calls``, for this user alone, of lines that are appended (``journal_file``): a ``kill -9``
between any two steps leaves the last state of a call or the one before it. A call is written before an answer leaves
that depends on it; when it is over, a smaller line in its place keeps its ports for their quarantine.
Nothing is synced to the disk: a power failure ends every dialog anyway, and what a journal says is believed only in
the boot in which it was written, since its times are those of CLOCK_MONOTONIC.

No personal data but the dialog's Call-ID (``sbc_agent.protocol.snapshot``); what a call can be found by is kept as
keyed hashes (``domain.call_match``). What calls have left in the file that are over goes when the last live one ends,
else with the next end that comes a minute later.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dualtone.domain import canonical, ids
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from sbc_agent.protocol import snapshot
from sbc_agent.protocol.snapshot import SessionSnapshot
from sbc_agent.runtime.durable import make_private_directory
from sbc_agent.runtime.journal_file import JournalFile
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import QUARANTINE_SECONDS

DIRECTORY_NAME: Final = "journal"
FORMAT: Final = 2
CLEARED_EVERY_SECONDS: Final = 60.0
_FILE_NAME: Final = "calls"
_SESSION: Final = b'"session"'
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that is being recorded.

    Attributes:
        call: Its id.
        began_at_us: When it began, microseconds of Unix time by the agent's clock.
        session: Its dialog, streams and ports.
        matches: The tokens that it can be found by.
        fate: What was decided of it, and why; None for a call that the built-in rule keeps.
    """

    call: CallId
    began_at_us: int
    session: SessionSnapshot
    matches: frozenset[str] = frozenset()
    fate: dict[str, Any] | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        """Its RTP ports."""
        return tuple(port for _, port in self.session.media.ports)


@dataclass(frozen=True, slots=True)
class RestingPorts:
    """Ports of a call that is over: since when they rest, in seconds of CLOCK_MONOTONIC."""

    ended_at: float
    ports: tuple[int, ...]


@dataclass(slots=True)
class Legacy:
    """What an earlier run of this boot left.

    Attributes:
        live: Its live calls, oldest first.
        resting: Ports that have not rested long enough, in the order of their calls' ends.
        clock_offset_us: Its agent's clock, Unix time minus CLOCK_MONOTONIC; None if no call of it lives.
        dropped: How many entries were of another boot, or damaged.
    """

    live: list[LiveCall] = field(default_factory=list)
    resting: list[RestingPorts] = field(default_factory=list)
    clock_offset_us: int | None = None
    dropped: int = 0


class Journal:
    """Keeps the journal of this run. Where the disk refuses, calls are recorded all the same, and it is told once.

    Args:
        directory: Where its file lies.
        boot_id: Which boot of this machine it is.
        clock_offset_us: The agent's clock, Unix time minus CLOCK_MONOTONIC.
        log: Where a disk that refuses is told.
    """

    def __init__(self, directory: Path, *, boot_id: str, clock_offset_us: int, log: Log) -> None:
        self._file = JournalFile(directory / _FILE_NAME)
        self._log = log
        self._fails = False
        self._facts: dict[str, object] = {"format": FORMAT, "boot": boot_id, "clock_offset_us": clock_offset_us}
        self._resting: deque[tuple[float, CallId]] = deque()
        self._live = {key for key, data in self._file if _SESSION in data}
        self._cleared_at = 0.0

    def keep(self, live: LiveCall) -> bool:
        """Writes a call as it stands, unless that is written already.

        Returns:
            Whether a later run finds it so; else it finds it as it was before, or not at all.
        """
        data = self._encoded(
            {
                "began_at_us": live.began_at_us,
                "session": live.session.to_json(),
                "matches": sorted(live.matches),
                "fate": live.fate,
            }
        )
        if self._file.get(live.call) != data:
            with self._telling():
                self._file.put(live.call, data)
                self._live.add(live.call)
        return self._file.get(live.call) == data

    def end(self, call: CallId, resting: RestingPorts) -> None:
        """A call is over; its ports rest."""
        with self._telling():
            self._file.put(
                call,
                self._encoded({"ended_at_us": round(resting.ended_at * 1_000_000), "ports": list(resting.ports)}),
            )
            self._resting.append((resting.ended_at + QUARANTINE_SECONDS, call))
        while self._resting and self._resting[0][0] < resting.ended_at:
            self._file.forget(self._resting.popleft()[1])
        self._live.discard(call)
        if not self._live or resting.ended_at - self._cleared_at > CLEARED_EVERY_SECONDS:
            self._cleared_at = resting.ended_at
            with self._telling():
                self._file.rewrite()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _encoded(self, entry: dict[str, object]) -> bytes:
        return json.dumps(self._facts | entry, separators=(",", ":")).encode("ascii")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tells the first refusal of the disk, and the next after it took something again."""
        try:
            yield
        except OSError as error:
            if not self._fails:
                self._log.failure("journal_failed", error)
            self._fails = True
        else:
            self._fails = False


def boot_id() -> str:
    """Which boot of this machine it is; where the system does not tell, an id that no other run has."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return str(uuid.uuid4())


def inherit(directory: Path, *, boot_id: str, now: float) -> Legacy:
    """Reads what an earlier run left, and removes what nobody can use any more.

    Args:
        directory: Where its file lies; made if it is not there.
        boot_id: Which boot of this machine it is: what is of another one is removed.
        now: The time, in seconds of CLOCK_MONOTONIC.

    Raises:
        OSError: If the directory cannot be read.
    """
    make_private_directory(directory)
    file, legacy = JournalFile(directory / _FILE_NAME), Legacy()
    legacy.dropped = file.damaged
    for path in directory.iterdir():
        if path.name != _FILE_NAME:
            path.unlink()  # the run ended while it rewrote the file; or nothing of ours
    for key, data in file:
        try:
            found, offset_us = _read(key, data, boot_id)
        except MalformedInput:
            file.forget(key)
            legacy.dropped += 1
            continue
        if isinstance(found, LiveCall):
            legacy.live.append(found)
            legacy.clock_offset_us = offset_us
        elif found.ended_at + QUARANTINE_SECONDS > now:
            legacy.resting.append(found)
        else:
            file.forget(key)
    file.rewrite()
    file.close()
    legacy.live.sort(key=lambda live: live.call)
    legacy.resting.sort(key=lambda rest: rest.ended_at)
    return legacy


def _read(key: str, data: bytes, boot_id: str) -> tuple[LiveCall | RestingPorts, int]:
    """One entry, and the agent's clock of its run.

    Raises:
        MalformedInput: If it is not the journal's, or of another boot.
    """
    value = canonical.decode(data)
    if not isinstance(value, dict) or (value.get("format"), value.get("boot")) != (FORMAT, boot_id):
        raise MalformedInput("not an entry of this boot's journal")
    offset_us = _whole(value.get("clock_offset_us"))
    if "ended_at_us" in value:
        ports = tuple(_whole(port) for port in _list(value.get("ports")))
        return RestingPorts(_whole(value.get("ended_at_us")) / 1_000_000, ports), offset_us
    call = ids.parse_call_id(key)
    session = snapshot.from_json(value.get("session"))
    matches = frozenset(item for item in _list(value.get("matches")) if isinstance(item, str))
    fate = value.get("fate")
    if fate is not None and not isinstance(fate, dict):
        raise MalformedInput("a journal entry lacks what was decided")
    return LiveCall(call, _whole(value.get("began_at_us")), session, matches, fate), offset_us


def _whole(value: object) -> int:
    if type(value) is not int:
        raise MalformedInput("a journal entry lacks a number")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise MalformedInput("a journal entry lacks a list")
    return value
