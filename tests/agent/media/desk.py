"""A real engine over a real spool, with time, sockets and packets in the test's hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sbc_agent.media import messages
from sbc_agent.media.clock import Moment
from sbc_agent.media.disk import Disk
from sbc_agent.media.engine import Engine
from sbc_agent.media.engine_settings import EngineSettings
from sbc_agent.media.messages import Event, FormatSpec, StreamSpec
from sbc_agent.media.receive import DEPTH, SLOT_BYTES, Received
from sbc_agent.media.recovery import Recovery
from sbc_agent.media.seal import AgentKey, IngestKey
from sbc_agent.media.sockets import RtpSocket
from tests.agent.media.feed import PEER, Arrival, received
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import AGENT, CALL, KEY_ARN, TENANT, OpenedCall, agent_key, ingest_key, open_call

_E = TypeVar("_E")
START_US = 1_700_000_000_000_000
PCMA = FormatSpec(payload_type=8, codec="PCMA", clock_hz=8_000)
EVENTS = FormatSpec(payload_type=101, codec="telephone-event", clock_hz=8_000)
TICK_US = 100_000
PLAIN = messages.CallPolicy()


@dataclass
class Port:
    """Stands for a port pair: datagrams lie in it until the engine drains it."""

    port: int
    is_shut: bool = False
    waiting: list[tuple[bytes, int, int]] = field(default_factory=list)

    @property
    def rtp(self) -> Port:
        return self

    def fileno(self) -> int:
        return self.port

    def shut(self) -> None:
        self.is_shut = True
        self.waiting.clear()

    def reopen(self) -> None:
        self.is_shut = False


class Ports:
    """All ports; a ``Receiver`` over them."""

    def __init__(self, count: int) -> None:
        self.by_port = {20_000 + 2 * index: Port(20_000 + 2 * index) for index in range(count)}
        self.buffer: npt.NDArray[np.uint8] = np.zeros(SLOT_BYTES, np.uint8)

    def receive(self, descriptors: Sequence[int]) -> Received:
        arrivals, full = [], []
        for member, descriptor in enumerate(descriptors):
            port = self.by_port[descriptor]
            arrivals += [Arrival(member, data, at_us, source) for data, at_us, source in port.waiting[:DEPTH]]
            del port.waiting[:DEPTH]
            if sum(one.member == member for one in arrivals) == DEPTH:
                full.append(member)
        result, self.buffer = received(arrivals)
        return replace(result, full=np.array(full, np.int64))


class Desk:
    """An engine and what surrounds it.

    ``run`` is the only thing that makes time pass.
    """

    def __init__(
        self,
        directory: Path,
        *,
        hold_back_ms: int = 5_000,
        part_s: int = 60,
        ports: int = 8,
        now_us: int = START_US,
        openings: int = 0,
        randomness: Callable[[int], bytes] = lambda count: bytes(range(count)),
    ) -> None:
        self.spool_dir = directory / "spool"
        self.now_us = now_us
        self.ports = Ports(ports)
        self.events: list[Event] = []
        self.failures: list[BaseException] = []
        self.disk = Disk(self.failures.append)
        self._openings = openings
        self._number = 0
        sockets: dict[int, RtpSocket] = dict(self.ports.by_port)  # type: ignore[arg-type]
        self.engine = Engine(
            EngineSettings(TENANT, AGENT, "0.1.0", self.spool_dir, hold_back_ms * 1_000, TICK_US, part_s * 1_000_000),
            receiver=self.ports,
            sockets=sockets,
            signer=AgentKey(AGENT, agent_key()),
            ingest=IngestKey(KEY_ARN, ingest_key().public_key()),
            disk=self.disk,
            recovery=Recovery(self.spool_dir, TENANT, AGENT, "0.1.0", AgentKey(AGENT, agent_key()), 0),
            next_opening=self._next_opening,
            randomness=randomness,
            moment=self.moment,
        )

    @property
    def moment(self) -> Moment:
        return Moment(self.now_us, 0)

    def run(self, seconds: float) -> None:
        """Lets time pass, tick by tick."""
        for _ in range(round(seconds * 1_000_000 / TICK_US)):
            self.now_us += TICK_US
            self.engine.tick(self.moment)
            self.events += self.engine.events()

    def settle(self) -> None:
        """Waits for the disk's threads, at the same moment of the engine's time."""
        self.disk.close()
        self.events += self.engine.events()
        assert not self.failures

    def settle_jobs(self) -> None:
        """Waits until the disk's threads have done what they were given, at the same moment of the engine's time."""
        while not self.disk.is_idle:
            self.events += self.engine.events()
        assert not self.failures

    def tell(self, command: messages.Command) -> None:
        self.engine.handle(command, self.moment)

    def streams(self, *active: bool, formats: tuple[FormatSpec, ...] = (PCMA, EVENTS)) -> tuple[StreamSpec, ...]:
        return tuple(
            StreamSpec(stream=index, label=str(index), port=20_000 + 2 * index, active=one, formats=formats)
            for index, one in enumerate(active)
        )

    def begin(
        self,
        *active: bool,
        waits: bool = False,
        silent: bool = False,
        policy: messages.CallPolicy = PLAIN,
        formats: tuple[FormatSpec, ...] = (PCMA, EVENTS),
    ) -> None:
        streams = self.streams(*active or (True, True), formats=formats)
        begin = messages.Begin(call=CALL, at_us=self.now_us, streams=streams, waits=waits, silent=silent, policy=policy)
        self.tell(begin)

    def decide(self, *, keep: bool) -> None:
        self.tell(messages.Decide(call=CALL, at_us=self.now_us, keep=keep))

    def change(self, *active: bool, at_us: int | None = None) -> None:
        at_us = self.now_us if at_us is None else at_us
        self.tell(messages.Streams(call=CALL, at_us=at_us, streams=self.streams(*active)))

    def end(self, *, at_us: int | None = None) -> None:
        at_us = self.now_us if at_us is None else at_us
        self.tell(messages.End(call=CALL, at_us=at_us, reason="bye"))

    def pause(
        self,
        from_us: int,
        cause: messages.Cause = "payment",
        *,
        call: str = CALL,
        until_us: int | None = None,
        lease_us: int = 0,
        on_expiry: messages.OnExpiry = "silent",
        number: int | None = None,
        origin: messages.Origin = "cloud",
    ) -> messages.PauseApplied | None:
        """Sends a pause; returns the answer if it came at once."""
        command = messages.Pause(
            call=call,
            at_us=self.now_us,
            from_us=from_us,
            cause=cause,
            origin=origin,
            number=self.next_number() if number is None else number,
            command=self.command(),
            by="someone",
            effective_at_us=from_us + 250_000,
            until_us=until_us,
            lease_us=lease_us,
            on_expiry=on_expiry,
        )
        return self._answered(command)

    def resume(
        self,
        cause: messages.Cause = "payment",
        *,
        call: str = CALL,
        number: int | None = None,
        origin: messages.Origin = "cloud",
    ) -> messages.PauseApplied | None:
        """Sends a resume; returns the answer if it came at once."""
        command = messages.Resume(
            call=call,
            at_us=self.now_us,
            cause=cause,
            origin=origin,
            number=self.next_number() if number is None else number,
            command=self.command(),
            by="another",
        )
        return self._answered(command)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def command(self) -> str:
        """The id of the command that was numbered last."""
        return f"{CALL[:-4]}{self._number:04d}"

    def adopt(self, *active: bool) -> None:
        self.tell(messages.Adopt(call=CALL, at_us=self.now_us, streams=self.streams(*active or (True, True))))

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of a kind so far."""
        self.events += self.engine.events()
        return [event for event in self.events if isinstance(event, kind)]

    def _answered(self, command: messages.Command) -> messages.PauseApplied | None:
        before = len(self.of(messages.PauseApplied))
        self.tell(command)
        return next(iter(self.of(messages.PauseApplied)[before:]), None)

    def arrive(self, stream: int, data: bytes, *, at_us: int | None = None, source: int = PEER) -> None:
        """A datagram reaches a socket."""
        port = self.ports.by_port[20_000 + 2 * stream]
        if not port.is_shut:
            port.waiting.append((data, self.now_us if at_us is None else at_us, source))

    def talk(self, seconds: float, first: int = 0, *, streams: int = 2) -> int:
        """Both sides send 20 ms packets while time passes; returns the number after the last one."""
        number = first
        for _ in range(round(seconds * 10)):
            for index in range(5):
                for stream in range(streams):
                    at_us = self.now_us + 20_000 * index
                    self.arrive(stream, packet(number, speech(stream, number), ssrc=stream + 1), at_us=at_us)
                number += 1
            self.run(0.1)
        return number

    def opened(self) -> OpenedCall:
        self.settle()
        return open_call(self.spool_dir / CALL)

    def _next_opening(self) -> int:
        self._openings += 1
        return self._openings
