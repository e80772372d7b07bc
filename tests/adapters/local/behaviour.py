"""Documented behaviours of AWS, each a function that raises unless it is met, tied to the mend that it needs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

REGION = "eu-west-1"
_MEETING_S = 0.3


@dataclass
class Aws:
    """moto, mended or not: clients by service name."""

    clients: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, service: str) -> Any:
        name = service.replace("_", "-")
        if name not in self.clients:
            self.clients[name] = boto3.client(name, region_name=REGION)  # type: ignore[call-overload]
        return self.clients[name]


Behaviour = Callable[[Aws], None]
BEHAVIOURS: list[tuple[str, Behaviour]] = []


def restored_by(mend: str) -> Callable[[Behaviour], Behaviour]:
    """Registers a behaviour as one that only the mend of that name brings about."""

    def register(behaviour: Behaviour) -> Behaviour:
        BEHAVIOURS.append((mend, behaviour))
        return behaviour

    return register


@contextlib.contextmanager
def refused(code: str) -> Iterator[None]:
    """The block must end with an error of AWS that has this code."""
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code


@contextlib.contextmanager
def meeting(owner: type, method: str) -> Iterator[None]:
    """Makes the first two threads that call a method wait for each other in it, but not for ever.

    Code that holds a lock around the call never meets the other thread and goes on alone after a moment: so a race that
    can happen does happen, and one that cannot costs a fraction of a second.
    """
    original = getattr(owner, method)
    barrier = threading.Barrier(2)
    tickets = iter(range(2))

    def met(*args: Any, **kwargs: Any) -> Any:
        if next(tickets, None) is not None:
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(_MEETING_S)
        return original(*args, **kwargs)

    setattr(owner, method, met)
    try:
        yield
    finally:
        setattr(owner, method, original)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Runs calls in a thread each; returns what each returned, or the exception it raised."""
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            results[index] = call()
        except Exception as error:  # noqa: BLE001 - the test judges it
            results[index] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
