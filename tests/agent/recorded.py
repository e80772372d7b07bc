"""Recorded datagrams with their timestamps, played into the engine as a receiver hands them over, under a fake clock.

Every port plays the same recording from a moment of its own, round after round: sequence numbers and RTP timestamps go
on. An hour of many calls passes as fast as the engine takes it.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sbc_agent.media.receive import DEPTH, SLOT_BYTES, Received
from sbc_agent.media.sockets import RtpSocket
from tests.agent.media.feed import PEER

CAPTURE: Final = Path(__file__).parents[1] / "vectors/captures/01-basic-udp-rtpengine.siprec.json.gz"
PACKET_US: Final = 20_000
_NEVER_US: Final = 1 << 60
_ALIGNED: Final = 4


@dataclass(frozen=True)
class Recording:
    """Datagrams of one stream, all of one size.

    Attributes:
        data: uint8[n, bytes].
        at_us: Arrival after the first packet's beginning, int64[n].
    """

    data: npt.NDArray[np.uint8]
    at_us: npt.NDArray[np.int64]

    @property
    def round_us(self) -> int:
        """How long a round of it lasts."""
        return len(self.at_us) * PACKET_US

    def due(self, passed_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many datagrams have come when so much time has passed."""
        rounds, rest = np.divmod(np.maximum(passed_us, 0), self.round_us)
        due: npt.NDArray[np.int64] = rounds * len(self.at_us) + np.searchsorted(self.at_us, rest, "left")
        return np.where(passed_us > 0, due, 0)


def recording() -> Recording:
    """The first stream of a real SBC's call."""
    stream = json.loads(gzip.decompress(CAPTURE.read_bytes()))["dialogs"][0]["streams"][0]["rtp"]
    packets = [base64.b64decode(packet[1]) for packet in stream]
    usual = max(map(len, packets))
    whole = [packet for packet in packets if len(packet) == usual]
    times = np.array([packet[0] for packet in stream if len(base64.b64decode(packet[1])) == usual])
    at_us = np.round((times - times[0]) * 1_000).astype(np.int64)
    data = np.frombuffer(b"".join(whole), np.uint8).reshape(len(whole), usual)
    return Recording(data.copy(), np.minimum(np.maximum.accumulate(at_us), len(whole) * PACKET_US - 1))


class RecordedPort:
    """Stands for a port pair."""

    def __init__(self, port: int, index: int, ports: RecordedPorts) -> None:
        self.port, self._index, self._ports = port, index, ports

    @property
    def rtp(self) -> RecordedPort:
        return self

    def fileno(self) -> int:
        return self._index

    def shut(self) -> None:
        self._ports.shut(self._index)

    def reopen(self) -> None:
        pass


class RecordedPorts:
    """Ports at which recorded streams arrive; a ``Receiver`` over them."""

    def __init__(self, count: int, recorded: Recording) -> None:
        self.now_us = 0
        self.buffer: npt.NDArray[np.uint8] = np.zeros(SLOT_BYTES, np.uint8)
        self._recorded = recorded
        self._since_us = np.full(count, _NEVER_US, np.int64)
        self._taken = np.zeros(count, np.int64)
        self._most = np.full(count, _NEVER_US, np.int64)
        self.by_port: dict[int, RtpSocket] = {
            20_000 + 2 * index: RecordedPort(20_000 + 2 * index, index, self)  # type: ignore[misc] # stands for one
            for index in range(count)
        }

    def play(self, index: int, from_us: int) -> None:
        """A stream begins to arrive at a port."""
        self._since_us[index], self._taken[index], self._most[index] = from_us, 0, _NEVER_US

    def stop(self, index: int) -> int:
        """No more will come than have by now; returns how many those are."""
        self._most[index] = self._recorded.due(self.now_us - self._since_us[index : index + 1])[0]
        return int(self._most[index])

    def shut(self, index: int) -> None:
        """What lies in the sockets is thrown away, and nothing comes in."""
        self._since_us[index] = _NEVER_US

    def receive(self, descriptors: Sequence[int]) -> Received:
        """What lies in the sockets, at most ``DEPTH`` of each."""
        index = np.array(descriptors, np.int64)
        due = np.minimum(self._recorded.due(self.now_us - self._since_us[index]), self._most[index])
        waiting = np.maximum(due - self._taken[index], 0)
        counts = np.minimum(waiting, DEPTH)
        total = int(counts.sum())
        member = np.repeat(np.arange(index.size), counts)
        number = self._taken[index][member] + np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        self._taken[index] += counts
        rounds, place = np.divmod(number, len(self._recorded.at_us))
        self.buffer = np.zeros((total + 1) * SLOT_BYTES, np.uint8)
        slots = self.buffer.reshape(total + 1, SLOT_BYTES)[:total]
        size = self._recorded.data.shape[1]
        slots[:, _ALIGNED : _ALIGNED + size] = self._recorded.data[place]
        samples = number * (PACKET_US * 8 // 1000)
        slots[:, _ALIGNED + 2 : _ALIGNED + 4] = (number & 0xFFFF).astype(">u2").view(np.uint8).reshape(total, 2)
        slots[:, _ALIGNED + 4 : _ALIGNED + 8] = (samples & 0xFFFFFFFF).astype(">u4").view(np.uint8).reshape(total, 4)
        at_us = self._since_us[index][member] + rounds * self._recorded.round_us + self._recorded.at_us[place]
        return Received(
            member,
            np.arange(total, dtype=np.int64) * SLOT_BYTES + _ALIGNED,
            np.full(total, size, np.int64),
            np.full(total, PEER, np.uint64),
            at_us,
            np.flatnonzero(waiting > DEPTH),
        )
