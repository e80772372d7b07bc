"""Speech in every codec that is decoded, as packets of a call, and what is played of the recording made of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from dualtone.adapters import opus_encoder, speech_decoder
from dualtone.domain import ogg_page
from dualtone.domain.audio.g711 import Law
from dualtone.domain.audio.ogg import Page, is_header
from dualtone.domain.call_files import Manifest, StreamEntry, StreamFormat
from dualtone.domain.call_session import CallSession
from dualtone.domain.pause import Pause
from dualtone.usecases.open_call import Gap
from dualtone.usecases.render_audio import RenderAudio, Rendering
from tests.call_samples import ANSWERED_US, VECTORS, AgentKey, Packet, blocks, compress, speech, upload

WIDE_HZ: Final = 16_000
G729_FRAME: Final = 10
PAYLOAD_TYPES: Final = {"PCMA": 8, "PCMU": 0, "G722": 9, "G729": 18, "OPUS": 111, "L16": 97, "CN": 13}

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Speech:
    """Coded speech: one payload a packet, empty where nothing is sent.

    Attributes:
        codec: Encoding name.
        clock_hz: Rate of its timestamps.
        payloads: In their order.
        units: By how much the timestamp grows with each.
        channels: As in SDP.
    """

    codec: str
    clock_hz: int
    payloads: Sequence[bytes] = field(repr=False)
    units: int
    channels: int = 1

    def entry(self, stream: int, label: str, *others: Speech) -> StreamEntry:
        """A stream in which this is spoken, and others."""
        formats = [
            StreamFormat(PAYLOAD_TYPES[one.codec], one.codec, one.clock_hz, one.channels, ANSWERED_US)
            for one in (self, *others)
        ]
        return StreamEntry(stream, label, formats)

    def packets(
        self,
        *,
        stream: int = 0,
        ssrc: int = 0x1234,
        first: int = 0,
        end: int | None = None,
        start_us: int = ANSWERED_US,
        sequence: int = 65_000,
        timestamp: int = 0xFFFF_0000,
    ) -> list[Packet]:
        """Packets as they arrive, from the ``first`` payload on; numbers and timestamps are those of payload 0."""
        packets, sent = [], 0
        for place, payload in enumerate(self.payloads[:end]):
            if not payload:
                continue
            if place >= first:
                packets.append(
                    Packet(
                        stream,
                        ssrc,
                        (sequence + sent) % 0x10000,
                        (timestamp + place * self.units) % 0x1_0000_0000,
                        start_us + place * self.units * 1_000_000 // self.clock_hz,
                        PAYLOAD_TYPES[self.codec],
                        payload,
                    )
                )
            sent += 1
        return packets


@cache
def wide(name: str) -> Pcm:
    """12 seconds at 16 kHz that fill 8 kHz of bandwidth: telephone speech, and its mirror image above it."""
    samples = _ffmpeg(
        speech(name).astype("<i2").tobytes(), "-ar", "8000", "-ac", "1", to=("-ar", "16000", "-f", "s16le")
    )
    narrow = np.frombuffer(samples, "<i2").astype(np.float64)
    image = narrow * np.where(np.arange(narrow.size) % 2, -1, 1)
    return np.clip(np.rint(0.9 * narrow + 0.1 * image), -32768, 32767).astype(np.int16)


def g711(name: str, ptime_ms: int = 20) -> Speech:
    """PCMA."""
    return Speech("PCMA", 8000, _cut(compress(Law.A, speech(name)).tobytes(), 8 * ptime_ms), 8 * ptime_ms)


def g722(name: str, ptime_ms: int = 20) -> Speech:
    """G.722 by ffmpeg."""
    coded = _ffmpeg(wide(name).astype("<i2").tobytes(), "-ar", "16000", "-ac", "1", to=("-c:a", "g722", "-f", "g722"))
    return Speech("G722", 8000, _cut(coded, 8 * ptime_ms), 8 * ptime_ms)


def g729(name: str, frames: int = 2) -> Speech:
    """G.729 from the vectors; Bob's with silence descriptors, each of which ends its packet."""
    data, at, coded = (VECTORS / "g729" / f"{name}.bits").read_bytes(), 0, []
    while at < len(data):
        coded.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    payloads = []
    for at in range(0, len(coded), frames):
        together = coded[at : at + frames]
        spoken = next((place for place, frame in enumerate(together) if len(frame) < G729_FRAME), frames)
        payloads.append(b"".join(together[: spoken + 1]))
    return Speech("G729", 8000, payloads, 80 * frames)


def opus(name: str, *, channels: int = 1, ptime_ms: int = 20, dtx: bool = False, application: str = "audio") -> Speech:
    """Opus by ffmpeg's libopus at 40 kbit/s; with ``dtx`` what is sent without content is not sent at all."""
    samples = np.repeat(wide(name)[:, np.newaxis], channels, axis=1)
    words: tuple[str, ...] = (
        "-c:a",
        "libopus",
        "-b:a",
        "40000",
        "-application",
        application,
        "-frame_duration",
        str(ptime_ms),
    )
    words += ("-dtx", "1") if dtx else ()
    coded = _ffmpeg(samples.astype("<i2").tobytes(), "-ar", "16000", "-ac", str(channels), to=(*words, "-f", "ogg"))
    pages = [page for page in ogg_page.split_pages(coded) if not is_header(page)]
    payloads = [packet for page in pages for packet in Page.parse(page).packets()]
    sent = [b"" if dtx and len(packet) <= 2 else packet for packet in payloads]
    return Speech("OPUS", 48_000, sent, 48 * ptime_ms, 2)


def linear(name: str, rate_hz: int, *, channels: int = 1, ptime_ms: int = 20) -> Speech:
    """L16."""
    samples = _ffmpeg(
        wide(name).astype("<i2").tobytes(), "-ar", "16000", "-ac", "1", to=("-ar", str(rate_hz), "-f", "s16be")
    )
    frames = np.repeat(np.frombuffer(samples, ">i2")[:, np.newaxis], channels, axis=1).tobytes()
    units = rate_hz * ptime_ms // 1000
    return Speech("L16", rate_hz, _cut(frames, 2 * channels * units), units, channels)


@dataclass
class Reading:
    """What the reading of a call's parts found out: nothing."""

    session: CallSession = field(default_factory=CallSession)
    holes: list[Gap] = field(default_factory=list)
    removed: list[Gap] = field(default_factory=list)


def manifest(media: Iterable[Packet], streams: Sequence[StreamEntry], **changes: Any) -> Manifest:
    """What the agent says of a call."""
    made = upload(blocks(media), key=AgentKey(), wrap=lambda key: key, streams=streams, **changes).manifest
    assert made is not None
    return made


@dataclass
class Tape:
    """An encoder that keeps what it is given."""

    rate_hz: int = 0
    windows: list[Pcm] = field(default_factory=list)

    def write(self, samples: Pcm) -> list[bytes]:
        """Takes samples."""
        self.windows.append(samples.copy())
        return []

    def finish(self) -> list[bytes]:
        """Nothing is encoded."""
        return []

    @contextmanager
    def started(self, rate_hz: int) -> Iterator[Tape]:
        """Begins anew."""
        self.rate_hz, self.windows = rate_hz, []
        yield self


def laid_out(
    media: Sequence[Packet], streams: Sequence[StreamEntry], *, wideband: bool = False, **changes: Any
) -> tuple[Pcm, int, Rendering]:
    """What the encoder is given of a call: int16[2, n], samples a second, and the rendering."""
    tape = Tape()
    render = RenderAudio(tape.started, speech_decoder.start)
    rendering = render(
        manifest(media, streams, **changes), Reading(), [[one] for one in blocks(media)], wideband=wideband
    )
    assert rendering is not None
    return np.concatenate(tape.windows).T, tape.rate_hz, rendering


def rendered(
    media: Sequence[Packet], streams: Sequence[StreamEntry], *, pauses: Sequence[Pause] = (), **changes: Any
) -> Rendering:
    """A call by the real encoder and decoders, a second time if it turned out wideband."""
    render, said = RenderAudio(opus_encoder.started, speech_decoder.start), manifest(media, streams, **changes)
    parts = [[one] for one in blocks(media)]
    rendering = render(said, Reading(), parts, pauses) or render(said, Reading(), parts, pauses, wideband=True)
    assert rendering is not None
    return rendering


def played(rendering: Rendering, rate_hz: int = WIDE_HZ) -> Pcm:
    """What is heard of a recording: int16[2, n]."""
    return played_file(rendering.header_pages + b"".join(rendering.pages), rate_hz)


def played_file(ogg: bytes, rate_hz: int = WIDE_HZ) -> Pcm:
    """What is heard of an Ogg file of two channels: int16[2, n]."""
    heard = _ffmpeg(ogg, to=("-f", "s16le", "-ar", str(rate_hz), "-ac", "2"))
    return np.frombuffer(heard, "<i2").reshape(-1, 2).T


def narrow(samples: Pcm) -> Pcm:
    """16 kHz as a telephone hears it, still at 16 kHz."""
    lower = _ffmpeg(samples.astype("<i2").tobytes(), "-ar", "16000", "-ac", "1", to=("-ar", "8000", "-f", "s16le"))
    return np.frombuffer(_ffmpeg(lower, "-ar", "8000", "-ac", "1", to=("-ar", "16000", "-f", "s16le")), "<i2")


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _ffmpeg(data: bytes, *source: str, to: Sequence[str]) -> bytes:
    shape = ["-f", "s16le", *source] if source else []
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-nostdin", *shape, "-i", "pipe:0", *to, "pipe:1"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
