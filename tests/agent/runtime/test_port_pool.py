"""RTP ports: handed out in turn, used again only when they have rested."""

from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.runtime.port_pool import QUARANTINE_SECONDS, PortPool


def test_first_in_first_out() -> None:
    """The port that has been free longest goes first."""
    pool = PortPool([1, 2, 3, 4])
    assert pool.take(2, 0.0) == (1, 2)
    assert pool.take(1, 0.0) == (3,)
    assert pool.in_use == 3


def test_all_or_nothing() -> None:
    """A call gets all the ports that it needs, or none is taken."""
    pool = PortPool([1, 2])
    assert pool.take(3, 0.0) is None
    assert pool.take(2, 0.0) == (1, 2)
    assert pool.take(0, 0.0) == ()


def test_a_port_rests_for_32_s_and_until_the_media_process_lets_go() -> None:
    """REQ: INTEROP: a port is not reused for 32 s; nor while the media process still drains its call."""
    pool = PortPool([1, 2])
    assert pool.take(2, 0.0) == (1, 2)
    pool.rest([1, 2], 10.0)
    pool.let_go(1)
    assert pool.take(1, 10.0 + QUARANTINE_SECONDS - 0.001) is None
    assert pool.take(1, 10.0 + QUARANTINE_SECONDS) == (1,)
    assert pool.take(1, 1_000.0) is None, "the media process holds the other"
    pool.let_go(2)
    assert pool.take(1, 1_000.0) == (2,)


def test_ports_that_nobody_was_told_of_need_no_rest() -> None:
    """A call that was never answered gives its ports back at once."""
    pool = PortPool([1])
    assert pool.take(1, 0.0) == (1,)
    pool.put_back([1])
    assert pool.take(1, 0.0) == (1,)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=60))
def test_no_port_is_ever_handed_out_twice(steps: list[tuple[int, int]]) -> None:
    """Whatever is taken, rested, let go and waited for: a port belongs to one call, and returns only after its rest."""
    pool, now = PortPool(range(6)), 0.0
    taken: list[tuple[int, ...]] = []
    resting: dict[int, float] = {}
    held: set[int] = set()
    for kind, count in steps:
        if kind == 0:
            ports = pool.take(count, now)
            if ports:
                assert not set(ports) & {port for call in taken for port in call}
                assert all(port not in held and resting.get(port, 0) <= now for port in ports)
                taken.append(ports)
                held |= set(ports)
        elif kind == 1 and taken:
            call = taken.pop(0)
            pool.rest(call, now)
            resting |= dict.fromkeys(call, now + QUARANTINE_SECONDS)
        elif kind == 2:
            for port in [port for port in held if port not in {port for call in taken for port in call}][:count]:
                pool.let_go(port)
                held.discard(port)
        else:
            now += 15.0 * count
