"""The agent's side of the cloud: true time, credentials, uplink and commands.

It is loaded when SIP is up already: the libraries of AWS take longer to import than all else, and calls do not wait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from dualtone.domain.ids import CallId
from sbc_agent.media.client import MediaPort
from sbc_agent.media.clock import AgentClock
from sbc_agent.media.messages import Event, Finished, PartClosed
from sbc_agent.runtime.clock_offset import ClockSampler, TrueTime
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.config import AgentConfig
from sbc_agent.runtime.control_channel import CallSource, ControlChannel
from sbc_agent.runtime.credentials import AgentCredentials, TokenSource, agent_session
from sbc_agent.runtime.identity import AgentKey, Identity
from sbc_agent.runtime.ingest_bucket import IngestBucket, s3_client
from sbc_agent.runtime.key_rotation import KeyRotation
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.recording_rules import RecordingRules
from sbc_agent.runtime.revocation import Revocation
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.transfers import Patience
from sbc_agent.runtime.uplink import Uplink


class CloudSide:
    """What the agent has of the cloud.

    Use: make it in any thread, then ``start``, and at the end ``drain`` and ``close``.

    Args:
        config: The settings.
        identity: Who the agent is.
        key: Its key.
        spool: What is to be sent.
        clock: The agent's clock.
        revocation: Whether the agent is revoked.
        rules: Which calls are recorded, and the agent's state.
        freed: Told in the event loop of every call that the cloud has by its receipt.
        log: Where it tells what happens.
    """

    def __init__(
        self,
        config: AgentConfig,
        identity: Identity,
        key: AgentKey,
        spool: Spool,
        clock: AgentClock,
        revocation: Revocation,
        rules: RecordingRules,
        freed: Callable[[CallId], None],
        log: Log,
    ) -> None:
        api, state_dir = CloudApi(), config.agent.state_dir
        self._time = TrueTime(clock)
        self._sampler = ClockSampler(
            api=api, base=identity.api, clock=clock, true_time=self._time, state_dir=state_dir, log=log
        )
        now_s = self._sampler.now_s
        self._tokens = TokenSource(
            api=api,
            key=key,
            identity=identity,
            state_dir=state_dir,
            log=log,
            revocation=revocation,
            policies=rules.policies,
            clock=now_s,
            rotation=KeyRotation(
                api=api,
                key=key,
                token_url=identity.token_url,
                state_dir=state_dir,
                every_days=config.uplink.rotate_key_days,
                log=log,
                clock=now_s,
            ),
        )
        rules.follow(lambda: self._tokens.identity.control, lambda: self._time.offset_us)
        session = agent_session(AgentCredentials(self._tokens, clock=now_s), identity.region, revocation, clock=now_s)
        threads = config.uplink.threads
        self._uplink = Uplink(
            spool=spool,
            store=IngestBucket(s3_client(session, threads=threads), identity.ingest_bucket, identity.prefix),
            log=log,
            threads=threads,
            wall=now_s,
            patience=Patience(again_s=86_400.0 * config.uplink.resend_days),
        )
        self._channel = ControlChannel(
            config=config,
            key=key,
            tokens=self._tokens,
            session=session,
            clock=clock,
            true_time=self._time,
            spool=spool,
            uplink=self._uplink,
            revocation=revocation,
            rules=rules,
            freed=freed,
            log=log,
        )

    async def start(self, media: MediaPort, recorder: CallSource) -> None:
        """Begins to measure time, to send, and to listen to commands.

        Args:
            media: The media process, ready.
            recorder: Who knows of calls first.
        """
        self._sampler.start()
        self._uplink.start()
        await self._channel.start(media, recorder)

    @property
    def lan(self) -> str | None:
        """Where the LAN endpoint is, None if it is off."""
        return self._channel.lan

    def media_event(self, event: Event) -> None:
        """Takes an event of the media process: what it closed is to be sent, what it answered is to be told."""
        if isinstance(event, PartClosed | Finished):
            self._uplink.notify(CallId(event.call))
        self._channel.media_event(event)

    def drain(self, grace_s: float) -> int:
        """Waits until everything is up, no longer than the grace time; returns how many calls are not."""
        return self._uplink.drain(grace_s)

    async def close(self) -> None:
        """Ends its threads."""
        await self._channel.close()
        self._uplink.close()
        self._sampler.close()

    def report(self) -> dict[str, Any]:
        """Its part of what ``dualtone-agent status`` prints."""
        uplink = dataclasses.asdict(self._uplink.state())
        uplink["retry_ms"] = round(1000 * uplink.pop("retry_s"))
        offset_ms = None if self._time.measured is None else self._time.offset_us // 1000
        return {
            "uplink": uplink,
            "clock_offset_ms": offset_ms,
            "clock_uncertainty_ms": self._time.uncertainty_us // 1000,
            **self._channel.report(),
        }
