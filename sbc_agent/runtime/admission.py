"""Whether one more call is taken. Pure state, time as an argument.

An agent that is too busy loses packets of all its calls; one that says so at once loses none, because the SBC takes
another recorder (INTEROP: SRCs fail over on an answer, not on a time-out). So new calls are refused when there are as
many as the machine was set to take, and also while work *stands* in a queue: SIP messages in the socket, the loop's own
timers, the media process's ticks. A queue stands when for a while nothing in it was served in time (the idea of CoDel,
RFC 8289): a burst that is worked off again refuses nobody, and a queue that stood a moment ago is believed sooner to
stand again. Calls in progress are never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

BEAT_SECONDS: Final = 0.05
STATS_SECONDS: Final = 1.0
REMEMBERED_SECONDS: Final = 10.0

Queue = Literal["sip_late", "loop_late", "media_late"]


@dataclass(frozen=True, slots=True)
class Standing:
    """When a queue stands.

    Attributes:
        late_s: What was served later than so is late.
        for_s: For how long all that is served must be late.
        again_s: The same, if it stood within the last ``REMEMBERED_SECONDS``.
        known_s: For how long it is believed without being told again.
    """

    late_s: float
    for_s: float
    again_s: float
    known_s: float


# A SIP message is answered within 50 ms even while calls are refused; but a machine that is busy with something else
# for a moment refuses none. The media process's sockets hold seconds and its ring one more: what counts there is a tick
# that is late again and again.
_SIP: Final = Standing(late_s=0.04, for_s=1.0, again_s=0.1, known_s=0.25)
_MEDIA: Final = Standing(
    late_s=0.5, for_s=0.9 * STATS_SECONDS, again_s=0.9 * STATS_SECONDS, known_s=2.5 * STATS_SECONDS
)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine takes.

    Attributes:
        calls: Calls at once; 0: as many as there are ports.
        sip: When SIP messages stand, in the socket or behind the loop.
        media: When the media process's ticks do.
    """

    calls: int = 0
    sip: Standing = _SIP
    media: Standing = _MEDIA


@dataclass(slots=True)
class _Lateness:
    """Since when nothing was in time (None: it is), when anything was heard last, and when it stood last."""

    standing: Standing
    since: float | None = None
    heard_at: float = 0.0
    stood_at: float | None = None

    def stands(self, now: float) -> bool:
        if self.since is None or now - self.heard_at > self.standing.known_s:
            return False
        stood_lately = self.stood_at is not None and now - self.stood_at < REMEMBERED_SECONDS
        if now - self.since < (self.standing.again_s if stood_lately else self.standing.for_s):
            return False
        self.stood_at = now
        return True


class Admission:
    """Says yes or no.

    Args:
        capacity: What the machine takes.
        calls: Tells how many calls there are.
    """

    def __init__(self, capacity: Capacity, calls: Callable[[], int]) -> None:
        self._most_calls = capacity.calls
        self._calls = calls
        self._closed: str | None = None
        self._queues: dict[Queue, _Lateness] = {
            "sip_late": _Lateness(capacity.sip),
            "loop_late": _Lateness(capacity.sip),
            "media_late": _Lateness(capacity.media),
        }

    def close(self, reason: str) -> None:
        """Refuses every new call from now on, for a reason in a word; any thread may."""
        self._closed = reason

    def refusal(self, now: float) -> str | None:
        """Why a new call is refused now; None if it is taken."""
        if self._closed is not None:
            return self._closed
        if 0 < self._most_calls <= self._calls():
            return "max_calls"
        return next((name for name, queue in self._queues.items() if queue.stands(now)), None)

    def served(self, name: Queue, late_s: float, now: float) -> None:
        """Something of a queue was served.

        Args:
            name: Which queue.
            late_s: How long it had waited, or how long a tick took, in seconds.
            now: The time, in seconds.
        """
        queue = self._queues[name]
        queue.heard_at = now
        if late_s <= queue.standing.late_s:
            queue.since = None
        elif queue.since is None:
            queue.since = now
