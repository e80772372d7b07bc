"""A call as the media process keeps it: its streams, what was left out on purpose, and the manifest made of that.

No clock, no I/O; times are microseconds of the agent's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dualtone.domain.call_files import (
    EpochEntry,
    GapEntry,
    Manifest,
    PartEntry,
    StreamEntry,
    StreamFormat,
    StreamStatistics,
)
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from sbc_agent.media.messages import FormatSpec

GENERATION: Final = 1
INACTIVE: Final = "inactive"
DECODED_CODECS: Final = frozenset({"PCMA", "PCMU", "CN", "TELEPHONE-EVENT"})


@dataclass(slots=True)
class Stream:
    """A stream of a call.

    Attributes:
        stream: Its index within the call.
        label: Its SDP label.
        row: Its row in the ring.
        port: Its RTP port.
        formats: What payload types meant, over time.
        inactive_since_us: Since when nothing is kept; None while something is.
    """

    stream: int
    label: str
    row: int
    port: int
    formats: list[StreamFormat] = field(default_factory=list)
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
    def kept_raw(self) -> bool:
        """Whether a codec was negotiated that is kept but not decoded."""
        return any(entry.codec.upper() not in DECODED_CODECS for entry in self.formats)


@dataclass(slots=True)
class Call:
    """A call.

    Attributes:
        call: Its id.
        answered_at_us: When it began.
        streams: Its streams by index.
        stream_set: Counts the changes of its streams.
        gaps: Spans that were left out.
        flags: What a reader should know.
        ended_at_us: When its dialog ended; None before.
        end_reason: ``bye``, ``shutdown`` or ``error``.
        alarmed_no_media: Whether it was told that no RTP comes.
    """

    call: CallId
    answered_at_us: int
    streams: dict[int, Stream] = field(default_factory=dict)
    stream_set: int = 0
    gaps: list[GapEntry] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    ended_at_us: int | None = None
    end_reason: str = "error"
    alarmed_no_media: bool = False

    def flag(self, *flags: str) -> None:
        """Adds flags, each once."""
        self.flags += [flag for flag in dict.fromkeys(flags) if flag not in self.flags]

    def pause_stream(self, stream: Stream, at_us: int) -> None:
        """From now on nothing is kept of a stream."""
        if stream.inactive_since_us is None:
            stream.inactive_since_us = at_us

    def resume_stream(self, stream: Stream, at_us: int) -> None:
        """From now on a stream is kept again: the gap is closed."""
        if stream.inactive_since_us is not None and at_us > stream.inactive_since_us:
            self.gaps.append(GapEntry(stream.stream, stream.inactive_since_us, at_us, INACTIVE))
        stream.inactive_since_us = None

    def end(self, at_us: int, reason: str, flags: Sequence[str]) -> None:
        """The dialog is over."""
        self.ended_at_us, self.end_reason = max(at_us, self.answered_at_us), reason
        for stream in self.streams.values():
            self.resume_stream(stream, self.ended_at_us)
            if stream.kept_raw:
                self.flag("codec_kept_raw")
        self.flag(*flags)

    def state(self) -> dict[str, object]:
        """What a restart must know to close the call: formats and gaps; nothing secret, nothing personal."""
        return {
            "answered_at_us": self.answered_at_us,
            "streams": [asdict(_entry(stream)) for stream in self._ordered()],
            "gaps": [asdict(gap) for gap in self.gaps],
            "open_gaps": [
                [stream.stream, stream.inactive_since_us]
                for stream in self._ordered()
                if stream.inactive_since_us is not None
            ],
            "flags": list(self.flags),
        }

    def manifest(
        self,
        tenant: str,
        agent: str,
        version: str,
        *,
        epochs: list[EpochEntry],
        parts: list[PartEntry],
        counters: Mapping[int, Mapping[str, int]],
    ) -> Manifest:
        """What the agent says of the finished call.

        Args:
            tenant: Owner of the call.
            agent: This agent.
            version: Of its software.
            epochs: The call's keys.
            parts: Its parts.
            counters: What happened to each stream's packets, by the names of ``intake.Counters``.
        """
        assert self.ended_at_us is not None
        return Manifest(
            tenant=tenant,
            agent=agent,
            call=self.call,
            generation=GENERATION,
            epochs=epochs,
            parts=parts,
            streams=[_entry(stream) for stream in self._ordered()],
            answered_at_us=self.answered_at_us,
            ended_at_us=self.ended_at_us,
            end_reason=self.end_reason,
            gaps=sorted(self.gaps, key=lambda gap: (gap.from_us, gap.stream)),
            statistics=[_statistics(stream.stream, counters[stream.stream]) for stream in self._ordered()],
            flags=self.flags,
            version=version,
        )

    def _ordered(self) -> list[Stream]:
        return [self.streams[index] for index in sorted(self.streams)]


def manifest_of_state(
    state: Mapping[str, Any],
    *,
    tenant: str,
    agent: str,
    call: str,
    version: str,
    epochs: list[EpochEntry],
    parts: list[PartEntry],
    ended_at_us: int,
) -> Manifest:
    """The manifest of a call that an earlier run of the agent left unfinished.

    Args:
        state: What it noted, see ``Call.state``.
        tenant: Owner of the call.
        agent: This agent.
        call: The call.
        version: Of the agent's software.
        epochs: The call's keys.
        parts: Its parts, all that reached the disk.
        ended_at_us: When the last of them was written.

    Raises:
        MalformedInput: If the state is not what ``Call.state`` makes.
    """
    try:
        streams = [
            StreamEntry(entry["stream"], entry["label"], [StreamFormat(**one) for one in entry["formats"]])
            for entry in state["streams"]
        ]
        gaps = [GapEntry(**gap) for gap in state["gaps"]]
        gaps += [GapEntry(stream, since, max(ended_at_us, since), INACTIVE) for stream, since in state["open_gaps"]]
        return Manifest(
            tenant=tenant,
            agent=agent,
            call=call,
            generation=GENERATION,
            epochs=epochs,
            parts=parts,
            streams=streams,
            answered_at_us=state["answered_at_us"],
            ended_at_us=max(ended_at_us, state["answered_at_us"]),
            end_reason="error",
            gaps=gaps,
            statistics=[],
            flags=[*dict.fromkeys([*state["flags"], "recovered"])],
            version=version,
        )
    except (KeyError, TypeError, ValueError):
        raise MalformedInput("the state of a call of an earlier run cannot be read") from None


def _entry(stream: Stream) -> StreamEntry:
    return StreamEntry(stream.stream, stream.label, list(stream.formats))


def _statistics(stream: int, counters: Mapping[str, int]) -> StreamStatistics:
    return StreamStatistics(
        stream=stream,
        received=counters["stored"],
        duplicates=counters["duplicates"],
        reordered=counters["reordered"],
        late=counters["late"],
        foreign_source=counters["foreign_source"],
        events_suppressed=counters["events_suppressed"],
    )
