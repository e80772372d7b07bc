"""The outside of an Opus packet (RFC 6716 section 3): how long it plays, and whether it is well-formed. Pure.

What is inside cannot be told apart from noise, and no decoder tries: any well-formed packet gives as many samples as
its first octets say. So one that is not well-formed is found here, before it reaches a decoder.
"""

from __future__ import annotations

from typing import Final

MOST_TICKS: Final = 5760
"""REQ: RFC 6716 section 3.2.5 [R5]: no packet is longer than 120 ms."""

_MOST_FRAME_BYTES: Final = 1275
_SHORT_LENGTH: Final = 252
_SILK_TICKS: Final = (480, 960, 1920, 2880)
_HYBRID_TICKS: Final = (480, 960)
_CELT_TICKS: Final = (120, 240, 480, 960)
_FIRST_HYBRID, _FIRST_CELT = 12, 16
_PADDED: Final = 0x40
_VARIABLE: Final = 0x80
_COUNT: Final = 0x3F
_LONG_PADDING: Final = 255
_SEVERAL: Final = 3


def _frame_ticks(configuration: int) -> int:
    """REQ: RFC 6716 section 3.1, table 2: frame sizes by configuration number, here at 48 kHz."""
    if configuration < _FIRST_HYBRID:
        return _SILK_TICKS[configuration % 4]
    return _HYBRID_TICKS[configuration % 2] if configuration < _FIRST_CELT else _CELT_TICKS[configuration % 4]


FRAME_TICKS: Final = tuple(_frame_ticks(toc >> 3) for toc in range(256))
"""Length of a packet's frames at 48 kHz, by its first octet."""


def ticks(packet: bytes) -> int | None:
    """How long a packet plays.

    Args:
        packet: As it was in RTP.

    Returns:
        Samples at 48 kHz, or None if it is not well-formed.
    """
    sizes = _frames(packet)
    if sizes is None or any(size > _MOST_FRAME_BYTES for size in sizes):
        return None
    length = len(sizes) * FRAME_TICKS[packet[0]]
    return length if length <= MOST_TICKS else None


def is_discontinuous(packet: bytes) -> bool:
    """Whether all frames of a well-formed packet are empty: nothing is transmitted now (RFC 6716 section 2.1.9)."""
    return not any(_frames(packet) or ())


def concealing(packet: bytes, lost_ticks: int) -> tuple[bytes, int]:
    """A packet in place of lost ones, at which a decoder goes on as well as it can (RFC 7845 section 4.1).

    Args:
        packet: The well-formed one before.
        lost_ticks: How much is lost, samples at 48 kHz.

    Returns:
        Empty frames of the kind that came before, and how long they play: at most what is lost; empty if that is
        shorter than a frame.
    """
    frame = FRAME_TICKS[packet[0]]
    count = min(lost_ticks, MOST_TICKS) // frame
    return (bytes([packet[0] | _SEVERAL, count]), count * frame) if count else (b"", 0)


def _frames(packet: bytes) -> tuple[int, ...] | None:
    """Octets of each frame; None if they do not come out even."""
    if not packet:
        return None
    rest = len(packet) - 1
    match packet[0] & 3:
        case 0:
            return (rest,)
        case 1:
            return None if rest % 2 else (rest // 2,) * 2
        case 2:
            first, used = _length(packet, 1)
            return None if used == 0 or first > rest - used else (first, rest - used - first)
        case _:
            return _several(packet)


def _several(packet: bytes) -> tuple[int, ...] | None:
    """REQ: RFC 6716 section 3.2.5: code 3: a count octet, padding, lengths if they vary, frames, padding."""
    if len(packet) < 2 or not packet[1] & _COUNT:  # noqa: PLR2004 - TOC and count
        return None
    count, at, padding = packet[1] & _COUNT, 2, 0
    if packet[1] & _PADDED:
        while at < len(packet) and packet[at] == _LONG_PADDING:
            at, padding = at + 1, padding + _LONG_PADDING - 1
        if at == len(packet):
            return None
        at, padding = at + 1, padding + packet[at]
    sizes = []
    if packet[1] & _VARIABLE:
        for _ in range(count - 1):
            size, used = _length(packet, at)
            if used == 0:
                return None
            sizes.append(size)
            at += used
    rest = len(packet) - at - padding - sum(sizes)
    if packet[1] & _VARIABLE:
        return None if rest < 0 else (*sizes, rest)
    return None if rest < 0 or rest % count else (rest // count,) * count


def _length(packet: bytes, at: int) -> tuple[int, int]:
    """REQ: RFC 6716 section 3.2.1: a frame's length in one or two octets; how many, 0 if they are not there."""
    if at >= len(packet):
        return 0, 0
    if packet[at] < _SHORT_LENGTH:
        return packet[at], 1
    return (packet[at] + 4 * packet[at + 1], 2) if at + 1 < len(packet) else (0, 0)
