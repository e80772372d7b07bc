"""The rights of the built-in roles, as a compliance officer would read them."""

from __future__ import annotations

import pytest

from dualtone.domain.errors import PolicyViolation
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.tenancy import RIGHTS, Agent, AgentState, Principal, Role, Verb

# Verb -> may an administrator, may an officer.
TABLE: dict[Verb, tuple[bool, bool]] = {
    Verb.LIST_RECORDINGS: (True, True),
    Verb.LIST_CALLS: (True, True),
    Verb.READ_CALL: (True, True),
    Verb.LIST_AGENTS: (True, False),
    Verb.INVITE_AGENT: (True, False),
    Verb.REVOKE_AGENT: (True, False),
    Verb.ROTATE_AGENT_KEY: (False, False),
    Verb.CREATE_PAYMENT_ENDPOINT: (True, False),
    Verb.PAUSE_CALL: (False, True),
    Verb.RESUME_CALL: (False, True),
    Verb.DECIDE_CALL: (False, True),
    Verb.READ_POLICY: (True, True),
    Verb.PREVIEW_POLICY: (True, True),
    Verb.CHANGE_POLICY: (True, False),
    Verb.SEARCH_RECORDINGS: (False, True),
    Verb.READ_RECORDING: (False, True),
    Verb.PLAY_RECORDING: (False, True),
    Verb.READ_EVIDENCE: (False, True),
    Verb.SEE_PARTIES: (False, True),
    # No person's: these belong to payment systems, to agents, or to everyone.
    Verb.REPORT_PAYMENT: (False, False),
    Verb.ENROL_AGENT: (False, False),
    Verb.ISSUE_CREDENTIALS: (False, False),
    Verb.READ_PUBLIC: (False, False),
}


def principal(*roles: Role) -> Principal:
    return Principal(TenantId("acme"), "subject", "client", frozenset(roles))


def test_every_verb_has_its_row() -> None:
    """A new verb is refused to everyone until someone decides."""
    assert TABLE.keys() == set(Verb)
    assert RIGHTS.keys() == set(Role)


@pytest.mark.parametrize("verb", Verb)
def test_the_table_is_the_policy(verb: Verb) -> None:
    """What it does not grant is refused."""
    for role, allowed in zip((Role.ADMINISTRATOR, Role.OFFICER), TABLE[verb], strict=True):
        assert principal(role).may(verb) is allowed
    assert not principal().may(verb)


def test_a_refusal_names_the_verb_and_raises() -> None:
    """There is no boolean to forget."""
    with pytest.raises(PolicyViolation, match="recordings:play"):
        principal(Role.ADMINISTRATOR).require(Verb.PLAY_RECORDING)
    principal(Role.OFFICER).require(Verb.PLAY_RECORDING)


@pytest.mark.parametrize(
    ("state", "key"), [(AgentState.PENDING, None), (AgentState.REVOKED, "pem"), (AgentState.ACTIVE, None)]
)
def test_only_an_active_agent_has_a_key(state: AgentState, key: str | None) -> None:
    """Pending ones have none yet, revoked ones none any more."""
    agent = Agent(TenantId("acme"), AgentId("agt_01JD0000000000000000000000"), "x", state, key, None)
    with pytest.raises(PolicyViolation):
        agent.active_key()
