"""The assertion with which an agent asks for credentials: RFC 7523, signed with the key it enrolled. Pure.

A JWT (RFC 7519) with ES256. The agent is issuer and subject at once (RFC 7523 section 3, items 1 and 2 B); the audience
is the token endpoint, exactly; it lives for at most five minutes and is used once.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any, Final

import jwt
import jwt.types
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, parse_agent_id
from dualtone.domain.tenancy import Agent

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LONGEST_LIFE_S: Final = 300
_DER: Final = serialization.Encoding.DER
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo
_SKEW_S: Final = 30
_LONGEST: Final = 4096
_LONGEST_JTI: Final = 128
_UNVERIFIED: Final[jwt.types.Options] = {"verify_signature": False}
# Audience and times are checked below, against arguments instead of the library's own clock.
_VERIFIED: Final[jwt.types.Options] = {
    "require": ["iss", "sub", "aud", "exp", "iat", "jti"],
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified assertion.

    Attributes:
        jti: Its id.
        expires_at_s: The second after which it is refused anyway (Unix time).
        next_key_sha256: SHA-256 in hexadecimal of the key (DER) that it announces as the agent's next; empty if none.
    """

    jti: str
    expires_at_s: int
    next_key_sha256: str = ""


def claimed_agent(assertion: str) -> AgentId:
    """Reads who says to have signed, so that its key can be looked up; nothing is verified.

    Raises:
        MalformedInput: If it is no assertion, or names no agent.
    """
    if len(assertion) > _LONGEST:
        raise MalformedInput("the assertion is too long")
    try:
        claims = jwt.decode(assertion, options=_UNVERIFIED)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise MalformedInput("not a JWT") from error
    return parse_agent_id(claims.get("iss", ""))


def verify(assertion: str, public_key_pem: str, *, agent: AgentId, audience: str, now_s: int) -> Assertion:
    """Verifies an assertion.

    Args:
        assertion: The compact JWS.
        public_key_pem: The key that the agent enrolled.
        agent: Whose key that is.
        audience: The token endpoint's URL.
        now_s: Unix time in seconds.

    Returns:
        Its id and end. Whether it was used before is the caller's to find out.

    Raises:
        IntegrityError: If anything about it is not as it must be.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            assertion, public_key(public_key_pem), algorithms=["ES256"], options=_VERIFIED
        )
    except (jwt.PyJWTError, MalformedInput, ValueError, RecursionError) as error:
        raise IntegrityError("the assertion does not verify") from error
    expires, issued, jti = claims["exp"], claims["iat"], claims["jti"]
    # REQ: RFC 7523 section 3: items 1 to 7; the audience may be an array, of which one element must be us.
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if not all(_same(claims[name], agent) for name in ("iss", "sub")):
        raise IntegrityError("the assertion is not about its signer")
    if not any(_same(named, audience) for named in audiences):
        raise IntegrityError("the assertion is meant for someone else")
    if type(expires) is not int or type(issued) is not int or type(claims.get("nbf", 0)) is not int:
        raise IntegrityError("the assertion's times are not whole seconds")
    if not now_s < expires <= now_s + LONGEST_LIFE_S + _SKEW_S or expires - issued > LONGEST_LIFE_S:
        raise IntegrityError("the assertion has ended or lives too long")
    if max(issued, claims.get("nbf", 0)) > now_s + _SKEW_S:
        raise IntegrityError("the assertion is from the future")
    if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI:
        raise IntegrityError("the assertion has no usable id")
    announced = claims.get("next_key_sha256", "")
    return Assertion(jti, expires, announced if isinstance(announced, str) else "")


def public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Reads an agent's public key; raises MalformedInput unless it is a P-256 key as SubjectPublicKeyInfo in PEM."""
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedInput("the public key cannot be read: send SubjectPublicKeyInfo in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedInput("an agent's key is on P-256")
    return key


def verifying_keys(agent: Agent) -> tuple[bytes, ...]:
    """The keys by which what an agent signed is believed, SubjectPublicKeyInfo in DER, the current one first.

    Those that it has retired are among them: its spool may hold for weeks what was signed before. They get nobody any
    credentials, and so nothing that they sign reaches us but by an agent that has the current one.

    Raises:
        PolicyViolation: Unless the agent is active.
    """
    pems = (agent.active_key(), *agent.retired_keys_pem)
    return tuple(public_key(pem).public_bytes(_DER, _SPKI) for pem in pems)


def _same(claimed: object, expected: str) -> bool:
    # JSON can spell half a surrogate pair, which UTF-8 cannot.
    return isinstance(claimed, str) and hmac.compare_digest(claimed.encode("utf-8", "surrogatepass"), expected.encode())
