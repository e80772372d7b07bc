"""The only clock and the only dice of the cloud's functions."""

from __future__ import annotations

import secrets
import time

random_bytes = secrets.token_bytes
"""So many bytes from the operating system's generator."""

monotonic_s = time.monotonic
"""Seconds on a clock that never steps."""


class Patience:
    """The clock, for those who wait by it."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return now_ms()

    def wait_ms(self, duration_ms: int) -> None:
        """Sleeps."""
        time.sleep(duration_ms / 1000)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
