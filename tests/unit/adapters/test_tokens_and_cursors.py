"""Search tokens and cursors: bound to tenant, field, month and query; stable; and cheap on KMS."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.adapters.cursors import Cursors
from dualtone.adapters.tokens import Tokens
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import TenantId

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


class CountingMacs:
    """HMAC keys in memory that remember how often they were used, and KMS's limit on messages."""

    def __init__(self) -> None:
        self.calls = 0

    def mac(self, key: str, message: bytes) -> bytes:
        assert len(message) <= 4096
        self.calls += 1
        return hmac.digest(key.encode(), message, hashlib.sha256)


def test_a_token_is_bound_to_everything_that_it_is_about() -> None:
    """Another tenant, month, field or value: another token; the same again: the same, without asking KMS."""
    macs = CountingMacs()
    tokens = Tokens(macs, "key")
    seen = [
        tokens.number(ACME, "2026-11", "+4420"),
        tokens.number(GLOBEX, "2026-11", "+4420"),
        tokens.number(ACME, "2026-10", "+4420"),
        tokens.number(ACME, "2026-11", "+4421"),
        tokens.sip_call_id(ACME, "+4420"),
    ]
    assert len(set(seen)) == 5
    assert all(len(token) == 32 and token == token.lower() for token in seen)
    assert tokens.number(ACME, "2026-11", "+4420") == seen[0]
    assert macs.calls == 5


def test_a_vector() -> None:
    """Tokens are stored: this one, computed with openssl, must come out of every later version."""
    expected = "pj3mx4i2l5wps4rojiojvouvcpjqeaqk"
    assert Tokens(CountingMacs(), "key").number(ACME, "2026-11", "+442079460123") == expected


@given(st.text(max_size=3000))
def test_any_call_id_has_a_token(sip_call_id: str) -> None:
    """However long, and whatever characters an SBC puts into it."""
    assert len(Tokens(CountingMacs(), "key").sip_call_id(ACME, sip_call_id)) == 32


POSITION = {"from": 1, "to": 2, "month": "2026-11", "before": "0000000000001#rec_x"}


def test_a_cursor_opens_where_it_was_sealed() -> None:
    """One derivation of a key per tenant, however many pages."""
    macs = CountingMacs()
    cursors = Cursors(macs, "key")
    for _ in range(3):
        assert cursors.open(ACME, "list", cursors.seal(ACME, "list", POSITION)) == POSITION
    assert macs.calls == 1


def test_a_cursor_opens_nowhere_else() -> None:
    """Not for another tenant, not for another query."""
    cursors = Cursors(CountingMacs(), "key")
    sealed = cursors.seal(ACME, "list", POSITION)
    for tenant, scope in ((GLOBEX, "list"), (ACME, "number#1"), (ACME, "")):
        with pytest.raises(MalformedInput):
            cursors.open(tenant, scope, sealed)


@given(st.data())
def test_a_changed_cursor_is_refused(data: Any) -> None:
    """Whichever character is changed, added or left out, only MalformedInput comes out."""
    cursors = Cursors(CountingMacs(), "key")
    sealed = cursors.seal(ACME, "list", POSITION)
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.text(max_size=3).filter(lambda text: text != sealed[at]))
    changed = sealed[:at] + other + sealed[at + 1 :]
    try:
        opened = cursors.open(ACME, "list", changed)
    except MalformedInput:
        return
    assert opened == POSITION  # unused bits of the last base64 character
    assert at == len(sealed) - 1
