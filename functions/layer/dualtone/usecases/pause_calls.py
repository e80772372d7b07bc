"""Pause or resume, as people and payment systems ask: by the tenant's rules, with an answer worth waiting for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dualtone.domain import pause_order
from dualtone.domain.audit_event import RequestFacts
from dualtone.domain.call_command import Action, Cause
from dualtone.domain.ids import ULID_RANDOM_BYTES, CallId, TenantId, ulid
from dualtone.domain.pause_order import Order
from dualtone.domain.tenancy import TenantProfile
from dualtone.usecases.await_answers import AwaitAnswers, CallAnswer
from dualtone.usecases.command_calls import CommandCalls


class Profiles(Protocol):
    """What is configured for tenants."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads a tenant's profile; raises NotFound."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.

    Attributes:
        tenant: Whose calls.
        by: Who asks, as audit events name them.
        action: ``pause`` or ``resume``.
        cause: Which cause to set or lift.
        received_at_ms: When it was received at the edge.
        effective_at_ms: When the span began by the caller's word; None for when it was received.
        until_ms: When it ended, if that is known.
        lease_s: How long a pause lasts without another word; None for what the tenant configured.
        command: The command's id, if an earlier attempt has drawn one.
    """

    tenant: TenantId
    by: str
    action: Action
    cause: Cause
    received_at_ms: int
    effective_at_ms: int | None = None
    until_ms: int | None = None
    lease_s: int | None = None
    command: str | None = None


class PauseCalls:
    """Pauses and resumes calls."""

    def __init__(
        self,
        profiles: Profiles,
        commands: CommandCalls,
        answers: AwaitAnswers,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Takes the tenants' rules, what gives commands, what waits for answers, and randomness for ids."""
        self._profiles = profiles
        self._commands = commands
        self._answers = answers
        self._random_bytes = random_bytes

    def by_call(self, asked: Asked, call: CallId, facts: RequestFacts) -> list[CallAnswer]:
        """Acts on one call; raises NotFound if no agent of the tenant ever reported it."""
        order = self._order(asked, facts)
        issued = self._commands.by_call(asked.tenant, call, order, facts)
        return self._answers.wait(asked.tenant, order, issued)

    def by_match(self, asked: Asked, token: str, facts: RequestFacts) -> list[CallAnswer]:
        """Acts on every call that a match token finds; on none yet, if the order waits for one."""
        order = self._order(asked, facts)
        issued = self._commands.by_match(asked.tenant, token, order, facts)
        return self._answers.wait(asked.tenant, order, issued)

    def _order(self, asked: Asked, facts: RequestFacts) -> Order:
        command = asked.command or ulid(facts.now_ms, self._random_bytes(ULID_RANDOM_BYTES))
        if asked.action == "resume":
            return pause_order.resume(
                command=command, cause=asked.cause, by=asked.by, received_at_ms=asked.received_at_ms
            )
        profile = self._profiles.profile(asked.tenant)
        return pause_order.pause(
            command=command,
            cause=asked.cause,
            by=asked.by,
            received_at_ms=asked.received_at_ms,
            effective_at_ms=asked.effective_at_ms,
            until_ms=asked.until_ms,
            lease_s=asked.lease_s or profile.pause_lease_s,
            on_expiry=profile.pause_on_expiry,
        )
