"""Identifiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import ids
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId, TenantId


def test_ulid_of_the_specification() -> None:
    """The time part of a ULID is Crockford's base 32 of the milliseconds (github.com/ulid/spec: 1469918176385)."""
    assert ids.ulid(1469918176385, bytes(10)) == "01ARYZ6S41" + "0" * 16


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ulids_sort_by_time(one: int, other: int, randomness: bytes) -> None:
    """An earlier ULID sorts before a later one, and each parses."""
    first, second = sorted([one, other])
    assert (ids.ulid(first, randomness) <= ids.ulid(second, randomness)) is True
    assert ids.parse_call_id(ids.ulid(first, randomness))


@pytest.mark.parametrize("arguments", [(-1, bytes(10)), (2**48, bytes(10)), (0, bytes(9))])
def test_ulid_refuses_wrong_sizes(arguments: tuple[int, bytes]) -> None:
    """Sizes are checked, not cut."""
    with pytest.raises(ValueError, match="ULID"):
        ids.ulid(*arguments)


def test_a_recording_is_named_by_its_call_alone() -> None:
    """The same call gives the same id; another tenant, call or index gives another."""
    base = ids.recording_id(TenantId("acme"), CallId("01ARYZ6S410000000000000000"))
    assert base == ids.recording_id(TenantId("acme"), CallId("01ARYZ6S410000000000000000"))
    assert ids.parse_recording_id(base) == base
    others = {
        ids.recording_id(TenantId("acmf"), CallId("01ARYZ6S410000000000000000")),
        ids.recording_id(TenantId("acme"), CallId("01ARYZ6S410000000000000001")),
        ids.recording_id(TenantId("acme"), CallId("01ARYZ6S410000000000000000"), 1),
    }
    assert len(others | {base}) == 4


@pytest.mark.parametrize("text", ["", "acme/../x", "ACME", "a" * 33, "agt_1", "rec_", "01ARYZ6S41000000000000000I"])
def test_malformed_ids(text: str) -> None:
    """No parser takes what is not of its form."""
    for parse in (ids.parse_tenant_id, ids.parse_agent_id, ids.parse_call_id, ids.parse_recording_id):
        with pytest.raises(MalformedInput):
            parse(text)
