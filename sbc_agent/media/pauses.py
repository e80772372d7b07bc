"""Pauses and resumes in the ring: carried out within the tick in which they come, answered when no crash forgets them.

A pause takes back what arrived from its beginning on and has not left; what still waits in the sockets is drained with
it, and nothing of the span leaves meanwhile. What had left already is cut out of the spool. A resume counts from the
moment in which it is carried out: what came before that is dropped.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from dualtone.domain.call_files import SilentEntry
from sbc_agent.media.call import Stream
from sbc_agent.media.clock import FOREVER, Moment
from sbc_agent.media.cuts import Cut
from sbc_agent.media.lines import Lines
from sbc_agent.media.messages import Alarm, Event, LeaseExpired, Pause, PauseApplied, Resume, SilentFrom
from sbc_agent.media.recording import Answer, Recording
from sbc_agent.media.silence import CallPause, Silence


@dataclass(slots=True)
class _Taking:
    """Spans that are being taken back, both ends included, and the first packet of each row that was taken."""

    recording: Recording
    spans: list[tuple[int, int]]
    firsts: dict[int, tuple[int, int]] = field(default_factory=dict)


class Pauses:
    """Silences calls, and lets them be heard again.

    Args:
        lines: Rings and sockets.
        tell: Takes events.
    """

    def __init__(self, lines: Lines, tell: Callable[[Event], None]) -> None:
        self._lines, self._tell = lines, tell
        self._taking: _Taking | None = None
        self._timers: list[tuple[int, str]] = []
        self._unanswered: dict[str, Recording] = {}
        self._has_traces = False

    def pause(self, recording: Recording, command: Pause, moment: Moment) -> None:
        """Carries out a pause; ``PauseApplied`` answers it."""
        self.pass_time(recording, moment)
        call, silence = recording.call, recording.call.silence
        if self._repeated(recording, command):
            return
        owed = owed_pause(silence, command)
        if owed is None:
            self._tell(self._applied(recording, command, "superseded", moment))
            return
        command = owed
        to_us = FOREVER if command.until_us is None else command.until_us - 1
        left_us = min(to_us, recording.left_until_us)
        is_late = command.from_us <= left_us and not silence.covers(command.from_us, left_us)
        pause = pause_of(command)
        pause.silent_from = silence.silent_since(command.from_us)
        firsts = self._take_back(recording, [(command.from_us, to_us)], moment)
        if not pause.silent_from:
            pause.silent_from = [
                self._silent_from(stream, firsts.get(stream.row), command.from_us, is_late=is_late)
                for stream in call.heard
            ]
        silence.begin(pause)
        if call.ended_at_us is not None:
            silence.close(call.ended_at_us)
        self.pass_time(recording, moment)
        applied = self._applied(recording, command, "too_late" if is_late else "acknowledged", moment)
        applied = applied.model_copy(update={"silent_from": _told(pause.silent_from)})
        self._answer(recording, applied, (command.from_us, left_us) if is_late else None)

    def resume(self, recording: Recording, command: Resume, moment: Moment) -> None:
        """Carries out a resume; ``PauseApplied`` answers it."""
        self.pass_time(recording, moment)
        silence = recording.call.silence
        if self._repeated(recording, command):
            return
        if not silence.takes(command.origin, command.cause, command.number):
            self._tell(self._applied(recording, command, "superseded", moment))
            return
        if recording.call.ended_at_us is None:
            self._lines.drain_rows(recording.rows, moment)
        lifted_us = max(command.at_us, moment.now_us)
        silence.lift(command.origin, command.cause, command.number, lifted_us, command.by, command.command)
        self.set_windows(recording)
        self._answer(recording, self._applied(recording, command, "acknowledged", moment))

    def pass_time(self, recording: Recording, moment: Moment) -> None:
        """Ends what ends by itself; what waits in the sockets came before, during or after it, and is judged so."""
        call, lasted = recording.call, recording.call.silence.open
        lapses = call.silence.pass_time(moment.now_us)
        ended = [pause for pause in lasted if pause.to_us is not None]
        if ended and call.ended_at_us is None:
            self._set_windows(recording, before=ended)
            self._take_back(recording, [(pause.from_us, (pause.to_us or 0) - 1) for pause in ended], moment)
        for lapse in lapses:
            self._tell(LeaseExpired.model_validate({"call": call.call, **asdict(lapse)}))
            if lapse.on_expiry == "silent":
                self._tell(Alarm(kind="lease_expired", call=call.call))
            else:
                call.flag("lease_resumed")
            recording.spool.write_state(call.state)
        self.set_windows(recording)

    def set_windows(self, recording: Recording) -> None:
        """Lets the intake keep what the call's causes allow, from now on; what ends by itself is awaited."""
        self._set_windows(recording)
        due_us = recording.call.silence.due_us
        if due_us < FOREVER:
            heapq.heappush(self._timers, (due_us, recording.call.call))

    def drain(self, recording: Recording, moment: Moment) -> None:
        """Judges what waits in a call's sockets by what is heard until now."""
        if recording.call.ended_at_us is None:
            self._lines.drain_rows(recording.rows, moment)

    def take_back_all(self, recording: Recording, moment: Moment) -> None:
        """Leaves nothing in memory of what came of a call that is not heard any more."""
        self.set_windows(recording)
        self._take_back(recording, [(0, FOREVER)], moment)
        for row in recording.rows:
            self._lines.tones.forget(row)

    def enforce(self) -> None:
        """Takes back what has come into the ring of the span that is being taken back, if one is."""
        taking = self._taking
        if taking is None:
            return
        ring, intake = self._lines.ring, self._lines.intake
        for row, span in itertools.product(taking.recording.rows, taking.spans):
            first = ring.first(row, *span)
            if first is not None:
                taking.firsts[row] = min(first, taking.firsts.get(row, first))
            intake.forget(row, *span)

    def tick(self, recordings: Mapping[str, Recording], moment: Moment) -> None:
        """Ends what ends by itself, and tries again to answer what could not be noted; before sockets are drained."""
        while self._timers and self._timers[0][0] <= moment.now_us:
            recording = recordings.get(heapq.heappop(self._timers)[1])
            if recording is not None and recording.call.ended_at_us is None:
                self.pass_time(recording, moment)
        for recording in list(self._unanswered.values()):
            self.answer(recording)

    def answer(self, recording: Recording) -> bool:
        """Notes what the call's answers say, then gives them; tells whether none is left."""
        if not recording.answers:
            return True
        spool, call = recording.spool, recording.call
        if not spool.is_cleared:
            self._unanswered[call.call] = recording
            return False
        try:
            while recording.answers:
                answer = recording.answers[0]
                if answer.cut is not None:
                    spool.cut(answer.event.command, *answer.cut)
                    recording.answers[0] = Answer(answer.event)
                spool.note_state(call.state)
                self._tell(recording.answers.pop(0).event)
        except OSError:
            if call.call not in self._unanswered:
                self._tell(Alarm(kind="spool_write", call=call.call))
            self._unanswered[call.call] = recording
            return False
        self._unanswered.pop(call.call, None)
        return True

    def has_traces(self) -> bool:
        """Whether something was taken back since last asked: buffers may hold copies of it."""
        had, self._has_traces = self._has_traces, False
        return had

    def _set_windows(self, recording: Recording, *, before: Sequence[CallPause] = ()) -> None:
        call, intake = recording.call, self._lines.intake
        if call.ended_at_us is None:
            for stream in call.heard:
                window = call.window(stream, before=before)
                intake.keep_from_us[stream.row], intake.keep_until_us[stream.row] = window

    def _take_back(
        self, recording: Recording, spans: list[tuple[int, int]], moment: Moment
    ) -> dict[int, tuple[int, int]]:
        """Takes back what arrived within spans; returns arrival and RTP timestamp of the first packet of each row."""
        self._taking = taking = _Taking(recording, spans)
        self.enforce()
        if recording.call.ended_at_us is None:
            self._lines.drain_rows(recording.rows, moment)
            self.enforce()
        self._taking, self._has_traces = None, True
        return taking.firsts

    def _silent_from(
        self, stream: Stream, first: tuple[int, int] | None, from_us: int, *, is_late: bool
    ) -> SilentEntry:
        """The first packet that was taken, or the one that comes next; without a timestamp if neither is certain."""
        ring = self._lines.ring
        if stream.inactive_since_us is not None or (
            first is not None and is_late and not ring.remembers_before(stream.row, from_us)
        ):
            return SilentEntry(stream.stream, None, from_us)
        if first is None:
            first = ring.expected(stream.row, from_us, stream.clock_hz)
        return (
            SilentEntry(stream.stream, None, from_us)
            if first is None
            else SilentEntry(stream.stream, first[1], first[0])
        )

    def _applied(self, recording: Recording, command: Pause | Resume, outcome: str, moment: Moment) -> PauseApplied:
        return applied(
            command,
            outcome,
            at_us=moment.now_us,
            left_until_us=recording.left_until_us,
            causes=recording.call.silence.causes,
        )

    def _repeated(self, recording: Recording, command: Pause | Resume) -> bool:
        """Answers a command that was carried out already as the first time; tells whether it was."""
        if any(answer.event.command == command.command for answer in recording.answers):
            return True  # as soon as it is noted
        try:
            cut = recording.spool.noted_cut(command.command)
        except OSError:  # whether something was cut for it is not known
            return False
        answer = answer_again(recording.call.silence, command, cut)
        if answer is None:
            return False
        self._answer(recording, answer)
        if cut is not None:
            recording.spool.cut_again(cut)
        return True

    def _answer(self, recording: Recording, event: PauseApplied, cut: tuple[int, int] | None = None) -> None:
        recording.answers.append(Answer(event, cut))
        self.answer(recording)


def answer_again(silence: Silence, command: Pause | Resume, cut: Cut | None) -> PauseApplied | None:
    """The answer to a command that was carried out already, by this run or an earlier one; None if it was not.

    Args:
        silence: What the call remembers.
        command: The command, as it comes again.
        cut: What was noted to be cut for it, if anything was.
    """
    asked = (command.origin, command.cause, command.number, command.command)
    if isinstance(command, Resume):
        lifted_us = silence.lifted_at(*asked)
        if lifted_us is None:
            return None
        again = applied(command, "acknowledged", at_us=lifted_us, causes=silence.causes)
        return again.model_copy(update={"from_us": lifted_us})
    pause = silence.carried_out(*asked)
    if pause is None:
        return None
    again = applied(
        command,
        "acknowledged" if cut is None else "too_late",
        at_us=pause.received_at_us,
        left_until_us=0 if cut is None else cut.to_us,
        causes=silence.causes,
    )
    return again.model_copy(update={"from_us": pause.from_us, "silent_from": _told(pause.silent_from)})


def owed_pause(silence: Silence, command: Pause) -> Pause | None:
    """A pause as it is to be carried out, its number noted; None if newer commands have left nothing of it to do."""
    if silence.takes(command.origin, command.cause, command.number):
        return command
    until_us = silence.owed_until(command.origin, command.cause, command.number)
    if until_us is None or until_us <= command.from_us:
        return None
    ends = [moment for moment in (until_us, command.until_us) if moment is not None and moment < FOREVER]
    return command.model_copy(update={"until_us": min(ends, default=None)})


def pause_of(command: Pause) -> CallPause:
    """A pause as it is carried out; a lease of nothing is none."""
    return CallPause(
        cause=command.cause,
        from_us=command.from_us,
        origin=command.origin,
        command=command.command,
        number=command.number,
        by=command.by,
        effective_at_us=command.effective_at_us,
        received_at_us=command.at_us,
        until_us=command.until_us,
        lease_until_us=command.at_us + command.lease_us if command.lease_us else None,
        on_expiry=command.on_expiry,
    )


def applied(
    command: Pause | Resume, outcome: str, *, at_us: int, left_until_us: int = 0, causes: tuple[str, ...] = ()
) -> PauseApplied:
    """The answer to a command.

    Args:
        command: The command.
        outcome: One of ``PauseApplied.outcome``.
        at_us: When it was carried out.
        left_until_us: Latest arrival that had left the ring.
        causes: The call's causes afterwards.
    """
    return PauseApplied.model_validate(
        {
            "call": command.call,
            "command": command.command,
            "origin": command.origin,
            "number": command.number,
            "action": command.cmd,
            "cause": command.cause,
            "outcome": outcome,
            "from_us": command.from_us if isinstance(command, Pause) else max(command.at_us, at_us),
            "at_us": at_us,
            "left_until_us": left_until_us,
            "causes": causes,
        }
    )


def _told(silent_from: Sequence[SilentEntry]) -> tuple[SilentFrom, ...]:
    return tuple(SilentFrom(stream=one.stream, rtp_timestamp=one.rtp_timestamp, at_us=one.at_us) for one in silent_from)
