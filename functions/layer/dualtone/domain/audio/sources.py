"""One RTP source of a call: its packets, placed and decoded minute by minute. Pure.

A source is what one SSRC sends in one stream. Formats whose timestamps count at different rates are anchored each on
its own (RFC 7160 section 4.1); those of one rate, such as G.711 and G.722, go on from one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio.codecs import Codec
from dualtone.domain.audio.decoding import Decoded, Decoders
from dualtone.domain.audio.framing import Packets
from dualtone.domain.audio.payloads import FIRST_CODEC, RAW, UNDECLARED, Kinds, PayloadTable
from dualtone.domain.audio.placement import Anchor, Positions
from dualtone.domain.audio.positions import TICKS_HZ, US_PER_TICK
from dualtone.domain.audio.reception import Reception
from dualtone.domain.media_record import StreamBlock


@dataclass(frozen=True, slots=True)
class Run:
    """Decoded packets of one codec; their positions are samples at its rate since the call was answered."""

    codec: Codec
    decoded: Decoded


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a source's packets.

    Attributes:
        runs: What can be heard.
        span: Ticks that the timeline must reach over for them; None if none is of a declared type.
        flags: What a reader of the recording should know.
    """

    runs: Sequence[Run]
    span: tuple[int, int] | None
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Packets that are decoded together, column by column."""

    arrival_us: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.uint32]
    sequence: npt.NDArray[np.uint16]
    kinds: Kinds
    size: npt.NDArray[np.int64]
    payload: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, blocks: Sequence[StreamBlock], table: PayloadTable) -> _Batch:
        arrival_us = np.concatenate([block.arrival_us for block in blocks])
        return cls(
            arrival_us,
            np.concatenate([block.timestamp for block in blocks]),
            np.concatenate([block.sequence for block in blocks]),
            table.kinds(np.concatenate([block.payload_type for block in blocks]), arrival_us),
            np.concatenate([block.size for block in blocks]).astype(np.int64),
            np.concatenate([block.payload for block in blocks]),
        )

    def only(self, which: npt.NDArray[np.bool_]) -> _Batch:
        if which.all():
            return self
        return _Batch(
            self.arrival_us[which],
            self.timestamp[which],
            self.sequence[which],
            self.kinds[which],
            self.size[which],
            self.payload[np.repeat(which, self.size)],
        )


class Source:
    """One source.

    Attributes:
        anchors: How timestamps become positions, by their rate.
    """

    def __init__(
        self, name: tuple[int, int], origin_us: int, table: PayloadTable, reception: Reception, decoders: Decoders
    ) -> None:
        """Begins a source.

        Args:
            name: Index of its stream, and its SSRC.
            origin_us: Position 0, microseconds of Unix time.
            table: The stream's payload types.
            reception: Counts the stream's packets.
            decoders: Decode them.
        """
        self._name = name
        self._origin_us = origin_us
        self._table = table
        self._reception = reception
        self._decoders = decoders
        self._waiting: list[StreamBlock] = []
        self.anchors: dict[int, Anchor] = {}

    def add(self, block: StreamBlock) -> None:
        """Takes packets, whose second of look-ahead is still to come."""
        self._waiting.append(block)

    def settle(self, until_us: int) -> Heard | None:
        """Places and decodes the packets that arrived before a moment; None if there are none.

        Raises:
            Unavailable: If a decoder fails.
        """
        due = list(takewhile(lambda block: int(block.arrival_us[-1]) < until_us, self._waiting))
        del self._waiting[: len(due)]
        return self._heard(_Batch.of(due, self._table)) if due else None

    def _heard(self, batch: _Batch) -> Heard:
        ticks = (batch.arrival_us - self._origin_us) // US_PER_TICK
        codecs = self._audible(batch.kinds)
        runs: list[Run] = []
        for clock_hz in dict.fromkeys(codec.clock_hz for codec in codecs.values()):
            kinds = [kind for kind, codec in codecs.items() if codec.clock_hz == clock_hz]
            which = np.isin(batch.kinds, kinds) & (batch.size > 0)
            if which.any():
                ticks[which], heard = self._placed(batch.only(which), clock_hz, codecs)
                runs += heard
        self._reception.sequence(self._name[1], batch.sequence, ticks)
        damaged = sum(run.decoded.damaged for run in runs)
        self._reception.damaged += damaged
        declared = ticks[batch.kinds != UNDECLARED]
        ends = [-(-run.decoded.end * TICKS_HZ // run.codec.rate_hz) for run in runs if run.decoded.end is not None]
        flags = {
            "codec_raw": any(kind >= RAW and kind not in codecs for kind in np.unique(batch.kinds).tolist()),
            "payload_undeclared": declared.size < ticks.size,
            "payload_damaged": damaged > 0,
        }
        return Heard(
            runs,
            (int(declared.min()), max([int(declared.max()), *ends])) if declared.size else None,
            frozenset(flag for flag, holds in flags.items() if holds),
        )

    def _audible(self, kinds: Kinds) -> dict[int, Codec]:
        """The codecs among some packets that can be decoded."""
        codecs = {kind: self._table.codec(kind) for kind in np.unique(kinds).tolist() if kind >= FIRST_CODEC}
        return {kind: codec for kind, codec in codecs.items() if self._decoders.can_decode(self._name, codec)}

    def _placed(self, batch: _Batch, clock_hz: int, codecs: Mapping[int, Codec]) -> tuple[Positions, list[Run]]:
        """Places and decodes packets of one clock: where each begins in ticks, and what is heard."""
        anchor = self.anchors.setdefault(clock_hz, Anchor(clock_hz))
        arrival = (batch.arrival_us - self._origin_us) * clock_hz // 1_000_000
        position = anchor.place(batch.timestamp, arrival)
        late = arrival - position
        self._reception.jitter(self._name[1], late * TICKS_HZ // clock_hz)
        runs = []
        for kind in np.unique(batch.kinds).tolist():
            codec, which = codecs[kind], batch.kinds == kind
            chosen = batch.only(which)
            at = position[which] * codec.rate_hz // clock_hz
            packets = Packets(chosen.sequence, at, chosen.size, chosen.payload)
            runs.append(Run(codec, self._decoders.decode(self._name, codec, packets)))
        if slip := anchor.drift(late):
            after = _quietest(runs)
            runs = [_moved(run, after, slip) for run in runs]
            position = position + slip * (position > after)
            anchor.slip(slip)
        return position * TICKS_HZ // clock_hz, runs


def _quietest(runs: Sequence[Run]) -> int:
    """Where the quietest packet begins, in units of the clock."""
    found = []
    for codec, decoded in ((run.codec, run.decoded) for run in runs if run.decoded.size.size):
        starts = np.concatenate(([0], np.cumsum(decoded.size)[:-1]))
        loudness = np.add.reduceat(np.abs(decoded.samples.astype(np.int32)), starts) / decoded.size
        place = int(np.argmin(loudness))
        found.append((float(loudness[place]), int(decoded.position[place]) * codec.clock_hz // codec.rate_hz))
    return min(found, default=(0.0, 0))[1]


def _moved(run: Run, after: int, slip: int) -> Run:
    """A run of which what lies after a place is moved; both in units of the clock."""
    rate_hz, clock_hz, position = run.codec.rate_hz, run.codec.clock_hz, run.decoded.position
    step = slip * rate_hz // clock_hz
    moved = position + step * (position > after * rate_hz // clock_hz)
    end = None if run.decoded.end is None else run.decoded.end + step
    return Run(run.codec, replace(run.decoded, position=moved, end=end))
