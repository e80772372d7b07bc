"""Threads that wait for the disk, so that the media loop never does.

What the disk refuses is tried again for as long as it takes. Only when the process is about to end is a call given up
whose directory somebody took away: nothing of it can be written any more, and everything else is.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from sbc_agent.media.messages import Alarm, Event

_RETRY_S: Final = 1.0

Job = Callable[[], Sequence[Event]]


class Disk:
    """Threads that wait for the disk. Jobs of one call run in the order in which they came.

    Args:
        threads: How many.
        failed: Told of an error that is not the disk's, from the thread that met it.
    """

    def __init__(self, failed: Callable[[BaseException], None], threads: int = 3) -> None:
        self._queues: list[SimpleQueue[tuple[str, Job] | None]] = [SimpleQueue() for _ in range(threads)]
        self._failed = failed
        self.backlog_bytes = 0  # of records that all calls keep waiting; the media loop alone counts
        self._events: deque[Event] = deque()
        self._done: deque[None] = deque()  # appending is atomic, counting is not
        self._given = 0
        self._is_hopeless: Callable[[str], bool] = lambda _: False
        self._threads = [Thread(target=self._run, args=(queue,), daemon=True) for queue in self._queues]
        for thread in self._threads:
            thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether every job is done and its events are collected."""
        return self._given == len(self._done) and not self._events

    def submit(self, call: str, job: Job) -> None:
        """Runs a job in the call's thread, again and again until the disk takes it; other calls go on meanwhile."""
        if self._given == len(self._done):
            self._given = 0
            self._done.clear()
        self._given += 1
        self._queues[hash(call) % len(self._queues)].put((call, job))

    def events(self) -> list[Event]:
        """What jobs reported since last asked."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def give_up(self, is_hopeless: Callable[[str], bool]) -> None:
        """From now on, jobs that are refused are dropped if their call is hopeless; that is an alarm ``spool_gone``.

        Args:
            is_hopeless: Tells of a call whether nothing of it can be written any more.
        """
        self._is_hopeless = is_hopeless

    def close(self) -> None:
        """Ends the threads when their queues are empty; jobs that the disk refuses are given up."""
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, queue: SimpleQueue[tuple[str, Job] | None]) -> None:
        refused: dict[str, deque[Job]] = {}  # a call that the disk refuses waits without holding up the others
        retry_s = 0.0
        while True:
            with contextlib.suppress(Empty):
                entry = queue.get(timeout=_RETRY_S if refused else None)
                if entry is None:
                    break
                call, job = entry
                if call in refused:
                    refused[call].append(job)
                elif not self._done_with(call, job):
                    self._events.append(Alarm(kind="spool_write", call=call))
                    retry_s = retry_s if refused else time.monotonic() + _RETRY_S
                    refused[call] = deque([job])
            if refused and time.monotonic() >= retry_s:
                self._retry(refused)
                retry_s = time.monotonic() + _RETRY_S
        self._retry(refused)

    def _retry(self, refused: dict[str, deque[Job]]) -> None:
        for call, jobs in list(refused.items()):
            while jobs and self._done_with(call, jobs[0]):
                jobs.popleft()
            if jobs and self._is_hopeless(call):
                self._events.append(Alarm(kind="spool_gone", call=call))
                self._done.extend([None] * len(jobs))
                jobs.clear()
            if not jobs:
                del refused[call]

    def _done_with(self, call: str, job: Job) -> bool:
        """Runs a job; tells whether it is over: done, or ended by a fault that is not the disk's."""
        try:
            self._events.extend(job())
        except OSError:
            return False
        except Exception as error:  # noqa: BLE001 - one call's fault must not end the thread that serves others
            self._failed(error)
            self._events.append(Alarm(kind="spool_write", call=call))
        self._done.append(None)
        return True
