"""The uplink: carries sealed files from the spool to the ingest bucket, oldest call first, for as long as it takes.

Within a call one file goes at a time, in order, the manifest last; several calls go side by side, one to a thread.
Nothing here can fail a call. Two things can go wrong, and they are kept apart:

- the *link* (no network, throttled, credentials refused): nobody sends; after a back-off one thread tries, and its
  success opens the way for all;
- a *call* (an object refused, a name taken by other bytes, a file unreadable): that call waits by its own back-off
  and an alarm is logged; the others go on.

Calls are found by :meth:`Uplink.notify` (the media process has closed a part) and by a scan of the directory every
now and then, which alone would do. A call leaves the spool by :meth:`Uplink.free` only, which a receipt of the cloud
calls.
"""

from __future__ import annotations

import hashlib
import random as random_numbers
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dualtone.domain import part
from dualtone.domain.call_files import MANIFEST_NAME
from dualtone.domain.errors import DualtoneError, IntegrityError, PolicyViolation, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.call_queue import CallQueue
from sbc_agent.runtime.ingest_bucket import ObjectStore
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.spool import Spool, Transfer

SCAN_EVERY_S: Final = 5.0
RECEIPT_OVERDUE_S: Final = 6 * 3600.0
_JOIN_S: Final = 2.0
_SETTLED_NS: Final = 1_000_000_000  # a directory's time of change is coarse: believed once it is a second old


@dataclass(frozen=True, slots=True)
class UplinkState:
    """What ``dualtone-agent status`` tells of the uplink.

    Attributes:
        link: ``up``, ``down`` (no answer) or ``refused`` (the cloud says no).
        calls_waiting: Calls with something to send.
        calls_unconfirmed: Calls that are up and wait for their receipt.
        objects_sent: Since the start.
        bytes_sent: Since the start.
        failures: Failed attempts in a row.
        retry_s: Seconds to the next attempt, 0 when the link is up.
        last_success_s: Unix time of the last object that went up, or None.
    """

    link: str
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
        receipt_overdue_s: After how long without a receipt a manifest is put again: the cloud tells anew what it has,
            also when the agent was away for longer than its queue keeps messages.
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
        receipt_overdue_s: float = RECEIPT_OVERDUE_S,
    ) -> None:
        self._spool = spool
        self._store = store
        self._log = log
        self._clock = clock
        self._wall = wall
        self._random = random
        self._scan_every_s = scan_every_s
        self._receipt_overdue_s = receipt_overdue_s
        self._changed = threading.Condition()
        self._queue = CallQueue()
        self._listed: dict[CallId, int] = {}  # time of change of a directory that was listed with nothing left to send
        self._backoffs: dict[CallId, Backoff] = {}
        self._sent: dict[CallId, dict[str, Transfer]] = {}  # of calls that are not wholly up
        self._unconfirmed: dict[CallId, float] = {}  # wall time at which the manifest went up
        self._link = Backoff(random)
        self._refused = False
        self._probing = False
        self._next_scan = 0.0
        self._objects_sent = 0
        self._bytes_sent = 0
        self._last_success: float | None = None
        self._stopping = False
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

    def drain(self, grace_s: float) -> int:
        """Waits until everything is up, no longer than the grace time; a link that is still down is tried once more.

        Returns:
            How many calls have something left to send.
        """
        deadline = self._clock() + grace_s
        self.scan()
        with self._changed:
            failures = self._link.failures
            self._link.not_before = self._clock()
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
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_JOIN_S)

    def state(self) -> UplinkState:
        """What there is to tell."""
        with self._changed:
            now = self._clock()
            down = self._link.failures > 0
            return UplinkState(
                link="up" if not down else "refused" if self._refused else "down",
                calls_waiting=len(self._queue),
                calls_unconfirmed=len(self._unconfirmed),
                objects_sent=self._objects_sent,
                bytes_sent=self._bytes_sent,
                failures=self._link.failures,
                retry_s=round(max(0.0, self._link.not_before - now), 1) if down else 0.0,
                last_success_s=None if self._last_success is None else int(self._last_success),
            )

    def free(self, call: CallId, parts: list[str]) -> str:
        """Frees a call's directory if the cloud took over exactly the parts that lie in it.

        Args:
            call: The call.
            parts: Digest in hex of every part that the cloud has committed, in any order.

        Returns:
            ``freed``; ``unknown`` if there is no such call here (any more); ``unfinished`` if it has no manifest yet;
            ``differs`` if the parts are not the same.
        """
        with self._holding(call):
            if not self._spool.path(call).is_dir():
                return "unknown"
            if not self._spool.path(call, MANIFEST_NAME).exists():
                return "unfinished"
            own = [self._digest(call, name) for name in self._spool.parts(call)]
            if sorted(own) != sorted(parts):
                return "differs"
            self._spool.free(call)
            self._forget(call)
            return "freed"

    # -- the work, one step at a time -------------------------------------------------------------------------------

    def scan(self) -> None:
        """Looks through the whole spool for calls with something to send."""
        overdue = self._wall() - self._receipt_overdue_s
        calls = self._spool.calls()
        with self._changed:
            self._next_scan = self._clock() + self._scan_every_s
            for call in calls:
                if self._unconfirmed.get(call, overdue + 1) <= overdue:
                    del self._unconfirmed[call]
                    self._sent[call] = self._spool.transfers(call)
                    self._sent[call].pop(MANIFEST_NAME, None)
                if call not in self._unconfirmed and self._listed.get(call) != self._spool.changed_ns(call):
                    self._queue.push(call)
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
                self._probing = self._probing and not probing
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
            if call not in self._sent:
                self._sent[call] = self._spool.transfers(call)
            sent = self._sent[call]
            changed_ns = self._spool.changed_ns(call)
            while names := self._spool.waiting(call, frozenset(sent)):
                for name in names:
                    sent[name] = self._transfer(call, name)
                changed_ns = None
            self._backoffs.pop(call, None)
            if MANIFEST_NAME in sent:
                self._forget(call)
                self._unconfirmed[call] = sent[MANIFEST_NAME].at_s
            elif changed_ns is not None and changed_ns < self._wall() * 1e9 - _SETTLED_NS:
                self._listed[call] = changed_ns
        except (Unavailable, PolicyViolation) as error:
            self._link_failed(call, error)
        except (DualtoneError, OSError) as error:
            self._call_failed(call, error)
        except Exception as error:  # noqa: BLE001 - whatever one call meets, the others must be sent
            self._log.failure("uplink_failed", error, call=call)
            self._call_failed(call, error)

    def _transfer(self, call: CallId, name: str) -> Transfer:
        """Sends one file, and tells it in the log whatever comes of it."""
        # REQ: FEATURES P7: a log of every transfer: bytes, hash, result.
        started = self._clock()
        body = self._spool.path(call, name).read_bytes()
        sha256 = hashlib.sha256(body).hexdigest()
        try:
            result = self._store.put(f"{call}/{name}", body, bytes.fromhex(sha256))
        except DualtoneError as error:
            self._log.warning(
                "transfer",
                call=call,
                object=name,
                bytes=len(body),
                sha256=sha256,
                result="failed",
                reason=type(error).__name__,
            )
            raise
        transfer = Transfer(name, sha256, len(body), result, int(self._wall()))
        self._note(call, transfer)
        with self._changed:
            self._objects_sent += 1
            self._bytes_sent += len(body)
            self._last_success = self._wall()
            if self._link.failures:
                self._link.succeed()
                self._refused = False
                self._log.info("uplink_up")
                self._changed.notify_all()
        self._log.info(
            "transfer",
            call=call,
            object=name,
            bytes=len(body),
            sha256=sha256,
            result=result,
            ms=round(1000 * (self._clock() - started)),
        )
        return transfer

    def _note(self, call: CallId, transfer: Transfer) -> None:
        """Keeps what is up for the next start; a full disk, which uploading cures, must not stop it."""
        try:
            self._spool.note(call, transfer)
        except OSError as error:
            self._log.error("transfer_not_noted", call=call, object=transfer.name, error=type(error).__name__)

    def _link_failed(self, call: CallId, error: DualtoneError) -> None:
        with self._changed:
            self._queue.push(call)
            now = self._clock()
            if not self._link.may_try(now):
                return  # another thread has met the same failure
            retry_s = self._link.fail(now)
            self._refused = isinstance(error, PolicyViolation)
            self._changed.notify_all()
        if self._refused:
            self._log.error("uplink_refused", retry_s=round(retry_s, 1), attempts=self._link.failures)
        else:
            self._log.warning("uplink_down", retry_s=round(retry_s, 1), attempts=self._link.failures)

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
        return part.read(self._spool.path(call, name).read_bytes()).digest.hex()

    def _forget(self, call: CallId) -> None:
        for known in (self._sent, self._backoffs, self._listed, self._unconfirmed):
            known.pop(call, None)

    # -- who works on what ------------------------------------------------------------------------------------------

    def _claim(self) -> tuple[CallId, bool] | None:
        """Takes the oldest call that may be tried now, and says whether the attempt is the one probe of a lost link."""
        with self._changed:
            now = self._clock()
            down = self._link.failures > 0
            if down and (self._probing or not self._link.may_try(now)):
                return None
            call = self._queue.claim(now)
            if call is None:
                return None
            self._probing = self._probing or down
            return call, down

    @contextmanager
    def _holding(self, call: CallId) -> Iterator[None]:
        """Keeps the senders away from a call."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue.seize(call))
        try:
            yield
        finally:
            with self._changed:
                self._queue.release(call)
                self._changed.notify_all()

    def _wait_s(self) -> float:
        now = self._clock()
        due = [self._next_scan]
        if self._link.failures:
            if len(self._queue) and not self._probing:
                due.append(self._link.not_before)
        elif (delay_over := self._queue.next_due()) is not None:
            due.append(delay_over)
        return max(0.0, min(due) - now)


def _kind(error: Exception) -> str:
    """What a person has to look at when a call cannot be sent."""
    if isinstance(error, IntegrityError):
        return "conflict"
    return "unreadable" if isinstance(error, OSError) else "refused"
