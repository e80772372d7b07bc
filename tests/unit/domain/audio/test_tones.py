"""Tones in samples: what ITU-T Q.24 asks a receiver to hear is found, speech is left alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain.audio import g711, tones
from dualtone.domain.audio.tones import HOP_MS, KEYS, Tone
from tests.agent.media.dial import CLOCK_HZ, Key, Samples, placed, spoken

HOP = CLOCK_HZ * HOP_MS // 1000


def hops(samples: npt.NDArray[Any], clock_hz: int = CLOCK_HZ) -> npt.NDArray[np.float32]:
    hop = clock_hz * HOP_MS // 1000
    whole = samples[: samples.size // hop * hop]
    return np.ascontiguousarray(whole.reshape(-1, hop), np.float32)


def found(samples: npt.NDArray[Any]) -> list[Tone]:
    return tones.tones(tones.spectrum(hops(samples), CLOCK_HZ))


def companded(samples: Samples, law: g711.Law) -> npt.NDArray[np.int16]:
    return g711.decode(law, g711.encode(law, samples.astype(np.int16)))


def at_pitch(samples: Samples, factor: float) -> Samples:
    """Speech played faster or slower: another voice."""
    voice: Samples = np.interp(np.arange(0, samples.size - 1, factor), np.arange(samples.size), samples)
    return voice


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("law", g711.Law)
def test_every_key_is_told(key: str, law: g711.Law) -> None:
    """Sixteen keys, through either law."""
    (tone,) = found(companded(placed([(0.1, Key(key, ms=50))], 0.3), law))
    assert (KEYS[tone.key], tone.is_key) == (key, True)


# REQ: ITU-T Q.24 section 2, tables: frequencies within 1.5 %, 40 ms, levels to -29 dBm0, twist of 4 and 8 dB.
@pytest.mark.parametrize(
    ("level", "twist", "offset"),
    list(product((-3.0, -15.0, -29.0, -42.0), (-8.0, 0.0, 4.0, 8.0), (-0.015, 0.0, 0.015))),
)
def test_the_shortest_tone_is_found_wherever_it_begins(level: float, twist: float, offset: float) -> None:
    """Forty milliseconds, however they lie in the hops; what is found reaches to its edges, give or take a hop."""
    for place, key in enumerate(KEYS):
        begin_s = 0.1 + 0.00125 * (place % 8)
        press = Key(key, 40, level - max(twist, 0.0), twist, offset, phase=0.7 * place)
        (tone,) = found(companded(placed([(begin_s, press)], 0.3), g711.Law.A))
        assert KEYS[tone.key] == key
        assert tone.first * HOP_MS <= 1000 * begin_s + HOP_MS
        assert tone.end * HOP_MS >= 1000 * begin_s + 40 - HOP_MS


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(KEYS),
    ms=st.floats(40, 200),
    begin_s=st.floats(0.05, 0.15),
    level=st.floats(-38, -6),
    twist=st.floats(-8, 8),
    offset=st.floats(-0.018, 0.018),
    phase=st.floats(0, 6),
)
def test_no_tone_within_the_limits_is_missed(
    key: str, ms: float, begin_s: float, level: float, twist: float, offset: float, phase: float
) -> None:
    """Whatever its length, level, twist, frequency, phase and place."""
    found_there = found(companded(placed([(begin_s, Key(key, ms, level, twist, offset, phase))], 0.5), g711.Law.MU))
    assert [KEYS[tone.key] for tone in found_there] == [key]


@pytest.mark.parametrize(("speech_below", "least"), [(6.0, 1.0), (3.0, 0.97), (0.0, 0.85)])
def test_a_tone_is_found_under_speech(speech_below: float, least: float) -> None:
    """Tones of 80 ms over speech that is so many decibels quieter than they are, at that moment."""
    under, presses, count = np.zeros(0), [], 0
    for name in ("alice", "bob"):
        for begin in range(2_000, 90_000, 4_000):
            voice = spoken(name)[begin : begin + 4_000]
            power = np.mean(voice[1_600:2_240] ** 2)
            if power < 200**2:
                continue
            press = Key(KEYS[count % 16], level=-15.0, phase=float(count))
            gain = np.sqrt(np.mean(press.samples**2) / power) * 10 ** (-speech_below / 20)
            presses.append((under.size / CLOCK_HZ + 0.2, press))
            under, count = np.concatenate([under, np.clip(gain, 0, 8) * voice]), count + 1
    there = found(companded(placed(presses, 0.0, under), g711.Law.A))
    heard = [
        any(tone.first * HOP_MS < 1000 * at_s + 80 and tone.end * HOP_MS > 1000 * at_s for tone in there)
        for at_s, _ in presses
    ]
    assert count > 30
    assert np.mean(heard) >= least


def test_speech_is_left_alone() -> None:
    """Of ten minutes of synthetic voices at many pitches, which are more like tones than people, under half a percent.

    No two keys follow each other: nothing of it can become a number.
    """
    blanked = total = keys = 0
    for name, factor in product(("alice", "bob"), np.arange(0.7, 1.5, 0.03)):
        there = found(at_pitch(spoken(name), float(factor)))
        total += spoken(name).size / factor / HOP
        blanked += sum(tone.end - tone.first + 2 * tones.MARGIN_HOPS for tone in there)
        keys += sum(tone.is_key for tone in there)
    assert total * HOP_MS > 600_000
    assert blanked / total < 0.005
    assert keys * 60_000 / (total * HOP_MS) < 1


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(np.zeros(4_000), id="silence"),
        pytest.param(8_000 * np.sin(2 * np.pi * 440 / 8_000 * np.arange(8_000)), id="a dial tone"),
        pytest.param(8_000 * np.sin(2 * np.pi * 697 / 8_000 * np.arange(8_000)), id="half a key"),
        pytest.param(
            4_000 * np.sin(2 * np.pi * 697 * 1.04 / 8_000 * np.arange(8_000))
            + 4_000 * np.sin(2 * np.pi * 1209 * 1.04 / 8_000 * np.arange(8_000)),
            id="four percent off",
        ),
        pytest.param(np.random.default_rng(7).normal(0, 3_000, 80_000), id="noise"),
        pytest.param(
            4_000 * np.sin(2 * np.pi * 480 / 8_000 * np.arange(8_000))
            + 4_000 * np.sin(2 * np.pi * 620 / 8_000 * np.arange(8_000)),
            id="a busy tone",
        ),
    ],
)
def test_what_is_no_key_is_none(samples: Samples) -> None:
    """Q.24: what is off by 3.5 % or more is no key, nor is a tone of the network."""
    assert found(samples) == []


def test_two_presses_of_one_key_are_two_tones() -> None:
    """Q.24: a pause of 40 ms parts them, an interruption of 10 ms does not."""
    parted = placed([(0.1, Key("5", ms=60)), (0.21, Key("5", ms=60))], 0.4)
    whole = placed([(0.1, Key("5", ms=60)), (0.17, Key("5", ms=60))], 0.4)
    assert [len(found(one)) for one in (parted, whole)] == [2, 1]


def test_a_wideband_stream_is_looked_at_as_it_is() -> None:
    """At 16,000 samples a second a hop has 160 of them."""
    narrow = placed([(0.1, Key("7", ms=60))], 0.3)
    wide = np.interp(np.arange(2 * narrow.size) / 2, np.arange(narrow.size), narrow)
    (tone,) = tones.tones(tones.spectrum(hops(wide, 16_000), 16_000))
    assert KEYS[tone.key] == "7"


def test_a_tone_shows_no_key() -> None:
    """Neither its text nor its representation says what was pressed."""
    (tone,) = found(placed([(0.1, Key("7", ms=60))], 0.3))
    assert repr(tone) == f"Tone(first={tone.first}, end={tone.end})"
