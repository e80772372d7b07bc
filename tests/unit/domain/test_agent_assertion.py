"""Assertions of agents: what is claimed is read without trust, what is verified is verified against arguments alone."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import agent_assertion
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId

AGENT = AgentId("agt_01JD0000000000000000000000")
URL = "https://api.example.com/v1/token"
KEY = ec.derive_private_key(7, ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
NOW = 1_795_000_000


def signed(**changes: Any) -> str:
    claims = {"iss": AGENT, "sub": AGENT, "aud": URL, "iat": NOW, "exp": NOW + 300, "jti": "j"} | changes
    return jwt.encode(claims, KEY, algorithm="ES256")


def verify(assertion: str, now_s: int = NOW) -> agent_assertion.Assertion:
    return agent_assertion.verify(assertion, PEM, agent=AGENT, audience=URL, now_s=now_s)


def test_a_good_assertion_tells_its_id_and_end() -> None:
    """And is good until that second."""
    assert verify(signed()) == agent_assertion.Assertion("j", NOW + 300)
    assert verify(signed(), NOW + 299).jti == "j"
    with pytest.raises(IntegrityError):
        verify(signed(), NOW + 300)


def test_clocks_may_differ_by_half_a_minute() -> None:
    """An agent whose clock runs ahead is let in, one that is a minute ahead is not."""
    assert verify(signed(), NOW - 30).jti == "j"
    with pytest.raises(IntegrityError):
        verify(signed(), NOW - 61)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda data: data.decode("latin-1"))))
def test_any_text_is_read_or_malformed(text: str) -> None:
    """Only MalformedInput comes out."""
    with pytest.raises(MalformedInput):
        agent_assertion.claimed_agent(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "crit"]), JSON), JSON)
def test_any_signed_claims_verify_or_do_not(claims: dict[str, Any], kid: Any) -> None:
    """An enrolled key may sign anything: only the two errors come out, and what is verified names its signer."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    head, body, _ = signed().split(".")
    message = f"{part({'alg': 'ES256', 'kid': kid}) if kid else head}.{part(claims) if claims else body}"
    signature = base64.urlsafe_b64encode(
        jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(message.encode(), KEY)
    )
    whole = f"{message}.{signature.decode().rstrip('=')}"
    try:
        agent = agent_assertion.claimed_agent(whole)
        verified = agent_assertion.verify(whole, PEM, agent=agent, audience=URL, now_s=NOW)
    except (MalformedInput, IntegrityError):
        return
    assert (agent, verified.jti) == (AGENT, "j")


def test_a_claim_that_utf_8_cannot_spell_is_refused_like_any_other() -> None:
    """JSON can name half a surrogate pair (RFC 8259 section 8.2)."""
    with pytest.raises(IntegrityError):
        verify(signed(aud="\ud800"))
