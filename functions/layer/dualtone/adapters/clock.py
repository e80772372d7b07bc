"""The only clock and the only dice of the cloud's functions."""

from __future__ import annotations

import secrets
import time

random_bytes = secrets.token_bytes
"""So many bytes from the operating system's generator."""

monotonic_s = time.monotonic
"""Seconds on a clock that never steps."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
