"""The gate before the cloud: nothing of a call passes that is not recorded, whenever it comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.agent_events import CutEvent, HealthEvent, LeaseEvent, SpoolState
from sbc_agent.runtime import site_events
from sbc_agent.runtime.site_events import SiteEvents
from tests.agent.runtime.ruled import Told

ONE, OTHER = "01HZX3Q8W0ABCDEFGHJKMNPQRT", "01HZX3Q8W0ABCDEFGHJKMNPQRV"
HEALTH = HealthEvent([], SpoolState(0, 0, 0), {}, "1", 0)


def lease(call: str, at_us: int = 1) -> LeaseEvent:
    return LeaseEvent(call, "payment", "silent", at_us)


def test_events_of_recorded_calls_and_of_the_agent_pass() -> None:
    told = Told()
    gate = SiteEvents(told)
    gate.put(lease(ONE))
    gate.put(HEALTH)
    assert told.events == [lease(ONE), HEALTH]


def test_what_is_held_back_comes_in_its_order() -> None:
    told = Told()
    gate = SiteEvents(told)
    gate.hold(ONE)
    gate.put(lease(ONE, 1))
    gate.put(lease(OTHER))
    gate.put(lease(ONE, 2))
    assert told.events == [lease(OTHER)]
    assert gate.release(ONE) == [lease(ONE, 1), lease(ONE, 2)]
    gate.put(lease(ONE, 3))
    assert told.events == [lease(OTHER), lease(ONE, 3)]


def test_what_comes_after_the_end_of_a_call_that_was_not_recorded_is_not_told() -> None:
    told = Told()
    gate = SiteEvents(told)
    gate.hold(ONE)
    gate.forget(ONE)
    gate.put(CutEvent(ONE, OTHER, 1, 2, []))
    assert told.events == []


def test_the_memory_of_such_calls_is_bounded() -> None:
    gate = SiteEvents(Told())
    for number in range(site_events.MOST_FORGOTTEN + 5):
        gate.hold(str(number))
        gate.forget(str(number))
    assert len(gate._forgotten) == site_events.MOST_FORGOTTEN
    gate.hold(ONE)
    for _ in range(site_events.MOST_HELD + 5):
        gate.put(lease(ONE))
    assert len(gate.release(ONE)) == site_events.MOST_HELD


@given(st.lists(st.sampled_from(["hold", "put", "release", "forget"])))
def test_in_whatever_order_things_come(steps: list[str]) -> None:
    """What was put while a call was held, and not released, is never told."""
    told, held, expected = Told(), None, 0
    gate, is_forgotten = SiteEvents(told), False
    for step in steps:
        if step == "hold":
            gate.hold(ONE)
            held = held if held is not None else 0
        elif step == "put":
            gate.put(lease(ONE))
            if held is not None:
                held += 1
            elif not is_forgotten:
                expected += 1
        elif step == "release":
            assert len(gate.release(ONE)) == (held or 0)
            held = None
        elif held is not None:
            gate.forget(ONE)
            held, is_forgotten = None, True
        else:
            gate.forget(ONE)
    assert len(told.events) == expected
