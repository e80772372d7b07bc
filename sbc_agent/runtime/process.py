"""The running agent: starts its parts, tells when it is ready, watches over them, and brings calls to an end at a stop.

Two processes (ARCHITECTURE, "The way of a call"): this one speaks SIP and carries sealed files to the cloud; its
child holds sockets, audio and keys. At SIGTERM or SIGINT no new call is taken, calls in progress are ended and
written, what can be uploaded within the grace time is, and the exit status is 0. A second signal does not wait for
the hold-back. If the child dies, the agent alarms and ends with 1, and the service manager starts both again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from dualtone.domain.errors import PolicyViolation, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.media.client import MediaClient
from sbc_agent.media.clock import AgentClock
from sbc_agent.media.messages import Alarm, Event, Finished, IngestKeySettings, MediaSettings, PartClosed
from sbc_agent.runtime import logs, preflight, status
from sbc_agent.runtime.clock_offset import ClockSampler, TrueTime
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.config import AgentConfig, Endpoint
from sbc_agent.runtime.credentials import AgentCredentials, TokenSource, agent_session
from sbc_agent.runtime.identity import KEY_FILE, AgentKey, Identity
from sbc_agent.runtime.ingest_bucket import IngestBucket, s3_client, sqs_client
from sbc_agent.runtime.logs import Log, OwnWords
from sbc_agent.runtime.receipts import CommandQueue
from sbc_agent.runtime.sip_shell import SipAddresses, SipSettings, SipShell
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.spool_room import LOOK_EVERY_S, DiskSpace, SpoolRoom
from sbc_agent.runtime.system_errors import plain
from sbc_agent.runtime.transfers import Patience
from sbc_agent.runtime.uplink import Uplink
from sbc_agent.runtime.version import version

_LOCK_NAME: Final = "agent.lock"
_STATS_TIMEOUT_S: Final = 2.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(config: AgentConfig, *, check_only: bool) -> int:
    """Checks the machine, and records until told to stop.

    Args:
        config: The settings.
        check_only: Whether to stop after the checks.

    Returns:
        The exit status.

    Raises:
        NotFound: If this machine is not enrolled.
        PolicyViolation: If another agent runs here, or a file may not be read.
        DualtoneError: If the identity is damaged, or the media process did not start.
    """
    findings = preflight.inspect(config)
    fatal = any(finding.severity == "fatal" for finding in findings)
    if check_only or fatal:
        for finding in findings:
            sys.stderr.write(f"{finding.severity}: {finding.message}\n")
        return 1 if fatal else 0
    with _alone(config.agent.state_dir):
        identity = Identity.load(config.agent.state_dir)
        key = AgentKey.load(config.agent.state_dir, identity.agent)
        log = Log(level=config.log.level, salt=logs.salt(config.agent.state_dir))
        logs.capture_libraries(log)
        for finding in findings:
            write = log.error if finding.severity == "error" else log.warning
            write("preflight", check=finding.check, message=OwnWords(finding.message))
        os.umask(0o077)  # what this process and its child write is for their user alone
        return asyncio.run(Agent(config, identity, key, log).run())


class Agent:
    """One run of the agent.

    Args:
        config: The settings.
        identity: Who it is.
        key: Its key.
        log: Where it tells what happens.
    """

    def __init__(self, config: AgentConfig, identity: Identity, key: AgentKey, log: Log) -> None:
        self._config = config
        self._identity = identity
        self._log = log
        api, self._clock = CloudApi(), AgentClock.measured()
        self._time = TrueTime(self._clock)
        self._sampler = ClockSampler(
            api=api,
            base=identity.api,
            clock=self._clock,
            true_time=self._time,
            state_dir=config.agent.state_dir,
            log=log,
        )
        self._tokens = TokenSource(
            api=api, key=key, identity=identity, state_dir=config.agent.state_dir, log=log, clock=self._sampler.now_s
        )
        credentials = AgentCredentials(self._tokens, clock=self._sampler.now_s)
        session = agent_session(credentials, identity.region, clock=self._sampler.now_s)
        threads = config.uplink.threads
        store = IngestBucket(s3_client(session, threads=threads), identity.ingest_bucket, identity.prefix)
        self._spool = Spool(config.agent.spool_dir)
        self._room = SpoolRoom(
            config.agent.spool_dir,
            min_free_bytes=config.agent.min_free_bytes,
            when_full=config.agent.when_full,
            log=log,
        )
        self._uplink = Uplink(
            spool=self._spool,
            store=store,
            log=log,
            threads=threads,
            wall=self._sampler.now_s,
            patience=Patience(again_s=86_400.0 * config.uplink.resend_days),
        )
        self._commands = CommandQueue(client=sqs_client(session), identity=identity, uplink=self._uplink, log=log)
        self._stop_asked = 0
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Runs until stopped; returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        self._started = loop.time()
        self._media = MediaClient.spawn(self._media_settings(), clock=self._clock)
        self._media.subscribe(self._media_event)
        try:
            await self._media.ready()
        except Unavailable as error:
            raise Unavailable(
                "the media process did not start; see its lines above, and whether media.address is this machine's own "
                "and enough of media.ports are free"
            ) from error
        died = asyncio.create_task(self._media.closed())
        self._room.look()
        self._shell = SipShell(self._sip_settings(), self._media, self._log, has_room=lambda: self._room.takes_calls)
        addresses = await self._listen()
        server = await status.serve(self._config.agent.state_dir, self._report)
        self._sampler.start()
        self._uplink.start()
        self._commands.start()
        self._say_ready(addresses)
        stopped = asyncio.create_task(self._stopping.wait())
        looking = asyncio.create_task(self._look_after_room())
        try:
            await asyncio.wait({died, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                return await self._media_died(died.result())
            return await self._drain(died)
        finally:
            stopped.cancel()
            looking.cancel()
            server.close()
            self._commands.close()
            self._uplink.close()
            self._sampler.close()

    # -- starting and stopping --------------------------------------------------------------------------------------

    def _media_settings(self) -> MediaSettings:
        agent, media = self._config.agent, self._config.media
        ingest_key = self._identity.current_ingest_key()
        return MediaSettings(
            tenant=self._identity.tenant,
            agent=self._identity.agent,
            agent_key_path=agent.state_dir / KEY_FILE,
            spool_dir=agent.spool_dir,
            address=media.address,
            port_first=media.ports.first,
            port_last=media.ports.last,
            pool_size=media.pool_size,
            hold_back_ms=media.hold_back_ms,
            ingest_key=IngestKeySettings(key_arn=ingest_key.key_arn, public_key_der=ingest_key.public_key_der),
            version=version(),
            log_level=self._config.log.level,
        )

    def _sip_settings(self) -> SipSettings:
        sip = self._config.sip
        return SipSettings(
            media_address=self._config.media.address,
            udp=_pair(sip.udp),
            tcp=_pair(sip.tcp),
            advertise=sip.advertise,
            peers=sip.peers,
            product=f"Dualtone/{version()}",
        )

    async def _listen(self) -> SipAddresses:
        try:
            return await self._shell.start()
        except OSError as error:
            sip, reason = self._config.sip, plain(error)
            raise Unavailable(
                f"sip.udp {sip.udp or 'off'} or sip.tcp {sip.tcp or 'off'} cannot be listened to ({reason}): "
                "stop what uses the port, or write another address"
            ) from error

    def _say_ready(self, addresses: SipAddresses) -> None:
        """The one line of standard output: where the agent is to be found."""
        line = {
            "sip_udp": _spelled(addresses.udp),
            "sip_tcp": _spelled(addresses.tcp),
            "sip_tls": None,
            "lan": None,
            "metrics": None,
            "pids": {"sip": os.getpid(), "media": self._media.pid},
            "version": version(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        self._log.info("ready", agent=self._identity.agent, tenant=self._identity.tenant, version=version())

    def _stop(self, number: signal.Signals) -> None:
        self._stop_asked += 1
        self._log.info("stopping", signal=number.name, attempts=self._stop_asked)
        self._stopping.set()
        if self._stop_asked > 1:
            with contextlib.suppress(Unavailable):
                self._media.drain(flush=True)

    async def _drain(self, died: asyncio.Task[int]) -> int:
        """Ends calls, lets the media process write them, uploads within the grace time."""
        await self._shell.drain()
        with contextlib.suppress(Unavailable):
            self._media.drain()
        exit_status = await died
        await self._shell.close()
        left = await asyncio.to_thread(self._uplink.drain, float(self._config.agent.drain_s))
        self._log.info("stopped", calls=left, exit=exit_status)
        return 0 if exit_status == 0 else 1

    async def _media_died(self, exit_status: int) -> int:
        self._log.error("media_died", exit=exit_status)
        await self._shell.close()
        return 1

    async def _look_after_room(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self._room.look)  # a disk that hangs must not hold up SIP

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._log.failure("unexpected", error if isinstance(error, BaseException) else RuntimeError())

    # -- what the parts tell ----------------------------------------------------------------------------------------

    def _media_event(self, event: Event) -> None:
        if isinstance(event, PartClosed | Finished):
            self._uplink.notify(CallId(event.call))
        elif isinstance(event, Alarm):
            self._log.error("media_alarm", kind=event.kind, call=event.call)
            if event.kind == "spool_write":
                self._room.refused()

    async def _report(self) -> status.Report:
        """What ``dualtone-agent status`` prints; whole numbers only, nothing of any call."""
        media: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_STATS_TIMEOUT_S):
                media = (await self._media.stats()).model_dump(exclude={"event"})
        usage = await asyncio.to_thread(self._spool.usage)
        free_bytes = (await asyncio.to_thread(DiskSpace.of, self._config.agent.spool_dir)).free_bytes
        uplink = dataclasses.asdict(self._uplink.state())
        uplink["retry_ms"] = round(1000 * uplink.pop("retry_s"))
        return {
            "agent": self._identity.agent,
            "tenant": self._identity.tenant,
            "version": version(),
            "draining": self._stopping.is_set(),
            "uptime_ms": round(1000 * (asyncio.get_running_loop().time() - self._started)),
            "pids": {"sip": os.getpid(), "media": self._media.pid},
            "calls_live": self._shell.recorder.calls,
            "media": media,
            "spool": {
                "calls": usage.calls,
                "bytes": usage.size_bytes,
                "free_bytes": free_bytes,
                "full": self._room.full,
                "takes_calls": self._room.takes_calls,
            },
            "uplink": uplink,
            "clock_offset_ms": None if self._time.measured is None else self._time.offset_us // 1000,
            "alarms": self._log.alarms,
        }


def _pair(endpoint: Endpoint | None) -> tuple[str, int] | None:
    return None if endpoint is None else (endpoint.host, endpoint.port)


def _spelled(address: tuple[str, int] | None) -> str | None:
    return None if address is None else f"{address[0]}:{address[1]}"


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Holds the lock of a state directory: two agents over one spool would send everything twice."""
    descriptor = os.open(state_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PolicyViolation(f"another agent runs with {state_dir}; stop it first") from error
        yield
