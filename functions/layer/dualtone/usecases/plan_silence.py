"""Plan a call's silence: which spans must not be heard, which were lost, and what the recording says of each.

Spans come from the agent's manifest (holds, pauses, restarts), from the cloud's ledger (pauses), and from the reading
of the parts (damage, records that were cut out). Everything but a loss is silenced, whatever was uploaded of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from dualtone.domain.audio.codecs import Coding
from dualtone.domain.audio.losses import Losses
from dualtone.domain.audio.positions import TICKS_PER_MS, US_PER_TICK
from dualtone.domain.audio.silence import Silence, Span
from dualtone.domain.audio.timeline import Bounds
from dualtone.domain.call_files import GapEntry, Manifest, StreamEntry
from dualtone.domain.call_session import CallSession
from dualtone.domain.pause import FOREVER_US, How, Pause

KEPT_OUT: Final = frozenset({"inactive", "payment", "manual", "hold", "consent", "dtmf", "tones"})
"""Causes of gaps that must be silent. Any other gap states a loss: what was received in it after all is heard."""

PAUSED_AUDIO_REMOVED: Final = "paused_audio_removed"
"""Flag of a recording of whose pauses packets had been uploaded."""


@dataclass(frozen=True, slots=True)
class GapOnTimeline:
    """A span on a stream that was left out or lost, milliseconds of the recording.

    Attributes:
        pause: Place of the pause that it belongs to; None if it belongs to none.
    """

    stream: int
    from_ms: int
    to_ms: int
    cause: str
    pause: int | None = None


class Hole(Protocol):
    """A lost span, microseconds of Unix time."""

    @property
    def from_us(self) -> int:
        """Where it begins."""

    @property
    def to_us(self) -> int:
        """Where it ends."""


class Holes(Protocol):
    """What the reading of a call finds out about it as it goes on; ``open_call.OpenedCall`` is one."""

    @property
    def session(self) -> CallSession:
        """What the signalling said last."""

    @property
    def holes(self) -> Sequence[Hole]:
        """Spans that are lost to damage."""

    @property
    def removed(self) -> Sequence[Hole]:
        """Spans of records that were cut out because of a pause."""


class SilencePlan:
    """What must be silent in a call, and what of it may have been lost.

    Attributes:
        silence: Silences packets and samples.
        losses: Follows what was declared lost.
        tones: Spans in which tones are to be blanked in what the agent did not look into, ticks, and what it did.
    """

    def __init__(self, manifest: Manifest, streams: Sequence[StreamEntry], pauses: Sequence[Pause]) -> None:
        """Takes what is known before a packet was read: manifest, the streams that are heard, the pauses."""
        self._heard = [stream.stream for stream in streams]
        self._pauses = pauses
        gaps = [gap for gap in manifest.gaps if gap.stream in self._heard]
        # The manifest names a pause's gap in each stream beside the pause: it is told of once.
        self._kept_out = [gap for gap in gaps if gap.cause in KEPT_OUT and not self._is_of_a_pause(gap)]
        self.losses = Losses([gap for gap in gaps if gap.cause not in KEPT_OUT])
        # What arrives while the ring drains belongs to a pause that lasts until the end.
        everywhere: list[Span] = [
            (pause.from_us, pause.to_us if pause.to_us < manifest.ended_at_us else FOREVER_US) for pause in pauses
        ]
        of_stream: dict[int, list[Span]] = {}
        for gap in self._kept_out:
            of_stream.setdefault(gap.stream, []).append((gap.from_us, gap.to_us))
        self.silence = Silence(everywhere, of_stream, self._heard, manifest.answered_at_us)
        self._answered_us = manifest.answered_at_us
        self._manifest = manifest
        self.tones = [(self._ticks(span.from_us, span.to_us), frozenset(span.codecs)) for span in manifest.tones]

    def declared(self, stream: int) -> list[Span]:
        """All spans of a stream of which something need not have come."""
        of_pauses = [(max(pause.from_us, self._answered_us), pause.to_us) for pause in self._pauses]
        return [(gap.from_us, gap.to_us) for gap in self._manifest.gaps if gap.stream == stream] + of_pauses

    def has_tones(self, codings: Iterable[Coding]) -> bool:
        """Whether tones are to be blanked here in what has been coded so: the agent did not look into all of it."""
        names = {coding.name for coding in codings}
        return any(not names <= looked_into for _, looked_into in self.tones)

    @property
    def flags(self) -> set[str]:
        """What a reader should know."""
        return {PAUSED_AUDIO_REMOVED} if self.silence.removed else set()

    def silenced(self, removed: Sequence[Hole]) -> tuple[Pause, ...]:
        """The pauses as they were carried out: each reaches over the records that were cut out for it."""
        found = []
        for place, pause in enumerate(self._pauses):
            cut = [span for span in removed if pause.explains(span.from_us, span.to_us)]
            wider = pause
            for span in cut:
                wider = wider.with_span(span.from_us, span.to_us)
            found.append(replace(wider, how=How.REMOVED) if cut or place in self.silence.removed else wider)
        return tuple(found)

    def gaps(
        self,
        call: Holes,
        silenced: Sequence[Pause],
        bounds: Bounds,
        first: int,
        toned: Mapping[int, Sequence[Span]],
    ) -> tuple[GapOnTimeline, ...]:
        """Everything that is silent on purpose or by damage, in the order of the recording.

        Args:
            call: Has what is damaged.
            silenced: The pauses as they were carried out.
            bounds: When the call was.
            first: Where the recording begins, ticks.
            toned: Where tones were blanked in each stream, ticks.
        """
        spans: list[tuple[int, int, int, str, int | None]] = [
            (gap.stream, gap.from_us, gap.to_us, gap.cause, None) for gap in (*self._kept_out, *self.losses.tightened())
        ]
        for stream in self._heard:
            spans += [(stream, hole.from_us, hole.to_us, "damaged", None) for hole in call.holes]
            spans += [(stream, pause.from_us, pause.to_us, pause.cause, at) for at, pause in enumerate(silenced)]
        placed = []
        for stream, from_us, to_us, cause, pause_place in spans:
            start, end = bounds.span(from_us, to_us)
            from_ms, to_ms = (max(0, at - first) // TICKS_PER_MS for at in (start, end))
            placed.append(GapOnTimeline(stream, from_ms, to_ms, cause, pause_place))
        for stream, blanked in toned.items():
            for start, end in blanked:
                from_ms, to_ms = (max(0, at - first) // TICKS_PER_MS for at in (start, end))
                placed.append(GapOnTimeline(stream, from_ms, to_ms, "tones"))
        return tuple(sorted(placed, key=lambda gap: (gap.from_ms, gap.stream, gap.to_ms)))

    def _ticks(self, from_us: int, to_us: int) -> Span:
        return (from_us - self._answered_us) // US_PER_TICK, -((self._answered_us - to_us) // US_PER_TICK)

    def _is_of_a_pause(self, gap: GapEntry) -> bool:
        return any(
            pause.cause == gap.cause and pause.from_us <= gap.from_us and pause.to_us >= gap.to_us
            for pause in self._pauses
        )
