"""The control channel over a media process in memory: calls with causes and a hold-back, and time that a test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualtone.domain import call_match, ids
from dualtone.domain.agent_events import AckEvent, CallEvent, CutEvent, Event
from dualtone.domain.call_command import Command
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Choice
from sbc_agent.media.messages import CutDone, Pause, PauseApplied, Resume, SilentFrom
from sbc_agent.media.messages import Event as MediaEvent
from sbc_agent.media.pauses import owed_pause, pause_of
from sbc_agent.media.silence import Silence
from sbc_agent.runtime.clock_offset import Measurement, TrueTime
from sbc_agent.runtime.consents import Consents
from sbc_agent.runtime.control import Control
from sbc_agent.runtime.control_facts import ControlFacts, PaymentEndpoint
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.pending_commands import PendingCommands
from sbc_agent.runtime.recorded_call import ChoiceOutcome
from tests.agent.runtime import states
from tests.agent.runtime.spooled import AGENT, TENANT, Lines, call_id

LIVE_KEY = bytes(range(32))
ENDPOINT = "pay_" + "0" * 26
SECRET = "whsec_" + "A" * 43 + "="
START_US = 1_800_000_000_000_000
HOLD_BACK_US = 5_000_000
ROUND_TRIP_US = 20_000


def facts(ucid: str = "00FA080018803B69810C6D", extension: str = "1001") -> dict[str, Any]:
    """The facts of a SESSION record."""
    return {
        "sip_call_id": f"dialog-{ucid}",
        "participants": [
            {"participant_id": "A", "aor": f"sip:{extension}@example.com", "name": "Alice", "role": "caller"}
        ],
        "extensions": {"ucid": ucid},
    }


def token(kind: str, value: str) -> str:
    return call_match.token(LIVE_KEY, kind, value)


async def until(reached: Callable[[], object]) -> None:
    """Lets the event loop and its threads work until something is so."""
    while not reached():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


@dataclass
class Time:
    """The agent's clock."""

    at_us: int = START_US

    def now_us(self) -> int:
        return self.at_us

    def pass_s(self, seconds: float) -> None:
        self.at_us += round(1_000_000 * seconds)


@dataclass
class PausedMedia:
    """Implements `control.CommandedMedia`: what a call keeps is decided by the media process's own rules.

    Attributes:
        silences: The calls in the rings, with their causes.
        spooled: The calls in the spool.
        commands: Every command, in the order of arrival.
        answers: Whether it answers.
    """

    time: Time
    silences: dict[str, Silence] = field(default_factory=dict)
    spooled: set[str] = field(default_factory=set)
    commands: list[Pause | Resume] = field(default_factory=list)
    listeners: list[Any] = field(default_factory=list)
    answers: bool = True
    gone: bool = False

    def pause(self, command: Pause) -> None:
        self._take(command)

    def resume(self, command: Resume) -> None:
        self._take(command)

    def tell(self, event: MediaEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def _take(self, command: Pause | Resume) -> None:
        if self.gone:
            raise Unavailable("the media process has ended")
        self.commands.append(command)
        if self.answers:
            self.answer(command)

    def answer(self, command: Pause | Resume) -> None:
        """Carries a command out as the media process does."""
        silence = self.silences.get(command.call)
        if silence is None:
            outcome = "too_late" if command.call in self.spooled and isinstance(command, Pause) else "unknown"
        elif isinstance(command, Pause):
            owed = owed_pause(silence, command)
            if owed is None:
                outcome = "superseded"
            else:
                silence.begin(pause_of(owed))
                silence.pass_time(self.time.now_us())
                outcome = "acknowledged" if command.from_us >= self.time.now_us() - HOLD_BACK_US else "too_late"
        elif silence.takes(command.origin, command.cause, command.number):
            silence.lift(command.origin, command.cause, command.number, self.time.now_us(), command.by)
            outcome = "acknowledged"
        else:
            outcome = "superseded"
        is_pause = isinstance(command, Pause)
        from_us = command.from_us if isinstance(command, Pause) else self.time.now_us()
        applied = PauseApplied.model_validate(
            {
                "call": command.call,
                "command": command.command,
                "origin": command.origin,
                "number": command.number,
                "action": command.cmd,
                "cause": command.cause,
                "outcome": outcome,
                "from_us": from_us,
                "at_us": self.time.now_us(),
                "silent_from": [SilentFrom(stream=0, rtp_timestamp=160, at_us=from_us)] if is_pause else [],
                "causes": silence.causes if silence is not None else (),
            }
        )
        self.tell(applied)
        if outcome == "too_late":
            self.tell(
                CutDone(
                    call=command.call,
                    command=command.command,
                    from_us=from_us,
                    to_us=self.time.now_us(),
                    parts=("part-00-000000.dtp",),
                )
            )


@dataclass
class Told:
    """Implements `control.Events`."""

    events: list[Event] = field(default_factory=list)

    def put(self, event: Event) -> None:
        self.events.append(event)

    @property
    def acks(self) -> list[AckEvent]:
        return [event for event in self.events if isinstance(event, AckEvent)]

    @property
    def cuts(self) -> list[CutEvent]:
        return [event for event in self.events if isinstance(event, CutEvent)]

    def calls(self, call: str) -> list[CallEvent]:
        return [event for event in self.events if isinstance(event, CallEvent) and event.call == call]


@dataclass
class Chosen:
    """Implements `choices.Chooser`: keeps what was chosen, and says what a test wants to hear.

    Attributes:
        outcome: What becomes of each choice.
        regulated: Whether calls are recorded whatever anybody chooses.
        chosen: Every choice, with its call and command.
    """

    outcome: ChoiceOutcome = "kept"
    regulated: bool = False
    chosen: list[tuple[CallId, Choice, str | None]] = field(default_factory=list)

    def choose(self, call: CallId, choice: Choice, command: str | None = None) -> ChoiceOutcome:
        self.chosen.append((call, choice, command))
        return self.outcome

    def is_regulated(self, call: CallId) -> bool:
        return self.regulated


class Desk:
    """A control channel in one run of the agent; make another over the same directory for the run after a kill."""

    def __init__(
        self,
        directory: Path,
        *,
        time: Time | None = None,
        media: PausedMedia | None = None,
        offset_us: int = 0,
        live_key: bytes = LIVE_KEY,
    ) -> None:
        self.time = time or Time()
        self.media = media or PausedMedia(self.time)
        self.lines = Lines()
        self.told = Told()
        self.state = states.opened(directory)
        self.true_time = TrueTime(self.time)
        self.true_time.learn(Measurement(offset_us, ROUND_TRIP_US // 2, self.time.now_us()))
        self.facts = ControlFacts(
            live_key=live_key, payment_endpoints=(PaymentEndpoint(ENDPOINT, SECRET),), lease_s=900
        )
        self.chooser = Chosen()
        self.recuts: list[tuple[str, tuple[str, ...]]] = []
        self.recut_futures: list[Future[None]] = []
        self.recut_failures = 0
        self.control = Control(
            tenant=TENANT,
            clock=self.time,
            true_time=self.true_time,
            media=self.media,
            calls=LiveCalls(self.state, self.lines.log),
            pending=PendingCommands(self.state, self.lines.log),
            events=self.told,
            live_key=lambda: self.facts.live_key,
            recut=self._recut,
            log=self.lines.log,
            chooser=self.chooser,
            consents=Consents(self.state, self.lines.log, lambda: self.facts.live_key),
        )
        self.media.listeners = [self.control.media_event]
        self._ids = itertools.count(1)

    def _recut(self, call: CallId, names: Iterable[str]) -> Future[None]:
        if self.recut_failures:
            self.recut_failures -= 1
            raise OSError("the disk refuses")
        self.recuts.append((call, tuple(names)))
        future: Future[None] = Future()
        self.recut_futures.append(future)
        return future

    def begin(self, number: int = 1, told: dict[str, Any] | None = None) -> CallId:
        """A call is answered, and its metadata is known."""
        call = call_id(self.time.now_us() // 1000, number)
        self.media.silences[call] = Silence()
        self.control.on_call(call, facts() if told is None else told, "live", self.time.now_us())
        return call

    def end(self, call: CallId) -> None:
        """Its dialog ends."""
        self.control.on_call(call, facts(), "ended", self.time.now_us())

    def spool(self, call: CallId) -> None:
        """Its ring has run empty."""
        del self.media.silences[call]
        self.media.spooled.add(call)

    def command(self, action: str = "pause", **changes: Any) -> Command:
        """A command of the cloud's."""
        now_ms = self.true_time.now_ms()
        found: dict[str, Any] = {
            "id": ids.ulid(now_ms, next(self._ids).to_bytes(10, "big")),
            "tenant": TENANT,
            "agent": AGENT,
            "issued_at_ms": now_ms,
            "expires_at_ms": now_ms + 60_000,
            "action": action,
            "call": None,
            "match": None,
            "number": now_ms,
            "cause": "payment",
            "effective_at_ms": None,
            "until_ms": None,
            "lease_s": 900,
            "on_expiry": "silent",
            "by": "endpoint:pay_1",
        }
        return Command(**found | changes)

    def causes(self, call: CallId) -> tuple[str, ...]:
        return self.media.silences[call].causes
