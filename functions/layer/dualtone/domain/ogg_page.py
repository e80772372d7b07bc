"""The outline of an Ogg page (RFC 3533 section 6): where it ends. Pure; nothing inside a page is read here.

# REQ: RFC 3533 section 6: a page begins with "OggS" and version 0; byte 26 counts the segment table's bytes, whose sum
# is the length of the body.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dualtone.domain.errors import MalformedInput

MAX_PAGE_BYTES: Final = 27 + 255 + 255 * 255

_HEADER_BYTES: Final = 27


def page_size(data: bytes | memoryview) -> int:
    """The length in bytes of the page at the beginning of ``data``, which may go on behind it.

    Raises:
        MalformedInput: If there is no whole page.
    """
    if len(data) < _HEADER_BYTES or data[:4] != b"OggS" or data[4] != 0:
        raise MalformedInput("not an Ogg page")
    body = _HEADER_BYTES + data[26]
    size = body + sum(data[_HEADER_BYTES:body])
    if size > len(data):
        raise MalformedInput("an Ogg page that is not whole")
    return size


def split_pages(data: bytes | memoryview) -> Iterator[bytes]:
    """The pages of a stream one after another; raises MalformedInput where something else follows."""
    view = memoryview(data)
    while view:
        size = page_size(view)
        yield bytes(view[:size])
        view = view[size:]


def check_one(data: bytes) -> None:
    """Checks that ``data`` is one page and nothing else; raises MalformedInput."""
    if page_size(data) != len(data):
        raise MalformedInput("more than one Ogg page")
