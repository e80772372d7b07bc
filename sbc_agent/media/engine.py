"""The engine: commands and ticks in, sealed records and events out. Time is an argument.

A tick drains a share of the sockets into the rings, lets the calls whose turn it is leave, and finishes calls that have
run empty. Each call leaves once a second; turns are spread over the ticks. A command first drains the sockets of its
call, so that it acts on exactly what arrived before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain import canonical
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import CallId
from dualtone.domain.part import RecordType
from dualtone.domain.signing import Signer
from sbc_agent.media import messages
from sbc_agent.media.beginnings import Beginnings
from sbc_agent.media.call import Call
from sbc_agent.media.clock import FOREVER, Moment
from sbc_agent.media.disk import Disk
from sbc_agent.media.engine_settings import EngineSettings
from sbc_agent.media.hearing import Hearing
from sbc_agent.media.intake import Counters
from sbc_agent.media.keys import Keys
from sbc_agent.media.late_pauses import LatePauses
from sbc_agent.media.lines import DRAIN_EVERY_TICKS, Lines
from sbc_agent.media.messages import Adopted, Alarm, Event
from sbc_agent.media.pauses import Pauses
from sbc_agent.media.receive import Receiver
from sbc_agent.media.recording import Recording, turn_of
from sbc_agent.media.records import RecordLayout, Turn
from sbc_agent.media.recovery import Recovery
from sbc_agent.media.schedule import CallTurns
from sbc_agent.media.seal import IngestKey
from sbc_agent.media.sockets import RtpSocket
from sbc_agent.media.waiting import Waiting

NO_MEDIA_US: Final = 10_000_000
_LATE_TICKS: Final = 3
_FINISHED_AT_ONCE: Final = 32

CallCommand = (
    messages.Streams | messages.Signalling | messages.Session | messages.End | messages.Policy | messages.Digit
)
"""What concerns a call in the rings."""


class Engine:
    """Receives, holds back, seals.

    Args:
        settings: What it must know of the agent.
        receiver: Drains sockets.
        sockets: The pool of open ports.
        signer: The agent's key.
        ingest: What call keys are wrapped to.
        disk: Makes files durable.
        recovery: Takes up what earlier runs left.
        next_opening: Yields the number of the agent's next opening record.
        randomness: Yields random bytes, for call keys.
        moment: When it starts.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        receiver: Receiver,
        sockets: dict[int, RtpSocket],
        signer: Signer,
        ingest: IngestKey,
        disk: Disk,
        recovery: Recovery,
        next_opening: Callable[[], int],
        randomness: Callable[[int], bytes],
        moment: Moment,
    ) -> None:
        self._settings, self._disk, self._recovery = settings, disk, recovery
        self._beginnings = Beginnings(
            settings,
            signer=signer,
            ingest=ingest,
            disk=disk,
            recovery=recovery,
            next_opening=next_opening,
            randomness=randomness,
        )
        self._lines = Lines(receiver, sockets, settings.hold_back_us // 1000, moment, self._relieve)
        self.ring, self.intake = self._lines.ring, self._lines.intake
        self._events: list[Event] = []
        self._pauses = Pauses(self._lines, self._tell)
        self._late_pauses = LatePauses(recovery, disk)
        drained_us = (DRAIN_EVERY_TICKS + 1) * settings.tick_us
        self._keys = Keys(
            self._lines, self._pauses, settings.agent, settings.hold_back_us, drained_us, randomness, self._tell
        )
        self._hearing = Hearing(self._lines, self._pauses, self._tell)
        self._waiting = Waiting(self._beginnings, self._pauses, self._tell)
        self._layout = RecordLayout()
        self._ticked_us = moment.now_us
        self._recordings: dict[str, Recording] = {}
        self._ending: dict[str, Recording] = {}
        self._turns: CallTurns[Recording] = CallTurns(max(1_000_000 // settings.tick_us, 1), turn_of)
        self._tick = self._records = self._bytes_sealed = self._left = 0
        self._finished = {one.name: 0 for one in fields(Counters)}
        self._draining = self._flushing = False

    @property
    def is_drained(self) -> bool:
        """Whether all calls are finished after ``Drain``, and everything is on disk."""
        return self._draining and not self._recordings and self._disk.is_idle

    @property
    def buffers(self) -> tuple[npt.NDArray[np.generic], ...]:
        """What holds speech, for locking into memory; what is used most comes first."""
        return (self._layout.buffer, self._lines.buffer, *self.ring.arrays)

    def events(self) -> list[Event]:
        """What happened since last asked."""
        events, self._events = self._events + self._disk.events(), []
        return events

    def handle(self, command: messages.Command, moment: Moment) -> None:
        """Carries a command out; one that does not fit the call's state raises an alarm and changes nothing."""
        match command:
            case messages.AskStats():
                pass
            case messages.Drain():
                self._drain_all(moment, flush=command.flush)
            case messages.UseIngestKey():
                self._use_ingest_key(command)
            case messages.Recover():
                self._recover()
            case messages.Begin() | messages.Adopt():
                self._begin(command)
            case messages.Pause() | messages.Resume():
                self._pause_or_resume(command, moment)
            case messages.Decide():
                self._decide(command, moment)
            case _:
                self._handle_of_call(command, moment)
        self._keys.hear(self._recordings, moment)

    def tick(self, moment: Moment) -> None:
        """Does a tick's share of the work.

        After a stall, what is overdue leaves before what waits in the sockets comes in: rings have room for the
        hold-back, not for the stall as well.
        """
        if moment.now_us - self._ticked_us > _LATE_TICKS * self._settings.tick_us:
            self._relieve(self._recordings, moment)
        self._ticked_us = moment.now_us
        self._pauses.tick(self._recordings, moment)
        for command in self._late_pauses.due(moment.now_us):
            self._pause_or_resume(command, moment)
        self._lines.drain_share(self._tick, moment)
        recordings, turn = self._turns.due(self._tick)
        self._leave(recordings, turn, moment.now_us - self._settings.hold_back_us, moment.now_us)
        self._keys.hear(self._recordings, moment)
        for recording in recordings:
            self._attend(recording, moment.now_us)
        self._finish_calls(moment)
        if self._pauses.has_traces():
            self._lines.wipe()
            self._layout.wipe()
        self._tick += 1

    def counters(self) -> dict[str, int]:
        """Counters since the start and gauges of now, by the names of ``messages.Stats``."""
        rows = [row for recording in self._recordings.values() for row in recording.rows]
        counts = {
            name: total + int(getattr(self.intake.counters, name)[rows].sum()) for name, total in self._finished.items()
        }
        return {
            "calls": len(self._recordings),
            "streams": len(rows),
            "received": sum(counts.values()) - counts["reordered"],
            **counts,
            "left_ring": self._left,
            "records": self._records,
            "bytes_sealed": self._bytes_sealed,
            "ticks": self._tick,
            "clock_steps": self._lines.clock_steps,
        }

    def _tell(self, event: Event) -> None:
        self._events.append(event)

    def _use_ingest_key(self, command: messages.UseIngestKey) -> None:
        try:
            self._beginnings.ingest = IngestKey.load(command.key_arn, command.public_key_der)
        except MalformedInput:
            self._tell(Alarm(kind="command"))

    def _recover(self) -> None:
        try:
            for call, job in self._recovery.leftovers(self._recordings):
                self._disk.submit(call, job)
        except OSError:
            self._tell(Alarm(kind="spool_read"))

    def _begin(self, command: messages.Begin | messages.Adopt) -> None:
        has_room = self._lines.have_room_for([spec.port for spec in command.streams])
        if self._draining or command.call in self._recordings or not has_room:
            self._tell(Alarm(kind="command", call=command.call))
            return
        call = CallId(command.call)
        try:
            if isinstance(command, messages.Begin):
                recording = self._beginnings.fresh(call, command.at_us, waits=command.waits)
                recording.call.is_on_demand = command.waits and command.silent
            else:
                recording = self._beginnings.adopted(call, command.at_us)
        except (MalformedInput, IntegrityError, OSError):
            self._tell(Alarm(kind="command", call=call))
            return
        if command.policy is not None:
            recording.call.profile.change(command.policy, command.at_us)
        self._recordings[call] = recording
        self._events += recording.watch_spool()
        self._turns.add(call, recording)
        self._hearing.begin(recording, command.streams, command.at_us)
        self._streams_changed(recording)
        if isinstance(command, messages.Adopt):
            self._tell(Adopted(call=call, epoch=recording.seal.epoch))

    def _pause_or_resume(self, command: messages.Pause | messages.Resume, moment: Moment) -> None:
        recording = self._recordings.get(command.call)
        if recording is None:
            self._events += self._late_pauses.handle(command, moment.now_us)
        elif isinstance(command, messages.Pause):
            self._pauses.pause(recording, command, moment)
        else:
            self._pauses.resume(recording, command, moment)

    def _decide(self, command: messages.Decide, moment: Moment) -> None:
        recording = self._recordings.get(command.call)
        if recording is None:
            self._tell(messages.Decided(call=command.call, keep=command.keep, outcome="unknown"))
            return
        self._waiting.decide(recording, command.at_us, moment, keep=command.keep)
        if recording.call.is_on_demand:
            self._keys.end(command.call)
        self._events += recording.watch_spool()
        self._leave_if_unwanted(recording)

    def _handle_of_call(self, command: CallCommand, moment: Moment) -> None:
        recording = self._recordings.get(command.call)
        # SIP messages may still be heard while the ring runs empty; all else comes too late then.
        may_be_over = isinstance(command, messages.Signalling | messages.Session)
        if recording is None or (recording.call.ended_at_us is not None and not may_be_over):
            self._tell(Alarm(kind="command", call=command.call))
        elif isinstance(command, messages.Streams):
            self._hearing.change(recording, command.streams, command.at_us, moment)
            self._streams_changed(recording)
        elif isinstance(command, messages.Policy):
            self._keys.change(recording, command.policy, command.at_us)
            recording.spool.write_state(recording.call.state)
        elif isinstance(command, messages.Digit):
            self._keys.signalled(recording, command)
        elif recording.call.is_on_demand and may_be_over:
            return  # nothing of it is gathered
        elif isinstance(command, messages.Signalling):
            plaintext = command.at_us.to_bytes(8, "big") + bytes([command.direction]) + command.raw
            self._append(recording, RecordType.SIGNALLING, plaintext, moment.now_us, command.at_us)
        elif isinstance(command, messages.Session):
            self._append_session(recording, command, moment.now_us)
        else:
            self._end(recording, command, moment)

    def _end(self, recording: Recording, command: messages.End, moment: Moment) -> None:
        self._hearing.end(recording, command.at_us, command.reason, command.flags, moment)
        recording.spool.write_state(recording.call.state)
        self._ending[recording.call.call] = recording
        self._leave_if_unwanted(recording)

    def _drain_all(self, moment: Moment, *, flush: bool) -> None:
        self._draining, self._flushing = True, self._flushing or flush
        self._disk.give_up(lambda call: not (self._settings.spool_dir / call).is_dir())
        for call, recording in list(self._recordings.items()):
            if recording.call.ended_at_us is None:
                self._end(recording, messages.End(call=call, at_us=moment.now_us, reason="shutdown"), moment)
            if recording.waits:
                self._waiting.discard(recording, moment)
                self._leave_if_unwanted(recording)

    def _streams_changed(self, recording: Recording) -> None:
        self._turns.changed(recording.call.call)
        recording.spool.write_state(recording.call.state)

    def _relieve(self, calls: Iterable[str], moment: Moment) -> None:
        """Lets calls leave out of their turn."""
        self._pauses.enforce()
        recordings = [self._recordings[call] for call in calls]
        self._leave(recordings, turn_of(recordings), moment.now_us - self._settings.hold_back_us, moment.now_us)

    def _leave(self, recordings: list[Recording], turn: Turn, cutoff_us: int, now_us: int) -> None:
        cutoff_us = self._keys.leave(recordings, turn, cutoff_us, now_us)
        for record in self._layout.leave(self.ring, turn, cutoff_us):
            self._left += record.packets
            self._append(
                recordings[record.call], RecordType.MEDIA, record.plaintext, now_us, record.from_us, record.span_us
            )

    def _append(
        self,
        recording: Recording,
        kind: RecordType,
        plaintext: bytes | memoryview,
        now_us: int,
        from_us: int,
        span_us: int = 0,
    ) -> None:
        size_bytes, events = recording.append(kind, plaintext, now_us, from_us, span_us)
        self._records += 1
        self._bytes_sealed += size_bytes
        if events:
            self._events += events

    def _append_session(self, recording: Recording, command: messages.Session, now_us: int) -> None:
        try:
            plaintext = canonical.encode(command.session)
        except ValueError:  # fractions and the like: the SIP process never sends them
            self._tell(Alarm(kind="command", call=command.call))
            return
        self._append(recording, RecordType.SESSION, plaintext, now_us, now_us)

    def _attend(self, recording: Recording, now_us: int) -> None:
        """What a call needs once a second beside leaving."""
        if recording.spool.backlog:
            recording.spool.retry(now_us)
            self._events += recording.watch_spool()
        recording.spool.roll(now_us)
        call = recording.call
        is_due = not (call.is_on_demand or call.alarmed_no_media) and now_us - recording.since_us >= NO_MEDIA_US
        if is_due and not all(call.causes(stream) for stream in call.streams.values()):
            self._check_media(call)

    def _check_media(self, call: Call) -> None:
        rows = [stream.row for stream in call.heard]
        call.alarmed_no_media = True
        counters = self.intake.counters
        if not counters.stored[rows].any() and not counters.dropped[rows].any():
            call.flag("no_media")
            self._tell(Alarm(kind="no_media", call=call.call))
        if ((counters.unauthentic[rows] > 0) & (counters.stored[rows] == 0)).any():
            call.flag("srtp_unopened")
            self._tell(Alarm(kind="srtp_unopened", call=call.call))

    def _finish_calls(self, moment: Moment) -> None:
        """Finishes calls that ended a hold-back ago; only so many in a tick, because others must be drained."""
        now_us = moment.now_us
        cutoff_us = FOREVER if self._flushing else now_us - self._settings.hold_back_us
        ending = (one for one in self._ending.values() if not one.waits)
        due = [one for one in ending if (one.call.ended_at_us or 0) < cutoff_us][:_FINISHED_AT_ONCE]
        if due:
            self._leave(due, turn_of(due), FOREVER, now_us)
            self._keys.hear(self._recordings, moment)
        for recording in due:
            self._finish(recording, now_us)

    def _finish(self, recording: Recording, now_us: int) -> None:
        """Closes the last part and writes the manifest; is tried again if the spool refuses."""
        call, spool, settings = recording.call, recording.spool, self._settings
        try:
            if not spool.retry(now_us) or not self._pauses.answer(recording):
                self._give_up_if_gone(recording)
                return
            spool.close_part()
        except OSError:
            self._give_up_if_gone(recording)
            return
        self._events += recording.watch_spool()
        if not call.alarmed_no_media:
            self._check_media(call)
        counters = {stream.stream: self.intake.counters.of(stream.row) for stream in call.heard}
        if any(counts["overflowed"] for counts in counters.values()):
            call.flag("ring_overflow")
            self._tell(Alarm(kind="ring_overflow", call=call.call))
        spool.finish(
            call.manifest(
                settings.tenant,
                settings.agent,
                settings.version,
                epochs=recording.epochs,
                parts=spool.parts,
                losses=spool.losses,
                counters=counters,
            )
        )
        self._leave_rings(recording)

    def _give_up_if_gone(self, recording: Recording) -> None:
        """Does not wait, when about to end, for a call whose directory somebody took away."""
        if self._draining and recording.spool.is_gone:
            recording.spool.give_up()
            self._tell(Alarm(kind="spool_gone", call=recording.call.call))
            self._leave_rings(recording)

    def _leave_if_unwanted(self, recording: Recording) -> None:
        """A call that ended and of which nothing was gathered is over."""
        if recording.call.is_on_demand and recording.call.call in self._ending:
            self._leave_rings(recording)

    def _leave_rings(self, recording: Recording) -> None:
        for stream in recording.call.heard:
            for name, value in self.intake.counters.of(stream.row).items():
                self._finished[name] += value
            self._lines.release(stream.row)
        call = recording.call.call
        self._turns.remove(call)
        self._keys.end(call)
        del self._recordings[call], self._ending[call]
