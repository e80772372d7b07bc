"""The agent's events on their way to the cloud: signed reports in the events queue, a few milliseconds behind.

A thread takes what waits in the outbox, seals it into one report, sends it, and only then takes it out: a crash or a
cut connection repeats a report, and every event can be taken twice. Health is asked for every 30 seconds, when it can
be sent. Without an uplink the thread tries again every few seconds.
"""

from __future__ import annotations

import json
import random as random_numbers
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dualtone.domain.agent_events import MOST_EVENTS, AckEvent, ClockOffset, Event, HealthEvent, LeaseEvent, Report
from dualtone.domain.errors import DualtoneError, Unavailable
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.signing import Signer
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.clock_offset import Clock, TrueTime
from sbc_agent.runtime.ingest_bucket import translated
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.outbox import Outbox

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

HEALTH_EVERY_S: Final = 30.0
GATHER_S: Final = 0.005
_MOST_BYTES: Final = 120_000  # in base64 below what a queue takes
_LIVE_BESIDE_EVENTS: Final = 1_000  # ids of more calls than that have a report of their own
_FIRST_RETRY_S: Final = 0.5
_RETRY_CEILING_S: Final = 5.0  # one small request: the ledger must not lag behind the uploads
_IDLE_S: Final = 60.0
_JOIN_S: Final = 2.0
_COUNTER: Final = "report"


class EventSender:
    """Sends what waits.

    Args:
        outbox: What waits.
        state: Where reports are counted.
        client: An SQS client with the agent's credentials.
        queue_url: Yields the events queue's URL; empty if the cloud has told none.
        tenant: The agent's tenant.
        agent: The agent.
        signer: The agent's key.
        clock: The agent's clock.
        true_time: How far that is off.
        health: How the agent is now; None until there is something to say.
        log: Where failures are told.
        monotonic: Monotonic seconds.
        random: Draws from [0, 1), for the jitter.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        state: AgentState,
        client: SQSClient,
        queue_url: Callable[[], str],
        tenant: TenantId,
        agent: AgentId,
        signer: Signer,
        clock: Clock,
        true_time: TrueTime,
        health: Callable[[], HealthEvent | None],
        log: Log,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._outbox = outbox
        self._state = state
        self._client = client
        self._queue_url = queue_url
        self._tenant = tenant
        self._agent = agent
        self._signer = signer
        self._clock = clock
        self._true_time = true_time
        self._health = health
        self._log = log
        self._monotonic = monotonic
        self._backoff = Backoff(random, first_s=_FIRST_RETRY_S, ceiling_s=_RETRY_CEILING_S)
        self._next_health = 0.0
        self._sequence = 0
        self._answered: Counter[tuple[str, str, str, str]] = Counter()
        self._leases_expired = 0
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)

    def put(self, event: Event) -> None:
        """Takes an event; it is on disk when this returns, and on its way a moment later. Any thread may call it."""
        if isinstance(event, AckEvent):
            self._answered[event.action, event.cause, event.outcome, event.origin] += 1
        elif isinstance(event, LeaseEvent):
            self._leases_expired += 1
        self._outbox.put(event)
        self._something.set()

    def figures(self) -> dict[str, object]:
        """What waits, and what was put since the start: whole numbers, nothing of any call."""
        members = ("action", "cause", "outcome", "origin")
        answered = sorted(self._answered.items())
        return {
            "waiting": self._outbox.waiting(),
            "answered": [{**dict(zip(members, key, strict=True)), "count": count} for key, count in answered],
            "leases_expired": self._leases_expired,
        }

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Sends what waits once more, if the uplink was there, and stops the thread."""
        self._stopping.set()
        self._something.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def send(self) -> int:
        """Sends one report with what waits, and health if it is due.

        Returns:
            How many events it had; 0 if nothing waited.

        Raises:
            Unavailable: If the queue did not answer, or the cloud has told no queue yet.
            PolicyViolation: If it refused.
        """
        queue = self._queue_url()
        if not queue:
            raise Unavailable("the cloud has told no events queue")
        is_health_due = self._monotonic() >= self._next_health
        health = self._health() if is_health_due else None
        goes_alone = health is not None and len(health.live) > _LIVE_BESIDE_EVENTS
        waiting = [] if goes_alone else self._outbox.peek(MOST_EVENTS - 1, _MOST_BYTES)
        events = [entry.event for entry in waiting]
        if health is not None:
            events.append(health)
        if events:
            body = json.dumps(self._report(events).sealed_by(self._signer).to_json(), separators=(",", ":"))
            translated(lambda: self._client.send_message(QueueUrl=queue, MessageBody=body))
            self._outbox.done([entry.ordinal for entry in waiting])
        if is_health_due:
            self._next_health = self._monotonic() + HEALTH_EVERY_S
        return len(events)

    def _report(self, events: list[Event]) -> Report:
        is_known = self._true_time.measured is not None
        return Report(
            tenant=self._tenant,
            agent=self._agent,
            sequence=self._next_sequence(),
            sent_at_us=self._clock.now_us(),
            clock=ClockOffset(self._true_time.offset_us, self._true_time.uncertainty_us) if is_known else None,
            events=events,
        )

    def _next_sequence(self) -> int:
        at_least = max(self._sequence + 1, self._true_time.now_ms())
        try:
            self._sequence = self._state.next_number(_COUNTER, at_least)
        except Unavailable:  # a full disk: time alone lets it grow over a restart
            self._sequence = at_least
        return self._sequence

    def _work(self) -> None:
        while not self._stopping.is_set():
            wait_s = self._step()
            if wait_s is None:
                continue
            if self._backoff.failures:
                self._stopping.wait(wait_s)
            elif self._something.wait(wait_s):
                self._something.clear()
                self._stopping.wait(GATHER_S)
        if not self._backoff.failures:
            self._step()

    def _step(self) -> float | None:
        """Sends once; returns how long to wait then, None if more may wait already."""
        try:
            count = self.send()
        except DualtoneError as error:
            wait_s = self._backoff.fail(self._monotonic())
            if self._backoff.is_news:
                self._log.warning(
                    "events_unsent",
                    reason=type(error).__name__,
                    retry_s=round(wait_s, 1),
                    attempts=self._backoff.failures,
                )
            return wait_s
        except Exception as error:  # noqa: BLE001 - a thread that ends would leave the cloud without a word
            self._log.failure("events_failed", error)
            return self._backoff.fail(self._monotonic())
        self._backoff.succeed()
        return None if count else min(max(self._next_health - self._monotonic(), 0.0), _IDLE_S)
