"""Sweep: find the calls that went silent, say so, and finalise what came of them after long silence.

A call is watched from the first word of it, whichever comes first: its agent's event that it began, or the arrival of
its first opening record in the ingest bucket, of which S3 tells by itself. Either alone is not enough. A call whose
files never got through is known by the event only; one of which the event was lost is known by its files only, and it
is for those that something can be done. The notice of S3 costs one small message a call, is delivered at least once,
and goes the same way as that of the manifest; a listing of the bucket would cost with everything that lies there.

A run asks the index which calls are due: what it costs depends on how many calls are live, not on how many there were.
A call that lasts, as its agent tells, is looked at no further. Of the others, those that wait on their agent's disk
included, the ingest bucket is listed, call by call, and ``call_watch`` decides. The finaliser is asked by a message to
its own queue: it has the memory and the time, and its commit decides what came first if the manifest arrives after all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Protocol

from dualtone.domain import call_files, call_watch
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.call_watch import Rules, Signs, Step, StoredFile, Watch
from dualtone.domain.commit_attempt import Generation
from dualtone.domain.ids import AgentId, CallId, TenantId

FUNCTION: Final = "function:sweep-calls"
MOST_CALLS: Final = 1000
"""Calls of one shard in a run; the others' turn comes with the next, the longest due first."""


class Watches(Protocol):
    """The index table, for watched calls. Every write fails silently if another run was first."""

    @property
    def shards(self) -> int:
        """Over how many partitions they are spread."""

    def due(self, shard: int, now_ms: int, most: int) -> Iterable[Watch]:
        """Reads calls of a shard whose time has come, the longest due first."""

    def is_kept(self, watch: Watch) -> bool:
        """Whether the last event of the call was that it ended: then its agent keeps it until it is recorded."""

    def renew(self, before: Watch, after: Watch) -> bool:
        """Notes when to look again; False if another run was first."""

    def interrupt(self, before: Watch, after: Watch, event: AuditEvent) -> bool:
        """Marks a call as interrupted, with the event; False if another run was first."""

    def hear_again(self, before: Watch, after: Watch, event: AuditEvent) -> bool:
        """Takes the mark back, with the event; False if another run was first."""

    def forget(self, watch: Watch) -> None:
        """Ends the watch, unless it changed meanwhile."""


@dataclass(frozen=True, slots=True)
class AgentWord:
    """The last thing an agent said of itself.

    Attributes:
        at_ms: When the cloud heard it.
        live: The calls that it records.
    """

    at_ms: int
    live: frozenset[str]


class Agents(Protocol):
    """What agents say of themselves."""

    def word(self, tenant: TenantId, agent: AgentId) -> AgentWord | None:
        """Reads an agent's latest health report; None if it never sent one."""


class Generations(Protocol):
    """The index table, for what became of a call."""

    def latest_generation(self, tenant: TenantId, call: CallId) -> Generation | None:
        """Reads who claimed the latest generation of a call; None if nobody did."""


class Listing(Protocol):
    """The ingest bucket, for looking."""

    def list(self, prefix: str) -> list[StoredFile]:
        """Lists what lies below a prefix."""


class Finalizer(Protocol):
    """The finaliser's queue."""

    def ask(self, watch: Watch) -> None:
        """Asks for a call to be finalised with or without a manifest."""


class Alarms(Protocol):
    """Tells the people on duty."""

    def call_interrupted(self, watch: Watch) -> None:
        """A call went silent before it ended."""

    def not_swept(self, watch: Watch, error: Exception) -> None:
        """A call could not be looked at; the next run tries again."""


@dataclass(slots=True)
class Swept:
    """What a run did: calls by step, and calls that could not be looked at."""

    steps: dict[Step, int] = field(default_factory=lambda: dict.fromkeys(Step, 0))
    failed: int = 0

    def counts(self) -> dict[str, int]:
        """The figures by name."""
        return {step.value: number for step, number in self.steps.items()} | {"failed": self.failed}


class SweepCalls:
    """Goes through the calls that are due."""

    def __init__(
        self,
        *,
        watches: Watches,
        agents: Agents,
        generations: Generations,
        uploads: Listing,
        finalizer: Finalizer,
        alarms: Alarms,
        rules: Rules,
    ) -> None:
        """Takes what tells of calls, what acts on them, and how long is too long."""
        self._watches = watches
        self._agents = agents
        self._generations = generations
        self._uploads = uploads
        self._finalizer = finalizer
        self._alarms = alarms
        self._rules = rules

    def __call__(self, now_ms: int) -> Swept:
        """Looks at every call that is due by ``now_ms``; any number of times, at once or one after the other."""
        swept = Swept()
        word = cache(self._agents.word)  # an agent with many calls is asked once a run
        for shard in range(self._watches.shards):
            for watch in self._watches.due(shard, now_ms, MOST_CALLS):
                try:
                    step = self._look(watch, word(watch.tenant, watch.agent), now_ms)
                except Exception as error:  # noqa: BLE001 - whatever one call meets, the others are looked at
                    self._alarms.not_swept(watch, error)
                    swept.failed += 1
                else:
                    swept.steps[step] += 1
        return swept

    def _look(self, watch: Watch, word: AgentWord | None, now_ms: int) -> Step:
        lasts = word is not None and watch.call in word.live
        told_at_ms = word.at_ms if word is not None and (lasts or self._watches.is_kept(watch)) else None
        if lasts and call_watch.is_told_of(watch, told_at_ms, now_ms, self._rules):
            signs = Signs(told_at_ms, None, None, lasts)
        else:
            generation = self._generations.latest_generation(watch.tenant, watch.call)
            files = self._uploads.list(call_files.ingest_prefix(watch.tenant, watch.agent, watch.call))
            signs = Signs(told_at_ms, tuple(files), generation.created_at_ms if generation else None, lasts)
        step, after = call_watch.next_step(watch, signs, now_ms, self._rules)
        match step:
            case Step.FORGET:
                self._watches.forget(watch)
            case Step.WAIT:
                self._watches.renew(watch, after)
            case Step.FINALIZE:
                # First asked, then noted: a crash between the two asks twice, which changes nothing.
                self._finalizer.ask(after)
                self._watches.renew(watch, after)
            case Step.INTERRUPT:
                if self._watches.interrupt(watch, after, _event(Work.INTERRUPT_CALL, after, now_ms)):
                    self._alarms.call_interrupted(after)
            case Step.HEARD_AGAIN:
                self._watches.hear_again(watch, after, _event(Work.HEAR_CALL_AGAIN, after, now_ms))
        return step


def _event(what: Work, watch: Watch, now_ms: int) -> AuditEvent:
    return AuditEvent(
        tenant=watch.tenant,
        who=FUNCTION,
        what=what,
        when_ms=now_ms,
        outcome=Outcome.GRANTED,
        origin="cloud",
        which=watch.call,
        request_id=watch.call,
        details={"agent": watch.agent, "heard_at_ms": watch.heard_at_ms},
    )
