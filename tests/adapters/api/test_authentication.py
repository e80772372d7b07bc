"""Tokens forged in every known way, some with the pool's own key: each is refused, and none is told why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from moto.backends import get_backend

from dualtone.adapters import clock
from infra.local.cloud import LocalCloud
from infra.local.template import ACCOUNT_ID
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import Answer, call


@pytest.fixture(scope="module")
def pool_key(cloud: LocalCloud) -> Any:
    """The private key of the user pool, which AWS gives nobody: so that one claim at a time can be wrong."""
    pool = get_backend("cognito-idp")[ACCOUNT_ID]["eu-west-1"].user_pools[cloud.stack.ref("UserPool")]
    return pool.json_web_key


def mint(pool_key: Any, cloud: LocalCloud, header: Any = None, /, **changes: Any) -> str:
    """A token of Acme's officer as the pool would issue it, but for the changes; None leaves a claim out."""
    now = clock.now_ms() // 1000
    pool = cloud.stack.ref("UserPool")
    claims = {
        "sub": "11111111-2222-4333-8444-555555555555",
        "iss": f"https://cognito-idp.eu-west-1.amazonaws.com/{pool}",
        "client_id": cloud.tenants["acme"].client_id,
        "token_use": "access",
        "scope": "aws.cognito.signin.user.admin",
        "cognito:groups": ["officer", "tenant:acme"],
        "iat": now,
        "exp": now + 3600,
    }
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    key: Any = load_pem_private_key(pool_key.as_pem(private=True), None)
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": pool_key.kid, **(header or {})})


def ask(token: str) -> Answer:
    return call("GET", "/v1/recordings", token=token)


def test_the_control_is_let_in(pool_key: Any, cloud: LocalCloud) -> None:
    """Without a change the minted token works; unknown groups and claims mean nothing."""
    assert ask(mint(pool_key, cloud)).status == 200
    assert (
        ask(mint(pool_key, cloud, **{"cognito:groups": ["officer", "tenant:acme", "root"], "custom:x": "y"})).status
        == 200
    )


NOW = clock.now_ms() // 1000
CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("expired", {"exp": NOW - 1}),
    ("without end", {"exp": None}),
    ("end is text", {"exp": "9999999999"}),
    ("issued in the future", {"iat": NOW + 600}),
    ("not before later", {"nbf": NOW + 600}),
    ("an identity token", {"token_use": "id"}),
    ("of no use", {"token_use": None}),
    ("of another pool", {"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AAAAAAAAA"}),
    ("of no pool", {"iss": None}),
    ("without client", {"client_id": None}),
    ("of a client that is bound to no tenant", {"client_id": "4b2ae2d4b92543f79831e94000"}),
    ("client is a list", {"client_id": ["x"]}),
    ("without subject", {"sub": None}),
    ("of a person of no tenant", {"cognito:groups": ["officer"]}),
    ("of another tenant's person", {"cognito:groups": ["officer", "tenant:globex"]}),
    ("of a tenant with a longer name", {"cognito:groups": ["officer", "tenant:acme2", "tenant:ac"]}),
    ("groups are no list", {"cognito:groups": "officer"}),
]


@pytest.mark.parametrize("changes", [row[1] for row in CLAIMS], ids=[row[0] for row in CLAIMS])
def test_a_signed_token_with_a_wrong_claim_is_refused(
    pool_key: Any, cloud: LocalCloud, trail: AuditTrail, changes: dict[str, Any]
) -> None:
    """Though the pool's own key signed it; the refusal is on record, in nobody's log."""
    answer = ask(mint(pool_key, cloud, **changes))
    assert answer.status == 401
    (event,) = trail.new()
    assert (event["tenant"], event["who"], event["outcome"]) == ("-", "nobody", "refused")


def forgeries(pool_key: Any, cloud: LocalCloud) -> dict[str, str]:
    """Tokens whose claims are right and whose signatures are not."""
    good = mint(pool_key, cloud)
    head, claims, signature = good.split(".")
    own = rsa.generate_private_key(65537, 2048)
    decoded = jwt.decode(good, options={"verify_signature": False})
    public = pool_key.as_pem(private=False)

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    mac_head = part({"alg": "HS256", "typ": "JWT", "kid": pool_key.kid})
    mac = hmac.digest(public, f"{mac_head}.{claims}".encode(), hashlib.sha256)
    return {
        "unsigned": f"{part({'alg': 'none', 'kid': pool_key.kid})}.{claims}.",
        "MAC with the public key": f"{mac_head}.{claims}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
        "own key, the pool's kid": jwt.encode(decoded, own, algorithm="RS256", headers={"kid": pool_key.kid}),
        "own key, own kid": jwt.encode(decoded, own, algorithm="RS256", headers={"kid": "mine"}),
        "own key in the header": jwt.encode(
            decoded,
            own,
            algorithm="RS256",
            headers={"kid": pool_key.kid, "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
        ),
        "own JWKS in the header": jwt.encode(
            decoded, own, algorithm="RS256", headers={"kid": pool_key.kid, "jku": "http://127.0.0.1:1/jwks.json"}
        ),
        "PS256": jwt.encode(decoded, own, algorithm="PS256", headers={"kid": pool_key.kid}),
        "critical extension": mint(pool_key, cloud, {"crit": ["x"], "x": 1}),
        "claims changed": f"{head}.{part({**decoded, 'client_id': cloud.tenants['globex'].client_id})}.{signature}",
        "signature cut": good[:-10],
        "no kid": jwt.encode(decoded, own, algorithm="RS256"),
        "four parts": f"{good}.x",
        "enormous": "a" * 20_000,
    }


def test_a_token_that_the_pool_did_not_sign_is_refused(pool_key: Any, cloud: LocalCloud) -> None:
    """All alike: the answers differ in nothing but the request that they name."""
    answers = {name: ask(token) for name, token in forgeries(pool_key, cloud).items()}
    assert {name for name, answer in answers.items() if answer.status != 401} == set()
    bodies = [answer.without_instance() for answer in answers.values()]
    assert all(body == bodies[0] for body in bodies)


def test_the_tenant_is_not_in_the_token(pool_key: Any, cloud: LocalCloud, trail: AuditTrail) -> None:
    """What a token claims about its tenant changes nothing: the app client's binding decides."""
    assert ask(mint(pool_key, cloud, **{"custom:tenant": "globex", "tenant": "globex"})).status == 200
    assert trail.new()[0]["tenant"] == "acme"


@pytest.mark.parametrize("scheme", ["Basic {token}", "Bearer", "Token {token}", "{token} {token}"])
def test_only_bearer_tokens_are_read(pool_key: Any, cloud: LocalCloud, scheme: str) -> None:
    """REQ: RFC 6750 section 2.1."""
    field = scheme.format(token=mint(pool_key, cloud))
    assert call("GET", "/v1/recordings", headers={"Authorization": field}).status == 401


@pytest.mark.parametrize("scheme", ["bearer {token}", "BEARER  {token}", "{token}"])
def test_the_scheme_is_case_insensitive_and_may_be_left_out(pool_key: Any, cloud: LocalCloud, scheme: str) -> None:
    """REQ: RFC 9110 section 11.1; API Gateway's authorizer takes a bare token too, so we do not contradict it."""
    field = scheme.format(token=mint(pool_key, cloud))
    assert call("GET", "/v1/recordings", headers={"authorization": field}).status == 200


def test_a_person_cannot_sign_in_through_another_tenants_app_client(cloud: LocalCloud, trail: AuditTrail) -> None:
    """App clients are public and the pool is shared: Cognito itself issues such a token, and we refuse it."""
    cognito, pool = cloud.client("cognito-idp"), cloud.stack.ref("UserPool")
    password = "aA1!acme-officer-knows-this"
    cognito.admin_set_user_password(UserPoolId=pool, Username="acme-officer", Password=password, Permanent=True)
    tokens = {
        name: cognito.admin_initiate_auth(
            UserPoolId=pool,
            ClientId=tenant.client_id,
            AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": "acme-officer", "PASSWORD": password},
        )["AuthenticationResult"]["AccessToken"]
        for name, tenant in cloud.tenants.items()
    }
    assert ask(tokens["acme"]).status == 200
    trail.new()
    assert ask(tokens["globex"]).status == 401
    (event,) = trail.new()
    assert (event["tenant"], event["who"], event["outcome"]) == ("-", "nobody", "refused")
