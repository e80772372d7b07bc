"""What decoders that remember are fed: a source's packets in order, each once, and something for those that are lost.

G.722, G.729 and Opus predict each frame from those before. Their decoders run for as long as their source sends; every
octet that is fed gives a number of samples that is known beforehand. Malformed packets are not fed: they are silence.

What is lost for at most 60 ms is concealed where the codec provides for it; anything longer, and whatever a sender did
not send (comfort noise, discontinuous transmission), is silence of the exact length.

Four octets of Opus play for 120 ms, and a source may send them as fast as it likes. So of a batch no more is decoded
than twice the time over which it is spread, and a second: packets beyond that are damage. Pure.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import opus_packet
from dualtone.domain.audio.codecs import Codec, Coding
from dualtone.domain.audio.ogg_stream import OggStream

Counts = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]

LONGEST_CONCEALED_MS: Final = 60
LEAST_BEGINNING_BYTES: Final = 32
"""4 ms of G.722: no packet is so short."""

_MOST_LOST: Final = 3000
_MOST_TIMES: Final = 2
_G729_FRAME_BYTES: Final = 10
_G729_FRAME_SAMPLES: Final = 80
_G729_SID_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets of one source and one codec.

    Attributes:
        sequence: RTP sequence numbers, uint16[n].
        position: Where each begins, int64[n], samples at the codec's rate.
        size: Octets of each, int64[n].
        payload: All octets, uint8[sum(size)].
    """

    sequence: npt.NDArray[np.uint16]
    position: Counts
    size: Counts
    payload: Octets

    def each(self) -> Sequence[bytes]:
        """The payloads one by one."""
        data, ends = self.payload.tobytes(), np.cumsum(self.size).tolist()
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def chosen(self, which: npt.NDArray[np.intp]) -> Packets:
        """Some of the packets, in the order of ``which``."""
        payloads = self.each()
        joined = np.frombuffer(b"".join(payloads[place] for place in which.tolist()), np.uint8)
        return Packets(self.sequence[which], self.position[which], self.size[which], joined)


@dataclass(frozen=True, slots=True)
class Framed:
    """What is fed, and what comes out of it.

    Attributes:
        data: What the decoder reads.
        position: Where each piece of what it gives back belongs, int64[m].
        size: Samples of each piece, int64[m]; none is empty.
        end: Where the last packet ends that was well-formed, fed or silent; None before the first.
        damaged: How many packets were not well-formed.
    """

    data: bytes
    position: Counts
    size: Counts
    end: int | None
    damaged: int = 0


class Framer(Protocol):
    """Frames the packets of one source, batch by batch."""

    def frame(self, packets: Packets) -> Framed:
        """What the decoder is fed next."""


def framer(codec: Codec) -> Framer | None:
    """A framer for the packets of a new source; None if the codec's packets can be decoded one by one."""
    match codec.coding:
        case Coding.G722:
            return _G722()
        case Coding.G729:
            return _G729()
        case Coding.OPUS:
            return _Opus()
        case _:
            return None


class _Ordered:
    """Puts packets in order, across batches, and finds what is lost between them."""

    rate_hz: int

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        """Sequence number of the last packet, and where it ended."""
        self._left = 0
        """How many samples may still be decoded of a batch."""

    def frame(self, packets: Packets) -> Framed:
        position = packets.position
        spread = int(position.max() - position.min()) if position.size else 0
        self._left = _MOST_TIMES * spread + self.rate_hz
        return self._framed(self._in_order(packets))

    def _takes(self, samples: int) -> bool:
        """Whether so many more may be decoded of this batch; then they count."""
        if samples > self._left:
            return False
        self._left -= samples
        return True

    @property
    def _end(self) -> int | None:
        return None if self._last is None else self._last[1]

    @abstractmethod
    def _framed(self, packets: Packets) -> Framed: ...

    def _in_order(self, packets: Packets) -> Packets:
        order = np.argsort(packets.position, kind="stable")
        position = packets.position[order]
        first = np.concatenate(([True], position[1:] != position[:-1]))
        if self._last is not None:
            sequence, end = self._last
            steps = (packets.sequence[order].astype(np.int64) - sequence + 0x8000) % 0x10000 - 0x8000
            first &= (position >= end) | (steps > 0) | (steps < -_MOST_LOST)
        which = order[first]
        return packets if np.array_equal(which, np.arange(packets.size.size)) else packets.chosen(which)

    def _lost(self, sequence: int, position: int) -> tuple[int, int]:
        """Where what is lost before a packet begins, and how much of it is concealed: samples."""
        if self._last is None:
            return position, 0
        last, end = self._last
        is_lost = 1 < (sequence - last) % 0x10000 <= _MOST_LOST
        return end, max(0, min(position - end, LONGEST_CONCEALED_MS * self.rate_hz // 1000)) if is_lost else 0


class _G722(_Ordered):
    """ITU-T G.722 at 64 kbit/s: two samples an octet, no frames, no concealment of its own.

    A decoder is not begun with less than ``LEAST_BEGINNING_BYTES``, of which it would make nothing until more comes.
    """

    rate_hz = 16_000

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

    def _framed(self, packets: Packets) -> Framed:
        fits = np.cumsum(2 * packets.size) <= self._left
        damaged = int(np.count_nonzero(~fits))
        if damaged:
            packets = packets.chosen(np.flatnonzero(fits))
        self._begun = self._begun or packets.payload.size >= LEAST_BEGINNING_BYTES
        if not self._begun:
            nothing = np.zeros(0, np.int64)
            return Framed(b"", nothing, nothing, self._end, damaged + packets.size.size)
        if packets.size.size:
            self._last = int(packets.sequence[-1]), int(packets.position[-1] + 2 * packets.size[-1])
        return Framed(packets.payload.tobytes(), packets.position, 2 * packets.size, self._end, damaged)


class _G729(_Ordered):
    """ITU-T G.729 with annexes A and B (RFC 3551 section 4.5.6): frames of 10 octets for 10 ms.

    A frame of 2 octets, the last of its packet if there is one, describes the noise of a pause: silence. A frame of
    zeros is what a decoder takes for a lost one.
    """

    rate_hz = 8_000

    def _framed(self, packets: Packets) -> Framed:
        data, position, size, damaged = bytearray(), list[int](), list[int](), 0
        columns = packets.sequence.tolist(), packets.position.tolist(), packets.each()
        for sequence, start, payload in zip(*columns, strict=True):
            frames, rest = divmod(len(payload), _G729_FRAME_BYTES)
            if rest not in {0, _G729_SID_BYTES} or not self._takes(frames * _G729_FRAME_SAMPLES):
                damaged += 1
                continue
            lost_from, lost = self._lost(sequence, start)
            if concealed := lost // _G729_FRAME_SAMPLES:
                data += bytes(concealed * _G729_FRAME_BYTES)
                position.append(lost_from)
                size.append(concealed * _G729_FRAME_SAMPLES)
            if frames:
                data += payload[: frames * _G729_FRAME_BYTES]
                position.append(start)
                size.append(frames * _G729_FRAME_SAMPLES)
            self._last = sequence, start + (frames + bool(rest)) * _G729_FRAME_SAMPLES
        return Framed(bytes(data), np.array(position, np.int64), np.array(size, np.int64), self._end, damaged)


class _Opus(_Ordered):
    """Opus (RFC 7587) in Ogg. Packets without content are silence; a lost one becomes an empty one like the last."""

    rate_hz = 48_000

    def __init__(self) -> None:
        super().__init__()
        self._stream = OggStream()
        self._before = b""

    def _framed(self, packets: Packets) -> Framed:
        fed, position, damaged = list[tuple[bytes, int]](), list[int](), 0
        columns = packets.sequence.tolist(), packets.position.tolist(), packets.each()
        for sequence, start, packet in zip(*columns, strict=True):
            ticks = opus_packet.ticks(packet)
            is_heard = ticks is not None and not opus_packet.is_discontinuous(packet)
            if ticks is None or (is_heard and not self._takes(ticks)):
                damaged += 1
                continue
            lost_from, lost = self._lost(sequence, start)
            if lost and self._before:
                concealing, concealed = opus_packet.concealing(self._before, lost)
                if concealed:
                    fed.append((concealing, concealed))
                    position.append(lost_from)
            self._last = sequence, start + ticks
            if is_heard:
                fed.append((packet, ticks))
                position.append(start)
                self._before = packet
        size = np.array([ticks for _, ticks in fed], np.int64)
        data = self._stream.write(fed) if fed else b""
        return Framed(data, np.array(position, np.int64), size, self._end, damaged)
