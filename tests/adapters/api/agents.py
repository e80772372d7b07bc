"""An agent as the API meets it: a key, and assertions signed with it."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualtone.adapters import clock
from dualtone.domain import canonical
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.identity import AgentKey
from tests.adapters.api.gateway import Answer, post_form, post_json

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def assertion(key: Any, agent: str, audience: str, algorithm: str = "ES256", **changes: Any) -> str:
    """An assertion as it should be, but for the changes; a change to None leaves the claim out."""
    now = clock.now_ms() // 1000
    claims = {"iss": agent, "sub": agent, "aud": audience, "iat": now, "exp": now + 240, "jti": secrets.token_hex(16)}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


def invite(administrator: str, name: str = "London SBC 1") -> dict[str, Any]:
    answer = post_json("/v1/agents", {"name": name}, token=administrator)
    assert answer.status == 201
    invitation: dict[str, Any] = answer.json
    return invitation


def enrol(code: str, key: ec.EllipticCurvePrivateKey, **more: str) -> Answer:
    return post_json("/v1/agents/enrol", {"code": code, "public_key": public_pem(key), **more})


def rotation(
    key: ec.EllipticCurvePrivateKey, agent: str, audience: str, new: ec.EllipticCurvePrivateKey, **changes: Any
) -> dict[str, Any]:
    """A request for an agent's next key, as it should be but for the changes of its claims."""
    der = new.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jti = secrets.token_hex(16)
    claims = {"jti": jti, "next_key_sha256": hashlib.sha256(der).hexdigest()} | changes
    proof = Envelope.sealed_by(AgentKey(new, agent), "agent-key", canonical.encode({"agent": agent, "jti": jti}))
    return {
        "assertion": assertion(key, agent, claims.pop("aud", audience), **claims),
        "public_key": public_pem(new),
        "proof": proof.to_json(),
    }


def ask(signed: str) -> Answer:
    return post_form("/v1/token", {"grant_type": GRANT, "assertion": signed})
