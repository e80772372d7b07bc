"""Locks that last as long as a process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sbc_agent.runtime.durable import hold_lock


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """The second is refused at once, and gets it when the first has ended."""
    first = hold_lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        hold_lock(tmp_path / "lock")
    os.close(first)
    os.close(hold_lock(tmp_path / "lock"))


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    """The holder ends while somebody waits."""
    first = hold_lock(tmp_path / "lock")
    ending = threading.Timer(0.05, os.close, [first])
    ending.start()
    os.close(hold_lock(tmp_path / "lock", wait_s=30))
    ending.join()
