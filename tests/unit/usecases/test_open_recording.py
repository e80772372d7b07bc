"""Opening a recording: only what was asked for is fetched, derived and released, and only if all of it is genuine."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain import keytree, vault_object
from dualtone.domain.audio.ogg import Page
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound
from dualtone.domain.kek import KeyScope
from dualtone.usecases import wrap_keys
from dualtone.usecases.seal_recording import SealedRecording
from tests.vault_samples import (
    ACME,
    GLOBEX,
    HEADER_PAGES,
    KEY_A,
    KEY_B,
    OTHER_RECORDING,
    RECORDING,
    P256Signer,
    Row,
    Vault,
    pages_of,
    sealed,
)

PAGES = pages_of(20, body_bytes=60, last_bytes=17)
FILE = HEADER_PAGES + b"".join(PAGES)
SEALED = sealed(PAGES)
SEGMENT_BYTES = len(PAGES[0]) + vault_object.OVERHEAD_BYTES


def stored(vault: Vault) -> Row:
    return vault.store(SEALED)


def test_the_whole_file() -> None:
    """All of it is the .opus file that was sealed."""
    vault = Vault()
    row = stored(vault)
    layout = vault.opener.layout(row)
    assert layout.total_bytes == len(FILE)
    assert layout.header_pages == HEADER_PAGES
    assert [FILE[a:b] for a, b in pairwise(layout.page_offsets)] == PAGES
    assert vault.opener.read(row, 0, len(FILE) - 1) == FILE


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_range(data: st.DataObject) -> None:
    """A range is answered with exactly its bytes, from exactly the segments it touches, by one contiguous fetch."""
    vault = Vault()
    row = stored(vault)
    first = data.draw(st.integers(0, len(FILE) - 1))
    last = data.draw(st.integers(first, len(FILE) - 1))
    layout = vault.opener.layout(row)
    vault.objects.fetched.clear()
    assert vault.opener.read(row, first, last) == FILE[first : last + 1]
    ends = pairwise(layout.page_offsets)
    touched = [index for index, (start, end) in enumerate(ends) if first < end and last >= start]
    assert list(layout.segments(first, last)) == touched
    head = vault_object.parse_head(SEALED.data)
    assert vault.objects.fetched == ([head.span(touched[0], touched[-1])] if touched else [])
    expected = (touched[0] * 1000, (touched[-1] + 1) * 1000) if touched else None
    assert layout.span_ms(first, last) == expected


def test_only_the_keys_of_those_seconds_are_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ: feature B13: playing some seconds derives their leaf keys and no others."""
    vault = Vault()
    row = stored(vault)
    opened: list[int] = []
    derived: list[tuple[int, int]] = []
    original_open, original_derive = vault_object.open_segment, keytree.derive_kept

    def noting_open(head: Any, index: int, *rest: Any) -> bytes:
        opened.append(index)
        return original_open(head, index, *rest)

    def noting_derive(nodes: Any, first: int, last: int) -> Any:
        derived.append((first, last))
        return original_derive(nodes, first, last)

    monkeypatch.setattr(vault_object, "open_segment", noting_open)
    monkeypatch.setattr(keytree, "derive_kept", noting_derive)
    offsets = vault.opener.layout(row).page_offsets
    vault.opener.read(row, offsets[7] + 5, offsets[9] + 5)
    assert opened == [7, 8, 9]
    assert derived == [(7, 9)]


def test_a_minute_in_an_hour_fetches_a_minute() -> None:
    """PERFORMANCE: a seek in an hour fetches, the head included, at most the seconds asked for plus two segments."""
    vault = Vault()
    pages = pages_of(3600, body_bytes=3000, last_bytes=1000)
    row = vault.store(sealed(pages))
    start = len(HEADER_PAGES) + sum(len(page) for page in pages[: 47 * 60])
    length = sum(len(page) for page in pages[47 * 60 : 48 * 60])
    assert vault.opener.read(row, start, start + length - 1) == b"".join(pages[47 * 60 : 48 * 60])
    segment = len(pages[0]) + vault_object.OVERHEAD_BYTES
    assert vault.objects.fetched_bytes <= (60 + 2) * segment
    assert len(vault.objects.fetched) == 2
    vault.objects.fetched.clear()
    vault.opener.read(row, start + 100, start + 100)
    assert vault.objects.fetched_bytes == segment


def test_the_header_pages_need_no_key() -> None:
    """Asking for the file's head alone asks no custodian and releases no second."""
    vault = Vault()
    row = stored(vault)
    assert vault.opener.read(row, 0, 3) == b"OggS"
    assert vault.custodians.asked == []


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (5, 4), (0, len(FILE)), (len(FILE), len(FILE))])
def test_a_range_outside_the_file(first: int, last: int) -> None:
    """REQ: RFC 9110 section 15.5.17: what cannot be satisfied is answered with 416."""
    vault = Vault()
    row = stored(vault)
    with pytest.raises(MalformedInput) as caught:
        vault.opener.read(row, first, last)
    assert caught.value.http_status == 416


def test_an_altered_object_releases_nothing() -> None:
    """A changed bit in a segment refuses the read; other segments still open."""
    vault = Vault()
    row = stored(vault)
    data = bytearray(SEALED.data)
    position = vault_object.parse_head(SEALED.data).span(5, 5)[0] + 40
    data[position] ^= 1
    vault.objects.objects[row.vault_key, "v1"] = bytes(data)
    offsets = vault.opener.layout(row).page_offsets
    with pytest.raises(IntegrityError, match="segment 5 was altered"):
        vault.opener.read(row, 0, len(FILE) - 1)
    assert vault.opener.read(row, offsets[6], offsets[7] - 1) == PAGES[6]


def test_a_truncated_object_releases_nothing_of_what_is_missing() -> None:
    """The stored object ends early."""
    vault = Vault()
    row = stored(vault)
    vault.objects.objects[row.vault_key, "v1"] = SEALED.data[:-1]
    with pytest.raises(IntegrityError):
        vault.opener.read(row, 0, len(FILE) - 1)


def test_an_altered_head_is_refused() -> None:
    """The head is checked against the signed manifest before a byte of it is used."""
    vault = Vault()
    row = stored(vault)
    vault.objects.objects[row.vault_key, "v1"] = SEALED.data.replace(b'"segment_ms":1000', b'"segment_ms":1001')
    with pytest.raises(IntegrityError, match="altered"):
        vault.opener.layout(row)


def test_the_object_of_another_recording_is_refused() -> None:
    """An index row that was pointed elsewhere opens nothing: neither its object, nor its manifest, nor its signer."""
    vault = Vault()
    row = stored(vault)
    other = vault.store(sealed(pages_of(20, 60, 17), recording=OTHER_RECORDING, root=bytes(32)))
    with pytest.raises(IntegrityError, match="swapped"):
        vault.opener.layout(replace(row, vault_key=other.vault_key.replace(RECORDING, OTHER_RECORDING)))
    with pytest.raises(IntegrityError, match="swapped"):
        vault.opener.layout(replace(row, recording_id=OTHER_RECORDING))
    with pytest.raises(IntegrityError, match="swapped"):
        vault.opener.layout(replace(row, tenant=GLOBEX))
    forged = P256Signer(2)
    with pytest.raises(IntegrityError, match="wrong signer"):
        vault.opener.layout(replace(row, manifest_signature=forged.sign_manifest(row.manifest)))
    with pytest.raises(IntegrityError, match="not trusted"):
        vault.opener.layout(replace(row, signing_key_arn=forged.key_id))


def test_the_keys_of_another_recording_are_refused() -> None:
    """A key item that was moved between recordings opens nothing."""
    vault = Vault()
    row = stored(vault)
    vault.store(sealed(PAGES, recording=OTHER_RECORDING, root=bytes(32)))
    vault.keys.items[ACME, RECORDING, 1] = vault.keys.items[ACME, OTHER_RECORDING, 1]
    with pytest.raises(IntegrityError):
        vault.opener.read(row, 0, len(FILE) - 1)


@pytest.mark.parametrize("seconds", [20, 21])
def test_the_keys_of_another_attempt_are_refused(seconds: int) -> None:
    """A key item of the same recording, wrapped for another object of it, opens nothing."""
    vault = Vault()
    row = stored(vault)
    vault.keys.items[ACME, RECORDING, 1] = wrap_keys.wrap(
        vault.custodians,
        nodes=keytree.full(bytes(32), seconds),
        scope=KeyScope(ACME, RECORDING),
        key_a=KEY_A,
        key_b=KEY_B,
        nonce=bytes(12),
        created_at_ms=0,
    )
    with pytest.raises(IntegrityError):
        vault.opener.read(row, 0, len(FILE) - 1)


def test_without_keys_nothing_opens() -> None:
    """A recording whose item was destroyed still has a layout, and no second of it can be heard."""
    vault = Vault()
    row = stored(vault)
    vault.keys.items.clear()
    assert vault.opener.layout(row).total_bytes == len(FILE)
    with pytest.raises(NotFound):
        vault.opener.read(row, len(FILE) - 1, len(FILE) - 1)


def punctured(vault: Vault, recording: SealedRecording, first: int, last: int) -> None:
    """Replaces a recording's keys by those without some seconds."""
    vault.keys.items[ACME, RECORDING, 1] = wrap_keys.wrap(
        vault.custodians,
        nodes=keytree.puncture(recording.nodes, first, last),
        scope=KeyScope(ACME, RECORDING, 2),
        key_a=KEY_A,
        key_b=KEY_B,
        nonce=bytes(12),
        created_at_ms=0,
    )


def test_a_punctured_second_is_silence_in_its_place() -> None:
    """Of the same size, number and granule position, with a valid checksum; those beside it open as before."""
    vault, pages = Vault(), pages_of(20, body_bytes=400, last_bytes=400)
    row, file = vault.store(sealed(pages)), HEADER_PAGES + b"".join(pages)
    punctured(vault, sealed(pages), 4, 5)
    offsets = vault.opener.layout(row).page_offsets
    opened = vault.opener.read(row, 0, len(file) - 1)
    assert len(opened) == len(file)
    assert opened[: offsets[4]] + opened[offsets[6] :] == file[: offsets[4]] + file[offsets[6] :]
    for index in (4, 5):
        page = Page.parse(opened[offsets[index] : offsets[index + 1]])
        assert page.encode() == opened[offsets[index] : offsets[index + 1]]
        assert (page.granule, int.from_bytes(page.head[18:22], "little")) == (48_000 * (index + 1), index + 2)
        assert [packet[:1] for packet in page.packets()[:-1]] == [b"\x9c"] * 49
    assert vault.opener.read(row, offsets[4] + 3, offsets[5] + 9) == opened[offsets[4] + 3 : offsets[5] + 10]


def test_punctured_seconds_alone_are_not_even_fetched() -> None:
    """There is nothing to open."""
    vault, pages = Vault(), pages_of(20, body_bytes=400, last_bytes=400)
    row = vault.store(sealed(pages))
    punctured(vault, sealed(pages), 4, 19)
    offsets = vault.opener.layout(row).page_offsets
    vault.objects.fetched.clear()
    last = Page.parse(vault.opener.read(row, offsets[19], offsets[20] - 1))
    assert vault.objects.fetched == []
    assert last.head[5] == 4  # REQ: RFC 3533 section 6: the last page of a stream says so


def test_only_a_few_heads_are_kept() -> None:
    """Memory does not grow with the number of recordings that are played."""
    vault = Vault()
    rows = [replace(stored(vault), vault_version_id=f"v{number}") for number in range(40)]
    for row in rows:
        vault.objects.objects[row.vault_key, row.vault_version_id] = SEALED.data
        vault.opener.layout(row)
    vault.objects.fetched.clear()
    vault.opener.layout(rows[-1])
    assert vault.objects.fetched == []
    vault.opener.layout(rows[0])
    assert len(vault.objects.fetched) == 1
