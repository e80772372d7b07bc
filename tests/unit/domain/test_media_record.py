"""The plaintext of media records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import media_record
from dualtone.domain.errors import MalformedInput
from dualtone.domain.media_record import StreamBlock

BASE_US = 1_795_000_000_000_000


@st.composite
def blocks(draw: st.DrawFn) -> StreamBlock:
    """Any block of up to five packets."""
    n = draw(st.integers(0, 5))

    def column(top: int) -> list[int]:
        return draw(st.lists(st.integers(0, top), min_size=n, max_size=n))

    sizes = column(40)
    payload = draw(st.binary(min_size=sum(sizes), max_size=sum(sizes)))
    return StreamBlock(
        draw(st.integers(0, 65535)),
        draw(st.integers(0, 2**32 - 1)),
        np.array(column(65535), np.uint16),
        np.array(column(2**32 - 1), np.uint32),
        np.array(column(2**32 - 1), np.int64) + BASE_US,
        np.array(column(127), np.uint8),
        np.array(sizes, np.uint16),
        np.frombuffer(payload, np.uint8),
    )


def same(one: StreamBlock, other: StreamBlock) -> None:
    """Asserts that two blocks hold the same."""
    assert (one.stream, one.ssrc) == (other.stream, other.ssrc)
    for name in ("sequence", "timestamp", "arrival_us", "payload_type", "size", "payload"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        assert left.tolist() == right.tolist()


@given(st.lists(blocks(), max_size=4))
def test_round_trip(given_blocks: list[StreamBlock]) -> None:
    """What is encoded is decoded, with the same types."""
    decoded = media_record.decode(media_record.encode(given_blocks))
    assert len(decoded) == len(given_blocks)
    for one, other in zip(given_blocks, decoded, strict=True):
        same(one, other)


@given(blocks(), st.integers(0, 500), st.binary(max_size=60))
def test_only_malformed_input_escapes(block: StreamBlock, cut: int, garbage: bytes) -> None:
    """A cut record, a longer one, and garbage raise MalformedInput and nothing else."""
    data = media_record.encode([block])
    for candidate in (data[: cut % len(data)], data + b"\0"):
        with pytest.raises(MalformedInput):
            media_record.decode(candidate)
    try:
        media_record.decode(garbage)
    except MalformedInput:
        return
