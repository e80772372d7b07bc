"""The order in which calls are sent."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dualtone.domain.ids import CallId
from sbc_agent.runtime.call_queue import CallQueue

OLD, NEW = CallId("01A"), CallId("01B")


def test_the_oldest_call_goes_first() -> None:
    """Whatever the order in which calls are found, the oldest is claimed first."""
    queue = CallQueue()
    queue.push(NEW)
    queue.push(OLD)
    assert [queue.claim(0), queue.claim(0), queue.claim(0)] == [OLD, NEW, None]


def test_a_call_found_again_while_it_is_sent_waits_again() -> None:
    """A part that closes while its call is being sent is not forgotten."""
    queue = CallQueue()
    queue.push(OLD)
    assert queue.claim(0) == OLD
    queue.push(OLD)
    assert queue.claim(0) is None
    queue.release(OLD)
    assert queue.claim(0) == OLD


def test_a_delayed_call_lets_others_pass() -> None:
    """A call that failed waits for its time, though it is found again, and then comes first again."""
    queue = CallQueue()
    queue.push(OLD)
    queue.claim(0)
    queue.delay(OLD, 10)
    queue.release(OLD)
    queue.push(OLD)
    queue.push(NEW)
    assert queue.claim(9.9) == NEW
    assert queue.claim(9.9) is None
    assert queue.next_due() == 10
    assert queue.claim(10) == OLD


def test_a_call_that_is_seized_while_it_waits_is_not_claimed_either() -> None:
    """It was found before the receipt came: it waits on until the receipt has been acted upon."""
    queue = CallQueue()
    queue.push(OLD)
    queue.push(NEW)
    assert queue.seize(OLD)
    assert queue.claim(0) == NEW
    assert queue.claim(0) is None
    queue.release(OLD)
    assert queue.claim(0) == OLD


def test_a_call_that_rests_is_passed_over_until_something_changes() -> None:
    """A look through the spool finds those that are new, due, changed or gone; a finished one may change unnoticed."""
    queue, changed = CallQueue(), {OLD: 1, NEW: 1}
    queue.wake([OLD, NEW], 0, changed.get)
    assert {queue.claim(0), queue.claim(0)} == {OLD, NEW}
    queue.rest(OLD, 100, 1, finished=False)
    queue.rest(NEW, 100, 1, finished=True)
    queue.release(OLD)
    queue.release(NEW)
    assert queue.unconfirmed == 1
    queue.wake([OLD, NEW], 99, changed.get)
    assert queue.claim(99) is None
    changed |= {OLD: 2, NEW: 2}
    queue.wake([OLD, NEW], 99, changed.get)
    assert (queue.claim(99), queue.claim(99)) == (OLD, None)
    queue.release(OLD)
    queue.wake([NEW], 99, changed.get)
    assert queue.claim(99) == OLD, "it is gone: whoever takes it up finds out"
    queue.forget(OLD)
    queue.release(OLD)
    queue.wake([NEW], 100, changed.get)
    assert (queue.claim(100), queue.claim(100)) == (NEW, None)


def test_a_seized_call_is_not_claimed() -> None:
    """What the receipts hold, no sender takes, and the other way round."""
    queue = CallQueue()
    queue.push(OLD)
    queue.claim(0)
    assert not queue.seize(OLD)
    queue.release(OLD)
    assert queue.seize(OLD)
    queue.push(OLD)
    assert queue.claim(0) is None


class QueueMachine(RuleBasedStateMachine):
    """No order of events loses a call, or gives one to two hands."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = CallQueue()
        self.now = 0.0
        self.held: set[CallId] = set()
        self.owed: set[CallId] = set()

    @rule(number=st.integers(0, 5))
    def push(self, number: int) -> None:
        call = CallId(f"01{number}")
        self.queue.push(call)
        self.owed.add(call)

    @rule()
    def claim(self) -> None:
        call = self.queue.claim(self.now)
        if call is not None:
            assert call not in self.held
            self.held.add(call)
            self.owed.discard(call)

    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        if self.held:
            call = self.held.pop()
            if fails:
                self.queue.delay(call, self.now + 5)
                self.owed.add(call)
            self.queue.release(call)

    @rule(step=st.floats(0, 10))
    def wait(self, step: float) -> None:
        self.now += step

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.owed | self.held)

    def teardown(self) -> None:
        for call in list(self.held):
            self.queue.release(call)
        seen = set()
        while (claimed := self.queue.claim(self.now + 100)) is not None:
            seen.add(claimed)
            self.queue.release(claimed)
        assert self.owed <= seen


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=30)
