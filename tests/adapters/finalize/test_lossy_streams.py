"""What networks do to streams: loss, damage, gaps, and decoders that die. Durations stay exact, nothing clicks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualtone.adapters import speech_decoder
from dualtone.domain.audio import opus_packet
from dualtone.domain.audio.codecs import codec_of
from dualtone.domain.audio.decoding import MOST_DECODERS, Decoders
from dualtone.domain.audio.framing import LEAST_BEGINNING_BYTES, Packets
from dualtone.domain.errors import Unavailable
from tests.call_samples import ANSWERED_US, Packet
from tests.codec_samples import PAYLOAD_TYPES, Speech, g711, g722, g729, laid_out, linear, opus
from tests.listening import likeness

S = 1_000_000
CODED = [g711, g722, g729, opus, lambda name: linear(name, 16_000)]
IDS = ["PCMA", "G.722", "G.729", "Opus", "L16"]
SECOND = 50
"""Packets of 20 ms."""
LOST = {place + extra for place in range(40, 450, 23) for extra in range(5)}
"""A hundred milliseconds of every half second, anywhere in words."""

Pcm = npt.NDArray[np.int16]


def without(packets: list[Packet], lost: set[int]) -> list[Packet]:
    return [packet for place, packet in enumerate(packets) if place not in lost]


@pytest.mark.parametrize("coded", CODED, ids=IDS)
@given(lost=st.sets(st.integers(1, 98), max_size=97), doubled=st.lists(st.integers(0, 99), max_size=5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_lost_the_length_is_exact(
    coded: Callable[[str], Speech], lost: set[int], doubled: list[int]
) -> None:
    """Any packets but the first and the last, and some twice; the loss is counted."""
    spoken = coded("alice")
    kept = spoken.packets(end=100)
    media = [*without(kept, lost), *(kept[place] for place in doubled if place not in lost)]
    _, _, rendering = laid_out(media, (spoken.entry(0, "1"),))
    assert rendering.duration_ms == 2000
    assert doubled or rendering.reception[0].lost == len(lost)


@pytest.mark.parametrize("coded", CODED, ids=IDS)
def test_a_decoder_goes_on_after_a_loss(coded: Callable[[str], Speech]) -> None:
    """Half a second after twelve lost seconds of packets it sounds as if none had been lost."""
    spoken = coded("alice")
    kept = spoken.packets()
    streams = (spoken.entry(0, "1"),)
    whole, rate_hz, _ = laid_out(kept, streams)
    heard, _, _ = laid_out(without(kept, set(range(150, 200))), streams)
    later = slice(4 * rate_hz + rate_hz // 2, None)
    assert likeness(heard[0, later], whole[0, later], rate_hz)[0] >= 0.98
    assert not heard[0, 3 * rate_hz + rate_hz // 10 : 4 * rate_hz].any()


@pytest.mark.parametrize("coded", [g729, opus], ids=["G.729", "Opus"])
def test_a_short_loss_is_concealed(coded: Callable[[str], Speech]) -> None:
    """20 and 60 ms in the middle of a word do not fall silent; what is concealed is no silence and no louder."""
    spoken = coded("alice")
    kept = spoken.packets()
    whole, rate_hz, _ = laid_out(kept, (spoken.entry(0, "1"),))
    loudest = int(np.argmax(np.abs(whole[0].astype(np.int64))) * SECOND / rate_hz)
    for count in (1, 3):
        heard, _, _ = laid_out(without(kept, set(range(loudest, loudest + count))), (spoken.entry(0, "1"),))
        place = slice(loudest * rate_hz // SECOND, (loudest + 1) * rate_hz // SECOND)
        assert np.abs(heard[0, place].astype(np.int64)).max() > 500
        assert np.abs(heard[0].astype(np.int64)).max() < 2 * np.abs(whole[0].astype(np.int64)).max()


@pytest.mark.parametrize("coded", CODED, ids=IDS)
def test_nothing_clicks_at_gaps(coded: Callable[[str], Speech]) -> None:
    """At every border of a gap audio comes from or goes to nothing in small steps.

    A click is a step that the speech itself does not have: within half a millisecond of a border no two neighbouring
    samples differ by more than a sixth of the largest step of the second around, and by no more than 2 % of full scale.
    """
    spoken = coded("alice")
    kept = spoken.packets()
    heard, rate_hz, _ = laid_out(without(kept, LOST), (spoken.entry(0, "1"),))
    assert not clicks(heard[0], rate_hz, concealed_ms=60 if spoken.codec in {"OPUS", "G729"} else 0)


def test_a_hard_border_is_known_for_a_click() -> None:
    """What the test above looks for is there when audio breaks off as the packets do."""
    heard, rate_hz, _ = laid_out(g711("alice").packets(), (g711("alice").entry(0, "1"),))
    hard = heard[0].copy()
    for place in LOST:
        hard[place * 160 : place * 160 + 160] = 0
    assert clicks(hard, rate_hz) > 5


def clicks(heard: Pcm, rate_hz: int, concealed_ms: int = 0) -> int:
    """How many borders of the gaps click."""
    steps = np.abs(np.diff(heard.astype(np.int64)))
    near, found = rate_hz // 2000, 0
    for place in range(40, 450, 23):
        for border in (place * rate_hz // SECOND + rate_hz * concealed_ms // 1000, (place + 5) * rate_hz // SECOND):
            around = steps[max(0, border - rate_hz // 2) : border + rate_hz // 2]
            found += steps[border - near : border + near].max() > max(64, min(0.02 * 32_768, around.max() / 6))
    return found


@pytest.mark.parametrize("name", ["G722", "G729", "OPUS", "L16", "PCMA"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_no_payload_breaks_a_call(name: str, data: st.DataObject) -> None:
    """Any octets in any codec: the call is rendered, what is not well-formed is counted and silent."""
    clock_hz = {"OPUS": 48_000, "L16": 16_000}.get(name, 8000)
    channels = 2 if name == "OPUS" else 1
    payloads = data.draw(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=40))
    spoken = Speech(name, clock_hz, payloads, clock_hz // 50, channels)
    _, _, rendering = laid_out(spoken.packets(), (spoken.entry(0, "1"),))
    damaged = {
        "OPUS": lambda payload: opus_packet.ticks(payload) is None,
        "G729": lambda payload: len(payload) % 10 not in {0, 2},
        "L16": lambda payload: len(payload) % 2 != 0,
        "G722": lambda _: sum(map(len, payloads)) < LEAST_BEGINNING_BYTES,
    }.get(name, lambda _: False)
    assert rendering.reception[0].damaged == sum(map(damaged, payloads))
    assert ("payload_damaged" in rendering.flags) is any(map(damaged, payloads))
    assert rendering.duration_ms >= 20 * (len(payloads) - 1)


def test_well_formed_noise_decodes_to_its_length() -> None:
    """Thousands of well-formed packets of noise give exactly the samples that their first octets promise."""
    dice = np.random.default_rng(4)
    decoders = Decoders(speech_decoder.start)
    codec = codec_of("OPUS", 48_000, 2)
    assert codec is not None
    packets = [bytes([toc & 0xFC]) + dice.bytes(int(dice.integers(1, 120))) for toc in dice.integers(0, 256, 3000)]
    lengths = np.array([opus_packet.ticks(packet) for packet in packets])
    try:
        decoded = decoders.decode(
            "source",
            codec,
            laid_packets(packets, np.concatenate(([0], np.cumsum(lengths)[:-1]))),
        )
    finally:
        decoders.close()
    assert decoded.samples.size == lengths.sum()
    assert np.array_equal(decoded.size, lengths)


def laid_packets(payloads: list[bytes], position: npt.NDArray[np.int64]) -> Packets:
    """Packets one behind the other."""
    return Packets(
        np.arange(len(payloads)).astype(np.uint16),
        position,
        np.array([len(payload) for payload in payloads], np.int64),
        np.frombuffer(b"".join(payloads), np.uint8),
    )


def test_a_decoder_that_dies_makes_the_event_come_again() -> None:
    """Killed between two batches: no silence in place of speech, and no process is left."""
    codec = codec_of("G722", 8000, 1)
    assert codec is not None
    decoder = speech_decoder.start(codec)
    assert decoder.decode(bytes(160), 320).size == 320
    os.kill(decoder.pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        decoder.decode(bytes(2_000_000), 4_000_000)
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(decoder.pid, 0)


def test_many_sources_need_few_decoders() -> None:
    """A stream whose SSRC changes with every packet starts a decoder for each, and never has more than eight."""
    running: set[int] = set()
    most = 0

    class Watched(speech_decoder.SpeechDecoder):
        def close(self) -> None:
            running.discard(self.pid)
            super().close()

    def start(codec: object) -> Watched:
        nonlocal most
        decoder = Watched(codec.coding)  # type: ignore[attr-defined]
        running.add(decoder.pid)
        most = max(most, len(running))
        return decoder

    spoken = g722("alice")
    codec = codec_of("G722", 8000, 1)
    assert codec is not None
    decoders = Decoders(start)
    for ssrc, packet in enumerate(spoken.packets(end=20)):
        decoded = decoders.decode((0, ssrc), codec, laid_packets([packet.payload], np.zeros(1, np.int64)))
        assert decoded.samples.size == 320
    decoders.close()
    assert (most, running) == (MOST_DECODERS, set())


def test_raw_codecs_leave_the_rest_alone() -> None:
    """What cannot be decoded is silence of its length, beside speech that can."""
    spoken = g722("alice")
    media = spoken.packets()
    strange = [
        replace(one, payload_type=PAYLOAD_TYPES["L16"], arrival_us=ANSWERED_US + 13 * S + place * 20_000)
        for place, one in enumerate(media[:50])
    ]
    entry = spoken.entry(0, "1")
    raw = replace(entry, formats=[*entry.formats, replace(entry.formats[0], payload_type=97, codec="iLBC")])
    heard, rate_hz, rendering = laid_out([*media, *strange], (raw,))
    assert "codec_raw" in rendering.flags
    assert not heard[0, 12 * rate_hz + 100 :].any()
