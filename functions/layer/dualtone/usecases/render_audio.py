"""Render a call's audio: from packets to the Ogg pages of a two-channel recording, in bounded windows.

Packets are laid on the timeline, streams on channels, channels measured and handed to the encoder as they become
complete. Only the encoded pages stay in memory: 12 MB an hour. What was declared silent is silenced here once more,
before it is placed and before it is heard.

A call in which nothing has more than a telephone's bandwidth is rendered at 8 kHz, any other at 16 kHz. Which it is
shows in the packets, not in what was negotiated: SBCs offer far more than a call uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import channels, ogg
from dualtone.domain.audio.codecs import WIDEBAND_HZ
from dualtone.domain.audio.decoding import Decoders, StartDecoder
from dualtone.domain.audio.payloads import PayloadTable
from dualtone.domain.audio.positions import TICKS_HZ, TICKS_PER_MS, US_PER_TICK
from dualtone.domain.audio.quality import Loudness
from dualtone.domain.audio.reception import Reception
from dualtone.domain.audio.timeline import Bounds, Timeline, Window
from dualtone.domain.audio.tone_silence import ToneSilence
from dualtone.domain.call_files import Manifest, StreamEntry
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.pause import Pause
from dualtone.usecases.plan_silence import GapOnTimeline, Holes, SilencePlan


class Encoder(Protocol):
    """An Opus encoder at work: samples in, complete Ogg pages out."""

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        """Takes int16[n, 2]; returns the pages that are complete by now. Raises Unavailable if it fails."""

    def finish(self) -> list[bytes]:
        """Ends the stream; returns the remaining pages. Raises Unavailable if it fails."""


StartEncoder = Callable[[int], AbstractContextManager[Encoder]]
"""Starts an encoder for samples of a rate: 8,000 or 16,000 a second."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A recording's audio and what was measured on the way.

    Attributes:
        header_pages: OpusHead and OpusTags.
        pages: One page a second, all of one size.
        started_at_us: Where the timeline begins, Unix time.
        duration_ms: How long it is.
        channel_of: Channel of each stream that is heard.
        reception: How each of those streams arrived.
        silence_ratio: Of each channel.
        one_sided: Of each channel.
        gaps: What is silent on purpose or by damage.
        pauses: The pauses that it was rendered with, and how each became silent.
        flags: What a reader should know.
    """

    header_pages: bytes = field(repr=False)
    pages: Sequence[bytes] = field(repr=False)
    started_at_us: int
    duration_ms: int
    channel_of: dict[int, int]
    reception: dict[int, Reception]
    silence_ratio: tuple[float, ...]
    one_sided: tuple[bool, ...]
    gaps: tuple[GapOnTimeline, ...]
    pauses: tuple[Pause, ...]
    flags: frozenset[str]


class _Recorder:
    """What becomes of the windows: silenced, mixed, measured, encoded."""

    def __init__(self, encoder: Encoder, timeline: Timeline, plan: SilencePlan) -> None:
        self._encoder = encoder
        self._rate_hz = timeline.rate_hz
        self._plan = plan
        self._position = timeline.span[0]
        rows = [row for row, codings in enumerate(timeline.codings.values()) if plan.has_tones(codings)]
        self.tones = ToneSilence(rows, self._rate_hz, [span for span, _ in plan.tones]) if rows else None
        self.loudness = Loudness(channels.CHANNELS, self._rate_hz)
        self.header_pages = bytearray()
        self.pages = ogg.EqualPages(least_bytes=ogg.LEAST_PAGE_BYTES[self._rate_hz])

    def play(self, window: Window, channel_of: Sequence[int]) -> None:
        self._plan.silence.erase(window, self._position, self._rate_hz)
        complete = window if self.tones is None else self.tones.add(window, self._position)[0]
        self._position += window.shape[1] * TICKS_HZ // self._rate_hz
        self._encode(complete, channel_of)

    def finish(self, channel_of: Sequence[int]) -> None:
        if self.tones is not None:
            self._encode(self.tones.finish()[0], channel_of)
        self._keep(self._encoder.finish())

    def _encode(self, window: Window, channel_of: Sequence[int]) -> None:
        stereo = channels.mix(window, channel_of)
        self.loudness.add(stereo)
        self._keep(self._encoder.write(channels.interleave(stereo)))

    def _keep(self, pages: Iterable[bytes]) -> None:
        for page in pages:
            if ogg.is_header(page):
                self.header_pages.extend(page)
            else:
                self.pages.append(page)


class RenderAudio:
    """Renders calls."""

    def __init__(self, start_encoder: StartEncoder, start_decoder: StartDecoder) -> None:
        """Takes what starts an encoder and a decoder."""
        self._start_encoder = start_encoder
        self._start_decoder = start_decoder

    def __call__(
        self,
        manifest: Manifest,
        call: Holes,
        parts: Iterable[Iterable[StreamBlock]],
        pauses: Sequence[Pause] = (),
        *,
        wideband: bool = False,
    ) -> Rendering | None:
        """Renders one call.

        The channels of the streams are decided when the first part was read, with the roles that are known by then.

        Args:
            manifest: The agent's manifest.
            call: What the reading of the parts finds out.
            parts: The media of each part in order; read once.
            pauses: In which the whole call is silent, whatever was uploaded.
            wideband: Whether it is wideband from the beginning, whatever is heard there.

        Returns:
            The rendering. None if a stream of more bandwidth was heard first when the recording had begun narrow: the
            call should be rendered again, as wideband.

        Raises:
            Unavailable: If the encoder or a decoder fails.
        """
        bounds = Bounds(manifest.answered_at_us, manifest.ended_at_us)
        streams = heard_streams(manifest)
        plan = SilencePlan(manifest, streams, pauses)
        assigned: tuple[int, ...] | None = None
        recorder: _Recorder | None = None
        with ExitStack() as running:
            timeline = Timeline(
                {stream.stream: PayloadTable(stream.formats) for stream in streams},
                bounds,
                {stream.stream: [bounds.span(*span) for span in plan.declared(stream.stream)] for stream in streams},
                decoders=running.enter_context(closing(Decoders(self._start_decoder))),
                rate_hz=WIDEBAND_HZ if wideband else None,
                silent=plan.silence.positions(),
            )

            def play(windows: Iterable[Window]) -> None:
                nonlocal recorder
                for window in windows:
                    if recorder is None:
                        encoder = running.enter_context(self._start_encoder(timeline.rate_hz))
                        recorder = _Recorder(encoder, timeline, plan)
                    recorder.play(window, assigned or ())

            for blocks in parts:
                if assigned is None:
                    assigned = channels.assign([call.session.role(stream.label) for stream in streams])
                play(timeline.add(plan.losses.noting(plan.silence.keep(blocks))))
                if timeline.is_narrowed:
                    return None
            assigned = assigned or channels.assign(["unknown"] * len(streams))
            for hole in (*call.holes, *call.removed):
                timeline.cover(*bounds.span(hole.from_us, hole.to_us))
            play(timeline.finish())
            if timeline.is_narrowed:
                return None
            assert recorder is not None
            recorder.finish(assigned)
        first, last = timeline.span
        silenced = plan.silenced(call.removed)
        found = recorder.tones.found if recorder.tones else {}
        toned = {streams[row].stream: spans for row, spans in found.items()}
        return Rendering(
            header_pages=bytes(recorder.header_pages),
            pages=recorder.pages,
            started_at_us=manifest.answered_at_us + first * US_PER_TICK,
            duration_ms=(last - first) // TICKS_PER_MS,
            channel_of={stream.stream: channel for stream, channel in zip(streams, assigned, strict=True)},
            reception=timeline.reception,
            silence_ratio=recorder.loudness.silence_ratio,
            one_sided=recorder.loudness.one_sided,
            gaps=plan.gaps(call, silenced, bounds, first, toned),
            pauses=silenced,
            flags=frozenset(timeline.flags | _shape(len(streams)) | plan.flags),
        )


def heard_streams(manifest: Manifest) -> list[StreamEntry]:
    """The streams that make up the audio: both of an ordinary call; of more, those that received packets."""
    received = {counts.stream for counts in manifest.statistics if counts.received}
    if len(manifest.streams) <= channels.CHANNELS or not received:
        return list(manifest.streams)
    return [stream for stream in manifest.streams if stream.stream in received]


def _shape(heard: int) -> set[str]:
    if heard > channels.CHANNELS:
        return {"mixed_streams"}
    return {"single_stream"} if heard == 1 else set()
