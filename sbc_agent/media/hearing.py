"""Which streams of a call are heard, as its dialog goes: from the answer, a re-INVITE or a restart on, to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sbc_agent.media.call import Stream
from sbc_agent.media.clock import FOREVER, Moment
from sbc_agent.media.lines import Lines
from sbc_agent.media.messages import Alarm, Event, PortFree, StreamSpec
from sbc_agent.media.pauses import Pauses
from sbc_agent.media.recording import Recording


class Hearing:
    """Gives streams their ports and rows, and takes them away.

    Args:
        lines: Rings and sockets.
        pauses: Says what is kept.
        tell: Takes events.
    """

    def __init__(self, lines: Lines, pauses: Pauses, tell: Callable[[Event], None]) -> None:
        self._lines, self._pauses, self._tell = lines, pauses, tell

    def begin(self, recording: Recording, specs: Sequence[StreamSpec], at_us: int) -> None:
        """Begins to hear a call's streams, its ports being free; those that it had and that are not named are over."""
        call = recording.call
        for index in call.streams.keys() - {spec.stream for spec in specs}:
            call.deactivate(call.streams[index], at_us)
        for spec in specs:
            self._open(recording, spec, at_us)
        self._pauses.set_windows(recording)

    def change(self, recording: Recording, specs: Sequence[StreamSpec], at_us: int, moment: Moment) -> None:
        """The streams are others from a moment on."""
        self._pauses.pass_time(recording, moment)
        self._lines.drain_rows(recording.rows, moment)
        call = recording.call
        heard = {stream.stream: stream for stream in call.heard}
        for spec in specs:
            stream = heard.get(spec.stream)
            if stream is not None:
                self._change(recording, stream, spec, at_us, moment)
            elif self._lines.have_room_for([spec.port]):
                self._open(recording, spec, at_us)
            else:
                self._tell(Alarm(kind="command", call=call.call))
        for index in heard.keys() - {spec.stream for spec in specs}:
            self._set_active(recording, heard[index], at_us, moment, active=False)
        call.stream_set = min(call.stream_set + 1, 0xFFFF)
        self._pauses.set_windows(recording)

    def end(self, recording: Recording, at_us: int, reason: str, flags: Sequence[str], moment: Moment) -> None:
        """The dialog is over: what came after that is dropped, ports are free."""
        self._pauses.pass_time(recording, moment)
        self._lines.drain_rows(recording.rows, moment)
        call = recording.call
        call.end(at_us, reason, flags)
        for stream in call.heard:
            self._lines.intake.forget(stream.row, at_us + 1, FOREVER)
            self._lines.hang_up(stream.row, stream.port, moment.now_us)
            self._tell(PortFree(port=stream.port))

    def _open(self, recording: Recording, spec: StreamSpec, at_us: int) -> None:
        call = recording.call
        stream = call.streams.setdefault(spec.stream, Stream(spec.stream, spec.label, at_us))
        stream.row, stream.port = self._lines.open(spec.port, call.call), spec.port
        self._lines.tones.want(stream.row, blank=call.profile.policy.tones == "blank")
        stream.describe(spec.formats, at_us)
        self._explain(stream)
        self._protect(stream, spec)
        stream.heard_from_us = at_us
        if spec.active:
            call.activate(stream, at_us)
        else:
            call.deactivate(stream, at_us)

    def _change(self, recording: Recording, stream: Stream, spec: StreamSpec, at_us: int, moment: Moment) -> None:
        if spec.port != stream.port:  # a stream keeps its port
            self._tell(Alarm(kind="command", call=recording.call.call))
        if stream.describe(spec.formats, at_us):
            self._explain(stream)
        self._protect(stream, spec)
        self._set_active(recording, stream, at_us, moment, active=spec.active)
        self._lines.intake.expect_change(stream.row, moment.now_us)

    def _set_active(self, recording: Recording, stream: Stream, at_us: int, moment: Moment, *, active: bool) -> None:
        """What came while the stream was inactive is dropped already: it is heard from now on, never from before."""
        if active:
            recording.call.activate(stream, max(at_us, moment.now_us))
        elif stream.inactive_since_us is None:
            recording.call.deactivate(stream, at_us)
            self._lines.intake.forget(stream.row, at_us, FOREVER)

    def _protect(self, stream: Stream, spec: StreamSpec) -> None:
        """A stream that rests keeps its keys where none are named: its sender goes on counting."""
        if spec.crypto or spec.active:
            self._lines.intake.srtp.set_keys(stream.row, spec.crypto)

    def _explain(self, stream: Stream) -> None:
        formats = [(entry.payload_type, entry.codec) for entry in stream.formats]
        self._lines.intake.explain(stream.row, formats)
        self._lines.tones.explain(stream.row, formats)
