"""The running agent: starts its parts, tells when it is ready, watches over them, and brings calls to an end at a stop.

Two processes (ARCHITECTURE, "The way of a call"): this one speaks SIP and carries sealed files to the cloud; its
child holds sockets, audio and keys. At SIGTERM or SIGINT no new call is taken, calls in progress are ended and
written, what can be uploaded within the grace time is, and the exit status is 0. A second signal does not wait for
the hold-back. At SIGUSR1 no new call is taken either, but those in progress go on to their own end: then it stops.

Whichever of the two dies, the other ends at once, and the service manager starts both again. The new run goes on with
the calls that its journal names, so the way from the start to the first answer is short: the child is started before
anything is loaded (``cli``), SIP is loaded while that starts, and the libraries of the cloud when SIP is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dualtone.domain.errors import PolicyViolation, Unavailable
from sbc_agent.media import process_limits
from sbc_agent.media.child import MediaChild
from sbc_agent.media.client import MediaClient
from sbc_agent.media.clock import AgentClock
from sbc_agent.media.messages import Alarm, Event, IngestKeySettings, MediaSettings
from sbc_agent.runtime import journal, logs, preflight, status
from sbc_agent.runtime.admission import STATS_SECONDS
from sbc_agent.runtime.canary import Canary
from sbc_agent.runtime.config import AgentConfig
from sbc_agent.runtime.durable import hold_lock
from sbc_agent.runtime.identity import KEY_FILE, AgentKey, Identity
from sbc_agent.runtime.journal import Journal, Legacy
from sbc_agent.runtime.logs import Log, OwnWords
from sbc_agent.runtime.revocation import Revocation
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.spool_room import LOOK_EVERY_S, DiskSpace, SpoolRoom
from sbc_agent.runtime.system_errors import plain
from sbc_agent.runtime.version import version

if TYPE_CHECKING:
    from pathlib import Path

    from sbc_agent.runtime.cloud_side import CloudSide
    from sbc_agent.runtime.metrics_endpoint import MetricsEndpoint
    from sbc_agent.runtime.sip_shell import SipAddresses, SipSettings

_LOCK_NAME: Final = "agent.lock"
_STATS_TIMEOUT_S: Final = 2.0
_FINISH_LOOK_S: Final = 0.2
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(config: AgentConfig, *, check_only: bool, child: MediaChild | None = None) -> int:
    """Checks the machine, and records until told to stop.

    Args:
        config: The settings.
        check_only: Whether to stop after the checks.
        child: The media process, waiting for its settings; started when it is wanted if there is none.

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
    can_dump = not process_limits.forbid_core_dumps()
    process_limits.come_first(process_limits.ANSWERS_SECOND)  # where it may not, it is one among others
    with _alone(config.agent.state_dir):
        identity = Identity.load(config.agent.state_dir)
        key = AgentKey.load(config.agent.state_dir, identity.agent)
        log = Log(level=config.log.level, salt=logs.salt(config.agent.state_dir))
        logs.capture_libraries(log)
        for finding in findings:
            write = log.error if finding.severity == "error" else log.warning
            write("preflight", check=finding.check, message=OwnWords(finding.message))
        if can_dump:
            log.warning("core_dumps", process="sip")
        os.umask(0o077)  # what this process and its child write is for their user alone
        return asyncio.run(Agent(config, identity, key, log, child).run())


class Agent:
    """One run of the agent.

    Args:
        config: The settings.
        identity: Who it is.
        key: Its key.
        log: Where it tells what happens.
        child: The media process, if it is started already.
    """

    def __init__(
        self, config: AgentConfig, identity: Identity, key: AgentKey, log: Log, child: MediaChild | None
    ) -> None:
        self._config = config
        self._identity = identity
        self._key = key
        self._log = log
        self._child = child
        self._spool = Spool(config.agent.spool_dir)
        self._room = SpoolRoom(
            config.agent.spool_dir,
            min_free_bytes=config.agent.min_free_bytes,
            when_full=config.agent.when_full,
            log=log,
        )
        self._revocation = Revocation(config.agent.state_dir, identity.agent, log)
        self._cloud: CloudSide | None = None
        self._status: asyncio.Server | None = None
        self._metrics: MetricsEndpoint | None = None
        self._early: list[Event] = []  # what the media process told before the cloud's side was there
        self._media_alarms: Counter[str] = Counter()
        self._canary = Canary(self._sing, config.canary.every_s, log)
        self._addresses: SipAddresses | None = None
        self._stop_asked = 0
        self._stopping = asyncio.Event()
        self._finishing: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Runs until stopped; returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        for later in (signal.SIGHUP, signal.SIGUSR1):  # until there is something to read anew, or to finish
            signal.signal(later, signal.SIG_IGN)
        self._started = loop.time()
        boot_id, legacy = journal.boot_id(), self._legacy()
        clock = AgentClock.measured() if legacy.clock_offset_us is None else AgentClock(legacy.clock_offset_us)
        self._media = MediaClient.spawn(self._media_settings(legacy), clock=clock, child=self._child)
        self._media.subscribe(self._media_event)
        import sbc_agent.runtime.recording_rules  # noqa: PLC0415 - loaded while the child starts
        import sbc_agent.runtime.sip_shell  # noqa: F401, PLC0415 - likewise

        await self._media_ready()
        died = asyncio.create_task(self._media.closed())
        self._room.look()
        kept = Journal(self._journal_dir, boot_id=boot_id, clock_offset_us=clock.offset_us, log=self._log)
        addresses = await self._listen(legacy, kept)
        loop.add_signal_handler(signal.SIGHUP, self._shell.reload_certificate)
        loop.add_signal_handler(signal.SIGUSR1, self._finish)
        ready = asyncio.create_task(self._open_cloud(clock, addresses))
        stopped = asyncio.create_task(self._stopping.wait())
        looking = asyncio.create_task(self._look_after_room())
        watching = asyncio.create_task(self._watch_media())
        singing = asyncio.create_task(self._canary.run(ready))
        try:
            await asyncio.wait({died, stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not died.done():
                await ready
                await asyncio.wait({died, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                self._media_died(died.result())
            return await self._drain(died)
        finally:
            for task in (ready, stopped, looking, watching, singing, self._finishing):
                if task is not None:
                    task.cancel()
            if self._metrics is not None:
                await self._metrics.close()
            if self._cloud is not None:
                await self._cloud.close()
            if self._status is not None:
                self._status.close()

    # -- starting and stopping --------------------------------------------------------------------------------------

    @property
    def _journal_dir(self) -> Path:
        return self._config.agent.state_dir / journal.DIRECTORY_NAME

    def _legacy(self) -> Legacy:
        try:
            return journal.inherit(self._journal_dir, boot_id=journal.boot_id(), now=time.monotonic())
        except OSError as error:  # calls are recorded all the same; a restart would not find them
            self._log.failure("journal_failed", error)
            return Legacy()

    async def _media_ready(self) -> None:
        try:
            await self._media.ready()
        except Unavailable as error:
            raise Unavailable(
                "the media process did not start; see its lines above, and whether media.address is this machine's own "
                "and enough of media.ports are free"
            ) from error

    async def _open_cloud(self, clock: AgentClock, addresses: SipAddresses) -> None:
        """Loads the cloud's side beside the calls, then says that all is ready."""

        def load() -> CloudSide:
            from sbc_agent.runtime.cloud_side import CloudSide  # noqa: PLC0415 - AWS's libraries: calls do not wait

            return CloudSide(
                self._config,
                self._identity,
                self._key,
                self._spool,
                clock,
                self._revocation,
                self._rules,
                self._canary.freed,
                self._log,
            )

        cloud = self._cloud = await asyncio.to_thread(load)
        for event in self._early:
            cloud.media_event(event)
        self._early.clear()
        await cloud.start(self._media, self._shell.recorder)
        self._status = await status.serve(self._config.agent.state_dir, lambda: self._report(cloud))
        self._say_ready(addresses, await self._open_metrics(cloud))

    async def _open_metrics(self, cloud: CloudSide) -> str | None:
        listen = self._config.metrics.listen
        if listen is None:
            return None
        from sbc_agent.runtime.metrics_endpoint import MetricsEndpoint  # noqa: PLC0415 - calls do not wait

        self._metrics = MetricsEndpoint(listen, lambda: self._report(cloud), self._log)
        return await self._metrics.start()

    def _media_settings(self, legacy: Legacy) -> MediaSettings:
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
            wanted_ports=tuple(port for live in legacy.live for port in live.ports),
            hold_back_ms=media.hold_back_ms,
            ingest_key=IngestKeySettings(key_arn=ingest_key.key_arn, public_key_der=ingest_key.public_key_der),
            version=version(),
            log_level=self._config.log.level,
        )

    async def _listen(self, legacy: Legacy, kept: Journal) -> SipAddresses:
        from sbc_agent.runtime.recording_rules import RecordingRules  # noqa: PLC0415 - loaded by now
        from sbc_agent.runtime.sip_shell import SipShell  # noqa: PLC0415 - likewise

        self._rules = rules = RecordingRules(self._config.agent.state_dir, self._identity, self._log)
        self._shell = SipShell(
            self._sip_settings(),
            self._media,
            self._log,
            has_room=lambda: self._room.takes_calls,
            journal=kept,
            decisions=rules.decisions,
            tally=rules.tally,
            chain=rules.chain,
            canary=self._canary,
        )
        self._revocation.subscribe(lambda: self._shell.admission.close("revoked"))
        try:
            addresses = await self._shell.start(legacy)
        except OSError as error:
            sip, reason = self._config.sip, plain(error)
            wanted = {"sip.udp": sip.udp, "sip.tcp": sip.tcp, "sip.tls": sip.tls}
            names = " or ".join(f"{name} {address}" for name, address in wanted.items() if address is not None)
            raise Unavailable(
                f"{names} cannot be listened to ({reason}): stop what uses the port, or write another address"
            ) from error
        self._addresses = addresses
        if legacy.live or legacy.dropped:
            took_ms = round(1000 * (asyncio.get_running_loop().time() - self._started))
            self._log.warning("continued", calls=len(legacy.live), objects=legacy.dropped, ms=took_ms)
        return addresses

    def _sip_settings(self) -> SipSettings:
        from sbc_agent.runtime import sip_settings  # noqa: PLC0415 - as above

        return sip_settings.of(self._config, f"Dualtone/{version()}")

    def _say_ready(self, addresses: SipAddresses, metrics: str | None) -> None:
        """The one line of standard output: where the agent is to be found."""
        line = {
            "sip_udp": _spelled(addresses.udp),
            "sip_tcp": _spelled(addresses.tcp),
            "sip_tls": _spelled(addresses.tls),
            "lan": None if self._cloud is None else self._cloud.lan,
            "metrics": metrics,
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

    def _finish(self) -> None:
        """No new call is taken; when the last one has ended, a stop follows."""
        if self._finishing is None:
            self._log.info("finishing", calls=self._shell.recorder.calls)
            self._shell.take_no_more()
            self._finishing = asyncio.create_task(self._stop_after_the_last_call())

    async def _stop_after_the_last_call(self) -> None:
        while self._shell.recorder.calls:  # noqa: ASYNC110 - a look five times a second, once in an agent's life
            await asyncio.sleep(_FINISH_LOOK_S)
        self._stopping.set()

    async def _drain(self, died: asyncio.Task[int]) -> int:
        """Ends calls, lets the media process write them, uploads within the grace time."""
        await self._shell.drain()
        with contextlib.suppress(Unavailable):
            self._media.drain()
        exit_status = await died
        await self._shell.close()
        assert self._cloud is not None, "a stop waits for the start"
        left = await asyncio.to_thread(self._cloud.drain, float(self._config.agent.drain_s))
        self._log.info("stopped", calls=left, exit=exit_status)
        return 0 if exit_status == 0 else 1

    def _media_died(self, exit_status: int) -> NoReturn:
        """Nothing here is worth a moment: what counts is in the journal and in the spool, and calls wait."""
        self._log.error("media_died", exit=exit_status)
        os._exit(1)

    async def _look_after_room(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self._room.look)  # a disk that hangs must not hold up SIP

    async def _sing(self, call_id: str) -> None:
        """Places the agent's own call, where the SBC places its calls."""
        from sbc_agent.runtime import canary_song  # noqa: PLC0415 - calls do not wait

        assert self._addresses is not None, "it sings when all is ready"
        await canary_song.place(self._addresses, self._config.media.address, call_id)

    async def _watch_media(self) -> None:
        """Tells the SIP side how late the media process is, so that it refuses calls before any packet is lost."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(Unavailable):  # it has ended, and so do we
            while True:
                asked = loop.time()
                took_ms = (await self._media.stats()).tick_ms_lately
                now = loop.time()
                self._shell.admission.served("media_late", max(took_ms / 1000, now - asked), now)
                await asyncio.sleep(STATS_SECONDS)

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._log.failure("unexpected", error if isinstance(error, BaseException) else RuntimeError())

    # -- what the parts tell ----------------------------------------------------------------------------------------

    def _media_event(self, event: Event) -> None:
        if self._cloud is None:
            self._early.append(event)
        else:
            self._cloud.media_event(event)
        if isinstance(event, Alarm):
            self._media_alarms[event.kind] += 1
            is_named = event.call is not None and self._shell.recorder.may_be_named(event.call)
            self._log.error("media_alarm", kind=event.kind, call=event.call if is_named else None)
            if event.kind == "spool_write":
                self._room.refused()

    async def _report(self, cloud: CloudSide) -> status.Report:
        """What ``dualtone-agent status`` prints; whole numbers only, nothing of any call."""
        media: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_STATS_TIMEOUT_S):
                media = (await self._media.stats()).model_dump(exclude={"event"})
        usage = await asyncio.to_thread(self._spool.usage)
        free_bytes = (await asyncio.to_thread(DiskSpace.of, self._config.agent.spool_dir)).free_bytes
        return {
            "agent": self._identity.agent,
            "tenant": self._identity.tenant,
            "version": version(),
            "draining": self._stopping.is_set() or self._finishing is not None,
            "revoked": self._revocation.is_revoked,
            "uptime_ms": round(1000 * (asyncio.get_running_loop().time() - self._started)),
            "pids": {"sip": os.getpid(), "media": self._media.pid},
            "calls_live": self._shell.recorder.calls,
            "sip": self._shell.counters.to_json(),
            "calls_adopted": self._shell.recorder.adopted,
            "media": media,
            "media_alarms": dict(self._media_alarms),
            "spool": {
                "calls": usage.calls,
                "bytes": usage.size_bytes,
                "free_bytes": free_bytes,
                "full": self._room.full,
                "takes_calls": self._room.takes_calls,
            },
            "canary": self._canary.figures(),
            "alarms": self._log.alarms,
            **cloud.report(),
        }


def _spelled(address: tuple[str, int] | None) -> str | None:
    return None if address is None else f"{address[0]}:{address[1]}"


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Holds the lock of a state directory: two agents over one spool would send everything twice."""
    try:
        descriptor = hold_lock(state_dir / _LOCK_NAME)
    except BlockingIOError as error:
        raise PolicyViolation(f"another agent runs with {state_dir}; stop it first") from error
    try:
        yield
    finally:
        os.close(descriptor)
