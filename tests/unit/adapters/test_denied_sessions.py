"""The denies of revoked agents' sessions, before an IAM that has room for so much and no more."""

from __future__ import annotations

import json

from dualtone.adapters.denied_sessions import KEPT_S, DeniedSessions
from dualtone.domain.ids import AgentId

NOW_MS = 1_800_000_000_000
ROLE = "arn:aws:iam::111122223333:role/agents"
OWN = "own-prefix-and-queue"
ROOM = 10_240
"""IAM and STS quotas: so many characters of inline policies has a role."""
AGENTS = [AgentId(f"agt_{number:026d}") for number in range(150)]


class Iam:
    """A role's inline policies within the quota, and what was done to them."""

    def __init__(self) -> None:
        self.policies = {OWN: "x" * 900}
        self.steps: list[tuple[str, str]] = []

    def list_role_policies(self, *, RoleName: str) -> dict[str, list[str]]:  # noqa: N803 - AWS's names
        assert RoleName == "agents"
        return {"PolicyNames": list(self.policies)}

    def put_role_policy(self, *, RoleName: str, PolicyName: str, PolicyDocument: str) -> None:  # noqa: N803 - as above
        assert RoleName == "agents"
        assert sum(map(len, self.policies.values())) + len(PolicyDocument) <= ROOM, "LimitExceeded"
        self.policies[PolicyName] = PolicyDocument
        self.steps.append(("put", PolicyName))

    def delete_role_policy(self, *, RoleName: str, PolicyName: str) -> None:  # noqa: N803 - as above
        assert RoleName == "agents"
        del self.policies[PolicyName]
        self.steps.append(("delete", PolicyName))


def test_forty_five_agents_an_hour_can_be_revoked_hour_after_hour() -> None:
    """What denies nobody any more makes room before more is asked for; the role's own policy stays."""
    iam = Iam()
    sessions = DeniedSessions(iam, ROLE)
    for hour in range(3):
        now_ms = NOW_MS + hour * 2 * KEPT_S * 1000
        some = AGENTS[45 * hour : 45 * hour + 45]
        for agent in some:
            sessions.deny(agent, now_ms)
        assert sorted(iam.policies) == [OWN, *(f"revoked-{now_ms // 1000:010d}-{agent}" for agent in some)]


def test_an_agent_that_is_revoked_again_is_never_without_a_deny() -> None:
    """The new one is there before the earlier one goes; those of others stay for their hour."""
    iam = Iam()
    sessions = DeniedSessions(iam, ROLE)
    for agent, after_s in ((AGENTS[0], 0), (AGENTS[1], 1), (AGENTS[0], 2)):
        sessions.deny(agent, NOW_MS + after_s * 1000)
    first, other, again = (f"revoked-{NOW_MS // 1000 + s}-{AGENTS[which]}" for s, which in ((0, 0), (1, 1), (2, 0)))
    assert iam.steps == [("put", first), ("put", other), ("put", again), ("delete", first)]
    (statement,) = json.loads(iam.policies[again])["Statement"]
    assert (statement["Effect"], statement["Action"], statement["Resource"]) == ("Deny", "*", "*")
    assert statement["Condition"] == {"StringEquals": {"aws:PrincipalTag/agent": AGENTS[0]}}
