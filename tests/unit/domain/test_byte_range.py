"""Range requests as RFC 9110 section 14 has them, for every length and limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.byte_range import ByteRange, RangeNotSatisfiable, RangeRequired, resolve

ETAG = '"abc"'


def ask(field: str | None, total: int, most: int = 100, if_range: str | None = None) -> ByteRange:
    return resolve(field, if_range, etag=ETAG, total_bytes=total, most_bytes=most)


@given(total=st.integers(1, 500), most=st.integers(1, 500), first=st.integers(0, 600), length=st.integers(0, 600))
def test_a_closed_range_begins_where_it_says_and_is_never_too_long(
    total: int, most: int, first: int, length: int
) -> None:
    """It ends at the end of the file, at the limit, or where it says, whichever comes first."""
    field = f"bytes={first}-{first + length}"
    if first >= total:
        with pytest.raises(RangeNotSatisfiable):
            ask(field, total, most)
        return
    answer = ask(field, total, most)
    assert answer == ByteRange(first, min(first + length, total - 1, first + most - 1), partial=True)
    assert 1 <= answer.length <= most


@given(total=st.integers(1, 500), most=st.integers(1, 500), suffix=st.integers(1, 600))
def test_a_suffix_is_cut_at_its_end_and_begins_where_it_says(total: int, most: int, suffix: int) -> None:
    """REQ: RFC 9110 section 14.1.2: a suffix longer than the representation is all of it."""
    answer = ask(f"bytes=-{suffix}", total, most)
    assert answer.first == max(0, total - suffix)
    assert answer.last == min(total - 1, answer.first + most - 1)


@given(st.text(max_size=40))
def test_any_field_is_answered_or_refused_by_name(field: str) -> None:
    """Nothing but the two refusals comes out, and every answer lies within the file."""
    try:
        answer = ask(field, 50)
    except RangeNotSatisfiable:
        return
    assert 0 <= answer.first <= answer.last < 50


def test_the_limit_applies_to_the_whole_as_well() -> None:
    """Exactly at the limit it is sent; one byte more asks for a Range."""
    assert ask(None, 100) == ByteRange(0, 99, partial=False)
    with pytest.raises(RangeRequired, match=r"Range: bytes=0-99"):
        ask(None, 101)


def test_a_range_of_another_file_is_ignored() -> None:
    """REQ: RFC 9110 section 13.1.5: If-Range does not match, so the whole is asked for."""
    assert ask("bytes=0-0", 50, if_range='"old"') == ByteRange(0, 49, partial=False)
    assert ask("bytes=0-0", 50, if_range=ETAG) == ByteRange(0, 0, partial=True)
    with pytest.raises(RangeRequired):
        ask("bytes=0-0", 500, if_range='"old"')


def test_many_ranges_are_not_followed() -> None:
    """REQ: RFC 9110 section 17.15: a set of many small ranges is a denial of service."""
    many = "bytes=" + ",".join(f"{start}-{start}" for start in range(33))
    assert ask(many, 50) == ByteRange(0, 49, partial=False)
