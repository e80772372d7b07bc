"""The vault object, format version 1: a recording at rest (``infra/formats/vault-object.md``).

::

    head     "DTV1" | u32 length of the header | header, canonical JSON                          big-endian
    segment  HMAC-SHA256(K_com, place)[32] || AES-256-GCM(K_enc, nonce, page, AAD = place) || tag[16]
    place    SHA-256(head)[32] || u32 index of the segment
    object   head || segment 0 || segment 1 || ...                                               and nothing after it

A segment's plaintext is one complete Ogg page of one second, so that the header pages and the opened segments in order
*are* a playable .opus file: the virtual file. The header holds no personal data; whoever reads it learns when the
recording's seconds begin in the file, and how long it is.

The nonce is 12 zero bytes. A leaf key seals one plaintext, ever: each attempt to seal a recording draws its own root,
and within a tree a leaf belongs to one segment. GCM alone does not commit to its key; the HMAC does, since two leaf
keys with the same K_com would be a collision of HMAC-SHA256. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import canonical, keytree
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import RecordingId, parse_recording_id
from dualtone.domain.ogg_page import MAX_PAGE_BYTES

MAGIC: Final = b"DTV1"
FORMAT: Final = 1
COMMITMENT_BYTES: Final = 32
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = COMMITMENT_BYTES + TAG_BYTES
"""By how much a segment is longer than its page."""

MAX_HEADER_BYTES: Final = 1 << 24
MAX_SEGMENT_MS: Final = 60_000

_PREFIX: Final = struct.Struct(">4sI")
PREFIX_BYTES: Final = _PREFIX.size
_NONCE: Final = bytes(12)
_MEDIA_TYPE: Final = re.compile(r"[a-z]{1,16}/[a-z0-9.+-]{1,32}(; codecs=[a-z0-9.]{1,16})?")
_FIELDS: Final = {
    "format",
    "generation",
    "header_pages",
    "media_type",
    "offset_table",
    "recording",
    "segment_count",
    "segment_ms",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of a vault object says.

    Attributes:
        recording: The recording.
        generation: Which version of the recording, from 1.
        media_type: Of the virtual file.
        segment_ms: How long a segment is; the last one may be shorter.
        page_sizes: The size of each segment's plaintext in bytes.
        header_pages: The Ogg pages that precede the audio: OpusHead and OpusTags.
    """

    recording: RecordingId
    generation: int
    media_type: str
    segment_ms: int
    page_sizes: tuple[int, ...] = field(repr=False)
    header_pages: bytes = field(repr=False)


class Head:
    """A header as it stands in an object, and the places that follow from it.

    Attributes:
        header: What it says.
        size_bytes: How long the head is, magic and length included.
        sha256: SHA-256 of the whole head: every segment is bound to it.
    """

    __slots__ = ("_page_ends", "header", "sha256", "size_bytes")

    def __init__(self, header: Header, encoded: bytes) -> None:
        self.header: Final = header
        self.size_bytes: Final = len(encoded)
        self.sha256: Final = hashlib.sha256(encoded).digest()
        self._page_ends: Final = tuple(accumulate(header.page_sizes, initial=0))

    @property
    def segment_count(self) -> int:
        """How many segments the object has."""
        return len(self.header.page_sizes)

    @property
    def object_size_bytes(self) -> int:
        """How long the whole object is."""
        return self.size_bytes + self._page_ends[-1] + self.segment_count * OVERHEAD_BYTES

    @property
    def page_offsets(self) -> tuple[int, ...]:
        """Where each page begins in the virtual file, and, as the last element, where the file ends."""
        start = len(self.header.header_pages)
        return tuple(start + end for end in self._page_ends)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where the segments ``first`` to ``last`` stand in the object: start and end, the end not included.

        Raises:
            ValueError: If there are no such segments.
        """
        if not 0 <= first <= last < self.segment_count:
            raise ValueError(f"segments {first} to {last} are no range of {self.segment_count} segments")
        return (
            self.size_bytes + self._page_ends[first] + first * OVERHEAD_BYTES,
            self.size_bytes + self._page_ends[last + 1] + (last + 1) * OVERHEAD_BYTES,
        )

    def split(self, first: int, last: int, data: bytes | memoryview) -> Iterator[memoryview]:
        """Cuts the bytes of ``span(first, last)`` into segments.

        Raises:
            IntegrityError: If they are not as many bytes as the segments have.
        """
        start, end = self.span(first, last)
        view = memoryview(data)
        if len(view) != end - start:
            raise IntegrityError("the stored object is shorter or longer than its header says")
        return self._split(first, last, view)

    def _split(self, first: int, last: int, view: memoryview) -> Iterator[memoryview]:
        position = 0
        for size in self.header.page_sizes[first : last + 1]:
            end = position + size + OVERHEAD_BYTES
            yield view[position:end]
            position = end

    def place(self, index: int) -> bytes:
        """What a segment is bound to: the head's hash and its own index."""
        return self.sha256 + index.to_bytes(4, "big")


def encode_head(header: Header) -> bytes:
    """Writes the head of an object.

    Raises:
        MalformedInput: If a field is outside the format.
    """
    _check(header)
    body = canonical.encode(
        {
            "format": FORMAT,
            "generation": header.generation,
            "header_pages": base64.b64encode(header.header_pages).decode("ascii"),
            "media_type": header.media_type,
            "offset_table": [[sum(1 for _ in run), size] for size, run in groupby(header.page_sizes)],
            "recording": header.recording,
            "segment_count": len(header.page_sizes),
            "segment_ms": header.segment_ms,
        }
    )
    if len(body) > MAX_HEADER_BYTES:
        raise MalformedInput("the header of the vault object is too long")
    return _PREFIX.pack(MAGIC, len(body)) + body


def head_size(prefix: bytes | memoryview) -> int:
    """How long a head is, from its first 8 bytes (more may follow).

    Raises:
        MalformedInput: If this is not the beginning of a vault object.
    """
    if len(prefix) < PREFIX_BYTES:
        raise MalformedInput("too short to be a vault object")
    magic, length = _PREFIX.unpack_from(prefix)
    if magic != MAGIC or length > MAX_HEADER_BYTES:
        raise MalformedInput("not a vault object of format version 1")
    return int(PREFIX_BYTES + length)


def parse_head(data: bytes | memoryview) -> Head:
    """Reads the head at the beginning of ``data``, which may go on behind it.

    Returns:
        The head; its one spelling is checked, so that one header has one hash.

    Raises:
        MalformedInput: If it is not whole or not of the format.
    """
    size = head_size(data)
    if len(data) < size:
        raise MalformedInput("the head of the vault object is not whole")
    encoded = bytes(data[:size])
    header = _from_json(canonical.decode(encoded[PREFIX_BYTES:]))
    if encode_head(header) != encoded:
        raise MalformedInput("the header of the vault object is not in canonical form")
    return Head(header, encoded)


def seal_segments(head: Head, leaf_keys: Iterable[bytes], pages: Iterable[bytes]) -> Iterator[bytes]:
    """Seals the pages of an object in order.

    Args:
        head: The object's head.
        leaf_keys: The leaf keys 0 to n-1 of a tree that seals nothing else.
        pages: The pages, of the sizes that the head says.

    Yields:
        Each segment.

    Raises:
        ValueError: If pages and head do not fit each other.
    """
    for index, (key, page, size) in enumerate(zip(leaf_keys, pages, head.header.page_sizes, strict=True)):
        if len(page) != size:
            raise ValueError("a page is not of the size in the header")
        keys = keytree.leaf_keys(key)
        place = head.place(index)
        commitment = hmac.digest(keys.commit, place, "sha256")
        yield commitment + AESGCM(keys.encrypt).encrypt(_NONCE, page, place)


def open_segment(head: Head, index: int, leaf_key: bytes, segment: bytes | memoryview) -> bytes:
    """Opens one segment.

    Args:
        head: The object's head.
        index: Which segment it is.
        leaf_key: The leaf key of that index.
        segment: Its bytes in the object.

    Returns:
        The Ogg page.

    Raises:
        IntegrityError: If the key is not the one it was sealed with, or the segment is not the one that was sealed in
            this place of this object.
    """
    if len(segment) != head.header.page_sizes[index] + OVERHEAD_BYTES:
        raise IntegrityError(f"segment {index} is not of the length in the header")
    keys = keytree.leaf_keys(leaf_key)
    place = head.place(index)
    # Step 1: the key commitment, before anything is decrypted.
    if not hmac.compare_digest(hmac.digest(keys.commit, place, "sha256"), segment[:COMMITMENT_BYTES]):
        raise IntegrityError(f"segment {index} was sealed with another key or in another place")
    # Step 2: the ciphertext and its tag.
    try:
        return AESGCM(keys.encrypt).decrypt(_NONCE, segment[COMMITMENT_BYTES:], place)
    except InvalidTag as error:
        raise IntegrityError(f"segment {index} was altered") from error


def _check(header: Header) -> None:
    if not 1 <= len(header.page_sizes) <= keytree.MAX_LEAVES:
        raise MalformedInput("a vault object has at least one segment and at most 2**20")
    if min(header.page_sizes) < 1 or max(header.page_sizes) > MAX_PAGE_BYTES:
        raise MalformedInput("an Ogg page has 1 to 65307 bytes")
    if not 1 <= header.segment_ms <= MAX_SEGMENT_MS or not 1 <= header.generation <= canonical.MAX_SAFE_INTEGER:
        raise MalformedInput("a segment duration or a generation out of range")
    if not _MEDIA_TYPE.fullmatch(header.media_type):
        raise MalformedInput("not a media type of the vault")
    parse_recording_id(header.recording)


def _from_json(value: object) -> Header:
    if not isinstance(value, dict) or set(value) != _FIELDS or value["format"] != FORMAT:
        raise MalformedInput("not the header of a vault object of format version 1")
    numbers = (value["generation"], value["segment_count"], value["segment_ms"])
    texts = (value["header_pages"], value["media_type"], value["recording"])
    if any(type(number) is not int for number in numbers) or any(type(text) is not str for text in texts):
        raise MalformedInput("a field of the vault object's header is of the wrong type")
    try:
        pages = base64.b64decode(value["header_pages"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedInput("the header pages are not coded in base64") from error
    return Header(
        recording=RecordingId(value["recording"]),
        generation=value["generation"],
        media_type=value["media_type"],
        segment_ms=value["segment_ms"],
        page_sizes=_page_sizes(value["offset_table"], value["segment_count"]),
        header_pages=pages,
    )


def _page_sizes(table: object, count: int) -> tuple[int, ...]:
    runs: Sequence[object] = table if isinstance(table, list) else ()
    sizes: list[int] = []
    for run in runs:
        if not (isinstance(run, list) and [type(number) for number in run] == [int, int]):
            raise MalformedInput("the offset table is a list of [count, size]")
        if not 1 <= run[0] <= keytree.MAX_LEAVES - len(sizes):
            raise MalformedInput("the offset table counts wrongly")
        sizes += [run[1]] * run[0]
    if len(sizes) != count:
        raise MalformedInput("the offset table does not have as many segments as the header says")
    return tuple(sizes)
