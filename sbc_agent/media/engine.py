"""The engine: commands and ticks in, sealed records and events out. Time is an argument.

A tick drains a share of the sockets into the rings, lets the calls whose turn it is leave, and finishes calls that have
run empty. Each call leaves once a second; turns are spread over the ticks. A command first drains the sockets of its
call, so that it acts on exactly what arrived before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from dualtone.domain import canonical
from dualtone.domain.call_files import EpochEntry
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.part import NO_PREVIOUS, PartHeader, RecordType
from dualtone.domain.signing import Signer
from sbc_agent.media import messages
from sbc_agent.media.call import Call, Stream
from sbc_agent.media.clock import Moment
from sbc_agent.media.intake import FOREVER, Counters
from sbc_agent.media.lines import Lines
from sbc_agent.media.messages import Alarm, Event, PortFree, StreamSpec
from sbc_agent.media.receive import Receiver
from sbc_agent.media.records import RecordLayout, Turn
from sbc_agent.media.schedule import CallTurns
from sbc_agent.media.seal import CallSeal, IngestKey
from sbc_agent.media.sockets import RtpSocket
from sbc_agent.media.spool import CallSpool, Disk

_GOLDEN: Final = 0.618_033_988_75  # multiples of it, modulo 1, are spread evenly however many there are
_LEAST_SHARE: Final = 0.1
NO_MEDIA_US: Final = 10_000_000
_LATE_TICKS: Final = 3
_FINISHED_AT_ONCE: Final = 32
_EPOCH: Final = 0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine must know of the agent.

    Attributes:
        tenant: Owner of the calls.
        agent: This agent.
        version: Of its software.
        spool_dir: Where calls' directories are made.
        hold_back_us: How long packets stay in the ring.
        tick_us: Time between ticks.
        part_us: The longest time that a part covers.
    """

    tenant: TenantId
    agent: AgentId
    version: str
    spool_dir: Path
    hold_back_us: int
    tick_us: int
    part_us: int


@dataclass(slots=True)
class _Recording:
    """A call with its key and its files."""

    call: Call
    seal: CallSeal
    spool: CallSpool
    opening_sha256: str


class Engine:
    """Receives, holds back, seals.

    Args:
        settings: What it must know of the agent.
        receiver: Drains sockets.
        sockets: The pool of open ports.
        signer: The agent's key.
        ingest: What call keys are wrapped to.
        disk: Makes files durable.
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
        next_opening: Callable[[], int],
        randomness: Callable[[int], bytes],
        moment: Moment,
    ) -> None:
        self._settings, self._signer, self._ingest, self._disk = settings, signer, ingest, disk
        self._next_opening, self._randomness = next_opening, randomness
        self._lines = Lines(receiver, sockets, settings.hold_back_us // 1000, moment, self._relieve)
        self.ring, self.intake = self._lines.ring, self._lines.intake
        self._layout = RecordLayout()
        self._ticked_us = moment.now_us
        self._recordings: dict[str, _Recording] = {}
        self._ending: dict[str, _Recording] = {}
        self._turns: CallTurns[_Recording] = CallTurns(max(1_000_000 // settings.tick_us, 1), _turn)
        self._events: list[Event] = []
        self._tick = self._records = self._bytes_sealed = self._left = 0
        self._finished = {one.name: 0 for one in fields(Counters)}
        self._begun = 0
        self._draining = self._flushing = False

    @property
    def is_drained(self) -> bool:
        """Whether all calls are finished after ``Drain``, and everything is on disk."""
        return self._draining and not self._recordings and self._disk.is_idle

    def events(self) -> list[Event]:
        """What happened since last asked."""
        events, self._events = self._events + self._disk.events(), []
        return events

    def handle(self, command: messages.Command, moment: Moment) -> None:
        """Carries a command out; one that does not fit the call's state raises an alarm and changes nothing."""
        if isinstance(command, messages.AskStats):
            return
        if isinstance(command, messages.Drain):
            self._drain_all(moment, flush=command.flush)
            return
        if isinstance(command, messages.Begin):
            self._begin(command)
            return
        if isinstance(command, messages.UseIngestKey | messages.Recover):
            return
        recording = self._recordings.get(command.call)
        # SIP messages may still be heard while the ring runs empty; all else comes too late then.
        may_be_over = isinstance(command, messages.Signalling | messages.Session)
        if recording is None or (recording.call.ended_at_us is not None and not may_be_over):
            self._events.append(Alarm(kind="command", call=command.call))
            return
        if isinstance(command, messages.Streams):
            self._streams(recording, command, moment)
        elif isinstance(command, messages.Signalling):
            plaintext = command.at_us.to_bytes(8, "big") + bytes([command.direction]) + command.raw
            self._append(recording, RecordType.SIGNALLING, plaintext, moment.now_us, command.at_us)
        elif isinstance(command, messages.Session):
            self._append_session(recording, command, moment.now_us)
        elif isinstance(command, messages.End):
            self._end(recording, command.at_us, command.reason, command.flags, moment)

    def tick(self, moment: Moment) -> None:
        """Does a tick's share of the work.

        After a stall, what is overdue leaves before what waits in the sockets comes in: rings have room for the
        hold-back, not for the stall as well.
        """
        if moment.now_us - self._ticked_us > _LATE_TICKS * self._settings.tick_us:
            self._relieve(self._recordings, moment)
        self._ticked_us = moment.now_us
        self._lines.drain_share(self._tick, moment)
        recordings, turn = self._turns.due(self._tick)
        self._leave(recordings, turn, moment.now_us - self._settings.hold_back_us, moment.now_us)
        for recording in recordings:
            self._attend(recording, moment.now_us)
        self._finish_calls(moment.now_us)
        self._tick += 1

    def counters(self) -> dict[str, int]:
        """Counters since the start and gauges of now, by the names of ``messages.Stats``."""
        rows = [stream.row for recording in self._recordings.values() for stream in recording.call.streams.values()]
        counts = {
            name: total + int(getattr(self.intake.counters, name)[rows].sum()) for name, total in self._finished.items()
        }
        counts["dropped"] += counts.pop("overflowed")
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

    def _begin(self, command: messages.Begin) -> None:
        has_room = self._lines.have_room_for([spec.port for spec in command.streams])
        if self._draining or command.call in self._recordings or not has_room:
            self._events.append(Alarm(kind="command", call=command.call))
            return
        settings, call = self._settings, CallId(command.call)
        seal = CallSeal.fresh(settings.tenant, call, _EPOCH, self._randomness)
        opening = seal.opening(
            settings.agent, self._ingest, self._signer, sequence=self._next_opening(), started_at_us=command.at_us
        )
        spool = CallSpool(
            settings.spool_dir / call,
            PartHeader(settings.tenant, settings.agent, call, _EPOCH, 0, NO_PREVIOUS),
            self._signer,
            self._disk,
            settings.part_us,
        )
        recording = _Recording(Call(call, command.at_us), seal, spool, spool.write_opening(opening))
        self._recordings[call] = recording
        if spool.backlog:
            self._events.append(Alarm(kind="spool_write", call=call))
        self._turns.add(call, recording)
        self._begun += 1
        spool.limit_first_part(int(max(self._begun * _GOLDEN % 1, _LEAST_SHARE) * settings.part_us))
        for spec in command.streams:
            self._add_stream(recording, spec, command.at_us)
        self._streams_changed(recording)

    def _streams(self, recording: _Recording, command: messages.Streams, moment: Moment) -> None:
        self._lines.drain_rows(_rows(recording), moment)
        call, at_us = recording.call, command.at_us
        for spec in command.streams:
            stream = call.streams.get(spec.stream)
            if stream is None:
                if self._lines.have_room_for([spec.port]):
                    self._add_stream(recording, spec, at_us)
                else:
                    self._events.append(Alarm(kind="command", call=call.call))
                continue
            if spec.port != stream.port:  # a stream keeps its port
                self._events.append(Alarm(kind="command", call=call.call))
            if stream.describe(spec.formats, at_us):
                self._explain(stream)
            self._set_active(call, stream, at_us, active=spec.active)
            self.intake.expect_change(stream.row, moment.now_us)
        named = {spec.stream for spec in command.streams}
        for index in call.streams.keys() - named:
            self._set_active(call, call.streams[index], at_us, active=False)
        call.stream_set = min(call.stream_set + 1, 0xFFFF)
        self._streams_changed(recording)

    def _end(self, recording: _Recording, at_us: int, reason: str, flags: Sequence[str], moment: Moment) -> None:
        self._lines.drain_rows(_rows(recording), moment)
        call = recording.call
        active = [stream.row for stream in call.streams.values() if stream.inactive_since_us is None]
        call.end(at_us, reason, flags)
        for row in active:
            self._keep_nothing_from(row, at_us + 1)
        for stream in call.streams.values():
            self._lines.hang_up(stream.row, stream.port, moment.now_us)
            self._events.append(PortFree(port=stream.port))
        recording.spool.write_state(call.state())
        self._ending[call.call] = recording

    def _drain_all(self, moment: Moment, *, flush: bool) -> None:
        self._draining, self._flushing = True, self._flushing or flush
        for recording in list(self._recordings.values()):
            if recording.call.ended_at_us is None:
                self._end(recording, moment.now_us, "shutdown", (), moment)

    def _add_stream(self, recording: _Recording, spec: StreamSpec, at_us: int) -> None:
        row = self._lines.open(spec.port, recording.call.call)
        stream = Stream(spec.stream, spec.label, row, spec.port)
        stream.describe(spec.formats, at_us)
        recording.call.streams[spec.stream] = stream
        self._explain(stream)
        stream.inactive_since_us = at_us
        self._set_active(recording.call, stream, at_us, active=spec.active)

    def _explain(self, stream: Stream) -> None:
        self.intake.explain(stream.row, ((entry.payload_type, entry.codec) for entry in stream.formats))

    def _set_active(self, call: Call, stream: Stream, at_us: int, *, active: bool) -> None:
        if active == (stream.inactive_since_us is None):
            return
        if active:
            call.resume_stream(stream, at_us)
            self.intake.keep_from_us[stream.row], self.intake.keep_until_us[stream.row] = at_us, FOREVER
        else:
            call.pause_stream(stream, at_us)
            self._keep_nothing_from(stream.row, at_us)

    def _keep_nothing_from(self, row: int, at_us: int) -> None:
        self.intake.keep_until_us[row] = at_us - 1
        self.intake.counters.dropped[row] += self.ring.blank(row, at_us, FOREVER)

    def _streams_changed(self, recording: _Recording) -> None:
        self._turns.changed(recording.call.call)
        recording.spool.write_state(recording.call.state())

    def _relieve(self, calls: Iterable[str], moment: Moment) -> None:
        """Lets calls leave out of their turn."""
        recordings = [self._recordings[call] for call in calls]
        self._leave(recordings, _turn(recordings), moment.now_us - self._settings.hold_back_us, moment.now_us)

    def _leave(self, recordings: list[_Recording], turn: Turn, cutoff_us: int, now_us: int) -> None:
        for record in self._layout.leave(self.ring, turn, cutoff_us):
            self._left += record.packets
            self._append(
                recordings[record.call], RecordType.MEDIA, record.plaintext, now_us, record.from_us, record.span_us
            )

    def _append(
        self,
        recording: _Recording,
        kind: RecordType,
        plaintext: bytes | memoryview,
        now_us: int,
        from_us: int,
        span_us: int = 0,
    ) -> None:
        frame = recording.seal.frame(kind, recording.call.stream_set, from_us, span_us, plaintext)
        self._records += 1
        self._bytes_sealed += len(frame)
        waited, lost = recording.spool.backlog, recording.spool.lost
        if not recording.spool.append(frame, now_us) and not waited:
            self._events.append(Alarm(kind="spool_write", call=recording.call.call))
        if recording.spool.lost and not lost:
            recording.call.flag("records_lost")
            self._events.append(Alarm(kind="records_lost", call=recording.call.call))

    def _append_session(self, recording: _Recording, command: messages.Session, now_us: int) -> None:
        try:
            plaintext = canonical.encode(command.session)
        except ValueError:  # fractions and the like: the SIP process never sends them
            self._events.append(Alarm(kind="command", call=command.call))
            return
        self._append(recording, RecordType.SESSION, plaintext, now_us, now_us)

    def _attend(self, recording: _Recording, now_us: int) -> None:
        """What a call needs once a second beside leaving."""
        recording.spool.roll(now_us)
        call = recording.call
        is_heard = any(stream.inactive_since_us is None for stream in call.streams.values())
        if is_heard and not call.alarmed_no_media and now_us - call.answered_at_us >= NO_MEDIA_US:
            self._check_media(call)

    def _check_media(self, call: Call) -> None:
        rows = [stream.row for stream in call.streams.values()]
        call.alarmed_no_media = True
        if not self.intake.counters.stored[rows].any():
            call.flag("no_media")
            self._events.append(Alarm(kind="no_media", call=call.call))

    def _finish_calls(self, now_us: int) -> None:
        """Finishes calls that ended a hold-back ago; only so many in a tick, because others must be drained."""
        cutoff_us = FOREVER if self._flushing else now_us - self._settings.hold_back_us
        due = [one for one in self._ending.values() if (one.call.ended_at_us or 0) < cutoff_us][:_FINISHED_AT_ONCE]
        if due:
            self._leave(due, _turn(due), FOREVER, now_us)
        for recording in due:
            self._finish(recording, now_us)

    def _finish(self, recording: _Recording, now_us: int) -> None:
        """Closes the last part and writes the manifest; is tried again if the spool refuses."""
        call, spool, settings = recording.call, recording.spool, self._settings
        try:
            if not spool.retry(now_us):
                return
            spool.close_part()
        except OSError:
            return
        if not call.alarmed_no_media:
            self._check_media(call)
        counters = {stream.stream: self.intake.counters.of(stream.row) for stream in call.streams.values()}
        if any(counts["overflowed"] for counts in counters.values()):
            call.flag("ring_overflow")
            self._events.append(Alarm(kind="ring_overflow", call=call.call))
        spool.finish(
            call.manifest(
                settings.tenant,
                settings.agent,
                settings.version,
                epochs=[EpochEntry(_EPOCH, recording.opening_sha256)],
                parts=spool.parts,
                counters=counters,
            )
        )
        for stream in call.streams.values():
            self._lines.release(stream.row)
        for counts in counters.values():
            for name, value in counts.items():
                self._finished[name] += value
        self._turns.remove(call.call)
        del self._recordings[call.call], self._ending[call.call]


def _rows(recording: _Recording) -> list[int]:
    return [stream.row for stream in recording.call.streams.values()]


def _turn(recordings: list[_Recording]) -> Turn:
    streams = [
        (stream.row, stream.stream, position)
        for position, recording in enumerate(recordings)
        for stream in recording.call.streams.values()
    ]
    row, stream, call = np.array(streams, np.int64).reshape(-1, 3).T.copy()
    return Turn(row, stream, call)
