"""Sealing a recording: what is stored shows nothing of what was said, and every attempt looks different."""

from __future__ import annotations

import zlib

import pytest

from dualtone.domain import keytree, vault_object
from dualtone.domain.errors import MalformedInput
from dualtone.usecases.seal_recording import seal
from tests.vault_samples import (
    ACME,
    ATTEMPT,
    CALL,
    HEADER_PAGES,
    RECORDING,
    ogg_page,
    pages_of,
    sealed,
)


def test_the_parts_of_a_sealed_recording_fit_each_other() -> None:
    """Object, manifest, name and keys speak of one recording."""
    result = sealed(pages_of(5))
    assert result.vault_key == f"{ACME}/{RECORDING}/0001/{ATTEMPT}.dtv"
    assert result.segment_count == 5 == result.nodes.count
    assert result.sha256 == result.manifest.object_sha256
    assert result.manifest.object_size_bytes == len(result.data)
    assert result.manifest_payload == result.manifest.encode()
    assert result.nodes == keytree.full(bytes(range(32)), 5)


def test_a_recording_of_one_second() -> None:
    """The shortest recording has one segment."""
    assert sealed(pages_of(1)).segment_count == 1


def test_what_is_stored_is_ciphertext() -> None:
    """REQ: features Q22 and S6: nothing of a page is in the object, and the segments do not compress."""
    pages = [ogg_page(b"the same words again and again  " * 90, number) for number in range(50)]
    data = sealed(pages).data
    head = vault_object.parse_head(data)
    body = data[head.size_bytes :]
    assert not any(page[start : start + 16] in body for page in pages for start in range(0, len(page), 16))
    assert b"the same" not in body
    assert b"OggS" not in data
    assert len(zlib.compress(body, 9)) >= len(body)


def test_equal_pages_and_equal_recordings_look_different() -> None:
    """Every segment has its own key, every attempt its own root."""
    pages = [ogg_page(b"hum" * 100)] * 4
    once, again = sealed(pages, root=bytes(32)), sealed(pages, root=bytes(31) + b"\x01")
    head = vault_object.parse_head(once.data)
    segments = [bytes(part) for part in head.split(0, 3, once.data[head.size_bytes :])]
    segments += [bytes(part) for part in head.split(0, 3, again.data[head.size_bytes :])]
    assert len({segment[:32] for segment in segments}) == 8
    assert len({segment[32:] for segment in segments}) == 8


UNFIT = {
    "no page": (HEADER_PAGES, []),
    "two pages in one": (HEADER_PAGES, [ogg_page(b"a") * 2]),
    "half a page": (HEADER_PAGES, [ogg_page(b"abc")[:-1]]),
    "no page at all": (HEADER_PAGES, [b"PCM"]),
    "header pages that are none": (b"OpusHead", [ogg_page(b"a")]),
}


@pytest.mark.parametrize(("header_pages", "pages"), UNFIT.values(), ids=UNFIT)
def test_only_whole_ogg_pages_are_sealed(header_pages: bytes, pages: list[bytes]) -> None:
    """A segment's plaintext is one complete page."""
    with pytest.raises(MalformedInput):
        seal(
            header_pages,
            pages,
            tenant=ACME,
            recording=RECORDING,
            generation=1,
            attempt=ATTEMPT,
            call=CALL,
            started_at_ms=0,
            created_at_ms=0,
            agent_manifest_sha256="0" * 64,
            root=bytes(32),
        )


def test_keys_and_audio_are_not_printed() -> None:
    """What a traceback shows of a sealed recording is its manifest and its name."""
    shown = repr(sealed(pages_of(2)))
    assert "data=" not in shown
    assert "nodes=" not in shown
