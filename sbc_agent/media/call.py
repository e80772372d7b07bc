"""A call as the media process keeps it: its streams, why it is silent, and the manifest made of that.

One rule decides what is kept: a stream is heard while the set of its causes for silence is empty. What the SDP calls
inactive is a cause of one stream, pauses are causes of the call, and so is that nobody has asked for it yet. No clock,
no I/O; times are microseconds of the agent's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dualtone.domain.audio.codecs import codec_of, is_quiet
from dualtone.domain.call_files import (
    EpochEntry,
    GapEntry,
    Manifest,
    PartEntry,
    StreamEntry,
    StreamFormat,
    StreamStatistics,
)
from dualtone.domain.ids import AgentId, CallId, TenantId
from sbc_agent.media.call_state import CallState, StreamState
from sbc_agent.media.clock import FOREVER
from sbc_agent.media.key_profile import KeyProfile
from sbc_agent.media.messages import FormatSpec
from sbc_agent.media.silence import CallPause, Silence

GENERATION: Final = 1
INACTIVE: Final = "inactive"
ON_DEMAND: Final = "on_demand"
RESTART: Final = "restart"
TONES: Final = "tones"
NEAR_US: Final = 2_000_000
"""Spans of blanked tones that are nearer to each other are declared as one: nobody can count the keys."""
NOWHERE: Final = -1
_USUAL_CLOCK_HZ: Final = 8_000


@dataclass(slots=True)
class Stream:
    """A stream of a call.

    Attributes:
        stream: Its index within the call.
        label: Its SDP label.
        from_us: Since when the call has it.
        row: Its row in the ring; ``NOWHERE`` for a stream of an earlier run that is not heard any more.
        port: Its RTP port.
        formats: What payload types meant, over time.
        heard_from_us: Since when it is active, or was the last time.
        inactive_since_us: Since when the SDP says that nothing comes; None while something may.
    """

    stream: int
    label: str
    from_us: int
    row: int = NOWHERE
    port: int = 0
    formats: list[StreamFormat] = field(default_factory=list)
    heard_from_us: int = 0
    inactive_since_us: int | None = None

    def describe(self, formats: Sequence[FormatSpec], at_us: int) -> bool:
        """Notes formats from a moment on; tells whether they say anything new."""
        current = {entry.payload_type: entry for entry in self.formats}
        new = False
        for spec in formats:
            entry = StreamFormat(spec.payload_type, spec.codec, spec.clock_hz, spec.channels, at_us)
            known = current.get(spec.payload_type)
            if known is None or (known.codec, known.clock_hz, known.channels) != (
                spec.codec,
                spec.clock_hz,
                spec.channels,
            ):
                self.formats.append(entry)
                new = True
        return new

    @property
    def clock_hz(self) -> int:
        """RTP clock rate of its first format."""
        return self.formats[0].clock_hz if self.formats else _USUAL_CLOCK_HZ

    @property
    def kept_raw(self) -> bool:
        """Whether a codec was negotiated that is kept but not decoded."""
        return not all(
            is_quiet(entry.codec) or codec_of(entry.codec, entry.clock_hz, entry.channels) for entry in self.formats
        )

    @property
    def entry(self) -> StreamEntry:
        """What the manifest says of it."""
        return StreamEntry(self.stream, self.label, list(self.formats))


@dataclass(slots=True)
class Call:
    """A call.

    Attributes:
        call: Its id.
        answered_at_us: When it began.
        streams: Its streams by index.
        stream_set: Counts the changes of its streams.
        gaps: Spans in which single streams were inactive, or tones in them were blanked; those that are over.
        silence: Its pauses.
        flags: What a reader should know.
        profile: What is asked of keys that are pressed.
        is_on_demand: Whether nothing of it is gathered until somebody wants it kept.
        ended_at_us: When its dialog ended; None before.
        end_reason: ``bye``, ``shutdown`` or ``error``.
        alarmed_no_media: Whether it was told that no RTP comes.
    """

    call: CallId
    answered_at_us: int
    streams: dict[int, Stream] = field(default_factory=dict)
    stream_set: int = 0
    gaps: list[GapEntry] = field(default_factory=list)
    silence: Silence = field(default_factory=Silence)
    flags: list[str] = field(default_factory=list)
    profile: KeyProfile = field(default_factory=KeyProfile)
    is_on_demand: bool = False
    ended_at_us: int | None = None
    end_reason: str = "error"
    alarmed_no_media: bool = False

    @classmethod
    def of_state(cls, call: CallId, state: CallState) -> Call:
        """A call of an earlier run, none of its streams heard."""
        streams = {
            one.stream: Stream(
                one.stream,
                one.label,
                one.from_us,
                formats=one.formats,
                heard_from_us=one.from_us,
                inactive_since_us=one.inactive_since_us,
            )
            for one in state.streams
        }
        return cls(
            call,
            state.answered_at_us,
            streams,
            state.stream_set,
            state.gaps,
            state.silence,
            state.flags,
            state.profile,
        )

    @property
    def state(self) -> CallState:
        """What a restart must know to go on with the call, or to close it."""
        return CallState(
            answered_at_us=self.answered_at_us,
            stream_set=self.stream_set,
            streams=[
                StreamState(one.stream, one.label, one.from_us, list(one.formats), one.inactive_since_us)
                for one in self._ordered()
            ],
            gaps=self.gaps,
            silence=self.silence,
            flags=self.flags,
            profile=self.profile,
        )

    @property
    def heard(self) -> list[Stream]:
        """The streams that have a row in the ring."""
        return [stream for stream in self.streams.values() if stream.row != NOWHERE]

    def causes(self, stream: Stream) -> frozenset[str]:
        """Why a stream is silent; it is heard while this is empty."""
        inactive = [] if stream.inactive_since_us is None else [INACTIVE]
        unwanted = [ON_DEMAND] if self.is_on_demand else []
        return frozenset([*inactive, *unwanted, *self.silence.causes])

    def window(self, stream: Stream, *, before: Sequence[CallPause] = ()) -> tuple[int, int]:
        """Between which arrivals packets of a stream that are still to come are kept, see ``Silence.window``."""
        if self.is_on_demand:
            return FOREVER, -1
        from_us, to_us = self.silence.window(stream.heard_from_us, before=before)
        return from_us, to_us if stream.inactive_since_us is None else min(to_us, stream.inactive_since_us - 1)

    def flag(self, *flags: str) -> None:
        """Adds flags, each once."""
        self.flags += [flag for flag in dict.fromkeys(flags) if flag not in self.flags]

    def begin_at(self, at_us: int) -> None:
        """All that was before a moment is as if it had not been; pauses that last are from then on."""
        self.answered_at_us, self.gaps, self.flags = at_us, [], []
        self.silence.pauses = self.silence.open
        self.profile.begin_at(at_us)
        for stream in self.streams.values():
            stream.from_us = stream.heard_from_us = at_us
            if stream.inactive_since_us is not None:
                stream.inactive_since_us = at_us

    def blank(self, stream: Stream, from_us: int, to_us: int) -> None:
        """Tones of a stream were blanked in a span, which is near the one before it or another one."""
        for place in reversed(range(len(self.gaps))):
            last = self.gaps[place]
            if (last.stream, last.cause) == (stream.stream, TONES):
                if from_us - last.to_us < NEAR_US:
                    from_us, to_us = min(last.from_us, from_us), max(last.to_us, to_us)
                    self.gaps[place] = GapEntry(stream.stream, from_us, to_us, TONES)
                    return
                break
        self.gaps.append(GapEntry(stream.stream, from_us, to_us, TONES))

    def deactivate(self, stream: Stream, at_us: int) -> None:
        """The SDP says that nothing comes from now on."""
        if stream.inactive_since_us is None:
            stream.inactive_since_us = at_us

    def activate(self, stream: Stream, at_us: int) -> None:
        """The SDP says that something may come from now on: the gap is closed."""
        if stream.inactive_since_us is not None:
            self._close_gap(stream, at_us)
            stream.heard_from_us = at_us

    def end(self, at_us: int, reason: str, flags: Sequence[str] = ()) -> None:
        """The dialog is over."""
        self.ended_at_us, self.end_reason = max(at_us, self.answered_at_us), reason
        for stream in self.streams.values():
            self._close_gap(stream, self.ended_at_us)
            if stream.kept_raw:
                self.flag("codec_kept_raw")
        self.silence.close(self.ended_at_us)
        self.profile.close(self.ended_at_us)
        self.flag(*flags)

    def manifest(
        self,
        tenant: TenantId,
        agent: AgentId,
        version: str,
        *,
        epochs: list[EpochEntry],
        parts: list[PartEntry],
        losses: Iterable[tuple[int, int]] = (),
        counters: Mapping[int, Mapping[str, int]],
    ) -> Manifest:
        """What the agent says of the finished call.

        Args:
            tenant: Owner of the call.
            agent: This agent.
            version: Of its software.
            epochs: The call's keys.
            parts: Its parts.
            losses: Spans in which the agent did not run.
            counters: What happened to each stream's packets in this run, by the names of ``intake.Counters``.
        """
        assert self.ended_at_us is not None
        return Manifest(
            tenant=tenant,
            agent=agent,
            call=self.call,
            generation=GENERATION,
            epochs=epochs,
            parts=parts,
            streams=[stream.entry for stream in self._ordered()],
            answered_at_us=self.answered_at_us,
            ended_at_us=self.ended_at_us,
            end_reason=self.end_reason,
            gaps=self._all_gaps(losses, self.ended_at_us),
            statistics=[_statistics(index, counters[index]) for index in sorted(counters)],
            flags=self.flags,
            version=version,
            pauses=[pause.entry() for pause in self.silence.pauses],
            tones=self.profile.entries,
        )

    def _all_gaps(self, losses: Iterable[tuple[int, int]], ended_at_us: int) -> list[GapEntry]:
        """Gaps of every stream: inactive, silent, lost; none before the stream was there or after the end."""
        gaps = [replace(gap, to_us=max(gap.from_us, min(gap.to_us, ended_at_us))) for gap in self.gaps]
        lost = list(losses)
        for stream in self._ordered():
            gaps += [
                GapEntry(stream.stream, from_us, to_us, cause)
                for cause, from_us, to_us in self.silence.spans(max(stream.from_us, self.answered_at_us), ended_at_us)
            ]
            clipped = [(max(from_us, stream.from_us), min(to_us, ended_at_us)) for from_us, to_us in lost]
            gaps += [GapEntry(stream.stream, *span, RESTART) for span in clipped if span[0] < span[1]]
        return sorted(gaps, key=lambda gap: (gap.from_us, gap.stream, gap.cause))

    def _close_gap(self, stream: Stream, at_us: int) -> None:
        if stream.inactive_since_us is not None and at_us > stream.inactive_since_us:
            self.gaps.append(GapEntry(stream.stream, stream.inactive_since_us, at_us, INACTIVE))
        stream.inactive_since_us = None

    def _ordered(self) -> list[Stream]:
        return [self.streams[index] for index in sorted(self.streams)]


def _statistics(stream: int, counters: Mapping[str, int]) -> StreamStatistics:
    return StreamStatistics(
        stream=stream,
        received=counters["stored"],
        duplicates=counters["duplicates"] + counters["replayed"],
        reordered=counters["reordered"],
        late=counters["late"],
        foreign_source=counters["foreign_source"] + counters["unauthentic"],
        events_suppressed=counters["events_suppressed"],
    )
