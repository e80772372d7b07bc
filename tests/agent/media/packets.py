"""RTP packets and speech-like payloads, made without the code under test."""

from __future__ import annotations

import struct


def packet(
    sequence: int,
    payload: bytes,
    *,
    timestamp: int | None = None,
    ssrc: int = 0x1234,
    payload_type: int = 8,
    first: int = 0x80,
    options: bytes = b"",
) -> bytes:
    """An RTP packet; ``options`` stands between header and payload (CSRCs, extension)."""
    timestamp = sequence * len(payload) if timestamp is None else timestamp
    head = struct.pack(">BBHII", first, payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    return head + options + payload


def speech(side: int, number: int, size: int = 160) -> bytes:
    """A payload that no other side and number have."""
    return bytes((side * 101 + number * 7 + index * 13) & 0xFF for index in range(size - 4)) + struct.pack(
        ">HH", side, number & 0xFFFF
    )
