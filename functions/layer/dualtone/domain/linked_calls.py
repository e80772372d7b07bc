"""Recordings of one call: two recorders' copies of it, its two ends, what follows a transfer. Pure; times are Unix ms.

A recording session is not a call: an SBC may send the same call to two recorders, a telephone records each end in a
dialog of its own, a transfer begins another dialog. Dialogs of one call share links (``call_match.links``).

Of those, two recordings are *copies* of each other if they have the same parties and as many streams, at the same time,
and come from two sources: another agent received them, or another SBC sent them. Two dialogs that one SBC sends to one
agent are never copies: they are ends or parts of a call. Nothing is deleted for being a copy; one of the copies, the
one that lost least, stands for the call, and where it lost something it is said which of the others has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dualtone.domain.ids import AgentId, CallId, RecordingId
from dualtone.domain.recording_entry import Gap

LOSSES: Final = frozenset({"restart", "interrupted", "damaged"})
"""Causes of gaps in which something was lost; all others were silent on purpose, in every copy."""

_SAME_TIME_PERCENT: Final = 80


@dataclass(frozen=True, slots=True)
class LinkedRecording:
    """A recording as far as its relation to others goes; nothing in it names anybody.

    Attributes:
        recording: The recording.
        call: The recording session that it was made of.
        agent: Who received that.
        source: Token of the SBC's address; empty if it is unknown.
        end: ``near`` or ``far`` where a dialog carries one end of its call, else empty.
        parties: Token of all parties together; empty if none is known.
        streams: How many streams are heard.
        started_at_ms: Where its audio begins.
        ended_at_ms: Where its audio ends.
        lost_ms: How long a channel is silent because of a loss, all channels together.
    """

    recording: RecordingId
    call: CallId
    agent: AgentId
    source: str
    end: str
    parties: str
    streams: int
    started_at_ms: int
    ended_at_ms: int
    lost_ms: int

    @property
    def heard_ms(self) -> int:
        """How much of the call it has, all streams together."""
        return (self.ended_at_ms - self.started_at_ms) * max(self.streams, 1) - self.lost_ms

    def is_copy_of(self, other: LinkedRecording) -> bool:
        """Whether both are recordings of the same streams; they share a link."""
        if self.recording == other.recording or (self.agent, self.source) == (other.agent, other.source):
            return False
        if (self.streams, self.end) != (other.streams, other.end):
            return False
        if self.parties and other.parties and self.parties != other.parties:
            return False
        shared_ms = min(self.ended_at_ms, other.ended_at_ms) - max(self.started_at_ms, other.started_at_ms)
        shorter_ms = min(one.ended_at_ms - one.started_at_ms for one in (self, other))
        return shared_ms >= 0 and 100 * shared_ms >= _SAME_TIME_PERCENT * shorter_ms


def copies(one: LinkedRecording, linked: Iterable[LinkedRecording]) -> tuple[LinkedRecording, ...]:
    """Those of the linked recordings that are copies of one, each once."""
    return tuple({other.recording: other for other in linked if one.is_copy_of(other)}.values())


def foremost(same: Sequence[LinkedRecording]) -> RecordingId:
    """Which of several copies stands for the call: the one that has most of it; of equals always the same one."""
    return min(same, key=lambda one: (-one.heard_ms, one.recording)).recording


def lost_ms(gaps: Iterable[Gap]) -> int:
    """How long channels are silent because of losses, all channels together."""
    return sum(gap.to_ms - gap.from_ms for gap in gaps if gap.cause in LOSSES)


def has_span(copy: LinkedRecording, gaps: Iterable[Gap], from_ms: int, to_ms: int) -> bool:
    """Whether a copy lost nothing of a span.

    Args:
        copy: The copy.
        gaps: Its gaps, counted from the start of its audio.
        from_ms: Begin of the span, Unix time.
        to_ms: Its end.
    """
    if not copy.started_at_ms <= from_ms <= to_ms <= copy.ended_at_ms:
        return False
    start = copy.started_at_ms
    return not any(gap.cause in LOSSES and start + gap.from_ms < to_ms and from_ms < start + gap.to_ms for gap in gaps)
