"""RTP headers, read for a whole batch, against a reading of RFC 3550 one packet at a time."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc_agent.media import rtp


def reference(data: bytes) -> tuple[int, int, int, int, bytes] | None:
    """Payload type, sequence, timestamp, SSRC and payload; None if it is no RTP."""
    if len(data) < 12 or data[0] >> 6 != 2:
        return None
    _, kind, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", data)
    at = 12 + 4 * (data[0] & 15)
    if data[0] & 16:
        if at + 4 > len(data):
            return None
        at += 4 + 4 * struct.unpack_from(">H", data, at + 2)[0]
    end = len(data)
    if data[0] & 32:
        if end <= at or data[-1] == 0:
            return None
        end -= data[-1]
    return (kind & 127, sequence, timestamp, ssrc, data[at:end]) if at <= end else None


packets = st.builds(
    lambda first, head, extension, tail: bytes([first]) + head + extension + tail,
    st.one_of(st.integers(0x80, 0xBF), st.integers(0, 255)),
    st.binary(min_size=0, max_size=30),
    st.sampled_from([b"", b"\xbe\xde\x00\x00", b"\xbe\xde\x00\x01abcd"]),
    st.one_of(st.binary(max_size=20), st.integers(0, 9).map(lambda count: b"p" * 20 + bytes([count]))),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(packets, min_size=1, max_size=20))
def test_a_batch_reads_as_its_packets_do(batch: list[bytes]) -> None:
    buffer = np.full(100 * len(batch), 0xA5, np.uint8)
    for index, data in enumerate(batch):
        buffer[100 * index : 100 * index + len(data)] = np.frombuffer(data, np.uint8)
    headers = rtp.parse(buffer, np.arange(len(batch)) * 100, np.array([len(data) for data in batch]))
    for index, data in enumerate(batch):
        expected = reference(data)
        assert bool(headers.valid[index]) == (expected is not None), data.hex()
        if expected is not None:
            begin, size = int(headers.payload[index]), int(headers.size[index])
            assert (
                int(headers.payload_type[index]),
                int(headers.sequence[index]),
                int(headers.timestamp[index]),
                int(headers.ssrc[index]),
                buffer[begin : begin + size].tobytes(),
            ) == expected
