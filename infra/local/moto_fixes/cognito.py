"""Cognito: every user pool signs with a key of its own, and tokens live as long as their app client says.

moto signs for all pools with one private key that is printed in its package: a token forged with it would be let in by
every test. Here each pool draws its key when it is made, and its JWKS publishes that key alone.
"""

import json
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

from joserfc import jwk
from moto.cognitoidp import models as cognito_models
from moto.cognitoidp import urls as cognito_urls
from moto.cognitoidp.models import CognitoIdpUserPool, cognitoidp_backends

from infra.local.moto_fixes.mend import Mend, Patch

_JWKS_ROUTE = "{0}/(?P<user_pool_id>[^/]+)/.well-known/jwks.json$"
_UNIT_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
_KEY_BITS = 2048


def _drawing_a_key(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def init(self: CognitoIdpUserPool, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.json_web_key = jwk.RSAKey.generate_key(_KEY_BITS, {"use": "sig", "alg": "RS256"}, auto_kid=True)

    return init


def _naming_the_key(original: Any) -> Any:
    def encode(header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:
        token: str = original.encode({**header, "kid": key.kid or header["kid"]}, claims, key)
        return token

    return SimpleNamespace(encode=encode, decode=original.decode)


def _pool(pool_id: str) -> CognitoIdpUserPool | None:
    region = pool_id.rsplit("_", 1)[0]
    for backends in list(cognitoidp_backends.values()):
        if region in backends and pool_id in backends[region].user_pools:
            return backends[region].user_pools[pool_id]
    return None


def _publishing_its_key(_original: Any) -> Any:
    def serve(request: Any, full_url: str, headers: Any) -> Any:
        del request, headers
        pool = _pool(urlparse(full_url).path.strip("/").split("/")[0])
        if pool is None:
            missing = {"message": "User pool does not exist."}
            return 404, {"Content-Type": "application/json"}, json.dumps(missing).encode()
        keys = {"keys": [pool.json_web_key.as_dict(private=False)]}
        return 200, {"Content-Type": "application/json"}, json.dumps(keys).encode()

    return serve


POOL_KEYS = Mend(
    name="cognito-pool-keys",
    restores="Each user pool signs its tokens with its own RSA key; the header's kid names it and the pool's JWKS "
    "publishes it.",
    documented="Amazon Cognito Developer Guide, 'Verifying JSON web tokens'",
    patches=(
        Patch(CognitoIdpUserPool, "__init__", _drawing_a_key),
        Patch(cognito_models, "jwt", _naming_the_key),
        Patch(cognito_urls.url_paths, _JWKS_ROUTE, _publishing_its_key),
    ),
)


def _lifetime_s(pool: CognitoIdpUserPool, client_id: str, token_use: str) -> int | None:
    client = pool.clients.get(client_id)
    name = {"access": "AccessToken", "id": "IdToken"}[token_use]
    if client is None or (validity := client.extended_config.get(f"{name}Validity")) is None:
        return None
    units = client.extended_config.get("TokenValidityUnits") or {}
    return int(validity) * _UNIT_SECONDS[units.get(name, "hours")]


def _living_as_configured(original: Callable[..., tuple[str, int]]) -> Callable[..., tuple[str, int]]:
    @wraps(original)
    def create_jwt(
        self: CognitoIdpUserPool,
        client_id: str,
        username: str,
        token_use: str,
        expires_in: int = 3600,
        extra_data: dict[str, Any] | None = None,
    ) -> tuple[str, int]:
        seconds = _lifetime_s(self, client_id, token_use) or expires_in
        return original(self, client_id, username, token_use, seconds, extra_data)

    return create_jwt


TOKEN_LIFETIME = Mend(
    name="cognito-token-lifetime",
    restores="Access and ID tokens live as long as the app client's AccessTokenValidity and IdTokenValidity say.",
    documented="Amazon Cognito User Pools API Reference, CreateUserPoolClient: AccessTokenValidity, TokenValidityUnits",
    patches=(Patch(CognitoIdpUserPool, "create_jwt", _living_as_configured),),
)

MENDS = (POOL_KEYS, TOKEN_LIFETIME)
