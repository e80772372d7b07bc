"""Key presses that come as telephone events (RFC 4733), also in redundant packets (RFC 2198): each press once.

Events are never stored. They are read for two things only: whether somebody types a card's number, and whether a key
says yes or no to the recording. A press is told by the first of its packets that comes, whichever that is; its updates
and the three copies of its end have its timestamp (section 2.5.1.2), and so has what a network repeats. An event that
is longer than its duration field can say goes on under a timestamp that follows from the last (section 2.5.1.3).

Pure, and in memory alone; no text made of these objects shows a key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from sbc_agent.media.rtp import Unsigned

KEYS: Final = "0123456789*#ABCD"
"""Keys by event code (section 3.2, table 3)."""

_EVENT_BYTES: Final = 4
_LONGEST: Final = 0xFFFF
_REMEMBERED: Final = 16  # presses of a stream; what a network reorders or repeats lies within fewer
_BLOCK_HEAD_BYTES: Final = 4
_MOST_WAITING: Final = 4_096  # presses of one drain; a flood is no typing
_FOLLOWS: Final = 0x80
_TYPE: Final = 0x7F


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """An event as one packet tells it (section 2.3).

    Attributes:
        timestamp: RTP timestamp of its beginning.
        code: Event code.
        is_end: Whether this is one of the packets that tell its end.
        duration: So far, in units of the timestamp.
    """

    timestamp: int
    code: int = field(repr=False)
    is_end: bool
    duration: int

    @property
    def key(self) -> str | None:
        """The key that was pressed; None for anything else, as a hook flash."""
        return KEYS[self.code] if self.code < len(KEYS) else None


@dataclass(frozen=True, slots=True)
class Press:
    """A key that was pressed.

    Attributes:
        row: The stream's row in the rings.
        at_us: Arrival of the first that told it, microseconds of the agent's clock.
        key: The key.
        is_kept: Whether anything that arrived then is kept at all.
    """

    row: int
    at_us: int
    key: str = field(repr=False)
    is_kept: bool = True


def event(payload: bytes, timestamp: int) -> TelephoneEvent | None:
    """Reads an event; None if these octets are none.

    Args:
        payload: The payload; a sender that packs several events has the one that counts first.
        timestamp: The packet's RTP timestamp.
    """
    if len(payload) < _EVENT_BYTES:
        return None
    code, flags = payload[0], payload[1]
    return TelephoneEvent(timestamp, code, bool(flags & 0x80), int.from_bytes(payload[2:4], "big"))


def redundant(payload: bytes, timestamp: int) -> Iterator[tuple[int, int, bytes]]:
    """The blocks of a redundant payload (RFC 2198 section 3): payload type, timestamp, octets; oldest first.

    What is cut short yields what is whole of it.
    """
    heads = []
    at = 0
    while at < len(payload) and payload[at] & _FOLLOWS:
        head = payload[at : at + _BLOCK_HEAD_BYTES]
        if len(head) < _BLOCK_HEAD_BYTES:
            return
        rest = int.from_bytes(head[1:], "big")  # 14 bits of timestamp offset, 10 bits of length
        heads.append((head[0] & _TYPE, rest >> 10, rest & 0x3FF))
        at += _BLOCK_HEAD_BYTES
    if at >= len(payload):
        return
    primary = payload[at] & _TYPE
    at += 1
    for payload_type, offset, length in heads:
        if at + length > len(payload):
            return
        yield payload_type, timestamp - offset & 0xFFFFFFFF, payload[at : at + length]
        at += length
    yield primary, timestamp, payload[at:]


@dataclass(slots=True)
class EventLine:
    """What has been heard of one stream's presses.

    Attributes:
        recent: Source and timestamp of the last presses, with the event code.
    """

    recent: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED), repr=False)

    def is_new(self, ssrc: int, told: TelephoneEvent) -> bool:
        """Whether an event is a press that nothing has told before."""
        entry = (ssrc, told.timestamp, told.code)
        if entry in self.recent:
            return False
        goes_on = (ssrc, told.timestamp - _LONGEST & 0xFFFFFFFF, told.code) in self.recent
        self.recent.append(entry)
        return not goes_on


class Presses:
    """Hears the presses of all streams, each once.

    Attributes:
        pressed: Those that nobody has taken yet, in the order of their arrival within a stream.
    """

    def __init__(self, rows: int) -> None:
        """Takes how many streams there are at once."""
        self.pressed: list[Press] = []
        self._lines: dict[int, EventLine] = {}
        self._last = np.zeros(rows, np.uint64)

    def close_row(self, row: int) -> None:
        """Forgets a stream."""
        self._lines.pop(row, None)
        self._last[row] = 0

    def news(self, row: npt.NDArray[np.int64], ssrc: Unsigned, timestamp: Unsigned) -> npt.NDArray[np.bool_]:
        """Which packets are not of the press that their stream told last: nearly all of a press's packets are."""
        told = ssrc.astype(np.uint64) << np.uint64(32) | timestamp.astype(np.uint64)
        news: npt.NDArray[np.bool_] = told != self._last[row]
        self._last[row] = told
        return news

    def hear(self, row: int, at_us: int, ssrc: int, told: TelephoneEvent, *, is_kept: bool) -> None:
        """Takes an event of a stream's sender."""
        if told.key is None or not self._lines.setdefault(row, EventLine()).is_new(ssrc, told):
            return
        if len(self.pressed) < _MOST_WAITING:
            self.pressed.append(Press(row, at_us, told.key, is_kept))

    def taken(self) -> list[Press]:
        """The presses since last asked."""
        pressed, self.pressed = self.pressed, []
        return pressed
