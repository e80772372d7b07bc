"""The explicit deny by which the sessions of a revoked agent end: an inline policy of the agents' role on its tag.

STS cannot take credentials back, but IAM looks at the role's policies at each request. A session lives for fifteen
minutes at most, and none is opened for a revoked agent, so a deny that is older than an hour denies nobody and is
removed. Whoever may write such policies cannot widen the role: it has a permissions boundary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from dualtone.adapters.aws_errors import translated
from dualtone.domain.ids import AgentId

KEPT_S: Final = 3_600
_NAME: Final = re.compile(r"revoked-([0-9]{10})-(agt_[0-9A-Z]{26})")


class IamClient(Protocol):
    """What is asked of boto3's client."""

    def list_role_policies(self, *, RoleName: str) -> Mapping[str, Any]:  # noqa: N803 - AWS's names
        """Names of a role's inline policies."""

    def put_role_policy(self, *, RoleName: str, PolicyName: str, PolicyDocument: str) -> object:  # noqa: N803 - as above
        """Adds or replaces one."""

    def delete_role_policy(self, *, RoleName: str, PolicyName: str) -> object:  # noqa: N803 - as above
        """Removes one."""


class DeniedSessions:
    """Denies."""

    def __init__(self, iam: IamClient, role_arn: str) -> None:
        """Takes the client and the agents' role."""
        self._iam = iam
        self._role = role_arn.rpartition("/")[2]

    def deny(self, agent: AgentId, now_ms: int) -> None:
        """Denies everything to the sessions that an agent has, and tidies up after earlier ones.

        What denies nobody any more goes first: a role has room for 10,240 characters of inline policies (IAM quotas),
        some forty-five revocations in an hour. An agent's earlier deny goes last, so that it is never without one.

        Raises:
            PolicyViolation: If IAM refuses.
            Unavailable: If IAM does not answer.
        """
        now_s = now_ms // 1000
        new = f"revoked-{now_s:010d}-{agent}"
        with translated("denying an agent's sessions"):
            names = self._iam.list_role_policies(RoleName=self._role)["PolicyNames"]
            denies = {name: (int(old[1]), old[2]) for name in names if (old := _NAME.fullmatch(name))}
            over = {name for name, (since_s, _) in denies.items() if since_s < now_s - KEPT_S}
            for name in over:
                self._iam.delete_role_policy(RoleName=self._role, PolicyName=name)
            self._iam.put_role_policy(
                RoleName=self._role,
                PolicyName=new,
                PolicyDocument=json.dumps(_denied(agent), separators=(",", ":")),
            )
            for name, (_, whose) in denies.items():
                if whose == agent and name != new and name not in over:
                    self._iam.delete_role_policy(RoleName=self._role, PolicyName=name)


def _denied(agent: AgentId) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Revoked",
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:PrincipalTag/agent": agent}},
            }
        ],
    }
