"""Ends a process as kill -9 does, at any line of chosen modules: what a crash leaves is then on the test's disk.

The process is a fork of the test's; what it has to say before its end comes through a pipe, as an answer to another
process would.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

KILLED = 9
Say = Callable[[object], None]


@dataclass(frozen=True)
class Ended:
    """How a run ended: whether it was killed, and what it had said by then."""

    is_killed: bool
    said: list[Any]


def run(work: Callable[[Say], None], modules: tuple[ModuleType, ...], after_lines: int) -> Ended:
    """Does some work in another process, and kills that before the given line of the modules.

    Args:
        work: What is done; it may say things that can be spelled in JSON.
        modules: Where it may be killed.
        after_lines: How many of their lines it may pass, in all its threads.
    """
    files = {module.__file__ for module in modules}
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the fork has no use for the other threads
        child = os.fork()
    if child == 0:
        os.close(reading)
        _work(work, files, after_lines, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        said = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"the run ended with {code}"
    return Ended(code == KILLED, said)


def _work(work: Callable[[Say], None], files: set[str | None], after_lines: int, pipe: int) -> None:
    left = [after_lines]

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            if left[0] == 0:
                os._exit(KILLED)
            left[0] -= 1
        return line

    def call(frame: FrameType, _event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename in files else None

    def say(what: object) -> None:
        os.write(pipe, f"{json.dumps(what)}\n".encode())

    status = 1
    try:
        threading.settrace(call)
        sys.settrace(call)
        work(say)
        status = 0
    finally:
        sys.settrace(None)
        os._exit(status)
