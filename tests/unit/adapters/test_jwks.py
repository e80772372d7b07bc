"""The pool's keys: cached, rotated, and no lever for whoever writes key ids into tokens."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from dualtone.adapters.jwks import CognitoAccessTokens, UserPool
from dualtone.domain.errors import Unavailable
from dualtone.domain.tenancy import Unauthenticated

POOL = UserPool.of("eu-west-1_AbCdEfGhI", None)
NOW = 1_795_000_000
FIRST, SECOND = (rsa.generate_private_key(65537, 2048) for _ in range(2))


class Endpoint:
    """A JWKS endpoint whose keys change, or that is out of order."""

    def __init__(self, **keys: rsa.RSAPrivateKey) -> None:
        self.keys: dict[str, Any] = keys
        self.fetched = 0
        self.works = True

    def __call__(self, url: str) -> bytes:
        assert url == POOL.jwks_url
        self.fetched += 1
        if not self.works:
            raise Unavailable("out of order")
        return json.dumps({"keys": [self._jwk(kid, key) for kid, key in self.keys.items()]}).encode()

    @staticmethod
    def _jwk(kid: str, key: Any) -> dict[str, Any]:
        algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def token(key: rsa.RSAPrivateKey, kid: str, now: int = NOW) -> str:
    claims = {"sub": "s", "iss": POOL.issuer, "client_id": "c", "token_use": "access", "iat": now, "exp": now + 3600}
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})


def test_keys_are_fetched_once() -> None:
    """However many tokens are verified."""
    endpoint = Endpoint(a=FIRST)
    tokens = CognitoAccessTokens(POOL, endpoint)
    for second in range(100):
        assert tokens.claims(token(FIRST, "a"), NOW + second).client_id == "c"
    assert endpoint.fetched == 1


def test_a_new_key_is_found_at_once_and_an_old_one_dropped() -> None:
    """The pool rotates: an unknown kid is looked up; tokens of the dropped key end."""
    endpoint = Endpoint(a=FIRST)
    tokens = CognitoAccessTokens(POOL, endpoint)
    tokens.claims(token(FIRST, "a"), NOW)
    endpoint.keys = {"b": SECOND}
    tokens.claims(token(SECOND, "b"), NOW + 61)
    assert endpoint.fetched == 2
    with pytest.raises(Unauthenticated):
        tokens.claims(token(FIRST, "a"), NOW + 62)


def test_unknown_key_ids_cannot_make_us_fetch_more_than_once_a_minute() -> None:
    """A stranger's tokens cost the pool's endpoint nothing."""
    endpoint = Endpoint(a=FIRST)
    tokens = CognitoAccessTokens(POOL, endpoint)
    for second in range(120):
        with pytest.raises(Unauthenticated):
            tokens.claims(token(SECOND, f"x{second}"), NOW + second)
    assert endpoint.fetched == 2


def test_an_outage_signs_nobody_out() -> None:
    """Known keys still verify after six hours; unknown ones are a matter for later."""
    endpoint = Endpoint(a=FIRST)
    tokens = CognitoAccessTokens(POOL, endpoint)
    tokens.claims(token(FIRST, "a"), NOW)
    endpoint.works = False
    later = NOW + 7 * 3600
    assert tokens.claims(token(FIRST, "a", later), later).subject == "s"
    with pytest.raises(Unavailable):
        tokens.claims(token(SECOND, "b", later), later + 61)


def test_before_the_first_fetch_an_outage_is_unavailable() -> None:
    """Not a refusal: the caller tries again."""
    endpoint = Endpoint(a=FIRST)
    endpoint.works = False
    with pytest.raises(Unavailable):
        CognitoAccessTokens(POOL, endpoint).claims(token(FIRST, "a"), NOW)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[{"kty":"RSA","n":"!","e":"AQAB"}]}']
)
def test_a_broken_document_is_unavailable(document: bytes) -> None:
    """Whoever answers there is not a user pool."""
    with pytest.raises(Unavailable):
        CognitoAccessTokens(POOL, lambda _url: document).claims(token(FIRST, "a"), NOW)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_keys_of_other_kinds_are_not_used() -> None:
    """An elliptic key, a short key: RS256 with 2,048 bits or more, nothing else."""
    endpoint = Endpoint(a=FIRST)
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what must not be accepted
    endpoint.keys = {"elliptic": ec.generate_private_key(ec.SECP256R1()), "short": short}
    tokens = CognitoAccessTokens(POOL, endpoint)
    for kid, key in (("elliptic", FIRST), ("short", short)):
        with pytest.raises(Unauthenticated):
            tokens.claims(token(key, kid), NOW)


def test_the_local_cloud_publishes_keys_elsewhere_but_issues_the_same() -> None:
    """Only the address of the document changes."""
    local = UserPool.of("eu-west-1_AbCdEfGhI", "http://127.0.0.1:5000/")
    assert local.issuer == POOL.issuer == "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
    assert local.jwks_url == "http://127.0.0.1:5000/eu-west-1_AbCdEfGhI/.well-known/jwks.json"
    assert POOL.jwks_url == f"{POOL.issuer}/.well-known/jwks.json"
