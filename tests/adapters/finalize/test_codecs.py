"""Every codec as a listener hears it: what was spoken against what is played of the recording.

Likeness is correlation at the best lag. What a codec does by itself stays below one: two generations of SILK (Opus as
``voip``, then the recording) leave 0.86 of speech in which both talk at once, CELP (G.729) at 8 kbit/s 0.7 with the
recording's own generation, 0.84 without. Everything else must reach 0.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from dualtone.adapters import speech_decoder
from dualtone.domain.call_files import GapEntry, StreamEntry
from dualtone.usecases.render_audio import RenderAudio
from tests import codec_samples
from tests.call_samples import ANSWERED_US, Packet, blocks, speech
from tests.codec_samples import WIDE_HZ, Speech, g711, g722, g729, laid_out, linear, opus, played, rendered, wide
from tests.listening import likeness

S = 1_000_000
SIDES = ("alice", "bob")
PRE_SKIP_MS = 6.5

Pcm = npt.NDArray[np.int16]


def two_sided(one: Speech, other: Speech) -> tuple[list[Packet], tuple[StreamEntry, ...]]:
    """A call between two parties."""
    media = [*one.packets(), *other.packets(stream=1, ssrc=2)]
    return media, (one.entry(0, "1"), other.entry(1, "0"))


def input_rate(header_pages: bytes) -> int:
    """REQ: RFC 7845 section 5.1: what OpusHead says about the sample rate of what was encoded."""
    at = header_pages.index(b"OpusHead") + 12
    return int.from_bytes(header_pages[at : at + 4], "little")


def upper_band(heard: Pcm) -> float:
    """What of its energy lies above 4 kHz, dB."""
    power = np.abs(np.fft.rfft(heard.astype(np.float64))) ** 2
    return float(10 * np.log10(power[power.size // 2 :].sum() / power.sum()))


@pytest.mark.parametrize(
    ("coded", "rate_hz", "least", "delay_ms"),
    [
        (g711, 8000, 0.9, 0.0),
        (lambda name: g711(name, 60), 8000, 0.9, 0.0),
        (g722, 16_000, 0.9, 1.4),
        (lambda name: g722(name, 10), 16_000, 0.9, 1.4),
        (g729, 8000, 0.7, 5.0),
        (lambda name: g729(name, 6), 8000, 0.7, 5.0),
        (opus, 16_000, 0.9, PRE_SKIP_MS),
        (lambda name: opus(name, channels=2), 16_000, 0.9, PRE_SKIP_MS),
        (lambda name: opus(name, ptime_ms=10), 16_000, 0.9, PRE_SKIP_MS),
        (lambda name: opus(name, ptime_ms=60), 16_000, 0.9, PRE_SKIP_MS),
        (lambda name: opus(name, application="voip"), 16_000, 0.86, PRE_SKIP_MS),
        (lambda name: linear(name, 8000), 8000, 0.9, 0.0),
        (lambda name: linear(name, 11_025, ptime_ms=40), 8000, 0.9, 0.0),
        (lambda name: linear(name, 16_000), 16_000, 0.9, 0.0),
        (lambda name: linear(name, 44_100, channels=2), 16_000, 0.9, 0.0),
        (lambda name: linear(name, 48_000, ptime_ms=30), 16_000, 0.9, 0.0),
    ],
    ids=[
        "PCMA", "PCMA 60 ms", "G.722", "G.722 10 ms", "G.729", "G.729 60 ms", "Opus", "Opus stereo", "Opus 10 ms",
        "Opus 60 ms", "Opus voip", "L16/8000", "L16/11025", "L16/16000", "L16/44100/2", "L16/48000 30 ms",
    ],
)  # fmt: skip
def test_what_is_played_is_what_was_spoken(
    coded: Callable[[str], Speech], rate_hz: int, least: float, delay_ms: float
) -> None:
    """Each side alike, on its channel, in its place, as wide as it came, and exactly as long."""
    media, streams = two_sided(*map(coded, SIDES))
    rendering = rendered(media, streams)
    heard = played(rendering)
    frames = max(len(coded(name).payloads) for name in SIDES)
    length_ms = frames * coded("alice").units * 1000 // coded("alice").clock_hz
    assert (rendering.duration_ms, rendering.flags) == (length_ms, frozenset())
    assert heard.shape[1] == length_ms * 16
    assert input_rate(rendering.header_pages) == rate_hz
    for channel, name in enumerate(SIDES):
        spoken = wide(name) if rate_hz == WIDE_HZ else codec_samples.narrow(wide(name))
        likely, lag_ms = likeness(heard[channel], spoken, WIDE_HZ)
        assert likely >= least
        assert lag_ms == pytest.approx(delay_ms, abs=0.5)
        assert (upper_band(heard[channel]) > -30) is (rate_hz == WIDE_HZ)
    assert len({len(page) for page in rendering.pages}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [(g711, g722), (opus, g711), (g729, opus), (g722, opus), (lambda name: linear(name, 32_000), g729)],
    ids=["PCMA and G.722", "Opus and PCMA", "G.729 and Opus", "G.722 and Opus", "L16 and G.729"],
)
def test_each_leg_has_its_own_codec(one: Callable[[str], Speech], other: Callable[[str], Speech]) -> None:
    """Both legs are as good as each alone, and within 40 ms of each other, before anything is encoded."""
    media, streams = two_sided(one("alice"), other("bob"))
    heard, rate_hz, _ = laid_out(media, streams)
    assert rate_hz == WIDE_HZ
    lags = []
    for channel, (coded, name) in enumerate(zip((one, other), SIDES, strict=True)):
        spoken = wide(name) if codec_of_speech(coded(name)) else codec_samples.narrow(wide(name))
        likely, lag_ms = likeness(heard[channel], spoken, WIDE_HZ)
        assert likely >= (0.83 if coded is g729 else 0.95)
        lags.append(lag_ms)
    assert abs(lags[0] - lags[1]) <= 10


def codec_of_speech(coded: Speech) -> bool:
    """Whether it is wideband."""
    return coded.codec in {"G722", "OPUS"} or coded.clock_hz >= WIDE_HZ


@pytest.mark.parametrize(
    ("before", "after", "least"),
    [
        (g711, g722, 0.95), (g722, g711, 0.95), (g711, opus, 0.95), (opus, g722, 0.95), (g729, g711, 0.83),
        (g722, g729, 0.8), (lambda name: linear(name, 44_100), g711, 0.95),
    ],
    ids=[
        "PCMA to G.722", "G.722 to PCMA", "PCMA to Opus", "Opus to G.722", "G.729 to PCMA", "G.722 to G.729",
        "L16 to PCMA",
    ],
)  # fmt: skip
@pytest.mark.parametrize("at_s", [6, 8.4])
def test_a_codec_changes_in_the_middle(
    before: Callable[[str], Speech], after: Callable[[str], Speech], least: float, at_s: float
) -> None:
    """Nothing is lost, doubled or moved, whether clock and bandwidth change with it or not."""
    one, other = before("alice"), after("alice")
    first = one.packets(end=round(at_s * one.clock_hz / one.units))
    second = other.packets(first=round(at_s * other.clock_hz / other.units), ssrc=0x1234)
    heard, rate_hz, rendering = laid_out([*first, *second], (one.entry(0, "1", other),))
    assert rendering.duration_ms == len(other.payloads) * other.units * 1000 // other.clock_hz
    assert not rendering.flags - {"single_stream"}
    cut = round(at_s * rate_hz)
    for coded, part in ((one, slice(0, cut)), (other, slice(cut, 12 * rate_hz))):
        spoken = wide("alice") if codec_of_speech(coded) else codec_samples.narrow(wide("alice"))
        spoken = spoken if rate_hz == WIDE_HZ else speech("alice")
        if part.stop - part.start > rate_hz * 3:
            assert likeness(heard[0, part], spoken[part], rate_hz)[0] >= least
        assert np.abs(heard[0, part].astype(np.int64)).max() > 3000


def test_packet_times_change_in_the_middle() -> None:
    """10, 60, 20 and 30 ms of G.722, one after another, sound as 20 ms throughout."""
    times = [(10, 0, 2.4), (60, 2.4, 6), (20, 6, 9), (30, 9, 12)]
    media = [
        packet
        for ptime_ms, from_s, to_s in times
        for packet in g722("alice", ptime_ms).packets(
            first=round(from_s * 1000 / ptime_ms), end=round(to_s * 1000 / ptime_ms)
        )
    ]
    renumbered = [replace(packet, sequence=number) for number, packet in enumerate(media)]
    streams = (g722("alice").entry(0, "1"),)
    changing, _, rendering = laid_out(renumbered, streams)
    steady, _, _ = laid_out(g722("alice").packets(), streams)
    assert rendering.duration_ms == 12_000
    assert np.array_equal(changing, steady)


def test_what_becomes_wideband_late_is_wideband_from_the_beginning() -> None:
    """A minute and more of G.711 was encoded when G.722 came: the call is rendered again."""
    long = replace(g711("alice"), payloads=list(g711("alice").payloads) * 7)
    other = replace(g722("alice"), payloads=list(g722("alice").payloads) * 8)
    media = [*long.packets(), *other.packets(first=4200)]
    tape = codec_samples.Tape()
    render = RenderAudio(tape.started, speech_decoder.start)
    streams = (long.entry(0, "1", other),)
    said, parts = codec_samples.manifest(media, streams), [[one] for one in blocks(media)]
    assert render(said, codec_samples.Reading(), parts) is None
    assert tape.rate_hz == 8000
    heard, rate_hz, rendering = laid_out(media, streams, wideband=True)
    assert (rate_hz, rendering.duration_ms) == (WIDE_HZ, 96_000)
    assert likeness(heard[0, 84 * WIDE_HZ :], wide("alice"), WIDE_HZ)[0] >= 0.95


@pytest.mark.parametrize(
    ("spoken", "reference"),
    [(lambda: opus("alice", dtx=True), lambda: wide("alice")), (lambda: g729("bob", 1), lambda: speech("bob"))],
    ids=["Opus", "G.729 with annex B"],
)
def test_what_is_not_transmitted_is_silence_of_its_length(
    spoken: Callable[[], Speech], reference: Callable[[], Pcm]
) -> None:
    """Exactly zero where neither a packet nor its neighbours were sent, and what follows is in its place."""
    coded = spoken()
    heard, rate_hz, rendering = laid_out(coded.packets(), (coded.entry(0, "1"),))
    per_unit = rate_hz / coded.clock_hz
    sent = [len(payload) > 2 for payload in coded.payloads]
    quiet = 0
    for place, is_sent in enumerate(sent[:-1]):
        start = round(place * coded.units * per_unit)
        if not is_sent and (place == 0 or not sent[place - 1]) and not sent[place + 1]:
            assert not heard[0, start : round(start + coded.units * per_unit)].any()
            quiet += 1
    assert quiet > 20
    last = max(place for place, payload in enumerate(coded.payloads) if payload)
    assert rendering.duration_ms == (last + 1) * coded.units * 1000 // coded.clock_hz
    assert likeness(heard[0], reference(), rate_hz)[0] >= 0.83


def test_comfort_noise_is_silence() -> None:
    """RFC 3389 between two words of G.722, in the middle of which nothing sounds."""
    kept = g722("alice").packets()
    noise = [replace(one, payload_type=13, payload=b"\x40") for one in kept[100:300:10]]
    media = [*kept[:100], *noise, *kept[300:]]
    heard, rate_hz, rendering = laid_out(media, (g722("alice").entry(0, "1"),))
    assert not heard[0, 2 * rate_hz + 40 : 6 * rate_hz - 40].any()
    assert heard[0, 6 * rate_hz :].any()
    assert rendering.duration_ms == 12_000


@pytest.mark.parametrize("coded", [g711, g722, g729, opus], ids=["PCMA", "G.722", "G.729", "Opus"])
def test_a_hold_is_silent_to_the_sample(coded: Callable[[str], Speech]) -> None:
    """Three seconds that the SDP called inactive, though a relay went on sending: zero, and the rest in its place."""
    spoken = coded("alice")
    gap = GapEntry(0, ANSWERED_US + 4 * S, ANSWERED_US + 7 * S, "inactive")
    heard, rate_hz, rendering = laid_out(spoken.packets(), (spoken.entry(0, "1"),), gaps=[gap])
    whole, _, _ = laid_out(spoken.packets(), (spoken.entry(0, "1"),))
    assert not heard[0, 4 * rate_hz : 7 * rate_hz].any()
    assert rendering.duration_ms == len(spoken.payloads) * spoken.units * 1000 // spoken.clock_hz
    later = slice(7 * rate_hz + rate_hz // 10, None)
    assert likeness(heard[0, later], whole[0, later], rate_hz)[0] >= 0.97


@pytest.mark.parametrize("coded", [g711, g722, g729, opus], ids=["PCMA", "G.722", "G.729", "Opus"])
def test_late_and_doubled_packets_change_nothing(coded: Callable[[str], Speech]) -> None:
    """A decoder that remembers is fed each packet once and in order, whatever the order in which they were stored."""
    spoken = coded("alice")
    kept = spoken.packets()
    streams = (spoken.entry(0, "1"),)
    late = [replace(kept[number], arrival_us=kept[number].arrival_us + 400_000) for number in range(50, 500, 90)]
    swapped = [kept[place ^ 1] if place ^ 1 < len(kept) else kept[place] for place in range(len(kept))]
    stored = [packet for packet in swapped if packet.sequence not in {one.sequence for one in late}]
    whole, _, _ = laid_out(kept, streams)
    heard, _, _ = laid_out([*stored, *late, *kept[200:220]], streams)
    assert np.array_equal(heard, whole)


@pytest.mark.parametrize("coded", [g711, g722, g729, opus], ids=["PCMA", "G.722", "G.729", "Opus"])
def test_a_new_source_goes_on_where_the_old_one_ended(coded: Callable[[str], Speech]) -> None:
    """Another SSRC with timestamps of its own, placed by its arrival, decoded by a decoder of its own."""
    spoken = coded("alice")
    half = len(spoken.payloads) // 2
    media = [*spoken.packets(end=half), *spoken.packets(first=half, ssrc=77, sequence=3, timestamp=12_345)]
    heard, rate_hz, rendering = laid_out(media, (spoken.entry(0, "1"),))
    whole, _, _ = laid_out(spoken.packets(), (spoken.entry(0, "1"),))
    assert rendering.duration_ms == len(spoken.payloads) * spoken.units * 1000 // spoken.clock_hz
    later = slice(heard.shape[1] // 2 + rate_hz // 5, None)
    assert likeness(heard[0, later], whole[0, later], rate_hz) >= (0.97, 0.0)
