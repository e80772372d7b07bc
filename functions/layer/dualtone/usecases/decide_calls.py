"""Decide on calls: keep one that waits, discard it, or stop one that is being kept.

The cloud knows no call that waits for a decision: its agent tells nothing of it until it is kept. So a decision goes to
every agent of the tenant unless the call is known, and an agent keeps one by name for an hour, for calls to come. An
agent answers only for calls that are kept; of one that it discards nothing is ever heard again, and `requested` is the
last word on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from dualtone.domain.audit_event import AuditEvent, Outcome, RequestFacts
from dualtone.domain.call_decision import OBEYED_S, PENDING_S, Decision
from dualtone.domain.errors import PolicyViolation, Unavailable
from dualtone.domain.ids import ULID_RANDOM_BYTES, AgentId, CallId, TenantId, ulid
from dualtone.domain.pause_ledger import Ledger
from dualtone.domain.recording_policy import Fate
from dualtone.domain.recording_ruling import Cause
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import Agent, AgentState, Verb
from dualtone.usecases.command_calls import twins

ANSWER_WITHIN_MS: Final = 3_000
STEP_MS: Final = 75
_MOST_CALLS: Final = 20

DecisionOutcome = Literal["kept", "stopped", "noted", "ignored", "requested"]
# Which of several calls' outcomes whoever decided must heed.
_GRAVEST_FIRST: Final[tuple[DecisionOutcome, ...]] = ("ignored", "stopped", "kept", "noted")


class Ledgers(Protocol):
    """What is known of calls."""

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads what is known of a call."""


class Matches(Protocol):
    """Calls by their match tokens."""

    def matching(self, tenant: TenantId, token: str, from_ms: int) -> list[CallId]:
        """Calls that have a token and had not ended before a moment, the newest first."""


class Choices(Protocol):
    """What agents told of decisions."""

    def outcome(self, tenant: TenantId, call: CallId, command: str) -> DecisionOutcome | None:
        """What became of a decision for a call; None while its agent has not said."""


class Agents(Protocol):
    """The directory of agents."""

    def agents(self, tenant: TenantId) -> list[Agent]:
        """Reads all agents of a tenant."""


class CommandQueues(Protocol):
    """Where agents listen."""

    def send(self, queue_url: str, envelope: Envelope) -> None:
        """Sends a signed message."""


class Audit(Protocol):
    """The audit outbox."""

    def write(self, event: AuditEvent) -> None:
        """Writes one event."""


class Patience(Protocol):
    """A clock that can be waited by."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""

    def wait_ms(self, duration_ms: int) -> None:
        """Lets that much time pass."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is decided.

    Attributes:
        tenant: Whose calls.
        by: Who decides, as audit events name them.
        decision: To keep or to discard.
        cause: Why.
        how: By which way the decision came.
        command: Its id, if an earlier attempt has drawn one.
    """

    tenant: TenantId
    by: str
    decision: Fate
    cause: Cause
    how: Literal["api", "webhook"]
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a decision.

    Attributes:
        command: Its id.
        calls: The calls whose agents answered, and what they answered.
    """

    command: str
    calls: tuple[tuple[CallId, DecisionOutcome], ...]

    @property
    def outcome(self) -> DecisionOutcome:
        """The one outcome: the gravest of the calls', or that no agent has answered."""
        found = {outcome for _, outcome in self.calls}
        return next((outcome for outcome in _GRAVEST_FIRST if outcome in found), "requested")


class DecideCalls:
    """Decides."""

    def __init__(
        self,
        *,
        ledgers: Ledgers,
        matches: Matches,
        choices: Choices,
        agents: Agents,
        queues: CommandQueues,
        audit: Audit,
        signer: Signer,
        patience: Patience,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Takes the stores, the queues, the outbox, the cloud's signer, what waits, and randomness for ids."""
        self._ledgers = ledgers
        self._matches = matches
        self._choices = choices
        self._agents = agents
        self._queues = queues
        self._audit = audit
        self._signer = signer
        self._patience = patience
        self._random_bytes = random_bytes

    def by_call(self, wanted: Wanted, call: CallId, facts: RequestFacts) -> Decided:
        """Decides on one call, which may be one that waits: then none of its tenant's agents has told of it.

        Of one that is known, the same call at other agents is decided on too.

        Raises:
            Unavailable: If no agent could be told.
        """
        live = self._ledgers.read(wanted.tenant, call).live
        decision = self._decision(wanted, facts, call=call, match=None)
        self._tell(wanted, decision, facts, call, only=None if live is None else live.agent_id)
        for twin in [] if live is None else twins(live, self._matches, self._ledgers, facts.now_ms):
            same = replace(decision, call=twin.call_id)
            self._tell(wanted, same, facts, twin.call_id, only=twin.agent_id)
        may_answer = live is not None or wanted.decision == "keep"
        return self._awaited(wanted.tenant, decision.id, lambda: [call], may_answer=may_answer)

    def by_match(self, wanted: Wanted, token: str, facts: RequestFacts) -> Decided:
        """Decides on every call that goes by a name, and on those that will within the hour.

        Raises:
            Unavailable: If no agent could be told.
        """
        decision = self._decision(wanted, facts, call=None, match=token)
        self._tell(wanted, decision, facts, "", only=None)

        def calls() -> Sequence[CallId]:
            return self._matches.matching(wanted.tenant, token, facts.now_ms)[:_MOST_CALLS]

        may_answer = wanted.decision == "keep" or bool(calls())
        return self._awaited(wanted.tenant, decision.id, calls, may_answer=may_answer)

    def _decision(self, wanted: Wanted, facts: RequestFacts, *, call: CallId | None, match: str | None) -> Decision:
        kept_s = PENDING_S if call is None else OBEYED_S
        return Decision(
            id=wanted.command or ulid(facts.now_ms, self._random_bytes(ULID_RANDOM_BYTES)),
            tenant=wanted.tenant,
            agent="",
            issued_at_ms=facts.now_ms,
            expires_at_ms=facts.now_ms + 1000 * kept_s,
            call=call,
            match=match,
            decision=wanted.decision,
            cause=wanted.cause,
            how=wanted.how,
            by=wanted.by,
        )

    def _tell(
        self, wanted: Wanted, decision: Decision, facts: RequestFacts, which: str, *, only: AgentId | None
    ) -> None:
        """Puts the decision on record, then tells the agents; one that cannot be told keeps it from no other."""
        details = {"command": decision.id, "decision": wanted.decision, "cause": wanted.cause, "how": wanted.how}
        self._audit.write(
            facts.event(
                Verb.DECIDE_CALL, Outcome.GRANTED, tenant=wanted.tenant, who=wanted.by, which=which, details=details
            )
        )
        told, missed = False, None
        for agent in self._agents.agents(wanted.tenant):
            if agent.state is not AgentState.ACTIVE or agent.command_queue_url is None:
                continue
            if only is not None and agent.agent_id != only:
                continue
            try:
                envelope = decision.addressed_to(agent.agent_id).sealed_by(self._signer)
                self._queues.send(agent.command_queue_url, envelope)
            except (PolicyViolation, Unavailable) as error:
                missed = missed or error
                continue
            told = True
        if missed is not None and not told:
            raise Unavailable("no agent's queue took the decision") from missed

    def _awaited(
        self, tenant: TenantId, command: str, calls: Callable[[], Sequence[CallId]], *, may_answer: bool
    ) -> Decided:
        deadline_ms = self._patience.now_ms() + (ANSWER_WITHIN_MS if may_answer else 0)
        while True:
            found = [(call, self._choices.outcome(tenant, call, command)) for call in calls()]
            answered = tuple((call, outcome) for call, outcome in found if outcome is not None)
            if answered or self._patience.now_ms() >= deadline_ms:
                return Decided(command, answered)
            self._patience.wait_ms(STEP_MS)
