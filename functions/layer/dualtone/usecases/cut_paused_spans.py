"""Cut what was paused too late out of everything that is stored of a call: uploads first, then recordings.

1. The ledger is read: what it says by now is what is cut. An agent that is clean in it was so before this run began.
2. Uploads: parts are rewritten without the records of the spans, each on the condition that it is still the one that
   was read, until a pass finds nothing more.
3. Recordings: every generation is punctured (``puncture_recording``). One that is made meanwhile is made of this ledger
   or of a later one, or it is not committed.
4. For each pause of which the agent holds nothing either, the moment is noted, with an audit event that says how long
   it took. An agent that is not clean yet says so when it is, and then all of this is done again.

A pause that was acknowledged left no copy: nothing is cut for it, so that no second beside it is lost. Any step can be
repeated at will, and done by several at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from dualtone.domain import call_files, part, pause_ledger
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause import FOREVER_US
from dualtone.domain.pause_ledger import Ledger, LedgerCommand, PauseSpan
from dualtone.usecases.puncture_recording import WHO, PunctureRecording, Recordings

_PASSES: Final = 8
_PART: Final = ".dtp"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part as it lies in the ingest bucket: its bytes, and the tag that changes with them."""

    data: bytes = field(repr=False)
    etag: str


class StoredParts(Protocol):
    """The ingest bucket, for cutting."""

    def names(self, prefix: str) -> list[str]:
        """The keys of all objects below a prefix."""

    def read(self, key: str) -> StoredPart:
        """Reads an object; raises NotFound."""

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Replaces an object if it is still the one with the tag; False if it is another, or gone."""


class Ledgers(Protocol):
    """The cloud's ledgers of pauses."""

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads a call's ledger, consistently."""

    def gone(self, tenant: TenantId, call: CallId, command: LedgerCommand, at_ms: int, event: AuditEvent) -> bool:
        """Notes when the last copy of a command's span was gone; False if that was noted before."""


class CutPausedSpans:
    """Makes what is stored of calls agree with their ledgers."""

    def __init__(
        self,
        *,
        ledgers: Ledgers,
        parts: StoredParts,
        recordings: Recordings,
        puncture: PunctureRecording,
        now_ms: Callable[[], int],
    ) -> None:
        """Takes the ledgers, what calls are stored in, what punctures recordings, and a clock."""
        self._ledgers = ledgers
        self._parts = parts
        self._recordings = recordings
        self._puncture = puncture
        self._now_ms = now_ms

    def __call__(self, tenant: TenantId, call: CallId) -> None:
        """Cuts one call; any number of times, at once or one after the other.

        Args:
            tenant: Owner of the call.
            call: The call.

        Raises:
            IntegrityError: If a part is none, so that nobody can tell what it holds, or keys are not what was sealed.
            PolicyViolation: If a store or a custodian refuses.
            Unavailable: If something does not answer.
        """
        ledger = self._ledgers.read(tenant, call)
        late = late_pauses(ledger)
        if not late:
            return
        spans = [span for _command, span in late]
        agent = self._agent(ledger, tenant, call)
        unreadable = 0 if agent is None else self._cut_uploads(call_files.ingest_prefix(tenant, agent, call), spans)
        self._puncture(tenant, call, spans)
        if unreadable:
            raise IntegrityError("a part of the call cannot be read, so that nothing can be cut out of it")
        for command, span in late:
            if command.gone_at_ms is None and _is_clean_at_agent(command):
                at_ms = self._now_ms()
                self._ledgers.gone(tenant, call, command, at_ms, _event(tenant, call, command, span, at_ms))

    def _agent(self, ledger: Ledger, tenant: TenantId, call: CallId) -> AgentId | None:
        if ledger.live is not None:
            return ledger.live.agent_id
        recorded = self._recordings.of_call(tenant, call)
        return recorded[0].agent if recorded else None

    def _cut_uploads(self, prefix: str, spans: Sequence[PauseSpan]) -> int:
        """Cuts all parts below a prefix until none changes any more; returns how many are none."""
        # The moment at which a pause ends is no part of it.
        bounds = [(span.from_us, FOREVER_US if span.to_us is None else span.to_us - 1) for span in spans]
        for _pass in range(_PASSES):
            outcomes = [self._cut(key, bounds) for key in self._parts.names(prefix) if key.endswith(_PART)]
            if not any(outcomes):
                return outcomes.count(None)
        raise Unavailable("the parts of the call are changed by others without end")

    def _cut(self, key: str, bounds: Sequence[tuple[int, int]]) -> bool | None:
        """Cuts one part; whether it was, or may have been, another one before; None if it is no part."""
        try:
            stored = self._parts.read(key)
            cut = part.cut(stored.data, bounds)
        except NotFound:
            return False
        except MalformedInput:
            return None
        if cut == stored.data:
            return False
        self._parts.replace(key, cut, stored.etag)
        return True


def late_pauses(ledger: Ledger) -> list[tuple[LedgerCommand, PauseSpan]]:
    """The pauses of which something may be stored, and the spans of it.

    While the call lasts, an unanswered pause waits for its answer. One that came too late took effect when it came:
    what arrived after that was never kept.
    """
    live = ledger.live
    commands = {(command.origin, command.number): command for command in ledger.commands}
    found = []
    for span in pause_ledger.spans(ledger.commands, live.ended_at_us if live is not None else None):
        command = commands[span.origin, span.number]
        if command.in_time or (command.outcome is None and live is not None and live.is_live):
            continue
        acted_us = command.at_us if command.outcome == "too_late" else FOREVER_US
        to_us = min(FOREVER_US if span.to_us is None else span.to_us, acted_us)
        found.append((command, replace(span, to_us=None if to_us == FOREVER_US else max(to_us, span.from_us))))
    return found


def _is_clean_at_agent(command: LedgerCommand) -> bool:
    return command.agent_clean_at_ms is not None or command.outcome == "unknown"


def _event(tenant: TenantId, call: CallId, command: LedgerCommand, span: PauseSpan, at_ms: int) -> AuditEvent:
    return AuditEvent(
        tenant=tenant,
        who=WHO,
        what=Work.CUT_PAUSED_SPAN,
        when_ms=at_ms,
        outcome=Outcome.GRANTED,
        origin="cloud",
        which=call,
        request_id=command.command,
        details={
            "cause": span.cause,
            "from_us": span.from_us,
            "until_gone_ms": max(0, at_ms - command.received_at_ms),
        },
    )
