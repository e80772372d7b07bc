"""What a run of the agent leaves for the next one: the dialogs that live, and the ports that rest.

One file a call in ``state_dir/journal``, for this user alone, written whole under another name and then renamed: a
``kill -9`` between any two steps leaves the last state or the one before it. It is written before an answer leaves
that depends on it, and removed when the call is over; then a smaller file keeps the call's ports for their quarantine.
Nothing is synced to the disk: a power failure ends every dialog anyway, and what a journal says is believed only in
the boot in which it was written, since its times are those of CLOCK_MONOTONIC.

No personal data but the dialog's Call-ID (``sbc_agent.protocol.snapshot``); what a call can be found by is kept as
keyed hashes (``domain.call_match``).
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dualtone.domain import canonical, ids
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from sbc_agent.protocol import snapshot
from sbc_agent.protocol.snapshot import SessionSnapshot
from sbc_agent.runtime.durable import PRIVATE_FILE, make_private_directory
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import QUARANTINE_SECONDS

DIRECTORY_NAME: Final = "journal"
FORMAT: Final = 1
MAX_FILE_BYTES: Final = 1 << 20
_LIVE: Final = ".live"
_RESTING: Final = ".rest"
_NEW: Final = ".new"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that is being recorded.

    Attributes:
        call: Its id.
        began_at_us: When it began, microseconds of Unix time by the agent's clock.
        session: Its dialog, streams and ports.
        matches: The tokens that it can be found by.
    """

    call: CallId
    began_at_us: int
    session: SessionSnapshot
    matches: frozenset[str] = frozenset()

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
        dropped: How many files were of another boot, or damaged.
    """

    live: list[LiveCall] = field(default_factory=list)
    resting: list[RestingPorts] = field(default_factory=list)
    clock_offset_us: int | None = None
    dropped: int = 0


class Journal:
    """Keeps the journal of this run. Where the disk refuses, calls are recorded all the same, and it is told once.

    Args:
        directory: Where its files lie.
        boot_id: Which boot of this machine it is.
        clock_offset_us: The agent's clock, Unix time minus CLOCK_MONOTONIC.
        log: Where a disk that refuses is told.
    """

    def __init__(self, directory: Path, *, boot_id: str, clock_offset_us: int, log: Log) -> None:
        self._directory = directory
        self._log = log
        self._fails = False
        self._facts: dict[str, object] = {"format": FORMAT, "boot": boot_id, "clock_offset_us": clock_offset_us}
        self._written: dict[CallId, bytes] = {}
        self._resting: deque[tuple[float, CallId]] = deque()

    def keep(self, live: LiveCall) -> bool:
        """Writes a call as it stands, unless that is written already.

        Returns:
            Whether a later run finds it so; else it finds it as it was before, or not at all.
        """
        data = canonical.encode(
            self._facts
            | {
                "began_at_us": live.began_at_us,
                "session": live.session.to_json(),
                "matches": sorted(live.matches),
            }
        )
        if self._written.get(live.call) != data:
            with self._telling():
                self._write(live.call + _LIVE, data)
                self._written[live.call] = data
        return self._written.get(live.call) == data

    def end(self, call: CallId, resting: RestingPorts) -> None:
        """A call is over; its ports rest."""
        self._written.pop(call, None)
        ports = {"ended_at_us": round(resting.ended_at * 1_000_000), "ports": list(resting.ports)}
        with self._telling():
            self._write(call + _RESTING, canonical.encode(self._facts | ports))
            self._resting.append((resting.ended_at + QUARANTINE_SECONDS, call))
        with self._telling():
            self._remove(call + _LIVE)
            while self._resting and self._resting[0][0] < resting.ended_at:
                self._remove(self._resting.popleft()[1] + _RESTING)

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

    def _write(self, name: str, data: bytes) -> None:
        temporary = self._directory / f".{name}{_NEW}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError("the journal took a part of an entry")
        finally:
            os.close(descriptor)
        temporary.rename(self._directory / name)

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)


def boot_id() -> str:
    """Which boot of this machine it is; where the system does not tell, an id that no other run has."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return str(uuid.uuid4())


def inherit(directory: Path, *, boot_id: str, now: float) -> Legacy:
    """Reads what an earlier run left, and removes what nobody can use any more.

    Args:
        directory: Where its files lie; made if it is not there.
        boot_id: Which boot of this machine it is: files of another one are removed.
        now: The time, in seconds of CLOCK_MONOTONIC.

    Raises:
        OSError: If the directory cannot be read.
    """
    make_private_directory(directory)
    legacy = Legacy()
    for path in sorted(directory.iterdir()):
        if path.name.endswith(_NEW):  # the run ended while it was written: what counts has the name without it
            path.unlink()
            continue
        try:
            found, offset_us = _read(path, boot_id)
        except (MalformedInput, OSError):
            path.unlink(missing_ok=True)
            legacy.dropped += 1
            continue
        if isinstance(found, LiveCall):
            legacy.live.append(found)
            legacy.clock_offset_us = offset_us
        elif found.ended_at + QUARANTINE_SECONDS > now:
            legacy.resting.append(found)
        else:
            path.unlink()
    legacy.resting.sort(key=lambda rest: rest.ended_at)
    return legacy


def _read(path: Path, boot_id: str) -> tuple[LiveCall | RestingPorts, int]:
    """One file, and the agent's clock of its run.

    Raises:
        MalformedInput: If it is not the journal's, or of another boot.
        OSError: If it cannot be read.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise MalformedInput("a journal entry is too large")
    value = canonical.decode(path.read_bytes())
    if not isinstance(value, dict) or (value.get("format"), value.get("boot")) != (FORMAT, boot_id):
        raise MalformedInput("not an entry of this boot's journal")
    offset_us = _whole(value.get("clock_offset_us"))
    if path.suffix == _RESTING:
        ports = tuple(_whole(port) for port in _list(value.get("ports")))
        return RestingPorts(_whole(value.get("ended_at_us")) / 1_000_000, ports), offset_us
    call = ids.parse_call_id(path.stem)
    session = snapshot.from_json(value.get("session"))
    matches = frozenset(item for item in _list(value.get("matches")) if isinstance(item, str))
    return LiveCall(call, _whole(value.get("began_at_us")), session, matches), offset_us


def _whole(value: object) -> int:
    if type(value) is not int:
        raise MalformedInput("a journal entry lacks a number")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise MalformedInput("a journal entry lacks a list")
    return value
