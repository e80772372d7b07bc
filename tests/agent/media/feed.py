"""Packets as a receiver hands them over, without sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sbc_agent.media.clock import FOREVER
from sbc_agent.media.intake import Intake
from sbc_agent.media.receive import MAX_PACKET_BYTES, SLOT_BYTES, Received
from sbc_agent.media.ring import Ring
from tests.agent.media.packets import packet

PEER = 0x0100_007F_1234_0002
OTHER = 0x0100_007F_4321_0002


@dataclass(frozen=True)
class Arrival:
    """A datagram at a socket: which member of the drain, bytes, sender, time."""

    member: int
    data: bytes
    stamp_us: int
    source: int = PEER


def received(arrivals: Sequence[Arrival]) -> tuple[Received, np.ndarray]:
    """What a receiver would return for these datagrams, and its buffer."""
    ordered = sorted(arrivals, key=lambda one: one.member)
    buffer = np.full((len(ordered) + 1) * SLOT_BYTES, 0xEE, np.uint8)
    offsets = np.arange(len(ordered), dtype=np.int64) * SLOT_BYTES + 4
    for offset, one in zip(offsets, ordered, strict=True):
        assert len(one.data) <= MAX_PACKET_BYTES
        buffer[offset : offset + len(one.data)] = np.frombuffer(one.data, np.uint8)
    return (
        Received(
            np.array([one.member for one in ordered], np.int64),
            offsets,
            np.array([len(one.data) for one in ordered], np.int64),
            np.array([one.source for one in ordered], np.uint64),
            np.array([one.stamp_us for one in ordered], np.int64),
            np.zeros(0, np.int64),
        ),
        buffer,
    )


@dataclass
class Line:
    """One stream of a real ring and intake, fed by hand; row 1 of 3, so that neighbours would show a stray write."""

    hold_back_ms: int = 5_000
    row: int = 1
    ring: Ring = field(init=False)
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        self.ring = Ring(3, self.hold_back_ms)
        self.intake = Intake(3, self.ring)
        self.intake.open_row(self.row)
        self.intake.explain(self.row, [(8, "PCMA"), (101, "telephone-event"), (111, "opus")])
        self.intake.keep_from_us[self.row], self.intake.keep_until_us[self.row] = 0, FOREVER

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Takes the datagrams of one drain."""
        batch, buffer = received(arrivals)
        self.intake.take(np.full(batch.offset.size, self.row), batch, batch.stamp_us, buffer)

    def send(
        self,
        sequence: int,
        payload: bytes,
        at_us: int,
        *,
        source: int = PEER,
        ssrc: int = 0x1234,
        payload_type: int = 8,
        timestamp: int | None = None,
    ) -> None:
        """Takes one RTP packet in a drain of its own."""
        data = packet(sequence, payload, ssrc=ssrc, payload_type=payload_type, timestamp=timestamp)
        self.take([Arrival(0, data, at_us, source)])

    def leave(self, cutoff_us: int) -> list[tuple[int, bytes]]:
        """Lets packets leave: sequence number and payload of each."""
        rows = np.array([self.row])
        slots, counts = self.ring.leaving(rows, cutoff_us)
        assert counts.sum() == slots.size
        offsets = self.ring.offsets(np.full(slots.size, self.row), slots)
        return [
            (int(self.ring.sequence[slot]), self.ring.bytes[offset : offset + int(self.ring.size[slot])].tobytes())
            for slot, offset in zip(slots, offsets, strict=True)
        ]

    def counted(self, name: str) -> int:
        return self.intake.counters.of(self.row)[name]
