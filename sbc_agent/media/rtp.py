"""RTP headers of a whole batch at once (RFC 3550 section 5.1). Pure; columns in, columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

HEADER_BYTES: Final = 12
Unsigned = npt.NDArray[np.integer[Any]]  # in truth uint32
_PLAIN: Final = 0x80  # version 2, no padding, no extension, no CSRC: nearly every packet of telephony


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers of n packets.

    Attributes:
        valid: Whether the packet is well-formed RTP; where not, the other columns say nothing. bool[n].
        payload_type: uint32[n], 0 to 127; the marker bit is left out.
        sequence: uint32[n], 0 to 65,535.
        timestamp: uint32[n].
        ssrc: uint32[n].
        payload: Where the payload starts in the buffer, int64[n].
        size: Bytes of payload without padding, int64[n].
    """

    valid: npt.NDArray[np.bool_]
    payload_type: Unsigned
    sequence: Unsigned
    timestamp: Unsigned
    ssrc: Unsigned
    payload: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]


def windows(buffer: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.void]:
    """Every run of ``size`` bytes of a flat buffer as one element: ``windows(b, 160)[offsets]`` copies whole payloads.

    Elements overlap; writing to several at once writes them in order.
    """
    count = max(buffer.size - size + 1, 0)
    whole: npt.NDArray[Any] = np.ndarray((count,), f"V{size}", buffer, 0, (1,))
    return whole


def parse(buffer: npt.NDArray[np.uint8], offset: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> Headers:
    """Reads the headers of packets that lie in one buffer.

    Args:
        buffer: uint8, flat; at least 12 bytes may be read from every offset.
        offset: Where each packet starts, int64[n].
        length: Bytes of each packet, int64[n].
    """
    words = windows(buffer, HEADER_BYTES)[offset].view(">u4").reshape(-1, 3).astype(np.uint32)
    first = words[:, 0]
    payload, size = offset + HEADER_BYTES, length - HEADER_BYTES
    valid = (first >> 24 == _PLAIN) & (size >= 0)
    if not valid.all():
        odd = np.flatnonzero(~valid)
        valid[odd], payload[odd], size[odd] = _with_options(buffer, first[odd] >> 24, offset[odd], length[odd])
    return Headers(valid, first >> 16 & 0x7F, first & 0xFFFF, words[:, 1], words[:, 2], payload, size)


def _with_options(
    buffer: npt.NDArray[np.uint8],
    top: Unsigned,
    offset: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Validity, payload offset and payload size of packets with CSRCs, extension or padding, or of another version."""
    last = buffer.size - 1
    skip = HEADER_BYTES + 4 * (top & 0x0F).astype(np.int64)
    valid = (top >> 6 == 2) & (length >= skip)  # noqa: PLR2004 - RTP is at version 2
    # Section 5.3.1: a profile-defined half word, then the number of words that follow.
    extended = valid & (top & 0x10 != 0)
    valid &= ~extended | (length >= skip + 4)
    at = np.minimum(offset + skip + 2, last - 1)
    extension = 4 + 4 * (buffer[at].astype(np.int64) << 8 | buffer[at + 1])
    skip += np.where(extended, extension, 0)
    valid &= length >= skip
    # Section 5.1: the last octet of the padding counts the octets to be ignored, itself included.
    padded = valid & (top & 0x20 != 0)
    padding = np.where(padded, buffer[np.clip(offset + length - 1, 0, last)].astype(np.int64), 0)
    size = length - skip - padding
    valid &= (size >= 0) & ~(padded & (padding == 0))
    return valid, offset + skip, size
