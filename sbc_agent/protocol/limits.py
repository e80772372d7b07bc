"""How much each sender may say: token buckets. Pure state, time as an argument, in seconds of any monotonic clock.

A host with which a dialog was confirmed, or that the settings name, is *known*: it has a generous bucket of its own.
All others are strangers: each has a small bucket, and all of them together share one, so that no flood of strangers,
from however many addresses, takes the time that known hosts need. Above both stands a bucket for everything.

Costs are counted in messages of common size: a message of `COST_BYTES` more costs one more. What is refused is not read
at all: SIP repeats what matters, and a flood does not.
"""

import collections
from dataclasses import dataclass
from typing import Final

MAX_HOSTS: Final = 4_096
COST_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True)
class Rate:
    """How many messages a second in the long run, and how many at once."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class SipLimits:
    """The rates.

    Attributes:
        known: of each known host.
        stranger: of each other host.
        strangers: of all other hosts together.
        total: of everybody.
    """

    known: Rate = Rate(2_000, 4_000)
    stranger: Rate = Rate(200, 400)
    strangers: Rate = Rate(400, 800)
    total: Rate = Rate(4_000, 8_000)


class Bucket:
    """One token bucket; it may run into debt by what `take` is told, and is waited for until that is paid."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._level = rate.burst
        self._at = 0.0

    def wait(self, now: float) -> float:
        """How long until a message may be taken, in seconds; 0 for at once."""
        self._level = min(self._rate.burst, self._level + (now - self._at) * self._rate.per_s)
        self._at = now
        return max(0.0, (1 - self._level) / self._rate.per_s)

    def take(self, cost: float) -> None:
        """Takes so many tokens, whether they are there or not."""
        self._level -= cost


class HostLimits:
    """The buckets of all hosts.

    Args:
        limits: the rates.
        known: hosts that are known from the beginning.
    """

    def __init__(self, limits: SipLimits, known: frozenset[str] = frozenset()) -> None:
        self._limits = limits
        self._named = known
        self._known: collections.OrderedDict[str, Bucket] = collections.OrderedDict()
        self._others: collections.OrderedDict[str, Bucket] = collections.OrderedDict()
        self._strangers = Bucket(limits.strangers)
        self._total = Bucket(limits.total)

    def know(self, host: str) -> None:
        """A dialog with this host was confirmed: what came from it was no forged address."""
        if host not in self._known:
            _bounded(self._known)[host] = Bucket(self._limits.known)

    def wait(self, host: str, now: float) -> float:
        """How long this host must wait until more is read of it, in seconds; 0: not at all."""
        own, *shared = self._buckets(host)
        return max(own.wait(now), *(bucket.wait(now) for bucket in shared))

    def take(self, host: str, cost: float, now: float) -> None:
        """So much of this host was read."""
        for bucket in self._buckets(host):
            bucket.wait(now)
            bucket.take(cost)

    def admits(self, host: str, size_bytes: int, now: float) -> bool:
        """Whether a datagram of this host is read; if so it is counted."""
        buckets = self._buckets(host)
        if any(bucket.wait(now) for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.take(cost_of(size_bytes))
        return True

    def _buckets(self, host: str) -> tuple[Bucket, ...]:
        if host in self._named:
            self.know(host)
        if (bucket := self._known.get(host)) is not None:
            self._known.move_to_end(host)
            return bucket, self._total
        bucket = self._others.get(host)
        if bucket is None:
            bucket = _bounded(self._others)[host] = Bucket(self._limits.stranger)
        else:
            self._others.move_to_end(host)
        return bucket, self._strangers, self._total


def cost_of(size_bytes: int) -> float:
    """What a message of this size costs."""
    return 1 + size_bytes / COST_BYTES


def _bounded(hosts: "collections.OrderedDict[str, Bucket]") -> "collections.OrderedDict[str, Bucket]":
    """Makes room for one more: who was heard longest ago is forgotten, and comes again with a full bucket.

    That is no way round the limits: strangers of many addresses are bounded by what they share.
    """
    while len(hosts) >= MAX_HOSTS:
        hosts.popitem(last=False)
    return hosts
