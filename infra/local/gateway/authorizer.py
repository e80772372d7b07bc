"""The Cognito authorizer of a REST API: lets a request pass only with a valid token of the pool.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-integrate-with-cognito.html. With scopes on the
route it takes access tokens only; without, identity tokens. Keys come from the pool's JWKS, over HTTP like anybody's.
"""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from infra.local.gateway.message import HttpRequest, Refused

_UNAUTHORIZED = Refused("UNAUTHORIZED", 401, "Unauthorized")
_EXPIRED = Refused("EXPIRED_TOKEN", 401, "The incoming token has expired")
# Expiry is checked against the authorizer's clock, and an access token has no audience.
_OPTIONS: jwt.types.Options = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_aud": False,
    "require": ["exp", "iss", "sub"],
}
_FETCH_TIMEOUT_S = 5
_FETCH_AGAIN_S = 30.0


def fetch(url: str) -> bytes:
    """Get a document from loopback."""
    with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_S) as answer:  # noqa: S310 - a URL of this process's own
        content: bytes = answer.read()
    return content


class CognitoAuthorizer:
    """Verifies tokens of one user pool.

    Args:
        pool_id: of the user pool; its first part names the region.
        jwks_url: where its keys are.
        read: gets a document by URL.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        pool_id: str,
        jwks_url: str,
        read: Callable[[str], bytes] = fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        region = pool_id.split("_", 1)[0]
        self._issuer = f"https://cognito-idp.{region}.amazonaws.com/{pool_id}"
        self._jwks_url = jwks_url
        self._read = read
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_s: float | None = None
        self._lock = threading.Lock()

    def claims(self, request: HttpRequest, scopes: tuple[str, ...]) -> dict[str, str]:
        """Verify the request's token and return its claims as API Gateway passes them on: all of them strings.

        Args:
            request: whose Authorization header holds the token, with or without `Bearer`.
            scopes: of which the token needs one; empty means that an identity token is wanted.

        Returns:
            Claims by name.

        Raises:
            Refused: 401, whatever is wrong.
        """
        header = request.header("Authorization") or ""
        scheme, _, rest = header.partition(" ")
        token = rest.strip() if scheme.lower() == "bearer" else header.strip()
        claims = self._verified(token)
        if claims.get("token_use") != ("access" if scopes else "id"):
            raise _UNAUTHORIZED
        if scopes and not set(scopes) & set(str(claims.get("scope", "")).split()):
            raise _UNAUTHORIZED
        return {name: _as_text(name, value) for name, value in claims.items()}

    def _verified(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != "RS256" or "crit" in header:
                raise _UNAUTHORIZED
            claims: dict[str, Any] = jwt.decode(
                token, self._key(str(header.get("kid"))), algorithms=["RS256"], issuer=self._issuer, options=_OPTIONS
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _UNAUTHORIZED from error
        if not isinstance(claims["exp"], int):
            raise _UNAUTHORIZED
        if claims["exp"] <= self._clock():
            raise _EXPIRED
        return claims

    def _key(self, kid: str) -> Any:
        with self._lock:
            now_s = self._clock()
            stale = self._fetched_s is None or now_s - self._fetched_s >= _FETCH_AGAIN_S
            if kid not in self._keys and stale:
                document = json.loads(self._read(self._jwks_url))
                self._keys = {key["kid"]: jwt.PyJWK(key, algorithm="RS256") for key in document["keys"]}
                self._fetched_s = now_s
            if kid not in self._keys:
                raise _UNAUTHORIZED
            return self._keys[kid].key


def _as_text(name: str, value: Any) -> str:
    """Spell a claim as API Gateway does: lists joined by commas, expiry and issue as dates."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    if name in ("exp", "iat") and isinstance(value, int):
        return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
