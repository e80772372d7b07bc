"""Tones in decoded streams: nothing of a key can be heard in what goes to the encoder, wherever windows end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain.audio.positions import TICKS_HZ
from dualtone.domain.audio.tone_silence import ToneSilence
from tests.agent.media.dial import Key, Samples, heard, placed, spoken

EVERYWHERE = [(-(1 << 40), 1 << 40)]
PAD = "123A456B789C*0#D"


def through(
    samples: npt.NDArray[np.int16],
    lengths: list[int],
    *,
    rate_hz: int = TICKS_HZ,
    spans: list[tuple[int, int]] | None = None,
    rows: tuple[int, ...] = (0,),
) -> tuple[npt.NDArray[np.int16], ToneSilence]:
    """Sends windows of these lengths, again and again, through a filter; what comes out, in its place."""
    silence = ToneSilence(rows, rate_hz, EVERYWHERE if spans is None else spans)
    given, at, turn = [], 0, 0
    while at < samples.shape[1]:
        window = samples[:, at : at + lengths[turn % len(lengths)]]
        given.append(silence.add(window, 400 + at * TICKS_HZ // rate_hz))
        at, turn = at + window.shape[1], turn + 1
    given.append(silence.finish())
    assert [place for _, place in given] == [
        400 + sum(window.shape[1] for window, _ in given[:index]) * TICKS_HZ // rate_hz for index in range(len(given))
    ]
    return np.concatenate([window for window, _ in given], axis=1), silence


def dialled(ms: float, every_s: float = 0.37) -> tuple[str, Samples]:
    keys = [(0.3 + every_s * index, Key(PAD[index], ms, phase=index)) for index in range(16)]
    return PAD, placed(keys, 0.5 + 16 * every_s)


@pytest.mark.parametrize("lengths", [[320], [8_000], [480_000], [320, 640, 3_200, 960], [1_601]])
@pytest.mark.parametrize("ms", [40, 70, 150])
def test_no_key_is_heard_whatever_the_windows(lengths: list[int], ms: float) -> None:
    """All samples come out again, silent where keys were and untouched elsewhere."""
    keys, samples = dialled(ms)
    assert heard(samples) == keys
    given, silence = through(samples.astype(np.int16)[None], lengths)
    assert given.shape == (1, samples.size)
    assert heard(given[0].astype(float)) == ""
    changed = np.flatnonzero(given[0] != samples.astype(np.int16))
    ((first, last),) = silence.found[0]
    assert first - 400 <= changed.min() <= changed.max() < last - 400


def test_wideband_streams_are_looked_at_as_they_are() -> None:
    """Sixteen samples a millisecond; spans are told in ticks."""
    keys, samples = dialled(80)
    wide = np.interp(np.arange(2 * samples.size) / 2, np.arange(samples.size), samples).astype(np.int16)[None]
    given, silence = through(wide, [16_000], rate_hz=16_000)
    assert heard(samples) == keys
    assert heard(given[0, ::2].astype(float)) == ""
    ((first, last),) = silence.found[0]
    assert (first - 400) / 8 == pytest.approx(300, abs=40)
    assert (last - 400) / 8 == pytest.approx(300 + 15 * 370 + 80, abs=40)


def test_other_rows_and_other_spans_are_left_alone() -> None:
    """What the agent has looked into, and what a profile keeps."""
    _, samples = dialled(80)
    both = np.stack([samples, samples]).astype(np.int16)
    given, silence = through(both, [8_000], spans=[(400 + 16_000, 400 + 32_000)], rows=(1,))
    assert (given[0] == both[0]).all()
    changed = np.flatnonzero(given[1] != both[1])
    assert 16_000 - 80 <= changed.min() <= changed.max() < 32_000 + 80
    assert list(silence.found) == [1]


def test_keys_that_lie_far_apart_are_two_spans() -> None:
    """More than two seconds."""
    samples = placed([(1.0, Key("5")), (4.0, Key("6"))], 5).astype(np.int16)
    _, silence = through(samples[None], [8_000])
    assert len(silence.found[0]) == 2


def test_speech_is_whole() -> None:
    """Nearly all of it, to the sample."""
    samples = spoken("alice").astype(np.int16)[None]
    given, _ = through(samples, [4_800])
    assert np.mean(given == samples) > 0.99


def test_nothing_in_is_nothing_out() -> None:
    """A call without a packet."""
    silence = ToneSilence((), TICKS_HZ, EVERYWHERE)
    window, _ = silence.finish()
    assert window.size == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.integers(80, 9_000), min_size=1, max_size=6))
def test_whatever_is_dialled_cannot_be_heard(seed: int, lengths: list[int]) -> None:
    """Any keys, lengths, pauses, levels, twists, offsets, and any windows."""
    random = np.random.default_rng(seed)
    at_s, keys = 0.3, []
    while at_s < 4:
        ms = float(random.uniform(40, 200))
        how = (random.uniform(-30, -8), random.uniform(-8, 8), random.uniform(-0.015, 0.015), random.uniform(0, 6))
        keys.append((at_s, Key(PAD[random.integers(16)], ms, *map(float, how))))
        at_s += ms / 1000 + float(random.uniform(0.04, 0.6))
    samples = placed(keys, 5)
    given, _ = through(samples.astype(np.int16)[None], lengths)
    assert heard(given[0].astype(float)) == ""
    assert given.shape == (1, samples.size)
