"""The vault object: what its head says, and what opening a segment notices."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain import keytree, vault_object
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import RecordingId
from dualtone.domain.vault_object import Head, Header
from tests.vault_samples import HEADER_PAGES, OTHER_RECORDING, RECORDING, pages_of, sealed

PAGES = pages_of(4)
SEALED = sealed(PAGES)
HEAD = vault_object.parse_head(SEALED.data)
LEAVES = list(keytree.derive_range(SEALED.nodes, 0, 3))
SEGMENTS = [bytes(part) for part in HEAD.split(0, 3, SEALED.data[HEAD.size_bytes :])]

headers = st.builds(
    Header,
    recording=st.sampled_from([RECORDING, OTHER_RECORDING]),
    generation=st.integers(1, 2**53 - 1),
    media_type=st.sampled_from(["audio/ogg; codecs=opus", "audio/ogg"]),
    segment_ms=st.integers(1, 60_000),
    page_sizes=st.lists(st.one_of(st.just(3077), st.integers(1, 65_307)), min_size=1, max_size=50).map(tuple),
    header_pages=st.binary(max_size=200),
)


@given(headers, st.binary(max_size=20))
def test_a_head_is_read_as_it_was_written(header: Header, behind: bytes) -> None:
    """One header, one spelling; what follows the head is not looked at."""
    encoded = vault_object.encode_head(header)
    head = vault_object.parse_head(encoded + behind)
    assert head.header == header
    assert head.size_bytes == len(encoded) == vault_object.head_size(encoded[:8])


@given(headers)
def test_the_places_of_segments_and_pages(header: Header) -> None:
    """Spans tile the object, page offsets tile the virtual file."""
    head = Head(header, vault_object.encode_head(header))
    last = head.segment_count - 1
    spans = [head.span(index, index) for index in range(head.segment_count)]
    assert spans[0][0] == head.size_bytes
    assert spans[-1][1] == head.object_size_bytes == head.span(0, last)[1]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert [end - start - 48 for start, end in spans] == list(header.page_sizes)
    offsets = head.page_offsets
    assert offsets[0] == len(header.header_pages)
    assert [end - start for start, end in pairwise(offsets)] == list(header.page_sizes)


def test_an_hour_at_constant_bit_rate_has_a_short_head() -> None:
    """The offset table counts runs of equal sizes: a seek in an hour fetches a head of a few hundred bytes."""
    sizes = (3077,) * 3599 + (1200,)
    header = Header(RECORDING, 1, "audio/ogg; codecs=opus", 1000, sizes, bytes(150))
    assert len(vault_object.encode_head(header)) < 500


def test_opened_pages_are_the_file() -> None:
    """Header pages and opened segments, in order, are the virtual file."""
    opened = [vault_object.open_segment(HEAD, index, LEAVES[index], SEGMENTS[index]) for index in range(4)]
    assert opened == PAGES
    assert HEAD.header.header_pages == HEADER_PAGES


@pytest.mark.parametrize("index", range(4))
def test_every_changed_bit_of_a_segment_is_noticed(index: int) -> None:
    """Commitment, ciphertext and tag: each bit of a stored segment counts."""
    for bit in range(len(SEGMENTS[index]) * 8):
        changed = bytearray(SEGMENTS[index])
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            vault_object.open_segment(HEAD, index, LEAVES[index], bytes(changed))


@given(st.binary(min_size=32, max_size=32).filter(lambda key: key != LEAVES[1]))
@settings(max_examples=50)
def test_another_key_fails_by_the_commitment(key: bytes) -> None:
    """A segment opens under one key only, and is refused before anything is decrypted."""
    with pytest.raises(IntegrityError, match="another key or in another place"):
        vault_object.open_segment(HEAD, 1, key, SEGMENTS[1])


def test_a_segment_in_another_place_does_not_open() -> None:
    """Not at another index under either leaf key, and not under another head."""
    for key in LEAVES[:2]:
        with pytest.raises(IntegrityError, match="another place"):
            vault_object.open_segment(HEAD, 1, key, SEGMENTS[0])
    header = replace(HEAD.header, recording=OTHER_RECORDING)
    other = Head(header, vault_object.encode_head(header))
    with pytest.raises(IntegrityError, match="another place"):
        vault_object.open_segment(other, 0, LEAVES[0], SEGMENTS[0])


@pytest.mark.parametrize("damaged", [b"", SEGMENTS[0][:-1], SEGMENTS[0] + b"\0"], ids=["empty", "short", "long"])
def test_a_segment_of_another_length(damaged: bytes) -> None:
    """A segment is as long as the head says."""
    with pytest.raises(IntegrityError, match="length"):
        vault_object.open_segment(HEAD, 0, LEAVES[0], damaged)


@pytest.mark.parametrize("change", [b"", b"\0"])
def test_bytes_that_do_not_fill_their_span(change: bytes) -> None:
    """What is cut into segments is neither shorter nor longer than they are."""
    data = SEALED.data[HEAD.size_bytes :]
    with pytest.raises(IntegrityError):
        HEAD.split(0, 3, data + change if change else data[:-1])


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (0, 4), (2, 1)])
def test_segments_that_do_not_exist(first: int, last: int) -> None:
    """Asking for them is the caller's mistake."""
    with pytest.raises(ValueError, match="no range of 4 segments"):
        HEAD.span(first, last)


def test_pages_that_do_not_fit_the_head() -> None:
    """What is sealed is what the head says."""
    with pytest.raises(ValueError, match="size in the header"):
        list(vault_object.seal_segments(HEAD, LEAVES, PAGES[::-1]))
    with pytest.raises(ValueError, match="argument"):
        list(vault_object.seal_segments(HEAD, LEAVES, PAGES[:3]))


UNFIT = {
    "no segment": {"page_sizes": ()},
    "an empty page": {"page_sizes": (0,)},
    "a page above Ogg's limit": {"page_sizes": (65_308,)},
    "generation zero": {"generation": 0},
    "segments of no length": {"segment_ms": 0},
    "segments of more than a minute": {"segment_ms": 60_001},
    "words for a media type": {"media_type": "Alice called Bob"},
    "a foreign id": {"recording": RecordingId("+442079460123")},
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_a_header_outside_the_format_is_not_written(change: dict[str, object]) -> None:
    """Nor could a caller smuggle personal data into it."""
    with pytest.raises(MalformedInput):
        vault_object.encode_head(replace(HEAD.header, **change))  # type: ignore[arg-type]


def spelled(**changes: object) -> bytes:
    """The head with some fields of its JSON exchanged, a None taken out."""
    value = json.loads(SEALED.data[8 : HEAD.size_bytes]) | changes
    value = {name: field for name, field in value.items() if field is not None}
    body = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return b"DTV1" + len(body).to_bytes(4, "big") + body


BODY = SEALED.data[8 : HEAD.size_bytes]
REFUSED_HEADS = {
    "nothing": b"",
    "another magic": b"DTV2" + SEALED.data[4:],
    "cut": SEALED.data[: HEAD.size_bytes - 1],
    "a length beyond all bounds": b"DTV1\xff\xff\xff\xff" + BODY,
    "no JSON": b"DTV1\0\0\0\x01{",
    "no object": b"DTV1\0\0\0\x02[]",
    "white space": b"DTV1" + (len(BODY) + 1).to_bytes(4, "big") + BODY.replace(b":", b": ", 1),
    "another format": spelled(format=2),
    "a field more": spelled(caller="x"),
    "a field less": spelled(generation=None),
    "a boolean for a number": spelled(generation=True),
    "a number for a text": spelled(media_type=1),
    "no base64": spelled(header_pages="***"),
    "base64 with loose ends": spelled(header_pages="QQ==QQ=="),
    "another segment count": spelled(segment_count=5),
    "a table that is none": spelled(offset_table={}),
    "a run that is none": spelled(offset_table=[[4]]),
    "an endless run": spelled(offset_table=[[2**40, 40]]),
    "a run of nothing": spelled(offset_table=[[0, 40], [3, 40], [1, 33]]),
    "a run in two pieces": spelled(offset_table=[[2, 40], [1, 40], [1, 33]]),
}


@pytest.mark.parametrize("data", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
def test_a_head_outside_the_format_is_not_read(data: bytes) -> None:
    """Only what ``encode_head`` writes is a head."""
    with pytest.raises(MalformedInput):
        vault_object.parse_head(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_only_malformed_input_leaves_the_reader(data: st.DataObject) -> None:
    """Bytes are refused, or they are the one spelling of what was read."""
    changed = bytearray(SEALED.data[: HEAD.size_bytes])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        head = vault_object.parse_head(bytes(changed))
    except MalformedInput:
        return
    assert vault_object.encode_head(head.header) == changed[: head.size_bytes]
