"""HTTP Range requests on one representation: RFC 9110 section 14. Pure.

Not here: multipart/byteranges. Of several ranges the first satisfiable one is answered, as section 15.3.7 allows a
server that sends only part of what was asked; the Content-Range says which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from dualtone.domain.errors import DualtoneError

_SPEC: Final = re.compile(r"bytes\s*=\s*(.+)", re.IGNORECASE | re.DOTALL)
# REQ: RFC 9110 section 14.1.1: int-range = first-pos "-" [ last-pos ]; suffix-range = "-" suffix-length
_RANGE: Final = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18})")
_MOST_RANGES: Final = 32


class RangeNotSatisfiable(DualtoneError):  # noqa: N818 - the name of status 416
    """No byte of what was asked exists.

    Attributes:
        total_bytes: The size of the representation, for ``Content-Range: bytes */N``.
    """

    def __init__(self, total_bytes: int) -> None:
        super().__init__(f"the recording has {total_bytes} bytes; the Range asks for none of them")
        self.total_bytes = total_bytes


class RangeRequired(DualtoneError):  # noqa: N818 - says what is missing
    """The whole is larger than one answer may be.

    Attributes:
        total_bytes: The size of the representation.
        most_bytes: The largest answer.
    """

    def __init__(self, total_bytes: int, most_bytes: int) -> None:
        super().__init__(
            f"the recording has {total_bytes} bytes and an answer holds at most {most_bytes}: "
            f"send a Range header, for example Range: bytes=0-{most_bytes - 1}"
        )
        self.total_bytes = total_bytes
        self.most_bytes = most_bytes


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Positions of the first and last byte, inclusive as in HTTP, and whether the answer is partial (206)."""

    first: int
    last: int
    partial: bool

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1

    def content_range(self, total_bytes: int) -> str:
        """The Content-Range field of a 206 answer."""
        return f"bytes {self.first}-{self.last}/{total_bytes}"


def resolve(
    range_field: str | None, if_range: str | None, *, etag: str, total_bytes: int, most_bytes: int
) -> ByteRange:
    """Decides which bytes answer a GET.

    Args:
        range_field: The Range field, or None.
        if_range: The If-Range field, or None.
        etag: The strong entity tag of the representation, quoted.
        total_bytes: Its size, at least 1.
        most_bytes: The most that one answer carries; a longer range is shortened, which a client sees in Content-Range.

    Returns:
        The bytes to send.

    Raises:
        RangeNotSatisfiable: If all ranges lie beyond the end.
        RangeRequired: If the whole is asked for and too large.
    """
    specs = _parse(range_field) if range_field is not None and _applies(if_range, etag) else None
    if specs is None:
        if total_bytes > most_bytes:
            raise RangeRequired(total_bytes, most_bytes)
        return ByteRange(0, total_bytes - 1, partial=False)
    for first, last in specs:
        start, end = _absolute(first, last, total_bytes)
        if start < total_bytes and start <= end:
            return ByteRange(start, min(end, start + most_bytes - 1), partial=True)
    # REQ: RFC 9110 section 15.5.17: 416 when none of the ranges overlaps the representation.
    raise RangeNotSatisfiable(total_bytes)


def _applies(if_range: str | None, etag: str) -> bool:
    # REQ: RFC 9110 section 13.1.5: If-Range uses the strong comparison; otherwise the Range field is ignored. A date
    # never matches, since recordings carry no Last-Modified; a weak tag is never equal to a strong one.
    return if_range is None or if_range.strip() == etag


def _parse(field: str) -> list[tuple[int | None, int | None]] | None:
    """Reads a ranges-specifier; None if it is of another unit or malformed.

    REQ: RFC 9110 section 14.2: a server ignores a Range header field with a unit it does not understand, and may ignore
    one that is invalid.
    """
    spec = _SPEC.fullmatch(field.strip())
    if spec is None:
        return None
    items = [item.strip() for item in spec[1].split(",") if item.strip()]
    matches = [_RANGE.fullmatch(item) for item in items]
    if not 0 < len(items) <= _MOST_RANGES:
        return None
    ranges: list[tuple[int | None, int | None]] = []
    for match in matches:
        if match is None:
            return None
        first = int(match[1]) if match[1] is not None else None
        last = int(match[3] if match[1] is None else match[2]) if match[3] or match[2] else None
        # REQ: RFC 9110 section 14.1.1: an int-range whose last-pos is less than its first-pos is invalid.
        if first is not None and last is not None and last < first:
            return None
        ranges.append((first, last))
    return ranges


def _absolute(first: int | None, last: int | None, total_bytes: int) -> tuple[int, int]:
    """Positions of a range; a suffix range names its length in ``last``."""
    if first is None:
        return max(0, total_bytes - (last or 0)), total_bytes - 1 if last else -1
    return first, total_bytes - 1 if last is None else min(last, total_bytes - 1)
