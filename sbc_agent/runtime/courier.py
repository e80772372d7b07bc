"""The courier: carries one call's sealed files to the ingest bucket, in order, and keeps the book of it.

Any number of threads may use it as long as each call is carried by one of them at a time. Which call is next, and what
happens after a failure, is the uplink's to decide.

A closed part may be rewritten at any time by the media process, when a late pause is cut out of it. What goes up is
what lies there when the upload begins. Whoever rewrote parts asks :meth:`Courier.recut` when no older bytes of them can
reach the bucket any more: S3 has answered for the name, or no upload of it was ever begun.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from dualtone.domain.call_files import MANIFEST_NAME
from dualtone.domain.ids import CallId
from sbc_agent.runtime.ingest_bucket import ObjectStore, reason
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.recuts import Recuts
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.transfers import BEGUN, CUT, Patience, Transfer, Transfers


@dataclass(frozen=True, slots=True)
class Carried:
    """How a call was left.

    Attributes:
        finished: Whether its manifest is up, and so all of it.
        changed_ns: When its directory last changed before it was looked through; None if it was being written since.
        rest_s: Seconds until something of it is to be put again.
    """

    finished: bool
    changed_ns: int | None
    rest_s: float


class Courier:
    """Carries calls.

    Args:
        spool: Where sealed files lie.
        store: Where they go.
        log: Where every transfer is told.
        patience: How long what is up is left alone.
        clock: Monotonic seconds.
        wall: Unix time in seconds.
        delivered: Told of every object that is up, with its size in bytes.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        store: ObjectStore,
        log: Log,
        patience: Patience,
        clock: Callable[[], float],
        wall: Callable[[], float],
        delivered: Callable[[int], None],
    ) -> None:
        self._spool = spool
        self._store = store
        self._log = log
        self._patience = patience
        self._clock = clock
        self._wall = wall
        self._delivered = delivered
        self._lock = threading.Lock()
        self._known: dict[CallId, Transfers] = {}  # of calls that are not wholly up
        self._under_way: dict[CallId, str] = {}
        self._recuts = Recuts()

    @property
    def awaited(self) -> frozenset[CallId]:
        """The calls of which somebody waits that older bytes are gone."""
        with self._lock:
            return self._recuts.calls

    def carry(self, call: CallId) -> Carried:
        """Sends what waits of a call, the manifest last.

        Returns:
            How it was left.

        Raises:
            FileNotFoundError: If the call's directory is gone.
            OSError: If a file cannot be read.
            DualtoneError: As :meth:`ObjectStore.put`.
        """
        changed_ns = self._spool.changed_ns(call)
        if changed_ns is None:
            raise FileNotFoundError
        with self._lock:
            known = self._known.setdefault(call, Transfers(self._spool.transfers(call)))
            known.put_again(known.stale(self._wall(), self._patience))
        seen_ns: int | None = changed_ns
        while names := self._spool.waiting(call, known.up):
            for name in names:
                self._transfer(call, name, known)
            seen_ns = None
        finished = MANIFEST_NAME in known.up
        with self._lock:
            rest_s = known.rest_s(self._wall(), self._patience)
            if finished:
                del self._known[call]
        return Carried(finished, seen_ns, rest_s)

    def recut(self, call: CallId, names: Iterable[str]) -> Future[None]:
        """Parts of a call were cut in the spool.

        Args:
            call: The call.
            names: File names of the parts, rewritten already.

        Returns:
            What is done as soon as no older bytes of them can reach the bucket any more, and cancelled if the uplink
            ends before. What is up by then is not cut: that is the cloud's to do.
        """
        asked, now_s = frozenset(names), int(self._wall())
        with self._lock:
            known = self._known.get(call) or Transfers(self._spool.transfers(call))
            for name in sorted(asked & known.up):
                if (last := known.last(name)) is not None:
                    self._note(call, Transfer(name, last.sha256, last.size_bytes, CUT, now_s))
            return self._recuts.wait(call, asked & (known.unsettled | {self._under_way.get(call, "")}))

    def forget(self, call: CallId) -> None:
        """A call is not here any more; nothing of it is under way."""
        with self._lock:
            self._known.pop(call, None)
            over = self._recuts.gone(call)
        _resolve(over)

    def close(self) -> None:
        """Nothing is carried any more."""
        with self._lock:
            vain = self._recuts.close()
        for future in vain:
            future.cancel()

    def _transfer(self, call: CallId, name: str, known: Transfers) -> None:
        """Sends one file, and tells it in the log whatever comes of it."""
        # REQ: FEATURES P7: a log of every transfer: bytes, hash, result.
        started = self._clock()
        with self._lock:  # before the file is read: who rewrites it from here on learns that it is under way
            self._under_way[call] = name
        try:
            body = self._spool.read(call, name)
            digest = hashlib.sha256(body)
            sha256 = digest.hexdigest()
            told = {"call": call, "object": name, "bytes": len(body), "sha256": sha256}
            if known.begins(name, sha256):
                self._happened(call, Transfer(name, sha256, len(body), BEGUN, int(self._wall())), known)
            try:
                result = self._store.put(f"{call}/{name}", body, digest.digest())
            except Exception as error:
                self._log.warning("transfer", **told, result="failed", reason=reason(error), ms=self._since_ms(started))
                raise
            over = self._happened(call, Transfer(name, sha256, len(body), result, int(self._wall())), known)
        finally:
            with self._lock:
                self._under_way.pop(call, None)
        self._log.info("transfer", **told, result=result, ms=self._since_ms(started))
        self._delivered(len(body))
        _resolve(over)

    def _happened(self, call: CallId, transfer: Transfer, known: Transfers) -> list[Future[None]]:
        """Takes down what happened; returns whose waiting is over."""
        with self._lock:
            known.add(transfer)
            self._note(call, transfer)
            return [] if transfer.result == BEGUN else self._recuts.settled(call, transfer.name)

    def _note(self, call: CallId, transfer: Transfer) -> None:
        """Keeps what happened for the next start; a full disk, which uploading cures, must not stop it."""
        try:
            self._spool.note(call, transfer)
        except OSError as error:
            self._log.error("transfer_not_noted", call=call, object=transfer.name, error=type(error).__name__)

    def _since_ms(self, started: float) -> int:
        return round(1000 * (self._clock() - started))


def _resolve(futures: list[Future[None]]) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_result(None)
