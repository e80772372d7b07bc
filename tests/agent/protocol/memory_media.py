"""The media process in memory: the real port of the recorder, every command kept, RTP sockets open if asked for."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dualtone.domain.errors import MalformedInput, Unavailable
from sbc_agent.media.client import PLAIN
from sbc_agent.media.clock import AgentClock
from sbc_agent.media.messages import CallPolicy, Event, Pause, PortFree, Resume, StreamSpec


@dataclass
class RecordedCall:
    """What was said of one call."""

    began_us: int
    streams: list[tuple[int, tuple[StreamSpec, ...]]]
    signalling: list[tuple[int, int, bytes]] = field(default_factory=list)
    sessions: list[Mapping[str, Any]] = field(default_factory=list)
    ended: tuple[int, str, tuple[str, ...]] | None = None
    adopted: bool = False
    pauses: list[Pause | Resume] = field(default_factory=list)
    waits: bool = False
    silent: bool = False
    decisions: list[bool] = field(default_factory=list)
    policies: list[CallPolicy] = field(default_factory=list)


class MemoryMedia:
    """Implements `sbc_agent.media.client.MediaPort`."""

    def __init__(
        self, ports: Sequence[int] = tuple(range(20000, 20040, 2)), offset_us: int = 1_000_000_000_000
    ) -> None:
        self.clock = AgentClock(offset_us)
        self.ports = tuple(ports)
        self.calls: dict[str, RecordedCall] = {}
        self.gone = False
        self.refuses_sessions = False
        self.has_recovered = False
        self.ingest_keys: list[tuple[str, bytes]] = []
        self.digits: list[tuple[str, int, str, int | None]] = []
        self._listeners: list[Callable[[Event], None]] = []

    @property
    def accepting(self) -> bool:
        return not self.gone

    def begin(
        self,
        call: str,
        at_us: int,
        streams: Sequence[StreamSpec],
        *,
        waits: bool = False,
        silent: bool = False,
        policy: CallPolicy = PLAIN,
    ) -> None:
        self._check(call, new=True)
        self.calls[call] = RecordedCall(at_us, [(at_us, tuple(streams))], waits=waits, silent=silent, policies=[policy])

    def decide(self, call: str, at_us: int, *, keep: bool) -> None:
        self._check_runs()
        self.calls[call].decisions.append(keep)

    def policy(self, call: str, at_us: int, policy: CallPolicy) -> None:
        self._check(call).policies.append(policy)

    def streams(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        self._check(call).streams.append((at_us, tuple(streams)))

    def signalling(self, call: str, at_us: int, direction: Literal[0, 1], raw: bytes) -> None:
        self._check(call).signalling.append((at_us, direction, raw))

    def session(self, call: str, session: Mapping[str, Any]) -> None:
        if self.refuses_sessions:
            raise MalformedInput("larger than a datagram")
        self._check(call).sessions.append(session)

    def end(
        self, call: str, at_us: int, reason: Literal["bye", "shutdown", "error"], flags: Sequence[str] = ()
    ) -> None:
        self._check(call).ended = (at_us, reason, tuple(flags))

    def adopt(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        self._check(call, new=True)
        assert not self.has_recovered, "what is adopted comes before the rest is closed"
        self.calls[call] = RecordedCall(at_us, [(at_us, tuple(streams))], adopted=True)

    def digit(self, call: str, at_us: int, digit: str, stream: int | None = None) -> None:
        self._check(call)
        self.digits.append((call, at_us, digit, stream))

    def recover(self) -> None:
        self._check_runs()
        self.has_recovered = True

    def pause(self, pause: Pause) -> None:
        self._check_runs()
        if pause.call in self.calls:
            self.calls[pause.call].pauses.append(pause)

    def resume(self, resume: Resume) -> None:
        self._check_runs()
        if resume.call in self.calls:
            self.calls[resume.call].pauses.append(resume)

    def use_ingest_key(self, key_arn: str, public_key_der: bytes) -> None:
        self._check_runs()
        self.ingest_keys.append((key_arn, public_key_der))

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        self._listeners.append(listener)

    def tell(self, event: Event) -> None:
        """The media process tells of something."""
        for listener in self._listeners:
            listener(event)

    def free(self, *ports: int) -> None:
        """The media process lets go of ports."""
        for port in ports:
            self.tell(PortFree(port=port))

    def _check_runs(self) -> None:
        if self.gone:
            raise Unavailable("the media process has ended")

    def _check(self, call: str, *, new: bool = False) -> RecordedCall:
        self._check_runs()
        assert (call in self.calls) is not new, "begin comes first and once"
        found = self.calls.get(call, RecordedCall(0, []))
        assert found.ended is None, "nothing comes after end"
        return found


class OpenPorts:
    """RTP sockets, even ports with their RTCP neighbours, that take packets and forget them."""

    def __init__(self, count: int, host: str = "127.0.0.1") -> None:
        self.sockets: list[socket.socket] = []
        self.ports: list[int] = []
        while len(self.ports) < count:
            rtp, rtcp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            rtp.bind((host, 0))
            port = rtp.getsockname()[1]
            try:
                rtcp.bind((host, port + 1))
            except OSError:
                port = 1
            if port % 2 == 0:
                self.sockets += [rtp, rtcp]
                self.ports.append(port)
            else:
                rtp.close()
                rtcp.close()

    def close(self) -> None:
        for opened in self.sockets:
            opened.close()
