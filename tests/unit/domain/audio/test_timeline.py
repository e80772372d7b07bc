"""The timeline of a call: real captures laid out exactly, silence of exact length, windows of bounded size."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain.audio.g711 import Law
from dualtone.domain.audio.payloads import PayloadTable
from dualtone.domain.audio.timeline import Bounds, Timeline
from dualtone.domain.call_files import StreamFormat
from dualtone.domain.media_record import StreamBlock
from tests.call_samples import ANSWERED_US, VECTORS, Packet, blocks, compress, packets, speech
from tests.listening import correlation

ALICE, BOB = speech("alice"), speech("bob")
S = 1_000_000
CAPTURES = sorted((VECTORS / "captures").glob("*.json.gz"))

Pcm = npt.NDArray[np.int16]


def bounds(seconds: int = 60) -> Bounds:
    return Bounds(ANSWERED_US, ANSWERED_US + seconds * S)


def laid_out(
    media: Sequence[StreamBlock],
    *,
    streams: int = 1,
    seconds: int = 60,
    formats: Sequence[StreamFormat] = (),
    gaps: dict[int, list[tuple[int, int]]] | None = None,
    fades: bool = False,
) -> tuple[Pcm, Timeline]:
    """A whole timeline: int16[streams, n]."""
    tables = {stream: PayloadTable(formats) for stream in range(streams)}
    timeline = Timeline(tables, bounds(seconds), gaps, fades=fades)
    windows = [*timeline.add(media), *timeline.finish()]
    return np.concatenate(windows, axis=1), timeline


def captured() -> list[Any]:
    """Every G.711 stream of every capture with a reference."""
    found = []
    for path in CAPTURES:
        capture = json.loads(gzip.decompress(path.read_bytes()))
        for dialog in capture["dialogs"]:
            for stream, expected in zip(dialog["streams"], dialog["expect"]["per_stream"], strict=True):
                if not expected["srtp"] and (expected.get("audio") or {}).get("sha256_timeline"):
                    name = f"{capture['name'].split('-')[0]}-{stream['label']}"
                    found.append(pytest.param(stream["rtp"], expected["audio"], id=name))
    return found


def parsed(rtp: Sequence[Sequence[Any]]) -> list[Packet]:
    """Captured packets; times are milliseconds after the ACK."""
    kept = []
    for at_ms, coded, *_ in rtp:
        data = base64.b64decode(coded)
        _, payload_type, sequence, timestamp, ssrc = struct.unpack("!BBHII", data[:12])
        arrival_us = ANSWERED_US + round(at_ms * 1000)
        kept.append(Packet(0, ssrc, sequence, timestamp, arrival_us, payload_type & 0x7F, data[12:]))
    return kept


@pytest.mark.parametrize(("rtp", "reference"), captured())
def test_captured_streams_are_laid_out_sample_for_sample(rtp: list[Any], reference: dict[str, Any]) -> None:
    """SHA-256 over the whole timeline of what a real SBC sent: hold, pause, codec change and telephone events.

    Where a stream is anchored a second time its place follows from an arrival in microseconds, rounded to samples:
    there one sample of silence more or less is allowed.
    """
    timeline, laid = laid_out(blocks(parsed(rtp)))
    samples = timeline[0].astype("<i2")
    gap = _longest_silence(samples)
    allowed = (samples, np.delete(samples, gap), np.insert(samples, gap, 0))
    found = [hashlib.sha256(each.tobytes()).hexdigest() == reference["sha256_timeline"] for each in allowed]
    assert any(found)
    assert found[0] or laid._sources[0, parsed(rtp)[0].ssrc].anchors[8000].anchored > 1


def _longest_silence(samples: Pcm) -> int:
    """Where the longest run of zero samples begins."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (samples == 0).astype(np.int8), [0]))))
    return int(edges[::2][np.argmax(edges[1::2] - edges[::2])]) if edges.size else 0


def test_captures_are_there() -> None:
    """A test without vectors proves nothing."""
    assert len(captured()) >= 10


def test_both_laws_decode_on_one_timeline() -> None:
    """What was said comes out, as exactly as G.711 can say it."""
    media = blocks([*packets(ALICE), *packets(BOB, stream=1, ssrc=2, law=Law.MU, start_us=ANSWERED_US + S)])
    timeline, laid = laid_out(media, streams=2)
    assert timeline.shape == (2, ALICE.size + 8000)
    assert correlation(timeline[0, : ALICE.size], ALICE) >= (0.999, 0.0)
    assert correlation(timeline[1, 8000:], BOB) >= (0.999, 0.0)
    assert not timeline[1, :8000].any()
    assert laid.flags == set()


@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 60])
def test_packet_times(ptime_ms: int) -> None:
    """10 to 60 ms."""
    timeline, _ = laid_out(blocks(packets(ALICE, ptime_ms=ptime_ms)))
    assert timeline.shape == (1, ALICE.size)


@given(data=st.data())
@settings(max_examples=25)
def test_loss_reordering_and_duplicates(data: st.DataObject) -> None:
    """Whatever is lost is silence, whatever comes twice or late within its record is where it belongs."""
    kept = packets(ALICE[:40_000])
    lost = data.draw(st.sets(st.integers(1, 248), max_size=60))
    doubled = data.draw(st.lists(st.integers(0, 249), max_size=20))
    survived = [kept[number] for number in range(250) if number not in lost]
    survived += [kept[number] for number in doubled if number not in lost]
    order = data.draw(st.permutations(range(len(survived))))
    timeline, _ = laid_out(blocks([survived[number] for number in order]))
    whole, _ = laid_out(blocks(kept))
    for number in lost:
        whole[0, number * 160 : number * 160 + 160] = 0
    assert np.array_equal(timeline, whole)


def test_windows_do_not_depend_on_the_length_of_the_call() -> None:
    """Ten minutes come out in windows of at most one, and are the ten minutes that went in."""
    long = np.resize(ALICE, 10 * 60 * 8000)
    timeline = Timeline({0: PayloadTable([])}, bounds(600), fades=False)
    windows: list[npt.NDArray[np.int16]] = []
    for block in blocks(packets(long)):
        windows += timeline.add([block])
    early = len(windows)
    windows += timeline.finish()
    assert early >= 9
    assert max(window.shape[1] for window in windows) <= 60 * 8000
    together, _ = laid_out(blocks(packets(long)), seconds=600)
    assert np.array_equal(np.concatenate(windows, axis=1), together)
    assert together.shape[1] == long.size


def test_an_hour_of_nothing_is_an_hour_of_silence() -> None:
    """A hold of an hour between two words, in windows of a minute."""
    later = [replace(one, arrival_us=one.arrival_us + 3600 * S) for one in packets(ALICE, timestamp=99)]
    timeline = Timeline({0: PayloadTable([])}, bounds(3700))
    windows = [*timeline.add(blocks([*packets(ALICE), *later])), *timeline.finish()]
    assert sum(window.shape[1] for window in windows) == 3600 * 8000 + ALICE.size
    assert max(window.shape[1] for window in windows) <= 60 * 8000


def test_the_timeline_begins_with_the_first_packet_of_any_stream() -> None:
    """And ends with the last; declared gaps belong to it."""
    media = blocks([*packets(ALICE[:8000], start_us=ANSWERED_US + 3 * S), *packets(BOB[:8000], stream=1, ssrc=2)])
    timeline, laid = laid_out(media, streams=2, gaps={1: [(8000, 80_000)]})
    assert laid.span == (0, 80_000)
    assert timeline.shape == (2, 80_000)


def test_comfort_noise_and_events_are_silence() -> None:
    """They lie on the timeline without covering it, and never over another source's audio."""
    kept = packets(ALICE[:16_000])
    noise = [replace(kept[50], payload_type=13, payload=b"\x40", arrival_us=ANSWERED_US + 3 * S, timestamp=0x0000_2E00)]
    event = [replace(one, ssrc=9, payload_type=101, payload=b"\5\x0a\1\0") for one in kept[10:14]]
    formats = [StreamFormat(101, "telephone-event", 8000, 1, 0)]
    timeline, laid = laid_out(blocks([*kept, *event, *noise]), formats=formats)
    whole, _ = laid_out(blocks(kept))
    assert np.array_equal(timeline[0, :16_000], whole[0])
    assert timeline.shape[1] == 3 * 8000
    assert not timeline[0, 16_000:].any()
    assert laid.flags == set()


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"payload_type": 9}, "codec_raw"),
        ({"payload_type": 99}, "payload_undeclared"),
        ({"stream": 5}, "undeclared_stream"),
        ({"arrival_us": ANSWERED_US + 10_000 * S}, "packets_outside_call"),
    ],
)
def test_what_cannot_be_heard_is_flagged(changes: dict[str, int], flag: str) -> None:
    """And changes nothing else."""
    kept = packets(ALICE[:16_000])
    strange = [replace(one, ssrc=9, **changes) for one in kept[50:60]]  # type: ignore[arg-type]
    formats = [StreamFormat(9, "G722", 8000, 1, 0)]
    timeline, laid = laid_out(blocks([*kept, *strange]), formats=formats)
    assert laid.flags == {flag}
    assert timeline.shape == (1, 16_000)


def test_no_packet_at_all() -> None:
    """Silence from answer to end, at least one frame."""
    timeline, laid = laid_out([], seconds=2)
    assert (timeline.shape, laid.flags) == ((1, 16_000), {"no_media"})
    assert laid_out([], seconds=0)[0].shape == (1, 160)


def test_legs_stay_in_time_when_one_clock_is_off() -> None:
    """A telephone whose clock is 100 ppm fast or slow stays within 40 ms of the other side for half an hour."""
    for ppm in (-100, 100):
        minutes = 30
        count = minutes * 60 * 50
        octets = compress(Law.A, np.resize(ALICE, 8000))
        media = []
        for second in range(minutes * 60):
            number = second * 50 + np.arange(50)
            media.append(
                StreamBlock(
                    stream=0,
                    ssrc=1,
                    sequence=(number % 65_536).astype(np.uint16),
                    timestamp=(number * 160).astype(np.uint32),
                    arrival_us=ANSWERED_US + (number * 20_000 * (1 + ppm / 1e6)).astype(np.int64),
                    payload_type=np.full(50, 8, np.uint8),
                    size=np.full(50, 160, np.uint16),
                    payload=octets,
                )
            )
        _, laid = laid_out(media, seconds=minutes * 60 + 10)
        expected = count * 160 * (1 + ppm / 1e6)
        assert abs(laid.span[1] - expected) <= 320


def test_two_legs_stay_together_for_an_hour() -> None:
    """Clocks 100 ppm fast and slow: what both hear at one moment is never more than 40 ms apart on the two rows.

    Each side clicks once a minute, at the same moment; its clock stamps that moment by its own time.
    """
    minutes, media = 60, []
    for stream, ppm in ((0, 100), (1, -100)):
        rate = 1 + ppm / 1e6
        samples = np.full(minutes * 60 * 8000 + 8000, 0xD5, np.uint8)
        for minute in range(minutes):
            samples[round((minute * 60 + 30) * 8000 * rate)] = 0xAA
        for second in range(minutes * 60):
            number = second * 50 + np.arange(50)
            media.append(
                StreamBlock(
                    stream=stream,
                    ssrc=stream,
                    sequence=(number % 65_536).astype(np.uint16),
                    timestamp=(number * 160).astype(np.uint32),
                    arrival_us=ANSWERED_US + (number * 20_000 / rate).astype(np.int64) + number % 7 * 1000,
                    payload_type=np.full(50, 8, np.uint8),
                    size=np.full(50, 160, np.uint16),
                    payload=samples[second * 8000 : second * 8000 + 8000],
                )
            )
    media.sort(key=lambda block: int(block.arrival_us[0]))
    heard, _ = laid_out(media, streams=2, seconds=minutes * 60 + 10)
    places = [np.flatnonzero(np.abs(row.astype(np.int64)) > 20_000) for row in heard]
    assert [place.size for place in places] == [minutes, minutes]
    apart = np.abs(places[0] - places[1])
    assert apart.max() <= 40 * 8
    true = (np.arange(minutes) * 60 + 30) * 8000
    assert max(np.abs(place - true).max() for place in places) <= 40 * 8


def test_a_border_is_soft() -> None:
    """Where a packet is missing, speech fades within 2.5 ms; two milliseconds and a half later all is as it was."""
    kept = packets(ALICE[:16_000])
    hard, _ = laid_out(blocks([*kept[:50], *kept[60:]]))
    soft, _ = laid_out(blocks([*kept[:50], *kept[60:]]), fades=True)
    changed = np.flatnonzero(hard[0] != soft[0])
    allowed = [(0, 20), (7980, 8000), (9600, 9620), (15_980, 16_000)]
    assert changed.size
    assert all(any(first <= place < last for first, last in allowed) for place in changed.tolist())
