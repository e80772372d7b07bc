"""When a call has gone silent, and what is to be done about it then. Pure; times are Unix ms.

A call is watched from the first word of it until it is recorded as a whole. Signs of life are files that arrive and its
agent's word that it lasts, or is kept on the agent's disk. What follows from them:

| signs                                                          | step        |
|----------------------------------------------------------------|-------------|
| recorded, and nothing left in the ingest bucket                | FORGET      |
| silent as long as the rules wait, and nothing ever came        | FORGET      |
| a manifest lies there; files came after it was recorded        | FINALIZE    |
| silent as long as the rules wait; files are new                | FINALIZE    |
| its oldest file is about to expire; files are new              | FINALIZE    |
| not recorded, silent for minutes                               | INTERRUPT   |
| was interrupted, and gives a sign of life                      | HEARD_AGAIN |
| otherwise                                                      | WAIT        |

Files are new if they came after the latest generation began, and after the finaliser was last asked. S3 tells arrivals
in whole seconds: one of the same second counts as later, since asking once too often changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from dualtone.domain.call_files import MANIFEST_NAME
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.period import DAY_MS

HOUR_MS: Final = 3_600_000

_S3_TELLS_MS: Final = 1000


class StoredFile(NamedTuple):
    """A file of a call in the ingest bucket: its name, and when it arrived."""

    name: str
    arrived_ms: int


class Step(StrEnum):
    """What is done for a call."""

    FORGET = "forget"
    WAIT = "wait"
    INTERRUPT = "interrupt"
    HEARD_AGAIN = "heard-again"
    FINALIZE = "finalize"


@dataclass(frozen=True, slots=True)
class Rules:
    """How long is too long.

    Attributes:
        interrupted_after_ms: Silence after which a call counts as interrupted.
        finalize_after_ms: Silence after which what came is finalised.
        expiring_after_ms: Age of a file at which it is finalised whoever was heard: the bucket forgets it soon.
        look_again_ms: How often a call is looked at that was interrupted, or whose upload is kept.
    """

    interrupted_after_ms: int
    finalize_after_ms: int
    expiring_after_ms: int = 12 * DAY_MS
    look_again_ms: int = HOUR_MS


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched call.

    Attributes:
        tenant: Owner of the call.
        agent: Who records it.
        call: The call.
        heard_at_ms: The last sign of life.
        due_at_ms: When to look at it next.
        interrupted_at_ms: Since when it counts as interrupted; None if it does not.
        asked_for_ms: Arrival of the newest file for which the finaliser was asked; None if it never was.
        lasted_until_ms: When its agent last told that it still lasts; None if it never did. Files say no such thing: an
            uplink may be days late.
    """

    tenant: TenantId
    agent: AgentId
    call: CallId
    heard_at_ms: int
    due_at_ms: int
    interrupted_at_ms: int | None = None
    asked_for_ms: int | None = None
    lasted_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Signs:
    """What can be seen of a call.

    Attributes:
        told_at_ms: When its agent last told that it lasts or is kept on its disk; None if it does not tell so.
        files: What of it lies in the ingest bucket; None if that was not looked at.
        recorded_at_ms: When the attempt behind its latest generation began; None if there is none.
        lasts: Whether its agent told that it lasts, rather than that it is kept on its disk.
    """

    told_at_ms: int | None
    files: tuple[StoredFile, ...] | None
    recorded_at_ms: int | None
    lasts: bool = False

    @property
    def newest_ms(self) -> int | None:
        """Arrival of its newest file; None if there is none."""
        return max((file.arrived_ms for file in self.files or ()), default=None)

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of its oldest file; None if there is none."""
        return min((file.arrived_ms for file in self.files or ()), default=None)

    @property
    def has_manifest(self) -> bool:
        """Whether its manifest is among the files."""
        return any(file.name == MANIFEST_NAME for file in self.files or ())


def begun(tenant: TenantId, agent: AgentId, call: CallId, now_ms: int, rules: Rules) -> Watch:
    """Begins to watch a call."""
    return Watch(tenant, agent, call, now_ms, now_ms + rules.interrupted_after_ms)


def is_told_of(watch: Watch, told_at_ms: int | None, now_ms: int, rules: Rules) -> bool:
    """Whether its agent's word alone says that a call lasts: then nothing else need be looked at."""
    return (
        told_at_ms is not None and watch.interrupted_at_ms is None and now_ms - told_at_ms < rules.interrupted_after_ms
    )


def next_step(watch: Watch, signs: Signs, now_ms: int, rules: Rules) -> tuple[Step, Watch]:
    """Decides what is done for a call whose time has come.

    Args:
        watch: The call.
        signs: What can be seen of it.
        now_ms: The time.
        rules: How long is too long.

    Returns:
        The step, and the watch as it is to be afterwards.
    """
    heard_at_ms = max(watch.heard_at_ms, signs.told_at_ms or 0, signs.newest_ms or 0)
    lasted_until_ms = signs.told_at_ms if signs.lasts else watch.lasted_until_ms
    heard = replace(watch, heard_at_ms=heard_at_ms, lasted_until_ms=lasted_until_ms)
    silent_ms = now_ms - heard_at_ms
    if signs.files is not None and signs.newest_ms is None:
        if signs.recorded_at_ms is not None or silent_ms >= rules.finalize_after_ms:
            return Step.FORGET, heard
    elif _is_asked(watch, signs, silent_ms, now_ms, rules):
        asked = replace(heard, asked_for_ms=signs.newest_ms, due_at_ms=now_ms + rules.look_again_ms)
        return Step.FINALIZE, asked
    if silent_ms < rules.interrupted_after_ms:
        due_at_ms = heard_at_ms + rules.interrupted_after_ms
        if signs.recorded_at_ms is not None:  # what is kept of it is seldom news
            due_at_ms = now_ms + rules.look_again_ms
        alive = replace(heard, due_at_ms=due_at_ms, interrupted_at_ms=None)
        return Step.WAIT if watch.interrupted_at_ms is None else Step.HEARD_AGAIN, alive
    later = replace(heard, due_at_ms=now_ms + rules.look_again_ms)
    if watch.interrupted_at_ms is None and signs.recorded_at_ms is None and not signs.has_manifest:
        return Step.INTERRUPT, replace(later, interrupted_at_ms=now_ms)
    return Step.WAIT, later


def _is_asked(watch: Watch, signs: Signs, silent_ms: int, now_ms: int, rules: Rules) -> bool:
    newest_ms, oldest_ms = signs.newest_ms, signs.oldest_ms
    if newest_ms is None or oldest_ms is None or newest_ms <= (watch.asked_for_ms or 0):
        return False
    if signs.recorded_at_ms is not None and newest_ms + _S3_TELLS_MS <= signs.recorded_at_ms:
        return False
    # The arrival of a manifest is an event of its own: only what comes after its recording needs a word from here.
    is_complete = signs.has_manifest and signs.recorded_at_ms is not None
    is_expiring = now_ms - oldest_ms >= rules.expiring_after_ms
    return is_complete or is_expiring or silent_ms >= rules.finalize_after_ms
