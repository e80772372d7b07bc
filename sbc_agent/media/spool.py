"""A call's files in the spool: opening, parts, manifest. Only what is sealed or signed is ever written.

Records are appended to a part that ends in ``.open`` as they are sealed. A part is closed by the agent's signature; a
thread of ``Disk`` then makes it durable and gives it its name, so that the media loop never waits for a disk. Where the
spool refuses a record, it waits in memory, sealed, and is tried again with the next one; what waits of all calls
together has a bound (``MAX_BACKLOG_BYTES``), past which new records are lost, counted, and shown by their numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from dualtone.domain import canonical, part, signing
from dualtone.domain.call_files import MANIFEST_NAME, Manifest, OpeningFile, PartEntry, opening_name, part_name
from dualtone.domain.part import PartHeader
from dualtone.domain.signing import Signer
from sbc_agent.media.messages import Alarm, Event, Finished, PartClosed
from sbc_agent.runtime.durable import PRIVATE_DIRECTORY, PRIVATE_FILE, sync_directory

OPEN_SUFFIX: Final = ".open"
STATE_NAME: Final = "state.json"
MAX_BACKLOG_BYTES: Final = 512 << 20  # five minutes of a hundred calls of two G.711 streams
_RETRY_S: Final = 1.0
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC

Job = Callable[[], Sequence[Event]]


class Disk:
    """Threads that wait for the disk. Jobs of one call run in the order in which they came.

    Args:
        threads: How many.
        failed: Told of an error that is not the disk's, from the thread that met it.
    """

    def __init__(self, failed: Callable[[BaseException], None], threads: int = 3) -> None:
        self._queues: list[SimpleQueue[tuple[str, Job] | None]] = [SimpleQueue() for _ in range(threads)]
        self._failed = failed
        self.backlog_bytes = 0  # of records that all calls keep waiting; the media loop alone counts
        self._events: deque[Event] = deque()
        self._done: deque[None] = deque()  # appending is atomic, counting is not
        self._given = 0
        self._threads = [Thread(target=self._run, args=(queue,), daemon=True) for queue in self._queues]
        for thread in self._threads:
            thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether every job is done and its events are collected."""
        return self._given == len(self._done) and not self._events

    def submit(self, call: str, job: Job) -> None:
        """Runs a job in the call's thread, again and again until the disk takes it; other calls go on meanwhile."""
        if self._given == len(self._done):
            self._given = 0
            self._done.clear()
        self._given += 1
        self._queues[hash(call) % len(self._queues)].put((call, job))

    def events(self) -> list[Event]:
        """What jobs reported since last asked."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        """Ends the threads when their queues are empty; jobs that the disk refuses are given up."""
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, queue: SimpleQueue[tuple[str, Job] | None]) -> None:
        refused: dict[str, deque[Job]] = {}  # a call that the disk refuses waits without holding up the others
        retry_s = 0.0
        while True:
            with contextlib.suppress(Empty):
                entry = queue.get(timeout=_RETRY_S if refused else None)
                if entry is None:
                    break
                call, job = entry
                if call in refused:
                    refused[call].append(job)
                elif not self._done_with(call, job):
                    self._events.append(Alarm(kind="spool_write", call=call))
                    retry_s = retry_s if refused else time.monotonic() + _RETRY_S
                    refused[call] = deque([job])
            if refused and time.monotonic() >= retry_s:
                self._retry(refused)
                retry_s = time.monotonic() + _RETRY_S
        self._retry(refused)

    def _retry(self, refused: dict[str, deque[Job]]) -> None:
        for call, jobs in list(refused.items()):
            while jobs and self._done_with(call, jobs[0]):
                jobs.popleft()
            if not jobs:
                del refused[call]

    def _done_with(self, call: str, job: Job) -> bool:
        """Runs a job; tells whether it is over: done, or ended by a fault that is not the disk's."""
        try:
            self._events.extend(job())
        except OSError:
            return False
        except Exception as error:  # noqa: BLE001 - one call's fault must not end the thread that serves others
            self._failed(error)
            self._events.append(Alarm(kind="spool_write", call=call))
        self._done.append(None)
        return True


class CallSpool:
    """Writes one call's files.

    Args:
        directory: The call's directory; made with the opening record.
        header: The head of the first part.
        signer: The agent's key.
        disk: Makes files durable.
        part_us: The longest time that a part covers.
    """

    def __init__(self, directory: Path, header: PartHeader, signer: Signer, disk: Disk, part_us: int) -> None:
        self.parts: list[PartEntry] = []
        self._directory, self._header, self._signer, self._disk = directory, header, signer, disk
        self._part_us = self._limit_us = part_us
        self._descriptor = -1
        self._opened_us = self._records = self._size = 0
        self._digest = part.PartDigest(b"")
        self._backlog: deque[bytes] = deque()
        self._opening: bytes | None = None
        self.lost = 0  # records that found no room in memory either

    @property
    def backlog(self) -> int:
        """How many files' worth of sealed data wait because the spool refused them: the opening and records."""
        return len(self._backlog) + (self._opening is not None)

    def limit_first_part(self, limit_us: int) -> None:
        """Shortens the first part, so that calls which began together do not close all their parts together."""
        self._limit_us = limit_us

    def write_opening(self, opening: OpeningFile) -> str:
        """Writes the opening record; no record follows before it, for without it nothing of the call could be opened.

        Returns:
            SHA-256 of the file in hex.
        """
        self._opening = opening.encode()
        self.retry(0)
        return hashlib.sha256(opening.encode()).hexdigest()

    def write_state(self, state: dict[str, object]) -> None:
        """Notes what a restart must know to close the call: nothing secret, nothing personal."""
        path, data = self._directory / STATE_NAME, canonical.encode(state)
        self._disk.submit(self._header.call, lambda: _write(path, data))

    def append(self, frame: bytes, now_us: int) -> bool:
        """Appends a sealed record to the part, and opens one where there is none.

        Returns:
            Whether the spool took it and all before it; if not, they wait, or this one is lost.
        """
        if self._backlog and self._disk.backlog_bytes + len(frame) > MAX_BACKLOG_BYTES and not self.retry(now_us):
            self.lost += 1
            return False
        self._backlog.append(frame)
        self._disk.backlog_bytes += len(frame)
        return self.retry(now_us)

    def retry(self, now_us: int) -> bool:
        """Appends what waits; tells whether nothing is left."""
        try:
            if self._opening is not None:
                self._write_opening(self._opening)
            while self._backlog:
                if self._descriptor < 0:
                    self._open(now_us)
                self._write_whole(self._backlog[0])
                self._digest.add(self._backlog[0])
                self._disk.backlog_bytes -= len(self._backlog.popleft())
                self._records += 1
        except OSError:
            return False
        return True

    def roll(self, now_us: int) -> None:
        """Closes the part if its time is over; where the spool refuses, it goes on until it does not."""
        if self._descriptor >= 0 and now_us - self._opened_us >= self._limit_us:
            with contextlib.suppress(OSError):
                self.close_part()

    def close_part(self) -> None:
        """Signs the open part, if there is one; it gets its name when it is durable.

        Raises:
            OSError: If the spool does not take the signature; the part stays open.
        """
        if self._descriptor < 0:
            return
        digest = self._digest.value
        signature = self._signer.sign(signing.message("part", digest))
        self._write_whole(part.encode_trailer(signature, self._records))
        header = self._header
        self.parts.append(PartEntry(header.epoch, header.index, digest.hex(), self._size, self._records))
        path, descriptor, size = self._directory / part_name(header.epoch, header.index), self._descriptor, self._size
        if len(self.parts) == 1:
            opening = self._directory / opening_name(header.epoch)
            self._disk.submit(header.call, lambda: _make_durable(opening))
        self._disk.submit(header.call, lambda: _close_part(path, descriptor, header.call, digest.hex(), size))
        self._descriptor, self._limit_us = -1, self._part_us
        self._header = PartHeader(
            header.tenant, header.agent, header.call, header.epoch, header.index + 1, digest.hex()
        )

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest after everything else."""
        path, data, call = self._directory / MANIFEST_NAME, manifest.sealed_by(self._signer), self._header.call
        self._disk.submit(call, lambda: write_manifest(path, data, call))

    def _write_opening(self, data: bytes) -> None:
        self._directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        _write(self._directory / opening_name(self._header.epoch), data)
        self._opening = None

    def _open(self, now_us: int) -> None:
        name = part_name(self._header.epoch, self._header.index) + OPEN_SUFFIX
        self._descriptor = os.open(self._directory / name, _APPEND | os.O_TRUNC, PRIVATE_FILE)
        head = part.encode_header(self._header)
        self._digest, self._size, self._records, self._opened_us = part.PartDigest(head), 0, 0, now_us
        try:
            self._write_whole(head)
        except OSError:
            os.close(self._descriptor)
            self._descriptor = -1
            raise

    def _write_whole(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        if written != len(data):  # the disk is full: what was begun is taken back, so that the part stays whole
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise OSError("the spool took a part of a record")
        self._size += written


def write_manifest(path: Path, data: bytes, call: str) -> list[Event]:
    """Writes a manifest durably, names of parts included, and tells of it."""
    _write(path, data, durably=True)
    sync_directory(path.parent)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(STATE_NAME).unlink()
    return [Finished(call=call, path=str(path))]


def _close_part(path: Path, descriptor: int, call: str, digest: str, size: int) -> list[Event]:
    os.fsync(descriptor)
    path.with_name(path.name + OPEN_SUFFIX).rename(path)  # a power failure may undo the name, never the bytes
    os.close(descriptor)
    return [PartClosed(call=call, path=str(path), digest=digest, size_bytes=size)]


def _write(path: Path, data: bytes, *, durably: bool = False) -> tuple[()]:
    """Writes a file that is whole or not there, after a crash of this process; after a power failure if ``durably``."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durably:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
    return ()


def _make_durable(path: Path) -> tuple[()]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ()
