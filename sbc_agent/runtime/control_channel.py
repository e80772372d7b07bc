"""The control channel put together: state, events, command queue, LAN endpoint, and the control between them.

``Control`` decides and lives in the event loop; the queues' threads hand over to it. Start it when the media process is
ready and SIP listens; stop it last, so that what the last calls became is still told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from typing import Final, Protocol, TypeVar

import botocore.session

from dualtone.domain.agent_events import HealthEvent, SpoolState
from dualtone.domain.call_command import Command
from dualtone.domain.call_decision import Decision, Refresh
from dualtone.domain.errors import DualtoneError, Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.media.client import MediaPort
from sbc_agent.media.messages import Event
from sbc_agent.runtime.choices import Chooser
from sbc_agent.runtime.clock_offset import Clock, TrueTime
from sbc_agent.runtime.command_queue import CommandQueue
from sbc_agent.runtime.config import AgentConfig
from sbc_agent.runtime.control import Control
from sbc_agent.runtime.credentials import TokenSource
from sbc_agent.runtime.events import EventSender
from sbc_agent.runtime.identity import AgentKey, Identity, TenantIngestKey
from sbc_agent.runtime.ingest_bucket import sqs_client
from sbc_agent.runtime.lan_endpoint import LanEndpoint
from sbc_agent.runtime.lan_orders import LanOrders
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.outbox import Outbox
from sbc_agent.runtime.pending_commands import PendingCommands
from sbc_agent.runtime.receipts import Receipts
from sbc_agent.runtime.recorded_call import CallListener
from sbc_agent.runtime.recording_rules import RecordingRules
from sbc_agent.runtime.revocation import Revocation
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.spool_room import DiskSpace
from sbc_agent.runtime.uplink import Uplink
from sbc_agent.runtime.version import version
from sbc_agent.runtime.webhook_memory import WebhookMemory

_MOST_LIVE: Final = 6_000  # so many ids fit a message; a list that lacked some would end them in the cloud
_MOST_ALARMS: Final = 64
_T = TypeVar("_T")


class CallSource(Chooser, Protocol):
    """The recorder: who knows of calls first, and carries out what people choose for them."""

    def attach(self, listener: CallListener) -> None:
        """Tells a listener of all calls."""


class ControlChannel:
    """The agent's control channel.

    Args:
        config: The settings.
        key: The agent's key.
        tokens: Who the agent is, with the newest of what the cloud told.
        session: A botocore session with the agent's credentials.
        clock: The agent's clock.
        true_time: How far that is off.
        spool: What waits on the disk.
        uplink: What carries it away.
        revocation: Learns from the command queue that there is one.
        rules: Which calls are recorded, and the agent's state.
        freed: Told in the event loop of every call that the cloud has by its receipt.
        log: Where it tells what happens.
    """

    def __init__(
        self,
        *,
        config: AgentConfig,
        key: AgentKey,
        tokens: TokenSource,
        session: botocore.session.Session,
        clock: Clock,
        true_time: TrueTime,
        spool: Spool,
        uplink: Uplink,
        revocation: Revocation,
        rules: RecordingRules,
        freed: Callable[[CallId], None],
        log: Log,
    ) -> None:
        identity = tokens.identity
        self._freed_too = freed
        self._config = config
        self._tokens = tokens
        self._clock = clock
        self._true_time = true_time
        self._spool = spool
        self._uplink = uplink
        self._log = log
        self._ingest_key = identity.current_ingest_key()
        self._is_open = False
        self._early: list[Event] = []  # above all the cuts that a killed run was still to tell of
        self._lan: LanEndpoint | None = None
        self._rules, self._state = rules, rules.state
        self._events = EventSender(
            outbox=Outbox(self._state, log),
            state=self._state,
            client=sqs_client(session),
            queue_url=lambda: tokens.identity.control.events_queue_url,
            tenant=identity.tenant,
            agent=identity.agent,
            signer=key,
            clock=clock,
            true_time=true_time,
            health=self._health,
            log=log,
        )
        self._commands = CommandQueue(
            client=sqs_client(session),
            identity=identity,
            receipts=Receipts(identity=identity, uplink=uplink, freed=self._freed, log=log),
            obey=self._obey,
            decide=self._decide,
            refresh=self._refresh,
            revoked=revocation.learn,
            unheard=self._unheard,
            log=log,
        )

    async def start(self, media: MediaPort, recorder: CallSource) -> None:
        """Takes over from an earlier run, listens to the recorder, and starts the queues' threads."""
        self._loop = asyncio.get_running_loop()
        self._media = media
        self.control = Control(
            tenant=self._tokens.identity.tenant,
            clock=self._clock,
            true_time=self._true_time,
            media=media,
            calls=LiveCalls(self._state, self._log),
            pending=PendingCommands(self._state, self._log),
            events=self._events,
            live_key=lambda: self._tokens.identity.control.live_key,
            recut=self._uplink.recut,
            log=self._log,
            chooser=recorder,
            consents=self._rules.consents,
        )
        recorder.attach(self.control)
        self.control.settle()
        for event in self._early:
            self.control.media_event(event)
        self._early.clear()
        self._is_open = True
        self._tokens.subscribe(self._learned)
        self._learned(self._tokens.identity)
        self._events.start()
        self._commands.start()
        await self._listen()

    def media_event(self, event: Event) -> None:
        """Takes an event of the media process; those that come before the start are told at the start."""
        if self._is_open:
            self.control.media_event(event)
        else:
            self._early.append(event)

    @property
    def lan(self) -> str | None:
        """Where the LAN endpoint is, None if it is off."""
        return None if self._lan is None else self._lan.address

    def report(self) -> dict[str, object]:
        """Its part of what ``dualtone-agent status`` prints."""
        lan = self._lan
        return {
            "events": self._events.figures(),
            "not_recorded": self._rules.tally.counts,
            "lan": self.lan,
            "phones": None if lan is None else lan.phones,
            "desk_watchers": 0 if lan is None else lan.watchers,
        }

    async def _listen(self) -> None:
        identity = self._tokens.identity
        orders = LanOrders(
            tenant=identity.tenant,
            agent=identity.agent,
            control=self.control,
            state=self._state,
            memory=WebhookMemory(self._state, self._log),
            facts=lambda: self._tokens.identity.control,
            clock=self._clock,
            true_time=self._true_time,
        )
        self._lan = LanEndpoint(
            settings=self._config.lan,
            state_dir=self._config.agent.state_dir,
            orders=orders,
            control=self.control,
            facts=lambda: self._tokens.identity.control,
            clock=self._clock,
            true_time=self._true_time,
            log=self._log,
        )
        await self._lan.start()

    async def close(self) -> None:
        """Stops polling, sends the last events if the uplink is there, and closes the state."""
        if self._lan is not None:
            await self._lan.close()
        self._commands.close()
        self._events.close()
        self._state.close()

    # -- from other threads -----------------------------------------------------------------------------------------

    def _obey(self, command: Command) -> ThreadFuture[str]:
        return asyncio.run_coroutine_threadsafe(self.control.obey(command), self._loop)

    def _decide(self, decision: Decision) -> ThreadFuture[str]:
        return asyncio.run_coroutine_threadsafe(self.control.decided(decision), self._loop)

    def _refresh(self, refresh: Refresh) -> None:
        """Fetches new credentials, with which the newest policy comes; one that came late was overtaken by others."""
        if not refresh.has_expired(self._true_time.now_ms()):
            self._tokens.fetch()

    def _unheard(self) -> None:
        """No queue: the token endpoint tells of a revocation, and of a newer policy, as well."""
        with contextlib.suppress(DualtoneError):
            self._tokens.fetch()

    def _freed(self, call: CallId) -> None:
        self._in_loop(self.control.forget, call)
        self._in_loop(self._freed_too, call)

    def _learned(self, identity: Identity) -> None:
        self._in_loop(self._use, identity.current_ingest_key())

    def _in_loop(self, do: Callable[[_T], None], what: _T) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is over, and the agent with it
            self._loop.call_soon_threadsafe(do, what)

    def _use(self, ingest_key: TenantIngestKey) -> None:
        """Calls that begin from now on are sealed to the newest ingest key; those that there are keep theirs."""
        if ingest_key != self._ingest_key:
            with contextlib.suppress(Unavailable):  # the media process has ended: the next one is told at its start
                self._media.use_ingest_key(ingest_key.key_arn, ingest_key.public_key_der)
                self._ingest_key = ingest_key

    def _health(self) -> HealthEvent | None:
        live = self.control.calls.recorded
        if len(live) > _MOST_LIVE:
            self._log.warning("health_unsent", calls=len(live))
            return None
        usage = self._spool.usage()
        uplink = self._uplink.state()
        last_s = uplink.last_success_s
        waiting_s = int(self._true_time.now_us() // 1_000_000) - last_s if uplink.calls_waiting and last_s else 0
        alarms = self._log.alarms
        return HealthEvent(
            live=list(live),
            spool=SpoolState(usage.calls, usage.size_bytes, DiskSpace.of(self._config.agent.spool_dir).free_bytes),
            alarms={name: alarms[name] for name in sorted(alarms)[:_MOST_ALARMS]},
            version=version(),
            uplink_waiting_s=max(0, waiting_s),
            not_recorded=self._rules.tally.counts,
        )
