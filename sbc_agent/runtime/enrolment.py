"""Enrolment: a one-time code makes this machine an agent of a tenant.

``DT1-<26 base-32 characters>-<16 base-32 characters>``: the first part is the secret, the second the start of SHA-256
of the cloud's signing key. So the code authenticates both sides: the agent to the cloud by the secret, and the
cloud's signing key to the agent by its fingerprint, even if the connection were not what it seems.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path

from dualtone.domain import enrolment_code
from dualtone.domain.errors import IntegrityError, MalformedInput, PolicyViolation
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.durable import make_private_directory, require_owner
from sbc_agent.runtime.identity import IDENTITY_FILE, AgentKey, Identity
from sbc_agent.runtime.key_rotation import NEXT_FILE
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.policy_store import PolicyStore


@dataclass(frozen=True, slots=True)
class EnrolmentCode:
    """A one-time code as typed, in its canonical spelling."""

    text: str

    @classmethod
    def parse(cls, text: str) -> EnrolmentCode:
        """Reads a code; raises MalformedInput, whose text does not hold it."""
        try:
            return cls(enrolment_code.parse(text))
        except MalformedInput as error:
            raise MalformedInput(f"{error}; copy it whole from the answer of POST /v1/agents") from error

    def check(self, signing_public_key_der: bytes) -> None:
        """Checks that the cloud's key is the one that the code was made for; raises IntegrityError."""
        expected = self.text.rpartition("-")[2]
        if not hmac.compare_digest(enrolment_code.fingerprint(signing_public_key_der), expected):
            raise IntegrityError(
                "the cloud that answered is not the one that issued the code: its signing key has another fingerprint; "
                "check uplink.api, and ask the administrator if it is right"
            )


def enrol(api: CloudApi, *, base: str, code: EnrolmentCode, name: str, state_dir: Path, replace: bool) -> Identity:
    """Makes a key, exchanges the code, and writes key and identity.

    The identity is written last: a machine that stops halfway is not enrolled.

    Args:
        api: The way to the API.
        base: The API's base address, without ``/v1``.
        code: The one-time code.
        name: How the tenant's people call this agent.
        state_dir: Where key and identity go.
        replace: Whether an earlier enrolment gives way.

    Raises:
        PolicyViolation: If this agent is enrolled already, the API refused the code, or ``state_dir`` is another
            user's: the code is not spent then.
        Unavailable: If the API did not answer.
        IntegrityError: If the cloud is not the one that issued the code.
        MalformedInput: If its answer has the wrong form.
    """
    require_owner(state_dir)
    if (state_dir / IDENTITY_FILE).exists() and not replace:
        raise PolicyViolation(
            f"this agent is enrolled already ({state_dir / IDENTITY_FILE}); use --replace to give it a new identity"
        )
    make_private_directory(state_dir)
    key = AgentKey.generate()
    answer = api.post_json(f"{base}/v1/agents/enrol", {"code": code.text, "public_key": key.public_pem(), "name": name})
    identity = Identity.from_answer(base, answer)
    code.check(identity.signing_public_key_der)
    (state_dir / NEXT_FILE).unlink(missing_ok=True)  # of the identity that gives way
    key.save(state_dir)
    PolicyStore(
        state_dir, tenant=identity.tenant, signing_key_der=identity.signing_public_key_der, log=Log(level="error")
    ).learn(answer.get("recording_policy"))
    identity.save(state_dir)
    return identity
