"""Ogg pages: where they end, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import ogg_page as ogg
from dualtone.domain.errors import MalformedInput
from tests.vault_samples import ogg_page


@given(st.lists(st.binary(max_size=700), max_size=5))
def test_a_stream_of_pages(bodies: list[bytes]) -> None:
    """A stream is cut where its pages end."""
    pages = [ogg_page(body, number) for number, body in enumerate(bodies)]
    assert list(ogg.split_pages(b"".join(pages))) == pages


def test_the_largest_page() -> None:
    """REQ: RFC 3533 section 6: 255 segments of 255 bytes make a page of 65,307 bytes."""
    page = ogg_page(b"")[:26] + b"\xff" + b"\xff" * 255 + bytes(255 * 255)
    ogg.check_one(page)
    assert len(page) == ogg.MAX_PAGE_BYTES == 65_307


REFUSED = {
    "nothing": b"",
    "cut in its head": ogg_page(b"abc")[:26],
    "cut in its segment table": ogg_page(b"abc")[:27],
    "cut in its body": ogg_page(b"abc")[:-1],
    "another capture pattern": b"OggX" + ogg_page(b"abc")[4:],
    "another version": b"OggS\x01" + ogg_page(b"abc")[5:],
    "two pages": ogg_page(b"a") * 2,
    "a byte behind": ogg_page(b"a") + b"\0",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_not_one_page(data: bytes) -> None:
    """A segment holds one whole page."""
    with pytest.raises(MalformedInput):
        ogg.check_one(data)


@given(st.binary(max_size=200))
def test_only_malformed_input_leaves_the_reader(data: bytes) -> None:
    """Whatever the bytes, they are pages or they are malformed."""
    for candidate in (data, b"OggS\0" + data):
        try:
            assert b"".join(ogg.split_pages(candidate)) == candidate
        except MalformedInput:
            continue
