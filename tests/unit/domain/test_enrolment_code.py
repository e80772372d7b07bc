"""One-time codes: typed by people, checked by machines on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import enrolment_code
from dualtone.domain.errors import MalformedInput


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=1, max_size=120))
def test_a_code_survives_being_typed(secret: bytes, key: bytes) -> None:
    """In small letters, with spaces around."""
    code = enrolment_code.make(secret, key)
    assert enrolment_code.parse(f"  {code.lower()}\n") == code
    assert code.endswith(enrolment_code.fingerprint(key))
    assert len(enrolment_code.digest(code)) == 64


def test_a_vector() -> None:
    """Fixed bytes, fixed code: agents of other versions must read it."""
    code = enrolment_code.make(bytes(range(16)), b"key")
    assert code == "DT1-AAAQEAYEAUDAOCAJBIFQYDIOB4-FRYOCK32AZDPSITZ"


@given(st.text(max_size=60))
def test_what_is_no_code_is_refused_without_being_quoted(text: str) -> None:
    """The only error is MalformedInput."""
    with pytest.raises(MalformedInput) as refusal:
        enrolment_code.parse(text)
    assert len(text) < 8 or text not in str(refusal.value)


def test_a_short_secret_is_a_programming_error() -> None:
    """128 bits of chance or none."""
    with pytest.raises(ValueError, match="16 random bytes"):
        enrolment_code.make(b"short", b"key")
