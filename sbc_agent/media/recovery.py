"""What an earlier run of the agent left: calls that go on under a new key, and calls that are closed as they lie.

No old key is needed, for records are sealed already: a torn tail is cut and the part signed as it is. Nothing that is
whole is lost; only a part without a single record is deleted, and a call that waited for a decision: nobody has its
key. What the earlier run held in memory is gone: a gap of the cause ``restart`` says so, from the last arrival that was
sealed to the beginning of the next key epoch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtone.domain import part, signing
from dualtone.domain.call_files import MANIFEST_NAME, EpochEntry, Opening, OpeningFile, PartEntry
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, CallId, TenantId, parse_call_id
from dualtone.domain.part import Part, RecordType
from sbc_agent.media import cuts
from sbc_agent.media.call import Call
from sbc_agent.media.call_state import STATE_NAME, CallState
from sbc_agent.media.cuts import OPEN_SUFFIX
from sbc_agent.media.messages import Alarm, Event
from sbc_agent.media.seal import AgentKey
from sbc_agent.media.spool import write_manifest
from sbc_agent.runtime.durable import PRIVATE_FILE, sync_directory
from sbc_agent.runtime.spool import TRANSFERS_NAME

_OF_KEPT_CALLS: Final = frozenset({STATE_NAME, MANIFEST_NAME, TRANSFERS_NAME})
_MEDIA: Final = frozenset({RecordType.MEDIA, RecordType.REMOVED})


@dataclass(frozen=True, slots=True)
class Leftover:
    """A call of an earlier run as far as it is known without its parts.

    Attributes:
        call: The call.
        openings: What was signed at the beginning of each key epoch.
        epochs: The same for the manifest.
    """

    call: Call
    openings: list[Opening]
    epochs: list[EpochEntry]

    @property
    def next_epoch(self) -> int:
        """The key epoch under which it can go on."""
        return self.openings[-1].epoch + 1


@dataclass(frozen=True, slots=True)
class Settled:
    """The parts of an earlier run, every one of them closed.

    Attributes:
        parts: In the order of their chain.
        next_index: Index of the next one.
        last_us: By key epoch, the latest arrival of media that was sealed.
        alarms: What could not be read, and stays where it is.
    """

    parts: list[PartEntry]
    next_index: int
    last_us: dict[int, int]
    alarms: list[Event]

    def losses(self, beginnings: dict[int, int]) -> list[tuple[int, int]]:
        """Spans in which nobody recorded: from the last arrival of earlier epochs to the beginning of each.

        Args:
            beginnings: By key epoch, when it began; the first one is the call's beginning.
        """
        spans: dict[int, int] = {}
        for epoch, at_us in sorted(beginnings.items())[1:]:
            before = [last_us for earlier, last_us in self.last_us.items() if earlier < epoch]
            # Where nothing was kept of an epoch either, the loss goes on: it has one beginning and one end.
            spans[max([beginnings[min(beginnings)], *before])] = at_us
        return [(from_us, to_us) for from_us, to_us in spans.items() if from_us < to_us]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Takes up what an earlier run left.

    Attributes:
        spool_dir: Where calls lie.
        tenant: Owner of the calls.
        agent: This agent.
        version: Of its software.
        key: The agent's key.
        wall_offset_us: Wall clock minus agent's clock: file times are the wall clock's.
    """

    spool_dir: Path
    tenant: TenantId
    agent: AgentId
    version: str
    key: AgentKey
    wall_offset_us: int

    def leftovers(self, running: Container[str]) -> Iterator[tuple[CallId, Callable[[], list[Event]]]]:
        """The calls of earlier runs that need something, oldest first, and what has to be done for each.

        Args:
            running: Calls of this run.
        """
        for call in self._calls():
            directory = self.spool_dir / call
            if call in running:
                continue
            if _waited(directory):
                yield call, lambda call=call: self.discard(call)  # type: ignore[misc]
                continue
            if not (directory / MANIFEST_NAME).exists():
                yield call, lambda call=call: self.close(call)  # type: ignore[misc]
            if (directory / cuts.CUTS_NAME).exists():
                yield call, lambda call=call: self.carry_out_cuts(call)  # type: ignore[misc]

    def is_spooled(self, call: CallId) -> bool:
        """Whether something of a call lies in the spool."""
        return (self.spool_dir / call).is_dir()

    def is_finished(self, call: CallId) -> bool:
        """Whether a call's manifest lies in the spool."""
        return (self.spool_dir / call / MANIFEST_NAME).exists()

    def reopen(self, call: CallId) -> Leftover:
        """Reads what is known of an unfinished call, without its parts.

        Raises:
            MalformedInput: If there is no opening record, or the call's note cannot be read: whether it was paused
                is not known then.
            IntegrityError: If an opening record is not this agent's.
            OSError: If the spool cannot be read.
        """
        directory = self.spool_dir / call
        openings, epochs = self._opened(directory)
        try:
            state = CallState.read(directory)
        except FileNotFoundError:  # it had just begun
            state = CallState.unknown(openings[0].started_at_us)
        return Leftover(Call.of_state(call, state), openings, epochs)

    def settle(self, call: CallId) -> Settled:
        """Closes the parts that are open and reads all; what is no part of this call is left alone and told.

        Raises:
            OSError: If the spool cannot be read or written; it can be tried again.
        """
        directory = self.spool_dir / call
        cuts.finish_overwriting(directory)
        settled = Settled([], 0, {}, [])
        next_index = 0
        for index, path in cuts.part_paths(directory):
            try:
                found = self._closed(path, call)
            except (MalformedInput, IntegrityError):
                settled.alarms.append(Alarm(kind="unrecoverable", call=call))
                next_index = index + 1
                continue
            if found is None:
                continue
            header, size = found.header, path.with_name(path.name.removesuffix(OPEN_SUFFIX)).stat().st_size
            entry = PartEntry(header.epoch, header.index, found.digest.hex(), size, len(found.records))
            settled.parts.append(entry)
            next_index = index + 1
            arrivals = [one.head.from_us + one.head.span_us for one in found.records if one.head.type in _MEDIA]
            if arrivals:
                settled.last_us[header.epoch] = max(settled.last_us.get(header.epoch, 0), *arrivals)
        return Settled(settled.parts, next_index, settled.last_us, settled.alarms)

    def close(self, call: CallId) -> list[Event]:
        """Closes a call with what reached the disk; it ended when that was last written.

        Returns:
            What to tell: that it is finished, or that nothing can ever open it.

        Raises:
            OSError: If the spool cannot be read or written; it can be tried again.
        """
        directory = self.spool_dir / call
        try:
            openings, epochs = self._opened(directory)
            state = CallState.unknown(openings[0].started_at_us)
            with suppress(FileNotFoundError, MalformedInput):
                state = CallState.read(directory)
            ended_at_us = self._last_write_us(directory)
            settled = self.settle(call)
        except (MalformedInput, IntegrityError):
            return [Alarm(kind="unrecoverable", call=call)]
        if settled.alarms:
            return settled.alarms
        left = Call.of_state(call, state)
        ended_at_us = max(ended_at_us, *settled.last_us.values(), left.answered_at_us)
        beginnings = {one.epoch: one.started_at_us for one in openings}
        losses = settled.losses(beginnings | {openings[-1].epoch + 1: ended_at_us})
        left.end(ended_at_us, "error", ("recovered",))
        manifest = left.manifest(
            self.tenant, self.agent, self.version, epochs=epochs, parts=settled.parts, losses=losses, counters={}
        )
        finished = write_manifest(directory / MANIFEST_NAME, manifest.sealed_by(self.key), call)
        return [Alarm(kind="recovered", call=call), *finished]

    def discard(self, call: CallId) -> tuple[()]:
        """Deletes what a call left that waited for a decision; raises OSError if the disk refuses."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.spool_dir / call)
        return ()

    def carry_out_cuts(self, call: CallId) -> list[Event]:
        """Cuts what earlier runs noted; raises OSError if the disk refuses."""
        directory = self.spool_dir / call
        try:
            noted = cuts.noted(directory)
        except MalformedInput:
            return [Alarm(kind="unrecoverable", call=call)]
        return [event for cut in noted for event in cuts.carry_out(directory, call, cut)]

    def _calls(self) -> list[CallId]:
        found = []
        for path in self.spool_dir.iterdir():
            with suppress(MalformedInput):
                call = parse_call_id(path.name)
                if path.is_dir():
                    found.append(call)
        return sorted(found)

    def _opened(self, directory: Path) -> tuple[list[Opening], list[EpochEntry]]:
        openings, epochs = [], []
        for path in sorted(directory.glob("opening-*.json")):
            data = path.read_bytes()
            opening = OpeningFile.decode(data).verified(self.key.public_key_der)
            if (opening.tenant, opening.agent, opening.call) != (self.tenant, self.agent, directory.name):
                raise IntegrityError("an opening record of another call")
            openings.append(opening)
            epochs.append(EpochEntry(opening.epoch, hashlib.sha256(data).hexdigest()))
        if not openings:
            raise MalformedInput("a call without an opening record")
        return openings, epochs

    def _last_write_us(self, directory: Path) -> int:
        files = [*directory.glob("opening-*"), *directory.glob("part-*")]
        newest = max(path.stat().st_mtime_ns for path in files)
        return newest // 1000 - self.wall_offset_us

    def _closed(self, path: Path, call: CallId) -> Part | None:
        """Reads a part, and closes it if it is open; None if it was without a record, and is gone."""
        is_open = path.name.endswith(OPEN_SUFFIX)
        data = path.read_bytes()
        try:
            found = part.read(data)
        except MalformedInput:
            if not is_open:
                raise
            path.unlink()  # the run ended before the head of the part was written
            return None
        header = found.header
        if (header.tenant, header.agent, header.call) != (self.tenant, self.agent, call):
            raise IntegrityError("a part of another call")
        if is_open and not found.records:
            path.unlink()
            return None
        if is_open:
            self._close_part(path, found)
        return found

    def _close_part(self, path: Path, found: Part) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            if found.signature is None:
                message = signing.message("part", found.digest)
                os.ftruncate(descriptor, found.signed_length)
                trailer = part.encode_trailer(self.key.sign(message), len(found.records))
                os.pwrite(descriptor, trailer, found.signed_length)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.rename(path.with_name(path.name.removesuffix(OPEN_SUFFIX)))
        sync_directory(path.parent)


def _waited(directory: Path) -> bool:
    """Whether a call waited for a decision: then there are parts alone.

    Of every other call an opening record and a note come before the first part; one that lacks the former, for example
    after a power failure, may be known to the cloud and is left alone.
    """
    if not directory.is_dir():  # the uplink freed it meanwhile
        return False
    names = [path.name for path in directory.iterdir()]
    return not any(name.startswith("opening-") or name in _OF_KEPT_CALLS for name in names)
