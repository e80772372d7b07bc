"""Transactions as state tables. Pure; standard: RFC 3261 section 17 with RFC 6026 and RFC 4320.

A server transaction makes one answer out of many copies of a request: the first copy reaches the core, later ones get
the last response again. States and inputs below are the figures of the RFCs, row for row; an input that a state does
not list does nothing there.

    INVITE (figure 7, as changed by RFC 6026 figure 5)      other requests (figure 8)

      Proceeding --2xx--> Accepted --L--> Terminated          Trying --1xx--> Proceeding
          |                                                      |               |
       300-699                                                 final           final
          v                                                      v               v
      Completed --ACK--> Confirmed --I--> Terminated            Completed --J--> Terminated
       |  ^  |
       |  G  H --> Terminated, the core is told
       +--+

    client, other requests (figure 6)

      Trying --1xx--> Proceeding --final--> Completed --K--> Terminated        E repeats the request, F gives up

Timers, in seconds: T1 0.5 is the round trip, T2 4 the longest pause between copies, T4 5 the life of a message in the
network. On reliable transports nothing is repeated and G, E, I, J, K are zero.

What the core does besides: RFC 6026 leaves repeating a 2xx to the core (`dialogs.py`), and so does `Outcome.COPY` in
Accepted: a copy of an INVITE whose 2xx is not acknowledged yet means that the 2xx was lost.
"""

from dataclasses import InitVar, dataclass, field
from enum import Enum, auto
from typing import Final

T1: Final = 0.5
T2: Final = 4.0
T4: Final = 5.0
TIMEOUT: Final = 64 * T1

# REQ: RFC 3261 section 17.2.1: 100 Trying unless the core answers within 200 ms.
TRYING_AFTER: Final = 0.2


class State(Enum):
    """Where a transaction stands."""

    TRYING = auto()
    PROCEEDING = auto()
    ACCEPTED = auto()
    COMPLETED = auto()
    CONFIRMED = auto()
    TERMINATED = auto()


class Input(Enum):
    """What happens to a transaction."""

    COPY = auto()
    ACK = auto()
    PROVISIONAL = auto()
    SUCCESS = auto()
    FAILURE = auto()
    TIMER_100 = auto()
    TIMER_G = auto()
    TIMER_H = auto()
    TIMER_I = auto()
    TIMER_J = auto()
    TIMER_L = auto()
    TIMER_E = auto()
    TIMER_F = auto()
    TIMER_K = auto()


class Outcome(Enum):
    """What a transaction asks of whoever owns it."""

    SEND = auto()
    TRYING = auto()
    COPY = auto()
    ACK = auto()
    DELIVER = auto()
    TIMED_OUT = auto()


Table = dict[tuple[State, Input], tuple[State, tuple[Outcome, ...]]]

_ONCE: Final = (Outcome.SEND,)

INVITE_SERVER: Final[Table] = {
    (State.PROCEEDING, Input.TIMER_100): (State.PROCEEDING, (Outcome.TRYING,)),
    (State.PROCEEDING, Input.COPY): (State.PROCEEDING, _ONCE),
    (State.PROCEEDING, Input.PROVISIONAL): (State.PROCEEDING, _ONCE),
    (State.PROCEEDING, Input.SUCCESS): (State.ACCEPTED, _ONCE),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, _ONCE),
    (State.ACCEPTED, Input.COPY): (State.ACCEPTED, (Outcome.COPY,)),
    (State.ACCEPTED, Input.ACK): (State.ACCEPTED, (Outcome.ACK,)),
    (State.ACCEPTED, Input.TIMER_L): (State.TERMINATED, ()),
    (State.COMPLETED, Input.COPY): (State.COMPLETED, _ONCE),
    (State.COMPLETED, Input.TIMER_G): (State.COMPLETED, _ONCE),
    (State.COMPLETED, Input.TIMER_H): (State.TERMINATED, (Outcome.TIMED_OUT,)),
    (State.COMPLETED, Input.ACK): (State.CONFIRMED, ()),
    (State.CONFIRMED, Input.TIMER_I): (State.TERMINATED, ()),
}

SERVER: Final[Table] = {
    (State.TRYING, Input.PROVISIONAL): (State.PROCEEDING, _ONCE),
    (State.TRYING, Input.SUCCESS): (State.COMPLETED, _ONCE),
    (State.TRYING, Input.FAILURE): (State.COMPLETED, _ONCE),
    (State.PROCEEDING, Input.COPY): (State.PROCEEDING, _ONCE),
    (State.PROCEEDING, Input.PROVISIONAL): (State.PROCEEDING, _ONCE),
    (State.PROCEEDING, Input.SUCCESS): (State.COMPLETED, _ONCE),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, _ONCE),
    (State.COMPLETED, Input.COPY): (State.COMPLETED, _ONCE),
    (State.COMPLETED, Input.TIMER_J): (State.TERMINATED, ()),
}

CLIENT: Final[Table] = {
    (State.TRYING, Input.TIMER_E): (State.TRYING, _ONCE),
    (State.TRYING, Input.TIMER_F): (State.TERMINATED, (Outcome.TIMED_OUT,)),
    (State.TRYING, Input.PROVISIONAL): (State.PROCEEDING, ()),
    (State.TRYING, Input.SUCCESS): (State.COMPLETED, (Outcome.DELIVER,)),
    (State.TRYING, Input.FAILURE): (State.COMPLETED, (Outcome.DELIVER,)),
    (State.PROCEEDING, Input.TIMER_E): (State.PROCEEDING, _ONCE),
    (State.PROCEEDING, Input.TIMER_F): (State.TERMINATED, (Outcome.TIMED_OUT,)),
    (State.PROCEEDING, Input.SUCCESS): (State.COMPLETED, (Outcome.DELIVER,)),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, (Outcome.DELIVER,)),
    (State.COMPLETED, Input.TIMER_K): (State.TERMINATED, ()),
}

# The timers that run in a state of a table: timer, delay on an unreliable transport, delay on a reliable one (None: it
# does not run there). Entering a state starts them; leaving it stops them.
_RUNNING: Final[dict[int, dict[State, tuple[tuple[Input, float, float | None], ...]]]] = {
    id(INVITE_SERVER): {
        State.PROCEEDING: ((Input.TIMER_100, TRYING_AFTER, TRYING_AFTER),),
        State.ACCEPTED: ((Input.TIMER_L, TIMEOUT, TIMEOUT),),
        State.COMPLETED: ((Input.TIMER_G, T1, None), (Input.TIMER_H, TIMEOUT, TIMEOUT)),
        State.CONFIRMED: ((Input.TIMER_I, T4, 0.0),),
    },
    id(SERVER): {State.COMPLETED: ((Input.TIMER_J, TIMEOUT, 0.0),)},
    id(CLIENT): {
        State.TRYING: ((Input.TIMER_E, T1, None), (Input.TIMER_F, TIMEOUT, TIMEOUT)),
        State.COMPLETED: ((Input.TIMER_K, T4, 0.0),),
    },
}


def input_of(status: int) -> Input:
    """The input that a response of this status is."""
    return Input.PROVISIONAL if status < 200 else Input.SUCCESS if status < 300 else Input.FAILURE  # noqa: PLR2004 - classes


@dataclass(slots=True)
class Transaction:
    """One transaction: a table, a state, the octets to repeat, and timers.

    Attributes:
        table: `INVITE_SERVER`, `SERVER` or `CLIENT`.
        reliable: whether the transport repeats by itself.
        data: what is sent again: the last response, or a client's request; None before the first response.
        state: where it stands.
        timers: running timers and their deadlines.
        repeat_after: the pause before the next copy, in seconds.
    """

    table: Table
    reliable: bool
    state: State
    now: InitVar[float]
    data: bytes | None = field(default=None, repr=False)
    timers: dict[Input, float] = field(default_factory=dict)
    repeat_after: float = T1

    def __post_init__(self, now: float) -> None:
        self._enter(self.state, now)

    @classmethod
    def invite_server(cls, *, reliable: bool, now: float) -> "Transaction":
        """A transaction for an INVITE that has just come."""
        return cls(INVITE_SERVER, reliable, State.PROCEEDING, now)

    @classmethod
    def server(cls, *, reliable: bool, now: float) -> "Transaction":
        """A transaction for any other request that has just come."""
        return cls(SERVER, reliable, State.TRYING, now)

    @classmethod
    def client(cls, data: bytes, *, reliable: bool, now: float) -> "Transaction":
        """A transaction for a request, not an INVITE, that is just being sent."""
        return cls(CLIENT, reliable, State.TRYING, now, data)

    @property
    def terminated(self) -> bool:
        """Whether nothing can happen any more."""
        return self.state is State.TERMINATED

    def timer(self) -> float | None:
        """The next deadline, or None."""
        return min(self.timers.values(), default=None)

    def respond(self, status: int, data: bytes, now: float) -> tuple[Outcome, ...]:
        """The core answers (server transactions)."""
        if (self.state, input_of(status)) in self.table:
            self.data = data
            self.timers.pop(Input.TIMER_100, None)
        return self.take(input_of(status), now)

    def take(self, event: Input, now: float) -> tuple[Outcome, ...]:
        """One input.

        Args:
            event: what happened.
            now: the time, in seconds.

        Returns:
            What the owner has to do, in order; `SEND` means `data`, if there is any.
        """
        state, outcomes = self.table.get((self.state, event), (self.state, ()))
        if state is not self.state:
            self._enter(state, now)
        return tuple(outcome for outcome in outcomes if outcome is not Outcome.SEND or self.data is not None)

    def handle_timer(self, now: float) -> tuple[Outcome, ...]:
        """The inputs of all timers that are due."""
        outcomes: list[Outcome] = []
        for event, at in sorted(self.timers.items(), key=lambda timer: timer[1]):
            if at > now or self.timers.get(event) != at:
                continue
            del self.timers[event]
            if event in {Input.TIMER_G, Input.TIMER_E}:
                # REQ: RFC 3261 sections 17.2.1 and 17.1.2.2: G and E double up to T2; E is T2 once a 1xx came.
                self.repeat_after = T2 if self.state is State.PROCEEDING else min(2 * self.repeat_after, T2)
                self.timers[event] = now + self.repeat_after
            outcomes += self.take(event, now)
        return tuple(outcomes)

    def _enter(self, state: State, now: float) -> None:
        # F and E run on from Trying into Proceeding; every other timer belongs to its state.
        kept = self.timers if state is State.PROCEEDING else {}
        self.state, self.timers = state, dict(kept)
        for event, unreliable, reliable in _RUNNING[id(self.table)].get(state, ()):
            delay = reliable if self.reliable else unreliable
            if delay == 0:
                self.state, self.timers = State.TERMINATED, {}
            elif delay is not None:
                self.timers[event] = now + delay
