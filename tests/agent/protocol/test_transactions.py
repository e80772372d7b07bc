"""Transactions: the timers and states of RFC 3261 section 17 and RFC 6026, time in the test's hand."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.protocol.timers import Timers
from sbc_agent.protocol.transactions import (
    CLIENT,
    INVITE_SERVER,
    SERVER,
    T4,
    TIMEOUT,
    Input,
    Outcome,
    State,
    Transaction,
)

START = 100.0
SEND = (Outcome.SEND,)


def times(transaction: Transaction, until: float) -> list[tuple[float, Outcome]]:
    """What the timers do up to a time, in seconds after the start."""
    found = []
    while (at := transaction.timer()) is not None and at <= START + until:
        found += [(round(at - START, 3), outcome) for outcome in transaction.handle_timer(at)]
    return found


def invite(*, reliable: bool = False) -> Transaction:
    return Transaction.invite_server(reliable=reliable, now=START)


def test_trying_after_200_ms() -> None:
    """REQ: RFC 3261 section 17.2.1: 100 is due after 200 ms, unless a response was given by then."""
    assert times(invite(), 1) == [(0.2, Outcome.TRYING)]
    answered = invite()
    answered.respond(180, b"ringing", START)
    assert times(answered, 1) == []


def test_a_copy_in_proceeding_gets_the_last_provisional() -> None:
    """A copy of the INVITE is answered by the last provisional response; before there is one, by nothing."""
    transaction = invite()
    assert transaction.take(Input.COPY, START) == ()
    assert transaction.respond(100, b"trying", START) == SEND
    assert transaction.take(Input.COPY, START) == SEND
    assert transaction.data == b"trying"


def test_a_2xx_leads_to_accepted_and_timer_l() -> None:
    """REQ: RFC 6026 section 7.1: copies match for 64*T1 after a 2xx and are the core's business, as are ACKs."""
    transaction = invite()
    assert transaction.respond(200, b"ok", START) == SEND
    assert transaction.state is State.ACCEPTED
    assert transaction.take(Input.COPY, START + 1) == (Outcome.COPY,)
    assert transaction.take(Input.ACK, START + 2) == (Outcome.ACK,)
    assert times(transaction, TIMEOUT - 0.001) == []
    assert times(transaction, TIMEOUT) == []
    assert transaction.terminated


def test_timer_g_doubles_up_to_t2_and_timer_h_gives_up() -> None:
    """REQ: RFC 3261 section 17.2.1: G starts at T1 and doubles to T2; H ends at 64*T1 and the core is told."""
    transaction = invite()
    transaction.respond(486, b"busy", START)
    expected = [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert times(transaction, 40) == [(at, Outcome.SEND) for at in expected] + [(32.0, Outcome.TIMED_OUT)]
    assert transaction.terminated


def test_no_timer_g_on_a_reliable_transport() -> None:
    """REQ: RFC 3261 section 17.2.1: G runs on unreliable transports only; H runs on both."""
    transaction = invite(reliable=True)
    transaction.respond(486, b"busy", START)
    assert times(transaction, 40) == [(32.0, Outcome.TIMED_OUT)]


@pytest.mark.parametrize(("reliable", "absorbs_for"), [(False, T4), (True, 0.0)])
def test_an_ack_confirms_and_timer_i_absorbs(reliable: bool, absorbs_for: float) -> None:
    """REQ: RFC 3261 section 17.2.1: after the ACK, copies of it are absorbed for T4; on reliable transports not."""
    transaction = invite(reliable=reliable)
    transaction.respond(487, b"terminated", START)
    assert transaction.take(Input.ACK, START) == ()
    assert transaction.terminated is reliable
    assert transaction.take(Input.ACK, START) == ()
    assert times(transaction, absorbs_for) == []
    assert transaction.terminated


def test_other_requests_run_to_timer_j() -> None:
    """REQ: RFC 3261 section 17.2.2: a copy is answered by the final response for 64*T1; before that by nothing."""
    transaction = Transaction.server(reliable=False, now=START)
    assert transaction.take(Input.COPY, START) == ()
    assert transaction.respond(200, b"ok", START) == SEND
    assert transaction.take(Input.COPY, START + 31) == SEND
    assert transaction.respond(500, b"late", START) == ()
    assert transaction.data == b"ok"
    assert times(transaction, TIMEOUT) == []
    assert transaction.terminated
    assert Transaction.server(reliable=True, now=START).respond(200, b"ok", START) == SEND


def test_a_reliable_transport_ends_at_once() -> None:
    """REQ: RFC 3261 section 17.2.2: timer J is zero on reliable transports."""
    transaction = Transaction.server(reliable=True, now=START)
    transaction.respond(200, b"ok", START)
    assert transaction.terminated


def test_a_client_repeats_until_timer_f() -> None:
    """REQ: RFC 3261 section 17.1.2.2: E doubles from T1 to T2; F gives up after 64*T1."""
    transaction = Transaction.client(b"BYE", reliable=False, now=START)
    expected = [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert times(transaction, 40) == [(at, Outcome.SEND) for at in expected] + [(32.0, Outcome.TIMED_OUT)]


def test_a_client_slows_down_after_a_provisional() -> None:
    """REQ: RFC 3261 section 17.1.2.2: in Proceeding E is T2; F runs on."""
    transaction = Transaction.client(b"BYE", reliable=False, now=START)
    assert transaction.take(Input.PROVISIONAL, START + 0.1) == ()
    assert times(transaction, 40)[:3] == [(0.5, Outcome.SEND), (4.5, Outcome.SEND), (8.5, Outcome.SEND)]
    assert transaction.terminated


def test_a_client_delivers_once() -> None:
    """A final response is delivered once; copies of it are absorbed for T4."""
    transaction = Transaction.client(b"BYE", reliable=False, now=START)
    assert transaction.take(Input.FAILURE, START) == (Outcome.DELIVER,)
    assert transaction.take(Input.SUCCESS, START) == ()
    assert times(transaction, T4) == []
    assert transaction.terminated
    quick = Transaction.client(b"BYE", reliable=True, now=START)
    assert quick.take(Input.SUCCESS, START) == (Outcome.DELIVER,)
    assert quick.terminated


def test_tables_lead_somewhere() -> None:
    """No row leaves Terminated, and from every state Terminated can be reached."""
    for table in (INVITE_SERVER, SERVER, CLIENT):
        assert not any(state is State.TERMINATED for state, _ in table)
        reached = {State.TERMINATED}
        for _ in State:
            reached |= {state for (state, _), (target, _) in table.items() if target in reached}
        assert {state for state, _ in table} <= reached


_INPUTS = st.sampled_from([Input.COPY, Input.ACK])
_STEPS = st.lists(st.one_of(_INPUTS, st.sampled_from([100, 180, 200, 404, 603]), st.floats(0, 70)), max_size=15)


@given(_STEPS, st.booleans(), st.sampled_from([Transaction.invite_server, Transaction.server]))
def test_no_order_of_inputs_breaks_a_transaction(
    steps: list[Input | int | float], reliable: bool, start: Callable[..., Transaction]
) -> None:
    """Whatever comes in whatever order: the final response stays the same, and time ends it."""
    transaction = start(reliable=reliable, now=START)
    now, final = START, None
    for step in steps:
        if isinstance(step, float):
            now += step
            while (at := transaction.timer()) is not None and at <= now:
                transaction.handle_timer(at)
        elif isinstance(step, int):
            before = transaction.state
            sent = transaction.respond(step, b"%d" % step, now)
            if Outcome.SEND in sent and step >= 200 and before in {State.TRYING, State.PROCEEDING}:
                assert final is None
                final = step
        else:
            transaction.take(step, now)
        if final is not None and not transaction.terminated:
            assert transaction.data == b"%d" % final
    while final is not None and (at := transaction.timer()) is not None:
        transaction.handle_timer(at)
    assert transaction.terminated or final is None


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.floats(0, 100))), max_size=40))
def test_timers_fire_in_order_and_once(settings: list[tuple[int, float | None]]) -> None:
    """The last deadline set for a key is the one that fires; a cancelled one does not."""
    timers: Timers[int] = Timers()
    wanted: dict[int, float] = {}
    for key, at in settings:
        timers.set(key, at)
        wanted = {**wanted, key: at} if at is not None else {other: t for other, t in wanted.items() if other != key}
    assert timers.next() == min(wanted.values(), default=None)
    fired = list(itertools.chain(timers.due(50), timers.due(100)))
    assert sorted(fired) == sorted(wanted)
    assert [wanted[key] for key in fired] == sorted(wanted.values())
    assert timers.next() is None
