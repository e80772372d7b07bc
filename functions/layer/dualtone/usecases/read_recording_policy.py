"""Read the recording policy: the one in force, an earlier version, or what a policy would say of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dualtone.domain.errors import NotFound
from dualtone.domain.ids import TenantId
from dualtone.domain.recording_policy import RecordingPolicy, Rule
from dualtone.domain.recording_ruling import CallFacts, Ruling, evaluate
from dualtone.domain.signing import Envelope
from dualtone.domain.tenancy import TenantProfile


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A version of a policy as it is kept, and who made it so."""

    policy: RecordingPolicy
    envelope: Envelope
    by: str


class StoredPolicies(Protocol):
    """Where the versions of tenants' policies are kept."""

    def current(self, tenant: TenantId) -> StoredPolicy | None:
        """The version in force; None if the tenant has no policy."""

    def version(self, tenant: TenantId, version: int) -> StoredPolicy | None:
        """A version, in force or not; None if there was none."""


class Profiles(Protocol):
    """What is configured for tenants."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads a tenant's profile; raises NotFound."""


class ReadRecordingPolicy:
    """Reads policies."""

    def __init__(self, policies: StoredPolicies, profiles: Profiles) -> None:
        """Takes where policies are kept, and the tenants' lines."""
        self._policies = policies
        self._profiles = profiles

    def current(self, tenant: TenantId) -> StoredPolicy | None:
        """The version in force; None if the tenant has no policy: then every call is recorded."""
        return self._policies.current(tenant)

    def version(self, tenant: TenantId, version: int) -> StoredPolicy:
        """An earlier version, or the one in force; raises NotFound."""
        found = self._policies.version(tenant, version)
        if found is None:
            raise NotFound("the policy has no such version")
        return found

    def preview(
        self,
        tenant: TenantId,
        facts: CallFacts,
        draft: tuple[Sequence[Rule], Mapping[str, Sequence[str]]] | None,
        now_ms: int,
    ) -> tuple[Ruling, Ruling]:
        """What a policy would say of a call: by what is known of it, and when nothing more will be known.

        Args:
            tenant: Whose policy.
            facts: What is known of the call.
            draft: Rules and groups that are not in force; None for the policy that is.
            now_ms: True time.
        """
        stored = self._policies.current(tenant)
        policy = stored.policy if stored is not None else None
        if draft is not None:
            rules, groups = draft
            policy = RecordingPolicy(
                tenant=tenant,
                version=1 + (policy.version if policy is not None else 0),
                issued_at_ms=now_ms,
                rules=tuple(rules),
                groups={name: tuple(patterns) for name, patterns in groups.items()},
                lines=self._profiles.profile(tenant).lines,
            )
        return evaluate(policy, facts), evaluate(policy, facts, final=True)
