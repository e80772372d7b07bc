"""The link to the cloud, as all uploads share it: up, or down for a while, or refused. Pure but for the random source.

How long it is left alone after failures in a row grows to a limit, which depends on what failed last: a connection that
broke shows that there is a network, so the next is tried soon; nobody is burdened by a connection that cannot be made;
whoever answers no, or later, is left alone for longest.

Not thread-safe by itself; the uplink uses it under its lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from botocore.exceptions import BotoCoreError, ConnectionClosedError

from dualtone.domain.errors import DualtoneError, PolicyViolation
from sbc_agent.runtime.backoff import CEILING_S, Backoff
from sbc_agent.runtime.ingest_bucket import reason

BROKEN_CEILING_S: Final = 5.0
NO_ANSWER_CEILING_S: Final = 30.0


class Link:
    """Whether anybody may send.

    While it is down nobody does; after a back-off one thread probes it, and its success opens the way for all.

    Attributes:
        refused: Whether it is down because the cloud says no.
        reason: Why it is down, in one word; empty when it is up.
        probing: Whether somebody probes it.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._backoff = Backoff(random)
        self.refused = False
        self.reason = ""
        self.probing = False

    @property
    def failures(self) -> int:
        """Failed attempts in a row; 0 when it is up."""
        return self._backoff.failures

    @property
    def word(self) -> str:
        """``up``, ``down`` or ``refused``."""
        return "up" if not self.failures else "refused" if self.refused else "down"

    @property
    def not_before(self) -> float | None:
        """When it may be probed; None while somebody does, or when it is up."""
        return self._backoff.not_before if self.failures and not self.probing else None

    def may_send(self, now: float) -> bool:
        """Whether somebody may send now, all or one to probe."""
        return not self.failures or (not self.probing and self._backoff.may_try(now))

    def probe_now(self, now: float) -> None:
        """Does not wait out the back-off."""
        self._backoff.not_before = now

    def failed(self, error: DualtoneError, now: float) -> float | None:
        """Somebody met a failure; returns the seconds until the next attempt, None if another met the same before."""
        if not self._backoff.may_try(now):
            return None
        self.refused = isinstance(error, PolicyViolation)
        self.reason = reason(error)
        self._backoff.ceiling_s = _ceiling_s(error)
        return self._backoff.fail(now)

    def succeeded(self) -> bool:
        """Something went up; returns whether the link was down."""
        was_down = self.failures > 0
        self._backoff.succeed()
        self.refused, self.reason = False, ""
        return was_down

    def retry_s(self, now: float) -> float:
        """Seconds until the next attempt, 0 when it is up."""
        return round(max(0.0, self._backoff.not_before - now), 1) if self.failures else 0.0


def _ceiling_s(error: DualtoneError) -> float:
    cause = error.__cause__
    if isinstance(cause, ConnectionClosedError):
        return BROKEN_CEILING_S
    return NO_ANSWER_CEILING_S if isinstance(cause, BotoCoreError) else CEILING_S
