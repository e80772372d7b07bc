"""Canonical JSON: one value, one spelling."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.MAX_SAFE_INTEGER, canonical.MAX_SAFE_INTEGER) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_spelled_is_read_back(value: object) -> None:
    """A round trip changes nothing, and spelling it again gives the same bytes."""
    try:
        spelled = canonical.encode(value)
    except UnicodeEncodeError:  # a lone surrogate is text in Python but in no JSON
        return
    assert canonical.decode(spelled) == value
    assert canonical.encode(canonical.decode(spelled)) == spelled


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'),
        # RFC 8785 section 3.2.3: sorted by UTF-16 code units, so a surrogate pair comes before U+FB33.
        ({"\ufb33": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ufb33":1}'),
        ('\u20ac$\u000f\nA\'B"\\\\"/', json.dumps('€$\x0f\nA\'B"\\\\"/', ensure_ascii=False)),
    ],
)
def test_spelling(value: object, spelled: str) -> None:
    """Keys are sorted, nothing is spaced, text stays UTF-8."""
    assert canonical.encode(value) == spelled.encode()


@pytest.mark.parametrize("value", [1.5, 2**53, {1: 2}, b"bytes", {"a": {2}}])
def test_outside_the_subset_is_refused(value: object) -> None:
    """What has no single spelling is not signed."""
    with pytest.raises(ValueError, match=r"spelling|keys|integer"):
        canonical.encode(value)


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":1,"a":2}', b"1.5", b"NaN", b"\xff", b"[" * 100_000])
def test_malformed_input(data: bytes) -> None:
    """Only MalformedInput escapes."""
    with pytest.raises(MalformedInput):
        canonical.decode(data)
