"""The media process: one loop that waits for commands and ticks.

It owns the media sockets, the rings and the call keys; only what is sealed leaves it. It ends when it was told to
drain and everything is on disk: after ``Drain`` or SIGTERM; a second SIGTERM does not wait for the hold-back. When its
parent is gone it ends at once: the ports are wanted by the next run, which goes on with the calls (``Adopt``).
"""

from __future__ import annotations

import collections
import gc
import secrets
import select
import signal
import socket
import time
from types import FrameType
from typing import Final

from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import parse_agent_id, parse_tenant_id
from sbc_agent.media import memory, messages, process_limits
from sbc_agent.media.clock import AgentClock, Moment
from sbc_agent.media.disk import Disk
from sbc_agent.media.engine import Engine
from sbc_agent.media.engine_settings import EngineSettings
from sbc_agent.media.messages import MAX_MESSAGE_BYTES, Alarm, AskStats, Drain, Event, MediaSettings, Ready, Stats
from sbc_agent.media.openings import OpeningCounter
from sbc_agent.media.receive import best_receiver
from sbc_agent.media.recovery import Recovery
from sbc_agent.media.seal import AgentKey, IngestKey
from sbc_agent.media.sockets import open_pool
from sbc_agent.runtime.durable import hold_lock, make_private_directory
from sbc_agent.runtime.logs import Log, capture_libraries

_OPENINGS_NAME: Final = ".openings"
_LOCK_NAME: Final = ".lock"
_LOCK_WAIT_S: Final = 3.0  # for the process of a run that was killed: it ends a moment after its parent
_TICKS_LATELY: Final = 10  # as many as there are in a second
_COMMANDS_US: Final = 50_000  # so long commands may keep a tick waiting


class MediaProcess:
    """The process around the engine.

    Args:
        channel: The child's end of the pair.
        settings: What the parent said.
        log: Where events are written.
        can_dump: Whether the system may write this process's memory out after a crash.
    """

    def __init__(self, channel: socket.socket, settings: MediaSettings, log: Log, *, can_dump: bool) -> None:
        self._channel, self._settings, self._log, self._can_dump = channel, settings, log, can_dump
        self._clock = AgentClock.measured()
        if settings.clock_offset_us is not None:
            self._clock = AgentClock(settings.clock_offset_us)
        self._unsent: collections.deque[bytes] = collections.deque()
        self._has_parent = True
        self._signals = 0
        self._tick_us_max = 0
        self._lately_us: collections.deque[int] = collections.deque([0], maxlen=_TICKS_LATELY)
        tenant, agent = parse_tenant_id(settings.tenant), parse_agent_id(settings.agent)
        key = AgentKey.load(settings.agent_key_path, agent)
        make_private_directory(settings.spool_dir)
        self._sockets = open_pool(
            settings.address, settings.port_first, settings.port_last, settings.pool_size, settings.wanted_ports
        )
        self._disk = Disk(lambda error: log.failure("disk_failed", error))
        self._engine = Engine(
            EngineSettings(
                tenant,
                agent,
                settings.version,
                settings.spool_dir,
                settings.hold_back_ms * 1000,
                settings.tick_ms * 1000,
                settings.part_seconds * 1_000_000,
            ),
            receiver=best_receiver(),
            sockets=self._sockets,
            signer=key,
            ingest=IngestKey.load(settings.ingest_key.key_arn, settings.ingest_key.public_key_der),
            disk=self._disk,
            recovery=Recovery(settings.spool_dir, tenant, agent, settings.version, key, self._clock.wall_offset_us()),
            next_opening=OpeningCounter(settings.spool_dir / _OPENINGS_NAME),
            randomness=secrets.token_bytes,
            moment=self._moment(),
        )

    def run(self) -> None:
        """Serves until everything is drained."""
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
        self._send(Ready(ports=tuple(self._sockets)))
        if not memory.lock(*self._engine.buffers):
            self._send(Alarm(kind="memory_unlocked"))
        if self._can_dump:
            self._send(Alarm(kind="core_dumps"))
        if not process_limits.come_first():
            self._log.info("media_priority", state="as_others")
        gc.collect()
        gc.freeze()
        next_tick_us, seen_signals = self._clock.now_us(), 0
        while not (self._engine.is_drained and not self._unsent):
            self._wait(max(next_tick_us - self._clock.now_us(), 0))
            self._serve_channel()
            if not self._has_parent:
                return
            if self._signals > seen_signals:
                seen_signals = self._signals
                self._engine.handle(Drain(flush=seen_signals > 1), self._moment())
            self._tell()  # an answer to a pause does not wait for the tick
            now_us = self._clock.now_us()
            if now_us >= next_tick_us:
                self._engine.tick(self._moment())
                after_us = self._clock.now_us()
                self._tick_us_max = max(self._tick_us_max, after_us - now_us)
                self._lately_us.append(after_us - now_us)
                next_tick_us = max(next_tick_us + self._settings.tick_ms * 1000, after_us)
                self._tell()
        self._disk.close()
        for pair in self._sockets.values():
            pair.close()

    def _wait(self, time_us: int) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        poll.poll(time_us / 1000)

    def _moment(self) -> Moment:
        return Moment(self._clock.now_us(), self._clock.wall_offset_us())

    def _terminated(self, _signal: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _serve_channel(self) -> None:
        """Sends what waits, then takes commands until there are none or a tick has waited long enough."""
        self._flush()
        until_us = self._clock.now_us() + _COMMANDS_US
        while self._clock.now_us() < until_us:
            try:
                data = self._channel.recv(MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._has_parent = False
                return
            try:
                command = messages.parse_command(data)
            except MalformedInput:
                self._send(Alarm(kind="command"))
                continue
            if isinstance(command, AskStats):
                self._send(self._stats())
            else:
                self._engine.handle(command, self._moment())

    def _tell(self) -> None:
        for event in self._engine.events():
            self._send(event)

    def _send(self, event: Event) -> None:
        self._unsent.append(event.encode())
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._channel.send(self._unsent[0], socket.MSG_DONTWAIT)
            except OSError:  # full, or the parent is gone: then reading tells
                return
            self._unsent.popleft()

    def _stats(self) -> Stats:
        return Stats(
            **self._engine.counters(),
            tick_ms_max=self._tick_us_max // 1000,
            tick_ms_lately=max(self._lately_us) // 1000,
            cpu_ms=time.process_time_ns() // 1_000_000,
        )


def main(arguments: list[str]) -> int:
    """Runs the process on an inherited descriptor.

    Args:
        arguments: The descriptor's number.

    Returns:
        The exit status: 0 after draining, 1 if it could not start.
    """
    process_limits.end_with_parent()
    can_dump = not process_limits.forbid_core_dumps()
    process_limits.raise_file_limit()
    channel = socket.socket(fileno=int(arguments[0]))
    data = channel.recv(MAX_MESSAGE_BYTES)
    if not data:
        return 0  # the parent found that it cannot run
    try:
        settings = messages.parse_settings(data)
    except MalformedInput as error:
        Log().failure("media_settings", error)
        return 1
    log = Log(level=settings.log_level)
    capture_libraries(log)
    try:
        make_private_directory(settings.spool_dir)
        hold_lock(settings.spool_dir / _LOCK_NAME, _LOCK_WAIT_S)
        MediaProcess(channel, settings, log, can_dump=can_dump).run()
    except Exception as error:  # noqa: BLE001 - the last line before the end says what it was
        log.failure("media_failed", error)
        return 1
    return 0
