"""Short-lived AWS credentials for the agent: signed assertions exchanged at the token endpoint (RFC 7523).

The agent signs a JWT with its own key (ES256), posts it as an authorization grant, and gets 15 minutes of STS
credentials that can put under its own prefix and read its command queue. botocore asks for new ones before the old
ones end. The answer also carries the newest ingest key of the tenant, which is kept if the cloud's pinned key signed
it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import botocore.session
import jwt
from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials

from dualtone.domain.agent_assertion import GRANT_TYPE
from dualtone.domain.errors import IntegrityError, MalformedInput, Unavailable
from dualtone.domain.problem import ProblemType
from sbc_agent.runtime.cloud_api import CloudApi, Refused
from sbc_agent.runtime.identity import AgentKey, Identity
from sbc_agent.runtime.key_rotation import KeyRotation
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.policy_store import PolicyStore
from sbc_agent.runtime.request_signing import sign_by
from sbc_agent.runtime.revocation import Revocation

_ASSERTION_LIFETIME_S: Final = 120
_JTI_BYTES: Final = 16
_METHOD: Final = "dualtone-token"
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_REVOKED: Final = ProblemType.AGENT_REVOKED.uri
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException"})
_ASK_AGAIN_S: Final = 30.0
_OVER: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidClientTokenId"})
_REFRESH_BEFORE_END_S: Final = 300
_MUST_REFRESH_BEFORE_END_S: Final = 60


def assertion(key: AgentKey, *, audience: str, now_s: int, jti: str) -> str:
    """Signs an assertion. Pure.

    Args:
        key: The agent's key; its ``key_id`` is the agent's id.
        audience: The token endpoint's URL.
        now_s: Unix time in seconds.
        jti: A value never used before.

    Returns:
        A compact JWT.
    """
    # REQ: RFC 7523 section 3: iss, sub, aud and exp MUST be there; jti and iat MAY, and our token endpoint wants them.
    claims = {
        "iss": key.key_id,
        "sub": key.key_id,
        "aud": audience,
        "iat": now_s,
        "exp": now_s + _ASSERTION_LIFETIME_S,
        "jti": jti,
    }
    return jwt.encode(claims, key.private_key, algorithm="ES256", headers={"kid": key.key_id})


class TokenSource:
    """Exchanges assertions for credentials, and keeps what else the answers tell.

    Args:
        api: The way to the API.
        key: The agent's key.
        identity: Who the agent is.
        state_dir: Where what is newer is kept, with the identity; None where nothing is to be left behind.
        log: Where refusals of an ingest key are told.
        revocation: Learns from the token endpoint that there is one.
        policies: Keeps the recording policy that comes with the answers.
        clock: Unix time in seconds.
        rotation: Gives the agent its next key in time; None where nobody should.
    """

    def __init__(
        self,
        *,
        api: CloudApi,
        key: AgentKey,
        identity: Identity,
        state_dir: Path | None,
        log: Log,
        revocation: Revocation,
        policies: PolicyStore | None = None,
        clock: Callable[[], float] = time.time,
        rotation: KeyRotation | None = None,
    ) -> None:
        self._rotation = rotation
        self._policies = policies
        self._revocation = revocation
        self._api = api
        self._key = key
        self._identity = identity
        self._state_dir = state_dir
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Identity], None]] = []

    @property
    def identity(self) -> Identity:
        """Who the agent is, with the newest of what the cloud told."""
        return self._identity

    def subscribe(self, listener: Callable[[Identity], None]) -> None:
        """Calls ``listener``, in whatever thread fetches, each time that the cloud told something new."""
        self._listeners.append(listener)

    def fetch(self) -> dict[str, str]:
        """Gets new credentials.

        Returns:
            What botocore's refreshable credentials take: access_key, secret_key, token, expiry_time (ISO 8601).

        Raises:
            Unavailable: If the API did not answer, or not as a token endpoint does.
            PolicyViolation: If it refused, for example because the agent was revoked.
        """
        with self._lock:
            self._revocation.require_none()
            try:
                answer = self._answered()
                credentials = _credentials(answer)
            except MalformedInput as error:
                raise Unavailable("the token endpoint gave no credentials") from error
            self._learn(answer)
            if self._rotation is not None:
                self._rotation.turn()
            return credentials

    def _answered(self) -> dict[str, Any]:
        """Asks with the present key; if that is refused, with the next one, should the cloud know that already."""
        try:
            return self._asked(self._key)
        except Refused as error:
            candidate = None if self._rotation is None or error.type == _REVOKED else self._rotation.candidate()
            if self._rotation is None or candidate is None:
                raise
            answer = self._asked(candidate)
            self._rotation.promote(candidate)
            return answer

    def _asked(self, key: AgentKey) -> dict[str, Any]:
        signed = assertion(
            key,
            audience=self._identity.token_url,
            now_s=int(self._clock()),
            jti=secrets.token_urlsafe(_JTI_BYTES),
        )
        try:
            return self._api.post_form(self._identity.token_url, {"grant_type": GRANT_TYPE, "assertion": signed})
        except Refused as error:
            if error.type == _REVOKED:  # said to nobody but who signs with the newest key
                self._revocation.learn()
            raise

    def _learn(self, body: dict[str, Any]) -> None:
        """Keeps what is new. What is not signed or formed as it must be is told and left alone; uploads go on."""
        if self._policies is not None:
            self._policies.learn(body.get("recording_policy"))
        newer = self._with_ingest_key(self._identity, body.get("ingest_key"))
        try:
            newer = newer.with_control(body)
        except MalformedInput as error:
            self._log.error("control_facts_refused", error=type(error).__name__)
        if newer == self._identity:
            return
        self._identity = newer
        try:
            if self._state_dir is not None:
                newer.save(self._state_dir)
        except OSError as error:  # a full disk: used from memory now, asked for again at the next start
            self._log.error("identity_not_kept", error=type(error).__name__)
        for listener in self._listeners:
            listener(newer)

    def _with_ingest_key(self, identity: Identity, envelope: object) -> Identity:
        if not isinstance(envelope, dict) or envelope == identity.ingest_key:
            return identity
        try:
            newer = identity.with_ingest_key(envelope)
        except (IntegrityError, MalformedInput) as error:
            self._log.error("ingest_key_refused", error=type(error).__name__)
            return identity
        if newer.current_ingest_key() == identity.current_ingest_key():
            return identity  # signed anew, the key is the same
        self._log.info("ingest_key_kept")
        return newer


class AgentCredentials(DeferredRefreshableCredentials):
    """botocore credentials that fetch themselves when first used, and anew five minutes before they end."""

    # The library's own margin of 15 minutes is the whole life of these.
    _advisory_refresh_timeout = _REFRESH_BEFORE_END_S
    _mandatory_refresh_timeout = _MUST_REFRESH_BEFORE_END_S

    def __init__(self, source: TokenSource, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(
            refresh_using=source.fetch, method=_METHOD, time_fetcher=lambda: datetime.fromtimestamp(clock(), UTC)
        )

    def refused(self) -> None:
        """AWS says that they are over, whatever our clock says: the next request fetches new ones."""
        self._expiry_time = _LONG_AGO


class _OnlyProvider(CredentialProvider):
    """Hands out the agent's credentials."""

    METHOD = _METHOD
    CANONICAL_NAME = None

    def __init__(self, credentials: AgentCredentials) -> None:
        super().__init__()
        self._agent_credentials = credentials

    def load(self) -> AgentCredentials:
        """The credentials, not fetched yet."""
        return self._agent_credentials


def agent_session(
    credentials: AgentCredentials,
    region: str,
    revocation: Revocation,
    *,
    clock: Callable[[], float] = time.time,
) -> botocore.session.Session:
    """A botocore session that knows these credentials alone: profiles and environment are not asked.

    A revoked agent makes no request. One that is denied something asks the token endpoint at its next request, which
    knows whether it was revoked: so an agent learns that within seconds, though nobody could tell it.

    Args:
        credentials: The agent's.
        region: Of the cloud.
        revocation: Whether the agent is revoked.
        clock: Unix time in seconds, by which requests are signed.
    """
    session = botocore.session.Session()
    session.register_component("credential_provider", CredentialResolver([_OnlyProvider(credentials)]))
    session.set_config_variable("region", region)
    sign_by(session, clock)

    asked_at = -_ASK_AGAIN_S

    def answered(parsed: dict[str, Any], **_: object) -> None:
        nonlocal asked_at
        code = parsed.get("Error", {}).get("Code")
        if code in _DENIED and abs(clock() - asked_at) >= _ASK_AGAIN_S:  # the clock may have been set back
            asked_at = clock()
            credentials.refused()
        elif code in _OVER:
            credentials.refused()

    emitter = session.get_component("event_emitter")
    emitter.register("before-parameter-build", lambda **_: revocation.require_none())
    emitter.register("after-call", answered)
    return session


def _credentials(body: dict[str, Any]) -> dict[str, str]:
    found: dict[str, object] = {
        "access_key": body.get("access_key_id"),
        "secret_key": body.get("secret_access_key"),
        "token": body.get("session_token"),
        "expiry_time": body.get("expires_at"),
    }
    credentials = {name: value for name, value in found.items() if isinstance(value, str) and value}
    if len(credentials) < len(found):
        raise MalformedInput("the token endpoint's answer lacks credentials")
    try:
        expires = datetime.fromisoformat(credentials["expiry_time"])
    except ValueError as error:
        raise MalformedInput("the token endpoint's expiry is no ISO 8601 time") from error
    if expires.tzinfo is None:
        raise MalformedInput("the token endpoint's expiry names no time zone")
    return credentials
