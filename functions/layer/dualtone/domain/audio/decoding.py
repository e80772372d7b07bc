"""From packets to samples, whatever the codec: by table, by reordering octets, or by a decoder that remembers. Pure.

A decoder that remembers is a process behind a port; one is kept for each source and codec, so that its memory is that
of its source alone. No more than ``MOST_DECODERS`` run at once: a source that was quiet for longest gives way, and
begins afresh when it comes back. No more than ``MOST_STARTS`` are started for a call: who changes the SSRC with every
packet gains no more than that what comes later is kept raw.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import framing, g711
from dualtone.domain.audio.codecs import Codec, Coding
from dualtone.domain.audio.framing import Counts, Framer, Packets
from dualtone.domain.audio.g711 import Law

Samples = npt.NDArray[np.int16]

MOST_DECODERS: Final = 8
MOST_STARTS: Final = 2_000
"""A start takes some 35 ms: all of them together a part of the time in which a call is finalised."""

_LAWS: Final = {Coding.PCMA: Law.A, Coding.PCMU: Law.MU}
_STATELESS: Final = frozenset({*_LAWS, Coding.L16})


class Decoder(Protocol):
    """A decoder at work on one source: what is fed goes in, all that comes of it goes out."""

    def decode(self, data: bytes, samples: int) -> Samples:
        """Feeds octets; returns int16[samples], the next that they make. Raises Unavailable if it fails."""

    def close(self) -> None:
        """Ends it, whatever state it is in."""


StartDecoder = Callable[[Codec], Decoder]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Samples with their places.

    Attributes:
        position: Where each piece begins, int64[m], samples at the codec's rate.
        size: Samples of each piece, int64[m].
        samples: All pieces one after another, int16[sum(size)].
        end: Where the last packet ends, whether it is heard or silent; None if none was well-formed.
        damaged: How many packets were not well-formed, and are not among them.
    """

    position: Counts
    size: Counts
    samples: Samples
    end: int | None
    damaged: int = 0


class Decoders:
    """Decodes the sources of a call."""

    def __init__(self, start: StartDecoder | None) -> None:
        """Takes what starts a decoder; without it only what needs none can be decoded."""
        self._start = start
        self._running: dict[Hashable, tuple[Framer, Decoder]] = {}
        self._starts_left = MOST_STARTS

    def can_decode(self, source: Hashable, codec: Codec) -> bool:
        """Whether a source's packets of a codec can be decoded here."""
        if codec.coding in _STATELESS:
            return True
        return self._start is not None and ((source, codec) in self._running or self._starts_left > 0)

    def decode(self, source: Hashable, codec: Codec, packets: Packets) -> Decoded:
        """Decodes the next packets of a source.

        Args:
            source: Whose they are.
            codec: What codes them.
            packets: At least one, all with octets.

        Raises:
            Unavailable: If a decoder fails.
        """
        if codec.coding in _LAWS:
            samples = g711.decode(_LAWS[codec.coding], packets.payload)
            return Decoded(packets.position, packets.size, samples, int((packets.position + packets.size).max()))
        if codec.coding is Coding.L16:
            return _linear(packets, codec.channels)
        framer, decoder = self._of((source, codec), codec)
        framed = framer.frame(packets)
        samples = decoder.decode(framed.data, int(framed.size.sum()))
        return Decoded(framed.position, framed.size, samples, framed.end, framed.damaged)

    def close(self) -> None:
        """Ends all decoders."""
        while self._running:
            _, (_, decoder) = self._running.popitem()
            decoder.close()

    def _of(self, source: Hashable, codec: Codec) -> tuple[Framer, Decoder]:
        running = self._running.pop(source, None)
        if running is None:
            if len(self._running) >= MOST_DECODERS:
                _, oldest = self._running.pop(next(iter(self._running)))
                oldest.close()
            framer = framing.framer(codec)
            assert framer is not None
            assert self._start is not None
            self._starts_left -= 1
            running = framer, self._start(codec)
        self._running[source] = running
        return running


def _linear(packets: Packets, channels: int) -> Decoded:
    """L16 (RFC 3551 section 4.5.11): 16 bits, most significant octet first, channels interleaved: their mean."""
    whole = packets.size % (2 * channels) == 0
    damaged = int(np.count_nonzero(~whole))
    if damaged:
        packets = packets.chosen(np.flatnonzero(whole))
    samples = packets.payload.view(">i2").astype(np.int16)
    if channels > 1:
        samples = np.rint(samples.reshape(-1, channels).mean(axis=1)).astype(np.int16)
    size = packets.size // (2 * channels)
    end = int((packets.position + size).max()) if size.size else None
    return Decoded(packets.position, size, samples, end, damaged)
