"""DTMF tones in codecs that the agent cannot look into are silent in the recording where they were to be blanked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from dualtone.domain.audio.tones import spectrum, tones
from dualtone.domain.call_files import TonesEntry
from tests import codec_samples
from tests.call_samples import ANSWERED_US
from tests.codec_samples import Speech, g722, laid_out, linear, opus, wide

S = 1_000_000
KEYS_AT_S = (1.0, 1.3, 1.6, 6.0)
IN_G711 = ["PCMA", "PCMU"]


def dialled(name: str) -> npt.NDArray[np.int16]:
    """Speech in which four keys are pressed, 120 ms each."""
    samples = wide(name).astype(np.float64)
    time = np.arange(1920) / 16_000
    tone = 5000 * (np.sin(2 * np.pi * 770 * time) + np.sin(2 * np.pi * 1336 * time))
    for at_s in KEYS_AT_S:
        samples[round(at_s * 16_000) : round(at_s * 16_000) + 1920] = tone
    return samples.clip(-32_768, 32_767).astype(np.int16)


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples' speech with the keys in it."""
    monkeypatch.setattr(codec_samples, "wide", dialled)


def keys(heard: npt.NDArray[np.int16]) -> int:
    """How many keys can be heard at 16 kHz."""
    hops = heard[: heard.size // 160 * 160].astype(np.float32).reshape(-1, 160)
    return sum(tone.is_key for tone in tones(spectrum(hops, 16_000)))


@pytest.mark.parametrize("coded", [g722, opus, lambda name: linear(name, 16_000)], ids=["G.722", "Opus", "L16"])
@pytest.mark.usefixtures("pressed")
def test_no_key_is_heard_where_tones_are_blanked(coded: Callable[[str], Speech]) -> None:
    """Three keys in the span are gone, and told of as one gap; the one after it is as it was."""
    spoken = coded("alice")
    span = TonesEntry(ANSWERED_US, ANSWERED_US + 5 * S, IN_G711)
    heard, rate_hz, rendering = laid_out(spoken.packets(), (spoken.entry(0, "1"),), tones=[span])
    assert rate_hz == 16_000
    assert keys(heard[0, : 5 * rate_hz]) == 0
    assert keys(heard[0, 5 * rate_hz :]) == 1
    (gap,) = (gap for gap in rendering.gaps if gap.cause == "tones")
    assert gap.stream == 0
    assert 900 <= gap.from_ms <= 1000
    assert 1720 <= gap.to_ms <= 1850
    assert heard.shape[1] == rendering.duration_ms * 16


@pytest.mark.parametrize(
    "entries",
    [[], [TonesEntry(ANSWERED_US, ANSWERED_US + 12 * S, [*IN_G711, "G722"])]],
    ids=["tones are kept", "the agent looked into the codec"],
)
@pytest.mark.usefixtures("pressed")
def test_tones_are_left_alone(entries: list[TonesEntry]) -> None:
    """Nothing is taken away that nobody asked for."""
    spoken = g722("alice")
    heard, _, rendering = laid_out(spoken.packets(), (spoken.entry(0, "1"),), tones=entries)
    assert keys(heard[0]) == len(KEYS_AT_S)
    assert not rendering.gaps
