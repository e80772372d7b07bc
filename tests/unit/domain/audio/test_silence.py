"""Declared spans are silent to the sample, and nothing beside them is; losses are as wide as what was lost."""

from __future__ import annotations

from typing import Final

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain.audio.losses import Losses
from dualtone.domain.audio.positions import US_PER_TICK
from dualtone.domain.audio.silence import Silence
from dualtone.domain.call_files import GapEntry
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.pause import FOREVER_US
from tests.call_samples import ANSWERED_US, block, blocks, packets, speech

S: Final = 1_000_000
SPEECH: Final = speech("alice")[:40_000]
STREAMS: Final = (0, 1)
spans = st.lists(
    st.tuples(st.integers(-2_000_000, 7_000_000), st.integers(0, 3_000_000)).map(
        lambda pair: (ANSWERED_US + pair[0], ANSWERED_US + sum(pair))
    ),
    max_size=6,
)


def inside(moment_us: int, of: list[tuple[int, int]]) -> bool:
    return any(from_us <= moment_us < to_us for from_us, to_us in of)


def media() -> list[StreamBlock]:
    return blocks([*packets(SPEECH), *packets(SPEECH, stream=1, ssrc=2)])


@given(everywhere=spans, of_one=spans)
@settings(deadline=None)
def test_a_packet_is_kept_unless_it_arrived_in_a_span(
    everywhere: list[tuple[int, int]], of_one: list[tuple[int, int]]
) -> None:
    """Of its stream, or of the whole call; what is kept is as it was, and it is told which spans had packets."""
    silence = Silence(everywhere, {1: of_one}, STREAMS, ANSWERED_US)
    kept = list(silence.keep(media()))
    expected = [
        (one.stream, int(at), int(sequence))
        for one in media()
        for at, sequence in zip(one.arrival_us, one.sequence, strict=True)
        if not inside(int(at), everywhere + of_one * (one.stream == 1))
    ]
    found = [
        (one.stream, int(at), int(sequence))
        for one in kept
        for at, sequence in zip(one.arrival_us, one.sequence, strict=True)
    ]
    assert found == expected
    assert all(one.payload.size == int(one.size.sum()) for one in kept)
    hit = {
        place
        for place, span in enumerate(everywhere)
        if any(inside(int(at), [span]) for one in media() for at in one.arrival_us)
    }
    assert silence.removed == hit


def test_what_is_kept_of_a_block_is_bit_for_bit_what_it_was() -> None:
    """Payloads of another length in between, too."""
    kept = packets(SPEECH[:1600], ptime_ms=30)
    silence = Silence([(kept[2].arrival_us, kept[4].arrival_us)], {}, STREAMS, ANSWERED_US)
    (found,) = silence.keep([block(kept)])
    wanted = block(kept[:2] + kept[4:])
    for column in ("sequence", "timestamp", "arrival_us", "payload_type", "size", "payload"):
        assert np.array_equal(getattr(found, column), getattr(wanted, column))


@given(everywhere=spans, of_one=spans, at=st.integers(-20_000, 60_000), length=st.integers(1, 20_000))
@settings(deadline=None)
def test_a_sample_is_zero_where_a_span_is_and_untouched_elsewhere(
    everywhere: list[tuple[int, int]], of_one: list[tuple[int, int]], at: int, length: int
) -> None:
    """A sample counts as within a span if any of its 125 us is."""
    window = np.ones((2, length), np.int16)
    Silence(everywhere, {1: of_one}, STREAMS, ANSWERED_US).erase(window, at)
    starts = ANSWERED_US + (at + np.arange(length)) * US_PER_TICK
    for row, relevant in enumerate((everywhere, everywhere + of_one)):
        silent = np.zeros(length, np.bool_)
        for from_us, to_us in relevant:
            if from_us < to_us:
                silent |= (starts < to_us) & (starts + US_PER_TICK > from_us)
        assert np.array_equal(window[row] == 0, silent)


def test_a_span_without_end_silences_what_comes_after() -> None:
    """Also what arrives long after the call."""
    silence = Silence([(ANSWERED_US + S, FOREVER_US)], {}, STREAMS, ANSWERED_US)
    assert sum(one.sequence.size for one in silence.keep(media())) == 100
    window = np.ones((2, 80_000), np.int16)
    silence.erase(window, 0)
    assert (bool(window[:, :8000].all()), bool(window[:, 8000:].any())) == (True, False)


def test_streams_that_are_not_heard_pass() -> None:
    """The timeline says so; they are none of ours."""
    stray = blocks(packets(SPEECH, stream=9))
    assert list(Silence([(0, FOREVER_US)], {}, STREAMS, ANSWERED_US).keep(stray)) == stray


def test_a_loss_is_as_long_as_nothing_came() -> None:
    """Packets at its edges reached the disk after all; other streams and other times say nothing of it."""
    kept = [one for one in packets(SPEECH) if not ANSWERED_US + 2 * S <= one.arrival_us < ANSWERED_US + 3 * S]
    losses = Losses(
        [
            GapEntry(0, ANSWERED_US + 1_500_000, ANSWERED_US + 4 * S, "restart"),
            GapEntry(1, ANSWERED_US + 1_500_000, ANSWERED_US + 4 * S, "restart"),
        ]
    )
    assert list(losses.noting(blocks(kept))) != []
    first, second = losses.tightened()
    assert first == GapEntry(0, ANSWERED_US + 1_980_000, ANSWERED_US + 3 * S, "restart")
    assert second == GapEntry(1, ANSWERED_US + 1_500_000, ANSWERED_US + 4 * S, "restart")
