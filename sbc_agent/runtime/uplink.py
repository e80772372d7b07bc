"""The uplink: gets the spool's sealed files to the ingest bucket, oldest call first, for as long as it takes.

Within a call one file goes at a time, in order, the manifest last (see ``courier``); several calls go side by side, one
to a thread. Nothing here can fail a call. Two things can go wrong, and they are kept apart:

- the *link* (no network, throttled, credentials refused): nobody sends; after a back-off one thread tries, and its
  success opens the way for all;
- a *call* (an object refused, a name taken by other bytes, a file unreadable): that call waits by its own back-off
  and an alarm is logged; the others go on.

Calls are found by :meth:`Uplink.notify` (the media process has closed a part) and by a scan of the directory every
now and then, which alone would do. A call leaves the spool by :meth:`Uplink.free` only, which a receipt of the cloud
calls. One whose directory somebody took away is forgotten.
"""

from __future__ import annotations

import random as random_numbers
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dualtone.domain import part
from dualtone.domain.call_files import MANIFEST_NAME
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput, PolicyViolation, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.call_queue import CallQueue
from sbc_agent.runtime.courier import Carried, Courier
from sbc_agent.runtime.ingest_bucket import ObjectStore
from sbc_agent.runtime.link import Link
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.transfers import Patience

SCAN_EVERY_S: Final = 5.0
_JOIN_S: Final = 2.0
_HOLD_WAIT_S: Final = 0.5
_SETTLED_NS: Final = 1_000_000_000  # a directory's time of change is coarse: believed once it is a second old


@dataclass(frozen=True, slots=True)
class UplinkState:
    """What ``dualtone-agent status`` tells of the uplink.

    Attributes:
        link: ``up``, ``down`` (no answer) or ``refused`` (the cloud says no).
        reason: Why it is not up, in one word; empty when it is.
        calls_waiting: Calls with something to send.
        calls_unconfirmed: Calls that are up and wait for their receipt.
        objects_sent: Since the start.
        bytes_sent: Since the start.
        failures: Failed attempts in a row.
        retry_s: Seconds to the next attempt, 0 when the link is up.
        last_success_s: Unix time of the last object that went up, or None.
    """

    link: str
    reason: str
    calls_waiting: int
    calls_unconfirmed: int
    objects_sent: int
    bytes_sent: int
    failures: int
    retry_s: float
    last_success_s: int | None


class Uplink:
    """Sends what the spool holds.

    Args:
        spool: Where sealed files lie.
        store: Where they go.
        log: Where every transfer is told.
        threads: How many calls are sent side by side.
        clock: Monotonic seconds.
        wall: Unix time in seconds, for the transfer log.
        random: Draws from [0, 1), for the jitter.
        scan_every_s: How often the whole spool is looked through.
        patience: How long what is up is left alone before it is put again.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        store: ObjectStore,
        log: Log,
        threads: int = 4,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random_numbers.random,
        scan_every_s: float = SCAN_EVERY_S,
        patience: Patience = Patience(),  # noqa: B008 - immutable
    ) -> None:
        self._spool = spool
        self._log = log
        self._clock = clock
        self._wall = wall
        self._random = random
        self._scan_every_s = scan_every_s
        self._changed = threading.Condition()
        self._queue = CallQueue()
        self._backoffs: dict[CallId, Backoff] = {}
        self._link = Link(random)
        self._next_scan = 0.0
        self._objects_sent = 0
        self._bytes_sent = 0
        self._last_success: float | None = None
        self._stopping = False
        self._courier = Courier(
            spool=spool, store=store, log=log, patience=patience, clock=clock, wall=wall, delivered=self._delivered
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"uplink-{index}", daemon=True) for index in range(threads)
        ]

    # -- for other threads ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Finishes what a crash left half freed, and starts the threads."""
        self._spool.clear_freed()
        for thread in self._threads:
            thread.start()

    def notify(self, call: CallId) -> None:
        """Something of a call was closed: look at it soon."""
        with self._changed:
            self._queue.push(call)
            self._changed.notify()

    def recut(self, call: CallId, names: Iterable[str]) -> Future[None]:
        """Parts of a call were cut in the spool: when can the cloud be told to cut what is up of them?

        Args:
            call: The call; one that is not here (any more) is fine.
            names: File names of the parts, rewritten already.

        Returns:
            What is done as soon as no older bytes of them can reach the bucket any more; cancelled if the uplink ends
            before. It is resolved in a thread of the uplink.
        """
        future = self._courier.recut(call, names)
        self.notify(call)
        return future

    def drain(self, grace_s: float) -> int:
        """Waits until everything is up, no longer than the grace time; a link that is still down is tried once more.

        Returns:
            How many calls have something left to send.
        """
        deadline = self._clock() + grace_s
        self.scan()
        with self._changed:
            failures = self._link.failures
            self._link.probe_now(self._clock())
            self._changed.notify_all()
            while self._queue.busy:
                left_s = deadline - self._clock()
                if left_s <= 0 or self._link.failures > failures > 0:
                    break
                self._changed.wait(left_s)
            return len(self._queue)

    def close(self) -> None:
        """Stops the threads; one that waits for the network is left behind and ends with the process."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._courier.close()

    def state(self) -> UplinkState:
        """What there is to tell."""
        with self._changed:
            return UplinkState(
                link=self._link.word,
                reason=self._link.reason,
                calls_waiting=len(self._queue),
                calls_unconfirmed=self._queue.unconfirmed,
                objects_sent=self._objects_sent,
                bytes_sent=self._bytes_sent,
                failures=self._link.failures,
                retry_s=self._link.retry_s(self._clock()),
                last_success_s=None if self._last_success is None else int(self._last_success),
            )

    def free(self, call: CallId, parts: list[str]) -> str:
        """Frees a call's directory if the cloud took over exactly the parts that lie in it.

        Args:
            call: The call.
            parts: Digest in hex of every part that the cloud has committed, in any order.

        Returns:
            ``freed``; ``unknown`` if there is no such call here (any more); ``unfinished`` if it has no manifest yet;
            ``differs`` if the parts are not the same; ``unreadable`` if the disk refuses; ``busy`` if something of it
            is being sent just now.
        """
        with self._holding(call) as held:
            return self._compared_and_freed(call, parts) if held else "busy"

    def _compared_and_freed(self, call: CallId, parts: list[str]) -> str:
        try:
            if not self._spool.path(call).is_dir():
                return "unknown"
            if not self._spool.path(call, MANIFEST_NAME).exists():
                return "unfinished"
            own = [self._digest(call, name) for name in self._spool.parts(call)]
            if sorted(own) != sorted(parts):
                return "differs"
            self._spool.free(call)
        except MalformedInput:
            return "differs"
        except OSError:
            return "unreadable"
        self._forget(call)
        return "freed"

    # -- the work, one step at a time -------------------------------------------------------------------------------

    def scan(self) -> None:
        """Looks through the whole spool for calls with something to send."""
        calls = self._spool.calls()
        awaited = self._courier.awaited
        with self._changed:
            now = self._clock()
            self._next_scan = now + self._scan_every_s
            self._queue.wake(calls, now, self._spool.changed_ns)
            for call in awaited.difference(calls):
                self._queue.push(call)  # its directory is gone: whoever takes it up forgets it
            self._changed.notify_all()

    def send_next(self) -> bool:
        """Sends what waits of the oldest call that may be tried now; returns whether there was one."""
        claim = self._claim()
        if claim is None:
            return False
        call, probing = claim
        try:
            self._send(call)
        finally:
            with self._changed:
                self._link.probing = self._link.probing and not probing
                self._queue.release(call)
                self._changed.notify_all()
        return True

    def wait_s(self) -> float:
        """Seconds until there may be something to do, if nobody notifies."""
        with self._changed:
            return self._wait_s()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                due = self._clock() >= self._next_scan
                if due:
                    self._next_scan = self._clock() + self._scan_every_s
            try:
                if due:
                    self.scan()
                busy = self.send_next()
            except Exception as error:  # noqa: BLE001 - a thread that ends would end the uplink in silence
                self._log.failure("uplink_failed", error)
                busy = False
            if not busy:
                with self._changed:
                    if not self._stopping:
                        self._changed.wait(self._wait_s())

    def _send(self, call: CallId) -> None:
        """Sends the files of a claimed call until none waits or one fails."""
        try:
            self._rest(call, self._courier.carry(call))
        except (Unavailable, PolicyViolation) as error:
            self._link_failed(call, error)
        except (DualtoneError, OSError) as error:
            self._call_failed(call, error)
        except Exception as error:  # noqa: BLE001 - whatever one call meets, the others must be sent
            self._log.failure("uplink_failed", error, call=call)
            self._call_failed(call, error)

    # -- what comes of it -------------------------------------------------------------------------------------------

    def _rest(self, call: CallId, carried: Carried) -> None:
        """Leaves a call alone until there may be something to send of it."""
        settled = carried.changed_ns is not None and carried.changed_ns < self._wall() * 1e9 - _SETTLED_NS
        with self._changed:
            self._backoffs.pop(call, None)
            self._queue.forget(call)
            if carried.finished or settled:
                until = self._clock() + carried.rest_s
                self._queue.rest(call, until, carried.changed_ns, finished=carried.finished)

    def _delivered(self, size_bytes: int) -> None:
        """An object is up."""
        with self._changed:
            self._objects_sent += 1
            self._bytes_sent += size_bytes
            self._last_success = self._wall()
            if self._link.succeeded():
                self._log.info("uplink_up")
                self._changed.notify_all()

    def _link_failed(self, call: CallId, error: DualtoneError) -> None:
        with self._changed:
            self._queue.push(call)
            retry_s = self._link.failed(error, self._clock())
            if retry_s is None:
                return  # another thread has met the same failure
            told = {"reason": self._link.reason, "retry_s": round(retry_s, 1), "attempts": self._link.failures}
            write = self._log.error if self._link.refused else self._log.warning
            write("uplink_refused" if self._link.refused else "uplink_down", **told)
            self._changed.notify_all()

    def _call_failed(self, call: CallId, error: Exception) -> None:
        if isinstance(error, FileNotFoundError) and not self._spool.path(call).is_dir():
            self._forget(call)
            return
        with self._changed:
            backoff = self._backoffs.setdefault(call, Backoff(self._random))
            retry_s = backoff.fail(self._clock())
            self._queue.delay(call, backoff.not_before)
        self._log.error(
            "object_not_sent", call=call, kind=_kind(error), error=type(error).__name__, retry_s=round(retry_s, 1)
        )

    def _digest(self, call: CallId, name: str) -> str:
        return part.read(self._spool.read(call, name)).digest.hex()

    def _forget(self, call: CallId) -> None:
        """A call is not here any more; it is claimed."""
        self._courier.forget(call)
        with self._changed:
            self._queue.forget(call)
            self._backoffs.pop(call, None)

    # -- who works on what ------------------------------------------------------------------------------------------

    def _claim(self) -> tuple[CallId, bool] | None:
        """Takes the oldest call that may be tried now, and says whether the attempt is the one probe of a lost link."""
        with self._changed:
            now = self._clock()
            if not self._link.may_send(now):
                return None
            call = self._queue.claim(now)
            if call is None:
                return None
            down = self._link.failures > 0
            self._link.probing = self._link.probing or down
            return call, down

    @contextmanager
    def _holding(self, call: CallId) -> Iterator[bool]:
        """Keeps the senders away from a call; yields whether they are, for nobody waits out an upload that hangs."""
        with self._changed:
            held = self._changed.wait_for(lambda: self._queue.seize(call), _HOLD_WAIT_S)
        try:
            yield held
        finally:
            with self._changed:
                if held:
                    self._queue.release(call)
                self._changed.notify_all()

    def _wait_s(self) -> float:
        now = self._clock()
        due = [self._next_scan]
        if self._link.failures:
            if len(self._queue) and self._link.not_before is not None:
                due.append(self._link.not_before)
        elif (delay_over := self._queue.next_due()) is not None:
            due.append(delay_over)
        return max(0.0, min(due) - now)


def _kind(error: Exception) -> str:
    """What a person has to look at when a call cannot be sent."""
    if isinstance(error, IntegrityError):
        return "conflict"
    return "unreadable" if isinstance(error, OSError) else "refused"
