"""What a process of the agent asks of the kernel: no core dumps, no life without its parent, files, precedence."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
MEDIA_FIRST: Final = -10
ANSWERS_SECOND: Final = -5
_libc: Final[Any] = ctypes.CDLL(None, use_errno=True)


def forbid_core_dumps() -> bool:
    """Neither a crash nor a debugger of the same user may write this process's memory out; tells whether that holds."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return bool(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def end_with_parent() -> None:
    """Has the kernel kill this process when its parent dies: the next run wants its ports, and takes up its calls."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def raise_file_limit() -> int:
    """Raises the soft limit of open files to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def come_first(nice: int = MEDIA_FIRST) -> bool:
    """Puts this thread, and those that it makes, before others that want the processors; tells whether it may.

    Args:
        nice: The lower, the sooner: no pause waits for SIP, and no SIP message for anybody else.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        return False
    return True
