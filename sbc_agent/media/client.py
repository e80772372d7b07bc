"""The media process as the SIP process sees it: started, commanded, listened to.

``MediaPort`` is what the SIP shell needs of it. ``MediaClient`` makes it real: a child process on one end of a
SOCK_SEQPACKET pair. Commands are queued when the child's buffer is full and follow in order. A child that takes nothing
does not fill the memory: past ``MAX_UNSENT_BYTES`` new calls, SIP messages and metadata are refused, while changes and
ends of calls, which are small and as many as the calls, still queue. Only the event loop's thread may call it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from dualtone.domain.errors import MalformedInput, Unavailable
from sbc_agent.media import messages
from sbc_agent.media.child import MediaChild
from sbc_agent.media.child import start as start_child
from sbc_agent.media.clock import AgentClock
from sbc_agent.media.messages import (
    MAX_MESSAGE_BYTES,
    CallPolicy,
    Command,
    Event,
    MediaSettings,
    Pause,
    Ready,
    Resume,
    Stats,
    StreamSpec,
)

_RECEIVE_AT_ONCE: Final = 256
MAX_UNSENT_BYTES: Final = 32 << 20
PLAIN: Final = CallPolicy()
_REFUSED_WHEN_FULL: Final = (messages.Begin, messages.Signalling, messages.Session)


class MediaPort(Protocol):
    """What the SIP shell asks of the media process. Times are the agent's clock, microseconds of Unix time."""

    @property
    def clock(self) -> AgentClock:
        """The agent's clock."""

    @property
    def ports(self) -> tuple[int, ...]:
        """The RTP ports that are open; RTCP is one above each."""

    @property
    def accepting(self) -> bool:
        """Whether a new call would be recorded: the process lives and takes its commands."""

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
        """A call is about to be answered; whether it waits for ``decide``, and whether it is heard meanwhile."""

    def decide(self, call: str, at_us: int, *, keep: bool) -> None:
        """A call that waits is kept, or not; ``Decided`` answers."""

    def policy(self, call: str, at_us: int, policy: CallPolicy) -> None:
        """Keys and tones of a call are to be treated otherwise from now on."""

    def streams(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        """A call's streams have changed: the full list."""

    def signalling(self, call: str, at_us: int, direction: Literal[0, 1], raw: bytes) -> None:
        """A SIP message was received (0) or sent (1)."""

    def session(self, call: str, session: Mapping[str, Any]) -> None:
        """The metadata of a call is known or has changed."""

    def end(
        self, call: str, at_us: int, reason: Literal["bye", "shutdown", "error"], flags: Sequence[str] = ()
    ) -> None:
        """A call's dialog is over."""

    def adopt(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        """The dialog of a call of an earlier run lives: it goes on under a new key."""

    def digit(self, call: str, at_us: int, digit: str, stream: int | None = None) -> None:
        """Signalling tells that a key was pressed; it is recorded nowhere."""

    def recover(self) -> None:
        """All calls that live are adopted: every other leftover of earlier runs is closed."""

    def pause(self, pause: Pause) -> None:
        """A call must be silent; ``PauseApplied`` answers."""

    def resume(self, resume: Resume) -> None:
        """A cause for silence is over; ``PauseApplied`` answers."""

    def use_ingest_key(self, key_arn: str, public_key_der: bytes) -> None:
        """The tenant has another ingest key: for calls and key epochs that begin from now on."""

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Calls ``listener`` with every event from now on, in the event loop."""


class MediaClient:
    """The media process: a child that dies orderly with its parent.

    Use: ``client = MediaClient.spawn(settings)``, then inside the loop ``await client.ready()``.

    Args:
        channel: The parent's end of the pair.
        process: The child.
        clock: The clock that both share.
    """

    def __init__(self, channel: socket.socket, process: subprocess.Popen[bytes], clock: AgentClock) -> None:
        channel.setblocking(False)  # noqa: FBT003 - the standard library names no argument
        self._channel = channel
        self._process = process
        self._clock = clock
        self._ports: tuple[int, ...] = ()
        # A datagram takes at most what the kernel granted; half, because Linux reports the double that it books.
        granted = channel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._largest = min(granted // 2, MAX_MESSAGE_BYTES)
        self._unsent: collections.deque[bytes] = collections.deque()
        self._unsent_bytes = 0
        self._listeners: list[Callable[[Event], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[int] | None = None
        self._stats: collections.deque[asyncio.Future[Stats]] = collections.deque()
        self._reaper: asyncio.Task[None] | None = None

    @classmethod
    def spawn(
        cls, settings: MediaSettings, *, clock: AgentClock | None = None, child: MediaChild | None = None
    ) -> MediaClient:
        """Hands the process its settings.

        Args:
            settings: Its settings; ``clock_offset_us`` is set here.
            clock: The agent's clock, measured now if there is none yet.
            child: The process; started now if there is none yet.

        Raises:
            OSError: If no process can be started.
        """
        clock = clock or AgentClock.measured()
        child = child or start_child()
        child.is_taken = True
        with contextlib.suppress(OSError):  # it has ended already: reading tells
            child.channel.send(settings.model_copy(update={"clock_offset_us": clock.offset_us}).encode())
        return cls(child.channel, child.process, clock)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def clock(self) -> AgentClock:
        """The agent's clock."""
        return self._clock

    @property
    def ports(self) -> tuple[int, ...]:
        """The RTP ports that are open; empty before ``ready``."""
        return self._ports

    @property
    def unsent(self) -> int:
        """How many commands wait because the child is busy."""
        return len(self._unsent)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Calls ``listener`` with every event from now on, in the event loop."""
        self._listeners.append(listener)

    async def ready(self) -> tuple[int, ...]:
        """Joins the running event loop and waits until the sockets are open.

        Returns:
            The RTP ports.

        Raises:
            Unavailable: If the process ended instead.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._ready, self._closed = self._loop.create_future(), self._loop.create_future()
            self._loop.add_reader(self._channel.fileno(), self._readable)
            self._flush()
        assert self._ready is not None
        await asyncio.shield(self._ready)
        return self._ports

    async def stats(self) -> Stats:
        """Asks for the counters; raises Unavailable if the process has ended."""
        answer: asyncio.Future[Stats] = asyncio.get_running_loop().create_future()
        self._stats.append(answer)
        self.send(messages.AskStats())
        return await answer

    async def closed(self) -> int:
        """Waits for the end of the process, after ``ready`` was called; returns its exit status."""
        assert self._closed is not None, "ready() joins the event loop"
        return await asyncio.shield(self._closed)

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
        """A call is about to be answered: send this before the answer leaves."""
        self.send(
            messages.Begin(call=call, at_us=at_us, streams=tuple(streams), waits=waits, silent=silent, policy=policy)
        )

    def decide(self, call: str, at_us: int, *, keep: bool) -> None:
        """A call that waits is kept, or not; ``Decided`` answers."""
        self.send(messages.Decide(call=call, at_us=at_us, keep=keep))

    def policy(self, call: str, at_us: int, policy: CallPolicy) -> None:
        """Keys and tones of a call are to be treated otherwise from now on."""
        self.send(messages.Policy(call=call, at_us=at_us, policy=policy))

    def streams(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        """A call's streams have changed: the full list."""
        self.send(messages.Streams(call=call, at_us=at_us, streams=tuple(streams)))

    def signalling(self, call: str, at_us: int, direction: Literal[0, 1], raw: bytes) -> None:
        """A SIP message was received (0) or sent (1)."""
        self.send(messages.Signalling(call=call, at_us=at_us, direction=direction, raw=raw))

    def session(self, call: str, session: Mapping[str, Any]) -> None:
        """The metadata of a call is known or has changed."""
        self.send(messages.Session(call=call, session=dict(session)))

    def end(
        self, call: str, at_us: int, reason: Literal["bye", "shutdown", "error"], flags: Sequence[str] = ()
    ) -> None:
        """A call's dialog is over."""
        self.send(messages.End(call=call, at_us=at_us, reason=reason, flags=tuple(flags)))

    def adopt(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        """The dialog of a call of an earlier run lives: it goes on under a new key."""
        self.send(messages.Adopt(call=call, at_us=at_us, streams=tuple(streams)))

    def digit(self, call: str, at_us: int, digit: str, stream: int | None = None) -> None:
        """Signalling tells that a key was pressed; it is recorded nowhere."""
        self.send(messages.Digit(call=call, at_us=at_us, stream=stream, digit=digit))

    def recover(self) -> None:
        """All calls that live are adopted: every other leftover of earlier runs is closed."""
        self.send(messages.Recover())

    def pause(self, pause: Pause) -> None:
        """A call must be silent; ``PauseApplied`` answers."""
        self.send(pause)

    def resume(self, resume: Resume) -> None:
        """A cause for silence is over; ``PauseApplied`` answers."""
        self.send(resume)

    def use_ingest_key(self, key_arn: str, public_key_der: bytes) -> None:
        """The tenant has another ingest key: for calls and key epochs that begin from now on."""
        self.send(messages.UseIngestKey(key_arn=key_arn, public_key_der=public_key_der))

    def drain(self, *, flush: bool = False) -> None:
        """Asks the process to finish all calls and to exit; ``flush`` does not wait for the hold-back."""
        self.send(messages.Drain(flush=flush))

    @property
    def accepting(self) -> bool:
        """Whether a new call would be recorded: the process lives, and what waits for it is within bounds."""
        return not self._has_ended and self._unsent_bytes <= MAX_UNSENT_BYTES

    @property
    def _has_ended(self) -> bool:
        return self._closed is not None and self._closed.done()

    def send(self, command: Command) -> None:
        """Sends a command, or queues it behind others that wait.

        Raises:
            MalformedInput: If the command is larger than a datagram can be; nothing is sent.
            Unavailable: If the process has ended, or has long taken nothing and the command is not one that must queue.
        """
        if self._has_ended:
            raise Unavailable("the media process has ended")
        data = command.encode()
        if len(data) > self._largest:  # sent, it would stand before all others for ever
            raise MalformedInput(f"a command of {len(data)} octets for the media process: {self._largest} are possible")
        if not self.accepting and isinstance(command, _REFUSED_WHEN_FULL):
            raise Unavailable("the media process takes no commands")
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._channel.send(self._unsent[0])
            except BlockingIOError:
                if self._loop is not None:
                    self._loop.add_writer(self._channel.fileno(), self._writable)
                return
            except OSError:
                return  # the reader sees the end of the process
            self._unsent_bytes -= len(self._unsent.popleft())

    def _writable(self) -> None:
        assert self._loop is not None
        self._loop.remove_writer(self._channel.fileno())
        self._flush()

    def _readable(self) -> None:
        for _ in range(_RECEIVE_AT_ONCE):
            try:
                data = self._channel.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._ended()
                return
            self._dispatch(messages.parse_event(data))

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._ports = event.ports
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif isinstance(event, Stats) and self._stats:
            answer = self._stats.popleft()
            if not answer.done():
                answer.set_result(event)
        for listener in self._listeners:
            listener(event)

    def _ended(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        self._reaper = self._loop.create_task(self._reap(), name="media-reap")

    async def _reap(self) -> None:
        status = await asyncio.to_thread(self._process.wait)
        ended = Unavailable("the media process has ended")
        for answer in [self._ready, *self._stats]:
            if answer is not None and not answer.done():
                answer.set_exception(ended)
        self._stats.clear()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(status)
