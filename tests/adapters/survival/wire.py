"""Between a function and AWS: what kills a delivery at any one of its calls, and what lets another overtake it there.

Every call that a delivery makes to AWS is an edge of one of its steps. A process can end *before* a call is sent, and
after it was done but *before its answer* came: both are tried at every call, in turn. Nothing else of a function's
state outlives it, so this is every place at which a kill can make a difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

import boto3

from tests.adapters.finalize.cloud import start_cold


class Killed(BaseException):
    """The process ended here; nothing of the product catches it."""


class Where(StrEnum):
    """On which side of a call."""

    NEVER_SENT = "never sent"
    ANSWER_LOST = "answer lost"


@dataclass(slots=True)
class Wire:
    """The calls that the watched thread has made, and what happens at one of them.

    Attributes:
        calls: Service and operation of each call, in order.
    """

    calls: list[str] = field(default_factory=list)
    _thread: int | None = None
    _at: int | str = -1
    _where: Where = Where.NEVER_SENT
    _act: Callable[[], None] | None = None

    @contextmanager
    def watching(
        self, at: int | str = -1, where: Where = Where.NEVER_SENT, act: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Counts the calls of this thread from 0; at one of them, something happens.

        Args:
            at: Which call, by number, or the first of a service and operation; -1 for none.
            where: On which side of it.
            act: What happens.
        """
        self.calls, self._thread, self._at, self._where, self._act = [], threading.get_ident(), at, where, act
        try:
            yield
        finally:
            self._thread = None

    def reached(self) -> bool:
        """Whether the call at which something was to happen was made."""
        return self._act is None

    def before(self, model: Any, **_: object) -> None:
        """A call is about to be sent."""
        if threading.get_ident() == self._thread:
            self.calls.append(f"{model.service_model.service_name}:{model.name}")
            self._happen(Where.NEVER_SENT)

    def after(self, **_: object) -> None:
        """A call was answered."""
        if threading.get_ident() == self._thread:
            self._happen(Where.ANSWER_LOST)

    def _happen(self, where: Where) -> None:
        is_here = self._at in {len(self.calls) - 1, self.calls[-1]}
        if is_here and self._where is where and self._act is not None:
            act, self._act = self._act, None
            act()


@cache
def _session() -> boto3.Session:
    """One session for all worlds: what its clients are made from is read once."""
    return boto3.Session()


@contextmanager
def wired() -> Iterator[Wire]:
    """Puts a wire between all clients that are made from now on and AWS."""
    wire, before = Wire(), boto3.DEFAULT_SESSION
    boto3.DEFAULT_SESSION = session = _session()
    session.events.register("before-call", wire.before)
    session.events.register("after-call", wire.after)
    start_cold()
    try:
        yield wire
    finally:
        session.events.unregister("before-call", wire.before)
        session.events.unregister("after-call", wire.after)
        boto3.DEFAULT_SESSION = before
        start_cold()


def kill() -> None:
    """Ends the process."""
    raise Killed


def elsewhere(work: Callable[[], object]) -> Callable[[], None]:
    """Does work to its end in another environment of the function, while this one waits."""

    def run() -> None:
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised again where it can be seen
                errors.append(error)

        start_cold()
        thread = threading.Thread(target=guarded)
        thread.start()
        thread.join(120)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    return run
