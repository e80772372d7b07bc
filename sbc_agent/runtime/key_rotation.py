"""The agent's next key: drawn here, announced by the present one, and in use from the cloud's answer on.

The next key lies in ``state_dir/agent.key.next`` from before it is announced until it takes the present one's place, so
a crash or an answer that is lost leaves both: whichever the cloud knows is found out at the next token. What the media
process signs until its next start is signed by the key that it has; the cloud believes an agent's earlier keys for
files and reports, and gives credentials to the newest alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import jwt

from dualtone.domain import canonical
from dualtone.domain.errors import DualtoneError, NotFound
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.durable import sync_directory
from sbc_agent.runtime.identity import KEY_FILE, AgentKey
from sbc_agent.runtime.logs import Log

NEXT_FILE: Final = f"{KEY_FILE}.next"
PROOF_KIND: Final = "agent-key"
_TOKEN_PATH: Final = "/v1/token"  # noqa: S105 - a path
_KEY_PATH: Final = "/v1/agents/key"
_DAY_S: Final = 86_400
_LIFETIME_S: Final = 120
_JTI_BYTES: Final = 16


class KeyRotation:
    """Rotates the key. Use it under the token source's lock.

    Args:
        api: The way to the API.
        key: The agent's key, which becomes the next one in place.
        token_url: Where tokens are asked for; the endpoint for keys is beside it.
        state_dir: Where keys lie.
        every_days: How old a key becomes; 0: as old as the agent.
        log: Where it tells what happens.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        *,
        api: CloudApi,
        key: AgentKey,
        token_url: str,
        state_dir: Path,
        every_days: int,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._key = key
        self._url = token_url.removesuffix(_TOKEN_PATH) + _KEY_PATH
        self._present, self._next = state_dir / KEY_FILE, state_dir / NEXT_FILE
        self._state_dir = state_dir
        self._every_s = every_days * _DAY_S
        self._log = log
        self._clock = clock

    def candidate(self) -> AgentKey | None:
        """The next key, if one was announced and nobody knows what the cloud made of it."""
        try:
            return AgentKey.load(self._state_dir, self._key.key_id, NEXT_FILE)
        except NotFound:
            return None
        except DualtoneError as error:
            self._log.failure("agent_key_not_rotated", error)
            return None

    def promote(self, candidate: AgentKey) -> None:
        """The cloud knows the next key: from now on it is the present one.

        A disk that refuses costs nothing: both files stay, and the next start finds out at its first token.
        """
        self._key.become(candidate)
        try:
            self._next.rename(self._present)
            sync_directory(self._state_dir)
        except OSError as error:
            self._log.failure("agent_key_not_kept", error)
            return
        self._log.info("agent_key_rotated")

    def turn(self) -> None:
        """Rotates the key if it is old enough; what goes wrong is told and tried again at the next token."""
        try:
            if not self._is_due():
                return
            candidate = self.candidate()
            if candidate is not None and candidate.public_der() == self._key.public_der():
                self.promote(candidate)  # in use already: only its file has not come to its place yet
                return
            if candidate is None:
                candidate = AgentKey(AgentKey.generate().private_key, self._key.key_id)
                candidate.save(self._state_dir, NEXT_FILE)
            self._api.post_json(self._url, self._announced(candidate))
            self.promote(candidate)
        except (DualtoneError, OSError) as error:
            self._log.warning("agent_key_not_rotated", error=type(error).__name__)

    def _is_due(self) -> bool:
        return bool(self._every_s) and self._clock() - self._present.stat().st_mtime >= self._every_s

    def _announced(self, candidate: AgentKey) -> dict[str, object]:
        agent, now_s, jti = self._key.key_id, int(self._clock()), secrets.token_urlsafe(_JTI_BYTES)
        claims = {
            "iss": agent,
            "sub": agent,
            "aud": self._url,
            "iat": now_s,
            "exp": now_s + _LIFETIME_S,
            "jti": jti,
            "next_key_sha256": hashlib.sha256(candidate.public_der()).hexdigest(),
        }
        proof = Envelope.sealed_by(candidate, PROOF_KIND, canonical.encode({"agent": agent, "jti": jti}))
        return {
            "assertion": jwt.encode(claims, self._key.private_key, algorithm="ES256", headers={"kid": agent}),
            "public_key": candidate.public_pem(),
            "proof": proof.to_json(),
        }
