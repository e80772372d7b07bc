"""A site under a recording policy: SIP core, recorder, control and state in one, over the media process in memory."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from dualtone.domain import call_match
from dualtone.domain.agent_events import AckEvent, CallEvent, DecisionEvent, Event
from dualtone.domain.ids import CallId
from dualtone.domain.recording_policy import RecordingPolicy, Rule
from sbc_agent.media.messages import Choice, Pause, PauseApplied
from sbc_agent.protocol.events import SendMessage
from sbc_agent.protocol.message import Request, Response, parse
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.uas import ServerSettings
from sbc_agent.runtime import journal
from sbc_agent.runtime.clock_offset import TrueTime
from sbc_agent.runtime.consents import Consents
from sbc_agent.runtime.control import Control
from sbc_agent.runtime.decisions import Decisions
from sbc_agent.runtime.journal import Journal
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.not_recorded import NotRecorded
from sbc_agent.runtime.pending_commands import PendingCommands
from sbc_agent.runtime.recorder import Recorder
from tests.agent.protocol.builders import MEDIA_ADDRESS, METADATA, UDP, Src, tag_of
from tests.agent.protocol.memory_media import MemoryMedia, RecordedCall
from tests.agent.runtime import states
from tests.agent.runtime.spooled import TENANT

LIVE_KEY = bytes(range(32))
BOOT = "11111111-2222-4333-8444-555555555555"
OFFSET_US = 1_000_000_000_000
_RULE: Final = TypeAdapter(Rule)
LINE, OTHER = "+442079460111", "+447700900222"


def rule(record: str = "always", **members: Any) -> Rule:
    """A rule for every call, unless it says otherwise."""
    return _RULE.validate_json(json.dumps({"id": "rule", "record": record, "basis": "contract"} | members))


def policy(*rules: Rule, lines: tuple[str, ...] = ("+44207946*",), version: int = 3) -> RecordingPolicy:
    return RecordingPolicy(TENANT, version, 1, rules, lines=lines)


def metadata(line: str = LINE, other: str = OTHER, session: str = "abc@example.com", extra: str = "") -> str:
    """Complete metadata of a call between two numbers."""
    text = METADATA.replace("sip:alice@example.com", f"sip:{line}@example.com")
    text = text.replace("sip:bob@example.com", f"sip:{other}@example.com").replace("abc@example.com", session)
    text = text.replace('session_id="S"', f'session_id="{session}"')
    return text.replace("</datamode>", f"</datamode>{extra}")


@dataclass
class Told:
    """Implements `control.Events`."""

    events: list[Event] = field(default_factory=list)

    def put(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Site:
    """One run of an agent; make another over the same directory for the run after a kill.

    Args:
        directory: Its state.
        rules: The policy.
        now: CLOCK_MONOTONIC.
        attached: Whether the control channel is there from the start.
        version: Of the policy.
    """

    def __init__(
        self, directory: Path, *rules: Rule, now: float = 1000.0, attached: bool = True, version: int = 3
    ) -> None:
        self.now = now
        self.policy: RecordingPolicy | None = policy(*rules, version=version) if rules else None
        self.media = MemoryMedia(range(20000, 20040, 2), OFFSET_US)
        self.told, self.lines = Told(), io.StringIO()
        log = Log(stream=self.lines, salt=b"salt")
        self.state = states.opened(directory)
        self.consents = Consents(self.state, log, lambda: LIVE_KEY)
        self.tally = NotRecorded(self.state, log)
        tokens = iter(f"{number:032x}" for number in range(1 + int(now) * 1_000, 10**9))
        self.server = SipServer(ServerSettings(MEDIA_ADDRESS), lambda: next(tokens), secrets.token_bytes)
        kept = Journal(directory / "journal", boot_id=BOOT, clock_offset_us=OFFSET_US, log=log)
        self.woken = 0
        legacy = journal.inherit(directory / "journal", boot_id=BOOT, now=now)
        self.recorder = Recorder(
            self.server,
            self.media,
            log,
            journal=kept,
            decisions=Decisions(lambda: self.policy, self.consents),
            tally=self.tally,
        )
        self.recorder.wake = self._wake
        clock = self
        self.calls = LiveCalls(self.state, log)
        self.control = Control(
            tenant=TENANT,
            clock=clock,
            true_time=TrueTime(clock),
            media=self.media,
            calls=self.calls,
            pending=PendingCommands(self.state, log),
            events=self.told,
            live_key=lambda: LIVE_KEY,
            recut=lambda *_: Future(),
            log=log,
            chooser=self.recorder,
            consents=self.consents,
        )
        self.media.subscribe(self.control.media_event)
        self.recorder.inherit(legacy, now)
        self.pump()
        if attached:
            self.attach()

    def attach(self) -> None:
        self.recorder.attach(self.control)
        self.control.settle()

    def now_us(self) -> int:
        return OFFSET_US + round(self.now * 1_000_000)

    def receive(self, data: bytes) -> list[Request | Response]:
        self.server.receive(data, UDP, self.now)
        return self.pump()

    def pump(self) -> list[Request | Response]:
        sent = []
        while (event := self.server.next_event()) is not None:
            if isinstance(event, SendMessage):
                self.recorder.keep(self.now)
                sent.append(parse(event.data))
            else:
                self.recorder.handle(event, self.now)
        self.recorder.keep(self.now)
        return sent

    def call(self, src: Src, *headers: tuple[str, str], text: str | None = None) -> str:
        """A call is answered; returns its id."""
        before = set(self.media.calls)
        answer, *_ = self.receive(src.invite(*headers, metadata=metadata() if text is None else text))
        assert isinstance(answer, Response)
        assert answer.status == 200
        src.to_tag = tag_of(answer)
        self.receive(src.request("ACK"))
        (number,) = self.media.calls.keys() - before
        return number

    def update(self, src: Src, text: str) -> None:
        """A re-INVITE brings other metadata."""
        (answer,) = self.receive(src.invite(metadata=text))
        assert isinstance(answer, Response)
        assert answer.status == 200
        self.receive(src.request("ACK", cseq=src.cseq))

    def hang_up(self, src: Src) -> None:
        self.receive(src.request("BYE"))

    def press(self, call: str, choice: Literal["accept", "decline"]) -> None:
        """A consent key is pressed."""
        self.media.tell(Choice(call=call, choice=choice, at_us=self.now_us()))

    def paused(self, pause: Pause, *, causes: tuple[str, ...] | None = None) -> None:
        """The media process has carried out a pause."""
        told = PauseApplied.model_validate(
            {
                "call": pause.call,
                "command": pause.command,
                "origin": pause.origin,
                "number": pause.number,
                "action": "pause",
                "cause": pause.cause,
                "outcome": "acknowledged",
                "from_us": pause.from_us,
                "at_us": self.now_us(),
                "causes": (pause.cause,) if causes is None else causes,
            }
        )
        self.media.tell(told)

    def pass_time(self, seconds: float) -> list[Request | Response]:
        """Lets time pass; what it decides is decided."""
        self.now += seconds
        at = self.recorder.timer()
        if at is not None and at <= self.now:
            self.recorder.pass_time(self.now)
        return self.pump()

    def pass_now(self) -> list[Request | Response]:
        """The shell is woken."""
        self.recorder.pass_time(self.now)
        return self.pump()

    def of(self, call: str) -> RecordedCall:
        return self.media.calls[call]

    def standing(self, call: str) -> str:
        known = self.calls.get(CallId(call))
        return "gone" if known is None else known.standing

    @property
    def silent_to_the_cloud(self) -> bool:
        """Whether nothing at all was told."""
        return not self.told.events

    def choices(self) -> list[tuple[str, str, str]]:
        """What the cloud was told of choices."""
        return [(event.choice, event.how, event.outcome) for event in self.told.of(DecisionEvent)]

    def acks(self) -> list[AckEvent]:
        return self.told.of(AckEvent)

    def states(self, call: str) -> list[CallEvent]:
        return [event for event in self.told.of(CallEvent) if event.call == call]

    def _wake(self) -> None:
        self.woken += 1


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test in an event loop, as the agent runs."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def whole() -> None:
            await test(*arguments, **named)

        asyncio.run(whole())

    return run


def token(kind: str, value: str) -> str:
    return call_match.token(LIVE_KEY, kind, value)
