"""A call's files in the spool: opening, parts, manifest. Only what is sealed or signed is ever written.

Records are appended to a part that ends in ``.open`` as they are sealed. A part is closed by the agent's signature; a
thread of ``Disk`` then makes it durable and gives it its name, so that the media loop never waits for a disk. Where the
spool refuses a record, it waits in memory, sealed, and is tried again with the next one; what waits of all calls
together has a bound (``MAX_BACKLOG_BYTES``), past which new records are lost, counted, and shown by their numbers.

Of a call that waits for a decision there are parts alone: no opening record, so that nobody can ever open them; no note
that a restart would go by; and nobody is told of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from dualtone.domain import part, signing
from dualtone.domain.call_files import MANIFEST_NAME, Manifest, OpeningFile, PartEntry, opening_name, part_name
from dualtone.domain.part import PartHeader
from dualtone.domain.signing import Signer
from sbc_agent.media import cuts
from sbc_agent.media.call_state import STATE_NAME, CallState, StateFile, replace_file
from sbc_agent.media.cuts import OPEN_SUFFIX, Cut
from sbc_agent.media.disk import Disk
from sbc_agent.media.messages import Decided, Event, Finished, PartClosed
from sbc_agent.runtime.durable import PRIVATE_DIRECTORY, PRIVATE_FILE, sync_directory

MAX_BACKLOG_BYTES: Final = 512 << 20  # five minutes of a hundred calls of two G.711 streams
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_LENGTH_BYTES: Final = 4


class CallSpool:
    """Writes one call's files.

    Args:
        directory: The call's directory; made with the opening record.
        header: The head of the next part.
        signer: The agent's key.
        disk: Makes files durable.
        part_us: The longest time that a part covers.
        has_place: Whether the next part's place in the chain is known; if not, ``continue_after`` tells it.
        waits: Whether the call waits for a decision: ``write_opening`` is then that it is kept, ``discard`` the other.
    """

    def __init__(
        self,
        directory: Path,
        header: PartHeader,
        signer: Signer,
        disk: Disk,
        part_us: int,
        *,
        has_place: bool = True,
        waits: bool = False,
    ) -> None:
        self.parts: list[PartEntry] = []
        self.losses: list[tuple[int, int]] = []
        self._directory, self._header, self._signer, self._disk = directory, header, signer, disk
        self._state = StateFile(directory)
        self._part_us = self._limit_us = part_us
        self._descriptor = -1
        self._opened_us = self._records = self._size = 0
        self._digest = part.PartDigest(b"")
        self._backlog: deque[bytes] = deque()
        self._cuts: list[Cut] = []
        self._opening: bytes | None = None
        self._is_opening_durable = False
        self._has_place = has_place
        self._waits = self._is_to_tell = waits
        self._is_cleared, self._is_discarded = True, False
        self._state_to_write: CallState | None = None
        self._unnoted: list[Cut] = []
        self._untold: list[Event] | None = [] if waits else None  # of the call's thread
        self.lost = 0  # records that found no room in memory either

    @property
    def backlog(self) -> int:
        """How many files' worth of sealed data wait because the spool refused them: the opening and records."""
        return len(self._backlog) + (self._opening is not None)

    @property
    def is_gone(self) -> bool:
        """Whether somebody took the call's directory away."""
        return self._opening is None and not self._directory.is_dir()

    @property
    def has_place(self) -> bool:
        """Whether it is known what the next part follows; until then records wait, and that is no alarm."""
        return self._has_place and self._is_cleared

    @property
    def is_cleared(self) -> bool:
        """Whether nothing is left of what was discarded; what is noted before that would go with it."""
        return self._is_cleared

    def continue_after(self, parts: list[PartEntry], next_index: int, losses: list[tuple[int, int]]) -> None:
        """Goes on after an earlier run; may be called from a thread of ``Disk``.

        Args:
            parts: The parts of earlier runs, in the order of their chain.
            next_index: Index of the next part.
            losses: Spans in which the agent did not run.
        """
        previous = parts[-1].digest if parts else self._header.previous
        self._header = replace(self._header, index=next_index, previous=previous)
        self.parts, self.losses = parts, losses
        self._has_place = True

    def limit_first_part(self, limit_us: int) -> None:
        """Shortens the first part, so that calls which began together do not close all their parts together."""
        self._limit_us = limit_us

    def write_opening(self, opening: OpeningFile) -> str:
        """Writes the opening record, without which nothing of the call can be opened.

        No record follows before it, but those of a call that waited: that is kept now, and when it would be so after a
        power failure as well, ``Decided`` is told, and then the parts that there are, in their order.

        Returns:
            SHA-256 of the file in hex.
        """
        self._opening, self._waits = opening.encode(), False
        self.retry(0)
        return hashlib.sha256(opening.encode()).hexdigest()

    def discard(self, successor: CallSpool) -> None:
        """Deletes what is there of a call that waited; what its key sealed was noise before, that being forgotten.

        Args:
            successor: Takes the place, should the call be kept after all from some moment on.
        """
        self._is_discarded = True
        self.give_up()
        if self._directory.is_dir():
            successor._is_cleared = False
            self._disk.submit(self._header.call, partial(self._delete, successor))

    def write_state(self, state: CallState) -> None:
        """Notes what a restart must know, when the disk has time: nothing of a call that waits."""
        if self._waits:
            return
        if not self._is_cleared:  # with the opening record
            self._state_to_write = state
            return
        number, data = self._state.next_number(), state.encode()
        self._disk.submit(self._header.call, lambda: self._state.write(number, data))

    def note_state(self, state: CallState) -> None:
        """Notes what a restart must know, now, as ``write_state``; raises OSError if the disk refuses.

        Only where ``is_cleared``.
        """
        if not self._waits:
            self._state.write(self._state.next_number(), state.encode())

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
        if not self._is_cleared:
            return False
        try:
            if self._opening is not None:
                self._write_opening(self._opening)
            if not self._has_place:
                return False
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
        """Closes the part if its time is over, or cuts wait for it; where the spool refuses, it goes on until then."""
        if (self._cuts and self.has_place) or (self._descriptor >= 0 and now_us - self._opened_us >= self._limit_us):
            with contextlib.suppress(OSError):
                self.close_part()

    def close_part(self) -> None:
        """Signs the open part, if there is one; it gets its name when it is durable, and cut where it must be.

        Raises:
            OSError: If the spool does not take the signature; the part stays open.
        """
        if self._descriptor < 0:
            self._carry_out_cuts()
            return
        digest = self._digest.value
        signature = self._signer.sign(signing.message("part", digest))
        self._write_whole(part.encode_trailer(signature, self._records))
        header = self._header
        self.parts.append(PartEntry(header.epoch, header.index, digest.hex(), self._size, self._records))
        path, descriptor = self._directory / part_name(header.epoch, header.index), self._descriptor
        if not (self._is_opening_durable or self._waits):
            opening = self._directory / opening_name(header.epoch)
            self._disk.submit(header.call, lambda: _make_durable(opening))
            self._is_opening_durable = True
        self._carry_out_cuts()
        self._disk.submit(header.call, lambda: self._name_part(path, descriptor, digest.hex()))
        self._descriptor, self._limit_us = -1, self._part_us
        self._header = replace(header, index=header.index + 1, previous=digest.hex())

    def cut(self, command: str, from_us: int, to_us: int) -> None:
        """Cuts a span, both ends included, out of all that has left the ring so far.

        It is noted at once, and so is what waits in memory cut; files follow in the call's thread, as soon as the part
        can be closed. Then ``CutDone`` is told.

        Raises:
            OSError: If it could not be noted; nothing was done.
        """
        is_open = self._descriptor >= 0
        cut = Cut(command, from_us, to_us, self._header.index + is_open if self._has_place else cuts.ALL_PARTS)
        if self._waits:
            self._unnoted.append(cut)
        else:
            cuts.note(self._directory, cut)
        self._cuts.append(cut)
        self._cut_backlog(from_us, to_us)
        self.roll(self._opened_us)

    def noted_cut(self, command: str) -> Cut | None:
        """The cut that was noted for a command, by this run or an earlier one."""
        unnoted = next((cut for cut in self._unnoted if cut.command == command), None)
        return unnoted or cuts.noted_for(self._directory, command)

    def cut_again(self, cut: Cut) -> None:
        """Carries a cut that is noted out once more, so that ``CutDone`` is told again."""
        self._cuts.append(cut)
        self.roll(self._opened_us)

    def give_up(self) -> None:
        """Nothing of the call can be written any more: what waits in memory goes."""
        self._disk.backlog_bytes -= sum(map(len, self._backlog))
        self._backlog.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest after everything else."""
        path, data, call = self._directory / MANIFEST_NAME, manifest.sealed_by(self._signer), self._header.call
        self._disk.submit(call, lambda: write_manifest(path, data, call))

    def _carry_out_cuts(self) -> None:
        """Hands what is to be cut to the call's thread, which must not touch a part that is still written to."""
        for cut in self._cuts:
            bounded = replace(cut, below=min(cut.below, self._header.index + (self._descriptor >= 0)))
            self._disk.submit(self._header.call, partial(cuts.carry_out, self._directory, self._header.call, bounded))
        self._cuts = []

    def _cut_backlog(self, from_us: int, to_us: int) -> None:
        if not self._backlog:
            return
        head = part.encode_header(self._header)
        frames = memoryview(part.cut(head + b"".join(self._backlog), [(from_us, to_us)]))[len(head) :]
        self._disk.backlog_bytes += len(frames) - sum(map(len, self._backlog))
        self._backlog.clear()
        while frames:
            length = _LENGTH_BYTES + int.from_bytes(frames[:_LENGTH_BYTES], "big")
            self._backlog.append(bytes(frames[:length]))
            frames = frames[length:]

    def _write_opening(self, data: bytes) -> None:
        self._directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        while self._unnoted:
            cuts.note(self._directory, self._unnoted[0])
            del self._unnoted[0]
        replace_file(self._directory / opening_name(self._header.epoch), data)
        self._opening = None
        if self._state_to_write is not None:
            self.write_state(self._state_to_write)
            self._state_to_write = None
        if self._is_to_tell:
            self._is_to_tell, self._is_opening_durable = False, True
            self._disk.submit(self._header.call, self._tell_kept)

    def _open(self, now_us: int) -> None:
        name = part_name(self._header.epoch, self._header.index) + OPEN_SUFFIX
        if self._waits:
            self._directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
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

    # -- in the call's thread ---------------------------------------------------------------------------------------

    def _name_part(self, path: Path, descriptor: int, digest: str) -> list[Event]:
        if self._is_discarded:
            os.close(descriptor)
            return []
        os.fsync(descriptor)
        path.with_name(path.name + OPEN_SUFFIX).rename(path)  # a power failure may undo the name, never the bytes
        size_bytes = os.fstat(descriptor).st_size
        os.close(descriptor)
        closed = PartClosed(call=self._header.call, path=str(path), digest=digest, size_bytes=size_bytes)
        if self._untold is None:
            return [closed]
        self._untold.append(closed)
        return []

    def _tell_kept(self) -> list[Event]:
        _make_durable(self._directory / opening_name(self._header.epoch))
        sync_directory(self._directory)
        untold, self._untold = self._untold or [], None
        return [Decided(call=self._header.call, keep=True, outcome="kept"), *untold]

    def _delete(self, successor: CallSpool) -> list[Event]:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._directory)
        successor._is_cleared = True
        return []


def write_manifest(path: Path, data: bytes, call: str) -> list[Event]:
    """Writes a manifest durably, names of parts included, and tells of it."""
    replace_file(path, data, durably=True)
    sync_directory(path.parent)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(STATE_NAME).unlink()
    return [Finished(call=call, path=str(path))]


def _make_durable(path: Path) -> tuple[()]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ()
