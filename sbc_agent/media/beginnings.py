"""How a call gets its key and its files: a new one, and one of an earlier run that goes on under the next key."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from dualtone.domain.call_files import EpochEntry
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from dualtone.domain.part import NO_PREVIOUS, PartHeader
from dualtone.domain.signing import Signer
from sbc_agent.media.call import Call
from sbc_agent.media.disk import Disk
from sbc_agent.media.engine_settings import EngineSettings
from sbc_agent.media.messages import Event
from sbc_agent.media.recording import Recording
from sbc_agent.media.recovery import Leftover, Recovery
from sbc_agent.media.seal import CallSeal, IngestKey
from sbc_agent.media.spool import CallSpool

_FIRST_EPOCH: Final = 0
_GOLDEN: Final = 0.618_033_988_75  # multiples of it, modulo 1, are spread evenly however many there are
_LEAST_SHARE: Final = 0.1


class Beginnings:
    """Begins recordings.

    Args:
        settings: What must be known of the agent.
        signer: The agent's key.
        ingest: What call keys are wrapped to, until another is told.
        disk: Makes files durable.
        recovery: Takes up what earlier runs left.
        next_opening: Yields the number of the agent's next opening record.
        randomness: Yields random bytes, for call keys.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        signer: Signer,
        ingest: IngestKey,
        disk: Disk,
        recovery: Recovery,
        next_opening: Callable[[], int],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._settings, self._signer, self._disk, self._recovery = settings, signer, disk, recovery
        self._next_opening, self._randomness = next_opening, randomness
        self.ingest = ingest
        self._begun = 0

    def fresh(self, call: CallId, at_us: int, *, waits: bool = False) -> Recording:
        """Begins a new call; of one that waits for a decision no opening record is written: nobody can open it."""
        recording = self._begin(Call(call, at_us), _FIRST_EPOCH, [], at_us, waits=waits)
        if not waits:
            self.open(recording)
        return recording

    def open(self, recording: Recording) -> None:
        """Writes the opening record: whoever has the ingest key can open the call from now on."""
        call, seal = recording.call, recording.seal
        opening = seal.opening(
            self._settings.agent,
            self.ingest,
            self._signer,
            sequence=self._next_opening(),
            started_at_us=max(call.answered_at_us, recording.since_us),
        )
        recording.epochs.append(EpochEntry(seal.epoch, recording.spool.write_opening(opening)))

    def renew(self, recording: Recording) -> None:
        """Destroys what was gathered of a call that waits, its key first; it has another from now on."""
        recording.seal.forget()
        fresh = self._begin(recording.call, _FIRST_EPOCH, [], recording.since_us, waits=True)
        recording.spool.discard(fresh.spool)
        recording.seal, recording.spool, recording.left_until_us = fresh.seal, fresh.spool, 0

    def adopted(self, call: CallId, at_us: int) -> Recording:
        """Goes on with a call of an earlier run: none of its streams is heard yet, its causes are as they were.

        Its earlier parts are closed and read by a thread of ``Disk``; what is sealed meanwhile waits in memory.

        Args:
            call: The call.
            at_us: From when on it is recorded again.

        Raises:
            MalformedInput: If the call is finished, or what was noted of it cannot be read.
            IntegrityError: If its opening is not this agent's.
            OSError: If the spool cannot be read.
        """
        if not self._recovery.is_spooled(call) or self._recovery.is_finished(call):
            raise MalformedInput("no unfinished call of an earlier run")
        leftover = self._recovery.reopen(call)
        leftover.call.flag("restarted")
        recording = self._begin(leftover.call, leftover.next_epoch, leftover.epochs, at_us, has_place=False)
        self.open(recording)
        recording.left_until_us = at_us - 1
        self._disk.submit(call, partial(self._find_place, recording.spool, leftover, at_us))
        return recording

    def _begin(
        self,
        call: Call,
        epoch: int,
        earlier: list[EpochEntry],
        at_us: int,
        *,
        has_place: bool = True,
        waits: bool = False,
    ) -> Recording:
        settings = self._settings
        seal = CallSeal.fresh(settings.tenant, call.call, epoch, self._randomness)
        header = PartHeader(settings.tenant, settings.agent, call.call, epoch, 0, NO_PREVIOUS)
        directory = settings.spool_dir / call.call
        spool = CallSpool(
            directory, header, self._signer, self._disk, settings.part_us, has_place=has_place, waits=waits
        )
        self._begun += 1
        spool.limit_first_part(int(max(self._begun * _GOLDEN % 1, _LEAST_SHARE) * settings.part_us))
        return Recording(call, seal, spool, list(earlier), at_us, waits)

    def _find_place(self, spool: CallSpool, leftover: Leftover, at_us: int) -> list[Event]:
        """Closes the parts of earlier runs and cuts what was to be cut; then the spool may go on after them."""
        call = leftover.call.call
        settled = self._recovery.settle(call)
        events = settled.alarms + self._recovery.carry_out_cuts(call)
        beginnings = {one.epoch: one.started_at_us for one in leftover.openings} | {leftover.next_epoch: at_us}
        spool.continue_after(settled.parts, settled.next_index, settled.losses(beginnings))
        return events
