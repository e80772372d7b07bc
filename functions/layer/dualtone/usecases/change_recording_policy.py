"""Change the recording policy: sign a new version, keep every earlier one, and tell the agents that there is a newer.

The version is the lock: whoever changes the policy says which one they looked at, so that two administrators do not
overwrite each other unseen. An agent that does not hear of it fetches the policy with its next credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from dualtone.domain.audit_event import AuditEvent, Outcome, RequestFacts
from dualtone.domain.call_decision import REFRESH_S, Refresh
from dualtone.domain.errors import MalformedInput, PolicyViolation, Unavailable
from dualtone.domain.ids import ULID_RANDOM_BYTES, TenantId, ulid
from dualtone.domain.recording_policy import LONGEST_POLICY, RecordingPolicy, Rule
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import Agent, AgentState, Principal, TenantProfile, Verb


class StoredPolicies(Protocol):
    """Where the versions of tenants' policies are kept."""

    def replace(
        self, policy: RecordingPolicy, envelope: Envelope, *, by: str, instead_of: int, event: AuditEvent
    ) -> bool:
        """Makes a version the current one, keeps it among all, and writes the event; False if another was first."""


class Directory(Protocol):
    """Tenants and their agents."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads a tenant's profile; raises NotFound."""

    def agents(self, tenant: TenantId) -> list[Agent]:
        """Reads all agents of a tenant."""


class CommandQueues(Protocol):
    """Where agents listen."""

    def send(self, queue_url: str, envelope: Envelope) -> None:
        """Sends a signed message."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The new version, and how many agents were told of it."""

    policy: RecordingPolicy
    agents_told: int


class ChangeRecordingPolicy:
    """Changes policies."""

    def __init__(
        self,
        *,
        policies: StoredPolicies,
        directory: Directory,
        queues: CommandQueues,
        signer: Signer,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Takes the stores, the agents' queues, the cloud's signer, and a source of randomness for ids."""
        self._policies = policies
        self._directory = directory
        self._queues = queues
        self._signer = signer
        self._random_bytes = random_bytes

    def change(
        self,
        principal: Principal,
        rules: Sequence[Rule],
        groups: Mapping[str, Sequence[str]],
        instead_of: int,
        facts: RequestFacts,
    ) -> Changed:
        """Makes a new version.

        Args:
            principal: Who changes it.
            rules: All its rules, in their order.
            groups: All its groups of lines.
            instead_of: The version that they looked at; 0 if there was none.
            facts: The request.

        Raises:
            MalformedInput: With status 412, if the version in force is another; with 422, if it is too long.
        """
        tenant = principal.tenant
        policy = RecordingPolicy(
            tenant=tenant,
            version=instead_of + 1,
            issued_at_ms=facts.now_ms,
            rules=tuple(rules),
            groups={name: tuple(patterns) for name, patterns in groups.items()},
            lines=self._directory.profile(tenant).lines,
        )
        event = facts.event(
            Verb.CHANGE_POLICY,
            Outcome.GRANTED,
            tenant=tenant,
            who=principal.actor,
            which=f"recording-policy#{policy.version}",
            details={"version": policy.version, "rules": len(policy.rules)},
        )
        envelope = policy.sealed_by(self._signer)
        if len(envelope.payload) > LONGEST_POLICY:
            text = f"with the tenant's lines the policy has more than {LONGEST_POLICY} bytes: use patterns of numbers"
            raise MalformedInput(text, http_status=HTTPStatus.UNPROCESSABLE_ENTITY)
        if not self._policies.replace(policy, envelope, by=principal.actor, instead_of=instead_of, event=event):
            text = f"version {instead_of} is not the one in force: read the policy again"
            raise MalformedInput(text, http_status=HTTPStatus.PRECONDITION_FAILED)
        return Changed(policy, self._tell(tenant, facts.now_ms))

    def _tell(self, tenant: TenantId, now_ms: int) -> int:
        told, message = 0, ulid(now_ms, self._random_bytes(ULID_RANDOM_BYTES))
        for agent in self._directory.agents(tenant):
            if agent.state is not AgentState.ACTIVE or agent.command_queue_url is None:
                continue
            refresh = Refresh(message, tenant, agent.agent_id, now_ms, now_ms + 1000 * REFRESH_S)
            try:
                self._queues.send(agent.command_queue_url, refresh.sealed_by(self._signer))
            except (PolicyViolation, Unavailable):  # the policy is in force: it comes with the next credentials
                continue
            told += 1
        return told
