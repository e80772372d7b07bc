"""The threads that wait for the disk: order within a call, and no call in the way of another."""

from collections.abc import Callable, Sequence
from threading import Event as Flag
from typing import NoReturn

import pytest

from sbc_agent.media import disk as disks
from sbc_agent.media.disk import Disk
from sbc_agent.media.messages import Alarm, Event

PATIENCE_S = 10
A, B = (f"01HZX3Q8W0ABCDEFGHJKMNPQR{letter}" for letter in "AB")


def raises(error: BaseException) -> NoReturn:
    raise error


def sets(flag: Flag) -> Callable[[], Sequence[Event]]:
    def job() -> Sequence[Event]:
        flag.set()
        return ()

    return job


def test_a_call_that_the_disk_refuses_holds_up_no_other() -> None:
    """A directory that was taken away is refused for ever; the next call of the same thread is written all the same."""
    disk, written = Disk(raises, threads=1), Flag()
    disk.submit(A, lambda: raises(FileNotFoundError()))
    disk.submit(B, sets(written))
    assert written.wait(PATIENCE_S)
    assert not disk.is_idle
    disk.close()
    assert [event for event in disk.events() if isinstance(event, Alarm)] == [Alarm(kind="spool_write", call=A)]


def test_jobs_of_a_refused_call_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes for a call that waits is done after what waits."""
    monkeypatch.setattr(disks, "_RETRY_S", 0.01)
    disk, order, may_write, last = Disk(raises, threads=1), list[int](), Flag(), Flag()

    def first() -> Sequence[Event]:
        if not may_write.is_set():
            raise OSError
        order.append(1)
        return ()

    def second() -> Sequence[Event]:
        order.append(2)
        last.set()
        return ()

    disk.submit(A, first)
    disk.submit(A, second)
    disk.submit(B, sets(may_write))
    assert last.wait(PATIENCE_S)
    disk.close()
    assert order == [1, 2]
    assert disk.events() == [Alarm(kind="spool_write", call=A)]
    assert disk.is_idle


def test_a_fault_that_is_not_the_disks_is_told_and_ends_no_thread() -> None:
    faults: list[BaseException] = []
    disk, written = Disk(faults.append, threads=1), Flag()
    disk.submit(A, lambda: raises(ZeroDivisionError()))
    disk.submit(A, sets(written))
    assert written.wait(PATIENCE_S)
    disk.close()
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


def test_a_process_that_ends_waits_for_no_call_whose_directory_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs are dropped, with an alarm; a call that is refused for another reason is still waited for."""
    monkeypatch.setattr(disks, "_RETRY_S", 0.01)
    disk, may_write, written, order = Disk(raises, threads=1), Flag(), Flag(), list[int]()

    def job() -> Sequence[Event]:
        if not may_write.is_set():
            raise OSError
        order.append(1)
        return sets(written)()

    disk.submit(A, lambda: raises(FileNotFoundError()))
    disk.submit(A, lambda: raises(FileNotFoundError()))
    disk.submit(B, job)
    disk.give_up(lambda call: call == A)
    events: list[Event] = []
    while Alarm(kind="spool_gone", call=A) not in events:
        events += disk.events()
    assert not disk.is_idle
    may_write.set()
    assert written.wait(PATIENCE_S)
    disk.close()
    events += disk.events()
    assert disk.is_idle
    assert order == [1]
    assert [one.call for one in events if isinstance(one, Alarm) and one.kind == "spool_gone"] == [A]
