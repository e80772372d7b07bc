"""Ports, rows and sockets: which stream is heard where, and how its packets come from socket to ring.

A stream has a port of the pool while its call lasts, and a row of the ring until its last packet has left. No clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from sbc_agent.media.clock import Moment
from sbc_agent.media.intake import Intake
from sbc_agent.media.kernel_time import KernelTime
from sbc_agent.media.receive import GROUP, Receiver
from sbc_agent.media.ring import Int64s, Ring
from sbc_agent.media.schedule import DrainGroups
from sbc_agent.media.sockets import RtpSocket
from sbc_agent.media.tones import Tones

DRAIN_EVERY_TICKS: Final = 3  # larger batches cost less; the kernel's buffers hold seconds
QUARANTINE_US: Final = 30_000_000  # a shut port listens again a little before the SIP process may hand it out
_DRAINS_IN_A_ROW: Final = 64  # about what a buffer holds; a flood must not keep a tick from ending


class Lines:
    """All lines.

    Args:
        receiver: Drains sockets.
        sockets: The pool of open ports.
        hold_back_ms: How long packets stay in the ring.
        moment: When they begin.
        relieve: Lets calls leave out of their turn, while their sockets still hold packets.
    """

    def __init__(
        self,
        receiver: Receiver,
        sockets: dict[int, RtpSocket],
        hold_back_ms: int,
        moment: Moment,
        relieve: Callable[[Iterable[str], Moment], None],
    ) -> None:
        self.ring = Ring(len(sockets), hold_back_ms)
        self.intake = Intake(len(sockets), self.ring)
        self.tones = Tones(len(sockets), self.ring)
        self._receiver, self._sockets, self._relieve = receiver, sockets, relieve
        self._kernel = KernelTime(moment.wall_offset_us, moment.now_us)
        self._groups = DrainGroups(DRAIN_EVERY_TICKS, GROUP)
        self._free_rows = list(range(len(sockets)))
        self._calls: dict[int, str] = {}
        self._busy: set[int] = set()
        self._shut: list[tuple[int, int]] = []

    @property
    def clock_steps(self) -> int:
        """How often the wall clock was seen to step."""
        return self._kernel.steps

    def have_room_for(self, ports: Sequence[int]) -> bool:
        """Whether these ports, each named once, are of the pool and free, and there are rows for them."""
        free = all(port in self._sockets and port not in self._busy for port in ports)
        return free and len(set(ports)) == len(ports) <= len(self._free_rows)

    def open(self, port: int, call: str) -> int:
        """Begins to hear a stream of a call; returns its row, which keeps nothing yet."""
        row = heapq.heappop(self._free_rows)
        self.intake.open_row(row)
        self.tones.open_row(row)
        self._calls[row] = call
        self._busy.add(port)
        self._sockets[port].reopen()
        self._groups.add(row, self._sockets[port].rtp.fileno())
        return row

    def hang_up(self, row: int, port: int, now_us: int) -> None:
        """No longer hears a stream; its port rests."""
        self.intake.close_row(row)
        self._groups.remove(row)
        self._sockets[port].shut()
        self._busy.remove(port)
        heapq.heappush(self._shut, (now_us + QUARANTINE_US, port))

    def call_of(self, row: int) -> str | None:
        """The call whose stream has a row."""
        return self._calls.get(row)

    def release(self, row: int) -> None:
        """The last packet of a stream has left: another may have its row."""
        self.ring.clear_row(row)
        self.tones.close_row(row)
        del self._calls[row]
        heapq.heappush(self._free_rows, row)

    def drain_share(self, tick: int, moment: Moment) -> None:
        """Drains a tick's share of the sockets, and lets ports listen again that have rested."""
        for rows, descriptors in self._groups.due(tick):
            self._drain(rows, descriptors, moment)
        self._kernel.advance(moment.now_us, moment.wall_offset_us)
        while self._shut and self._shut[0][0] <= moment.now_us:
            port = heapq.heappop(self._shut)[1]
            if port not in self._busy:
                self._sockets[port].reopen()

    def drain_rows(self, rows: Iterable[int], moment: Moment) -> None:
        """Drains these rows' sockets now."""
        chosen, descriptors = self._groups.of(rows)
        for begin in range(0, len(descriptors), GROUP):
            self._drain(chosen[begin : begin + GROUP], descriptors[begin : begin + GROUP], moment)

    @property
    def buffer(self) -> npt.NDArray[np.uint8]:
        """Where the receiver puts what comes, until the next comes."""
        return self._receiver.buffer

    def wipe(self) -> None:
        """Leaves nothing in buffers of what came last, or was looked at."""
        self._receiver.buffer[:] = 0
        self.tones.wipe()

    def _drain(self, rows: Int64s, descriptors: list[int], moment: Moment) -> None:
        """Drains sockets, rows ascending, until none has more; what is overdue of theirs leaves in between."""
        for _ in range(_DRAINS_IN_A_ROW):
            received = self._receiver.receive(descriptors)
            if received.offset.size:
                arrival_us = self._kernel.arrivals(received.stamp_us, moment.now_us, moment.wall_offset_us)
                self.intake.take(rows[received.member], received, arrival_us, self._receiver.buffer)
            if not received.full.size:
                return
            rows, descriptors = rows[received.full], [descriptors[index] for index in received.full]
            self._relieve(dict.fromkeys(self._calls[row] for row in rows.tolist()), moment)
