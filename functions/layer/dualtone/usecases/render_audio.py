"""Render a call's audio: from packets to the Ogg pages of a two-channel recording, in bounded windows.

Packets are laid on the timeline, streams on channels, channels measured and handed to the encoder as they become
complete. Only the encoded pages stay in memory: 12 MB an hour. What was declared silent is silenced here once more,
before it is placed and before it is heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import channels, ogg
from dualtone.domain.audio.g711 import CLOCK_HZ
from dualtone.domain.audio.payloads import PayloadTable
from dualtone.domain.audio.quality import Loudness
from dualtone.domain.audio.reception import Reception
from dualtone.domain.audio.timeline import Bounds, Timeline, Window
from dualtone.domain.call_files import Manifest, StreamEntry
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.pause import Pause
from dualtone.usecases.plan_silence import MS, GapOnTimeline, Holes, SilencePlan


class Encoder(Protocol):
    """An Opus encoder at work: samples in, complete Ogg pages out."""

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        """Takes int16[n, 2]; returns the pages that are complete by now. Raises Unavailable if it fails."""

    def finish(self) -> list[bytes]:
        """Ends the stream; returns the remaining pages. Raises Unavailable if it fails."""


StartEncoder = Callable[[], AbstractContextManager[Encoder]]


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


class RenderAudio:
    """Renders calls."""

    def __init__(self, start_encoder: StartEncoder) -> None:
        """Takes what starts an encoder."""
        self._start_encoder = start_encoder

    def __call__(
        self,
        manifest: Manifest,
        call: Holes,
        parts: Iterable[Iterable[StreamBlock]],
        pauses: Sequence[Pause] = (),
    ) -> Rendering:
        """Renders one call.

        The channels of the streams are decided when the first part was read, with the roles that are known by then.

        Args:
            manifest: The agent's manifest.
            call: What the reading of the parts finds out.
            parts: The media of each part in order; read once.
            pauses: In which the whole call is silent, whatever was uploaded.

        Returns:
            The rendering.

        Raises:
            Unavailable: If the encoder fails.
        """
        bounds = Bounds(manifest.answered_at_us, manifest.ended_at_us)
        streams = heard_streams(manifest)
        plan = SilencePlan(manifest, streams, pauses)
        declared = {stream.stream: [bounds.span(*span) for span in plan.declared(stream.stream)] for stream in streams}
        timeline = Timeline({stream.stream: PayloadTable(stream.formats) for stream in streams}, bounds, declared)
        loudness = Loudness(channels.CHANNELS)
        assigned: tuple[int, ...] | None = None
        header_pages, audio_pages = bytearray(), ogg.EqualPages()
        position: int | None = None
        with self._start_encoder() as encoder:

            def keep(pages: Iterable[bytes]) -> None:
                for page in pages:
                    if ogg.is_header(page):
                        header_pages.extend(page)
                    else:
                        audio_pages.append(page)

            def play(windows: Iterable[Window]) -> None:
                nonlocal position
                for window in windows:
                    position = timeline.span[0] if position is None else position
                    plan.silence.erase(window, position)
                    position += window.shape[1]
                    stereo = channels.mix(window, assigned or ())
                    loudness.add(stereo)
                    keep(encoder.write(channels.interleave(stereo)))

            for blocks in parts:
                if assigned is None:
                    assigned = channels.assign([call.session.role(stream.label) for stream in streams])
                play(timeline.add(plan.losses.noting(plan.silence.keep(blocks))))
            assigned = assigned or channels.assign(["unknown"] * len(streams))
            for hole in (*call.holes, *call.removed):
                timeline.cover(*bounds.span(hole.from_us, hole.to_us))
            play(timeline.finish())
            keep(encoder.finish())
        first, last = timeline.span
        silenced = plan.silenced(call.removed)
        return Rendering(
            header_pages=bytes(header_pages),
            pages=audio_pages,
            started_at_us=manifest.answered_at_us + first * 1_000_000 // CLOCK_HZ,
            duration_ms=(last - first) // MS,
            channel_of={stream.stream: channel for stream, channel in zip(streams, assigned, strict=True)},
            reception=timeline.reception,
            silence_ratio=loudness.silence_ratio,
            one_sided=loudness.one_sided,
            gaps=plan.gaps(call, silenced, bounds, first),
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
