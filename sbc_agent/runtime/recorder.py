"""Recording sessions become recordings: ports are handed out, and the media process is told what to keep.

The SIP core says what a peer negotiated (``sbc_agent.protocol.events``); the media process is told in the terms of
calls and streams. The SDP decides what is kept: a held m-line is an inactive stream, whatever packets still come.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dualtone.domain import ids
from dualtone.domain.errors import MalformedInput, Unavailable
from sbc_agent.media.client import MediaPort
from sbc_agent.media.messages import Event as MediaEvent
from sbc_agent.media.messages import FormatSpec, PortFree, StreamSpec
from sbc_agent.protocol.events import (
    Event,
    MessageRecorded,
    OfferRefused,
    SessionEnded,
    SessionId,
    SessionOffered,
    SessionUpdated,
    StreamState,
)
from sbc_agent.protocol.server import SipServer
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import PortPool

_SERVICE_UNAVAILABLE: Final = 503
_END_REASONS: Final[dict[str, Literal["bye", "shutdown", "error"]]] = {"bye": "bye", "shutdown": "shutdown"}


@dataclass(slots=True)
class _Call:
    """A recording session on its way: the ports it holds, and what the media process was told last."""

    sip_call_id: str
    ports: list[int] = field(default_factory=list)
    call: str | None = None
    streams: tuple[StreamSpec, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Recorder:
    """Serves the SIP core's sessions.

    Args:
        server: The SIP core.
        media: The media process, ready.
        log: Where events are written, Call-IDs hashed.
        randomness: Yields random bytes, for call ids.
    """

    def __init__(
        self,
        server: SipServer,
        media: MediaPort,
        log: Log,
        *,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._server = server
        self._media = media
        self._log = log
        self._randomness = randomness
        self._pool = PortPool(media.ports)
        self._calls: dict[SessionId, _Call] = {}
        media.subscribe(self.media_event)

    @property
    def calls(self) -> int:
        """How many calls are being recorded."""
        return sum(call.call is not None for call in self._calls.values())

    @property
    def ports_in_use(self) -> int:
        """How many ports of the pool cannot be handed out now."""
        return self._pool.in_use

    def handle(self, event: Event, now: float) -> None:
        """Takes an event of the SIP core; what concerns sockets is not for the recorder.

        Args:
            event: The event.
            now: The time, in seconds of CLOCK_MONOTONIC.
        """
        if isinstance(event, SessionOffered):
            self._offered(event, now)
            return
        if isinstance(event, OfferRefused):
            reference = self._log.reference(event.sip_call_id)
            self._log.warning("offer_refused", sip=reference, status=event.status, reason=event.reason)
        elif isinstance(event, SessionUpdated | MessageRecorded | SessionEnded):
            try:
                self._tell(event, now)
            except Unavailable as error:
                self._log.failure("media_unavailable", error)
            except MalformedInput as error:  # a record too large to pass on: the call goes on without it
                self._log.failure("record_refused", error)

    def media_event(self, event: MediaEvent) -> None:
        """Takes an event of the media process."""
        if isinstance(event, PortFree):
            self._pool.let_go(event.port)

    def _offered(self, event: SessionOffered, now: float) -> None:
        call = self._calls.setdefault(event.session, _Call(event.sip_call_id))
        if event.initial and not self._media.accepting:
            # Better another recorder now than an answer that records nothing.
            self._log.error("media_unavailable", sip=self._log.reference(event.sip_call_id))
            self._server.refuse(event.session, _SERVICE_UNAVAILABLE, now)
            return
        ports = self._pool.take(len(event.needs_ports), now)
        if ports is None:
            self._log.error(
                "ports_exhausted", sip=self._log.reference(event.sip_call_id), streams=len(event.needs_ports)
            )
            if event.initial:
                self._server.refuse(event.session, _SERVICE_UNAVAILABLE, now)
                return
        call.ports += ports or ()
        self._server.answer(event.session, dict(zip(event.needs_ports, ports or (), strict=False)), now)

    def _tell(self, event: SessionUpdated | MessageRecorded | SessionEnded, now: float) -> None:
        call = self._calls.get(event.session)
        if call is None:
            return
        at_us = self._media.clock.offset_us + round(event.at * 1_000_000)
        if isinstance(event, SessionUpdated):
            self._updated(call, event, at_us)
        elif isinstance(event, MessageRecorded):
            if call.call is not None:
                self._media.signalling(call.call, at_us, event.direction, event.raw)
        else:
            self._ended(call, event, at_us, now)

    def _updated(self, call: _Call, event: SessionUpdated, at_us: int) -> None:
        streams = tuple(_specification(state) for state in event.streams)
        if call.call is None:
            call.call = ids.ulid(at_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES))
            self._media.begin(call.call, at_us, streams)
            self._log.info(
                "call_began", call=call.call, sip=self._log.reference(call.sip_call_id), streams=len(streams)
            )
        elif streams != call.streams:
            self._media.streams(call.call, at_us, streams)
        call.streams = streams
        if event.facts != call.facts:
            call.facts = event.facts
            self._media.session(call.call, event.facts)

    def _ended(self, call: _Call, event: SessionEnded, at_us: int, now: float) -> None:
        del self._calls[event.session]
        if call.call is None:
            # Refused or cancelled before it was answered: nobody was told of its ports.
            self._pool.put_back(call.ports)
            return
        self._pool.rest(call.ports, now)
        reason = _END_REASONS.get(event.reason, "error")
        self._log.info("call_ended", call=call.call, sip=self._log.reference(call.sip_call_id), reason=reason)
        flags = tuple(dict.fromkeys([*call.facts.get("flags", ()), *event.flags]))
        self._media.end(call.call, at_us, reason, flags)


def _specification(state: StreamState) -> StreamSpec:
    return StreamSpec(
        stream=state.index,
        label=state.label,
        port=state.port,
        active=state.active,
        formats=tuple(
            FormatSpec(
                payload_type=codec.payload_type,
                codec=codec.name,
                clock_hz=codec.clock_hz,
                channels=min(codec.channels, 255),
            )
            for codec in state.codecs
        ),
    )
