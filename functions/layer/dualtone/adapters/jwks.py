"""Cognito access tokens, verified by us: API Gateway's authorizer is a second lock, not the only one.

The pool's public keys come from its JWKS (RFC 7517) over HTTPS. They are kept for hours; an unknown key id is asked for
at once, since pools rotate, but at most once a minute, since anyone can write a key id into a token.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput, Unavailable
from dualtone.domain.tenancy import Unauthenticated
from dualtone.usecases.authenticate import AccessClaims

_LONGEST_TOKEN: Final = 16_384
_LONGEST_JWKS: Final = 65_536
_FEWEST_BITS: Final = 2048
_FRESH_S: Final = 6 * 3600
_REFETCH_S: Final = 60
_SKEW_S: Final = 5
_TIMEOUT_S: Final = 3
_REFUSAL: Final = "sign in and send the access token as `Authorization: Bearer ...`"


@dataclass(frozen=True, slots=True)
class UserPool:
    """Where tokens come from.

    Attributes:
        issuer: What they must say in ``iss``.
        jwks_url: Where their keys are published.
    """

    issuer: str
    jwks_url: str

    @classmethod
    def of(cls, pool_id: str, endpoint: str | None) -> UserPool:
        """Derives both from a pool's id, which begins with its region.

        Args:
            pool_id: For example ``eu-west-1_AbCdEfGhI``.
            endpoint: Where Cognito is reached instead of at AWS (the local cloud), or None.
        """
        issuer = f"https://cognito-idp.{pool_id.partition('_')[0]}.amazonaws.com/{pool_id}"
        base = issuer if endpoint is None else f"{endpoint.rstrip('/')}/{pool_id}"
        return cls(issuer, f"{base}/.well-known/jwks.json")


class CognitoAccessTokens:
    """Verifies access tokens of one user pool."""

    def __init__(self, pool: UserPool, fetch: Callable[[str], bytes] | None = None) -> None:
        """Takes the pool and, for tests of rotation, another way to fetch its keys."""
        self._pool = pool
        self._fetch = fetch or fetch_https
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._fetched_at_s: int | None = None
        self._lock = threading.Lock()

    def claims(self, token: str, now_s: int) -> AccessClaims:
        """Verifies a token, in this order, and returns what it says.

        1. It is a JWS in compact form whose header names RS256, a key of the pool, and nothing critical.
        2. The signature is that key's.
        3. The pool issued it, as an access token, to an app client, and it is in force.

        Args:
            token: The compact JWS.
            now_s: Unix time in seconds.

        Raises:
            Unauthenticated: If any step fails; which one is nobody's business.
            Unavailable: If the pool's keys cannot be fetched.
        """
        # Step 1
        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated(_REFUSAL)
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Unauthenticated(_REFUSAL) from error
        kid = header.get("kid")
        if header.get("alg") != "RS256" or not isinstance(kid, str) or "crit" in header:
            raise Unauthenticated(_REFUSAL)
        key = self._key(kid, now_s)
        if key is None:
            raise Unauthenticated(_REFUSAL)
        # Step 2. Times are checked below against `now_s`, not against the library's own clock.
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                issuer=self._pool.issuer,
                options={
                    "require": ["exp", "iat", "iss", "sub"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": False,
                },
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Unauthenticated(_REFUSAL) from error
        # Step 3
        return _access_claims(claims, now_s)

    def _key(self, kid: str, now_s: int) -> RSAPublicKey | None:
        with self._lock:
            age_s = None if self._fetched_at_s is None else now_s - self._fetched_at_s
            if age_s is None or age_s >= _FRESH_S or (kid not in self._keys and age_s >= _REFETCH_S):
                self._refresh(now_s, known=kid in self._keys)
            return self._keys.get(kid)

    def _refresh(self, now_s: int, *, known: bool) -> None:
        try:
            self._keys = _read_jwks(self._fetch(self._pool.jwks_url))
        except (Unavailable, MalformedInput) as error:
            # Keys that verified a minute ago still do: an outage of the key endpoint signs nobody out.
            if known:
                return
            raise Unavailable("the user pool's keys cannot be fetched") from error
        self._fetched_at_s = now_s


def fetch_https(url: str) -> bytes:
    """Fetches a small document over HTTPS (or from loopback, where the local cloud is); raises Unavailable."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the URL is a setting, not input
            document: bytes = answer.read(_LONGEST_JWKS)
            return document
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise Unavailable("the key endpoint does not answer") from error


def _read_jwks(document: bytes) -> dict[str, RSAPublicKey]:
    """Reads the RS256 keys of a JWKS; keys of other kinds are left out. Raises MalformedInput."""
    value = canonical.decode(document)
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise MalformedInput("not a JWKS")
    keys: dict[str, RSAPublicKey] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(entry, algorithm="RS256").key
        except (jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
            raise MalformedInput("a key of the JWKS cannot be read") from error
        if isinstance(key, RSAPublicKey) and key.key_size >= _FEWEST_BITS and isinstance(entry.get("kid"), str):
            keys[entry["kid"]] = key
    return keys


def _access_claims(claims: dict[str, Any], now_s: int) -> AccessClaims:
    expires, issued, begins = claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])
    if any(type(moment) is not int for moment in (expires, issued, begins)):
        raise Unauthenticated(_REFUSAL)
    in_force = expires > now_s and issued <= now_s + _SKEW_S and begins <= now_s + _SKEW_S
    subject, client = claims["sub"], claims.get("client_id")
    groups = claims.get("cognito:groups", [])
    if not in_force or claims.get("token_use") != "access":
        raise Unauthenticated(_REFUSAL)
    if not isinstance(client, str) or not client or not isinstance(groups, list):
        raise Unauthenticated(_REFUSAL)
    return AccessClaims(subject, client, tuple(group for group in groups if isinstance(group, str)))
