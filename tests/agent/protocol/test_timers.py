"""Deadlines of many things."""

from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.protocol.timers import Timers


@given(
    st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 100))), max_size=400),
    st.integers(0, 100),
)
def test_what_is_due_is_what_was_set_last(changes: list[tuple[int, int | None]], now: int) -> None:
    """Of each key the last deadline counts, and they come in their order, however often they were moved."""
    timers: Timers[int] = Timers()
    wanted: dict[int, int] = {}
    for key, at in changes:
        timers.set(key, at)
        if at is None:
            wanted.pop(key, None)
        else:
            wanted[key] = at
    assert timers.next() == min(wanted.values(), default=None)
    due = list(timers.due(now))
    assert [wanted[key] for key in due] == sorted(at for at in wanted.values() if at <= now)
    assert len(timers) == len(wanted) - len(due)


def test_moving_a_deadline_does_not_fill_the_memory() -> None:
    """A dialog that is heard from all day keeps one deadline, not one for each time."""
    timers: Timers[str] = Timers()
    for moment in range(10_000):
        timers.set("dialog", 3_600.0 + moment)
        timers.set(f"call {moment}", 3_600.0)
        timers.set(f"call {moment}", None)
    assert len(timers._heap) < 100
    assert timers.next() == 13_599.0
