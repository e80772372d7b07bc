"""A call with its key and its files, as the engine goes through them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from dualtone.domain.call_files import EpochEntry
from dualtone.domain.part import RecordType
from sbc_agent.media.call import Call
from sbc_agent.media.messages import Alarm, Event, PauseApplied, SpoolRecovered
from sbc_agent.media.records import Turn
from sbc_agent.media.seal import CallSeal
from sbc_agent.media.spool import CallSpool


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a pause or resume, and the span that has to be cut first, both ends included."""

    event: PauseApplied
    cut: tuple[int, int] | None = None


@dataclass(slots=True)
class Recording:
    """A call in the rings.

    Attributes:
        call: What is known of it.
        seal: Its key.
        spool: Its files.
        epochs: Its key epochs, this run's last.
        since_us: When this run began to hear it.
        waits: Whether it is not decided yet if it may be kept.
        left_until_us: Latest arrival that has left the ring, or may have in an earlier run; 0 for none.
        answers: Answers that wait until the spool has noted what they say.
        is_refused: Whether it was told that the spool refuses the call.
    """

    call: Call
    seal: CallSeal
    spool: CallSpool
    epochs: list[EpochEntry]
    since_us: int
    waits: bool = False
    left_until_us: int = 0
    answers: list[Answer] = field(default_factory=list)
    is_refused: bool = False

    @property
    def rows(self) -> list[int]:
        """Rows of its streams in the ring."""
        return [stream.row for stream in self.call.heard]

    def append(
        self,
        kind: RecordType,
        plaintext: bytes | memoryview,
        now_us: int,
        from_us: int,
        span_us: int = 0,
    ) -> tuple[int, list[Event]]:
        """Seals a record and gives it to the spool.

        Args:
            kind: What it is.
            plaintext: Its content.
            now_us: The agent's time.
            from_us: When its first content arrived.
            span_us: How much later its last did.

        Returns:
            Bytes of the record's frame, and what has to be told of the spool.
        """
        frame = self.seal.frame(kind, self.call.stream_set, from_us, span_us, plaintext)
        if kind is RecordType.MEDIA:
            self.left_until_us = max(self.left_until_us, from_us + span_us)
        lost = self.spool.lost
        if self.spool.append(frame, now_us) and not self.is_refused:  # nearly always
            return len(frame), []
        events = self.watch_spool()
        if self.spool.lost and not lost:
            self.call.flag("records_lost")
            events.append(Alarm(kind="records_lost", call=self.call.call))
        return len(frame), events

    def watch_spool(self) -> list[Event]:
        """Tells once when the spool begins to refuse the call, and once when it takes everything again."""
        refuses = self.spool.has_place and self.spool.backlog > 0
        if refuses == self.is_refused or not self.spool.has_place:
            return []
        self.is_refused = refuses
        call = self.call.call
        return [Alarm(kind="spool_write", call=call) if refuses else SpoolRecovered(call=call)]


def turn_of(recordings: Iterable[Recording]) -> Turn:
    """The streams of calls, for leaving the ring together."""
    streams = [
        (stream.row, stream.stream, position)
        for position, recording in enumerate(recordings)
        for stream in recording.call.heard
    ]
    row, stream, call = np.array(streams, np.int64).reshape(-1, 3).T.copy()
    return Turn(row, stream, call)
