"""Whose packets a stream takes: the source is learned from the first one, then locked.

SBCs move: source ports change after hold and resume, often without a new SSRC, and the media's source need not be the
signalling peer. An attacker who sends to a port must still not get a word in. So another source takes over only

1. after a re-INVITE, within ``RELEARN_US``: the peer said that something would change;
2. when the locked source has been silent for ``SILENCE_US``;
3. or after ``PROBATION`` packets without one from the locked source in between (RFC 3550 appendix A.1), nor for
   ``PROBATION_US``, so that sending fast gains nothing; they are kept meanwhile, and none is lost.

Pure; times are microseconds of the agent's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

RELEARN_US: Final = 5_000_000
SILENCE_US: Final = 1_000_000
PROBATION: Final = 5
PROBATION_US: Final = 200_000  # more than three of the longest packet times that are used

_P = TypeVar("_P")


@dataclass(slots=True)
class SourceLock(Generic[_P]):
    """The lock of one stream.

    Attributes:
        source: Locked address and port as one number, 0 before the first packet.
        relearn_until_us: Until when another source is believed at once.
        candidate: The source on probation.
        waiting: Its packets with their arrival times.
    """

    source: int = 0
    relearn_until_us: int = 0
    candidate: int = 0
    waiting: list[tuple[int, _P]] = field(default_factory=list)

    def expect_change(self, now_us: int) -> None:
        """A re-INVITE was answered."""
        self.relearn_until_us = now_us + RELEARN_US

    def believes(self, source: int, arrival_us: int, last_us: int) -> bool:
        """Whether a source other than the locked one takes over with this packet.

        Args:
            source: The packet's sender.
            arrival_us: Its arrival.
            last_us: Arrival of the locked source's last packet; it may be later.
        """
        if not self.source or arrival_us <= self.relearn_until_us or arrival_us - last_us >= SILENCE_US:
            return True
        has_waited = len(self.waiting) + 1 >= PROBATION and arrival_us - last_us >= PROBATION_US
        return source == self.candidate and has_waited

    def is_foreign(self, arrival_us: int, last_us: int) -> bool:
        """Whether a packet of another source than the locked one can only be foreign: that one is heard after it."""
        return bool(self.source) and self.relearn_until_us < arrival_us <= last_us

    def adopt(self, source: int) -> list[_P]:
        """Locks on a source; returns its packets that waited."""
        waited = self.give_up() if source == self.candidate else []
        self.source, self.relearn_until_us = source, 0
        return waited

    def wait(self, source: int, arrival_us: int, packet: _P) -> int:
        """Keeps a packet of a source on probation; returns how many packets of another were given up for it."""
        given_up = 0
        if source != self.candidate:
            given_up = len(self.give_up())
            self.candidate = source
        self.waiting.append((arrival_us, packet))
        return given_up

    def expire(self, last_us: int) -> int:
        """Gives up what waited while the locked source was still heard; returns how many packets."""
        kept = [entry for entry in self.waiting if entry[0] > last_us]
        given_up = len(self.waiting) - len(kept)
        self.waiting = kept
        return given_up

    def forget(self, from_us: int, to_us: int) -> list[_P]:
        """No longer keeps the packets that arrived within a span, both ends included; returns them."""
        gone = [packet for arrival_us, packet in self.waiting if from_us <= arrival_us <= to_us]
        self.waiting = [entry for entry in self.waiting if not from_us <= entry[0] <= to_us]
        return gone

    def give_up(self) -> list[_P]:
        """Ends the probation; returns the packets that waited."""
        packets = [packet for _, packet in self.waiting]
        self.candidate, self.waiting = 0, []
        return packets
