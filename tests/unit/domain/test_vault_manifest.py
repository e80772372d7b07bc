"""The signed manifest of a recording: one spelling, nothing more and nothing less."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain import vault_manifest
from dualtone.domain.errors import MalformedInput
from tests.vault_samples import ACME, ATTEMPT, RECORDING, pages_of, sealed

MANIFEST = sealed(pages_of(3)).manifest
PAYLOAD = MANIFEST.encode()


def spelled(**changes: object) -> bytes:
    value = {name: field for name, field in (json.loads(PAYLOAD) | changes).items() if field is not None}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_it_is_read_as_it_was_written() -> None:
    """A manifest's payload gives the manifest back."""
    assert vault_manifest.parse(PAYLOAD) == MANIFEST


def test_the_name_of_an_object_carries_its_attempt() -> None:
    """Two attempts never write to one name, and a tenant's objects share a prefix."""
    assert vault_manifest.object_key(ACME, RECORDING, 3, ATTEMPT) == f"acme/{RECORDING}/0003/{ATTEMPT}.dtv"


REFUSED = {
    "nothing": b"",
    "no object": b"[]",
    "white space": PAYLOAD.replace(b":", b": ", 1),
    "another order": json.dumps(dict(reversed(json.loads(PAYLOAD).items())), separators=(",", ":")).encode(),
    "a byte behind": PAYLOAD + b"\n",
    "another format": spelled(format=2),
    "a field more": spelled(caller="x"),
    "a field less": spelled(call=None),
    "no segments": spelled(segment_count=0),
    "a boolean for a number": spelled(generation=True),
    "a time before all time": spelled(started_at_ms=-1),
    "a short hash": spelled(merkle_root="00"),
    "a hash in capitals": spelled(object_sha256="A" * 64),
    "a number for a hash": spelled(header_sha256=1),
    "a number for a media type": spelled(media_type=1),
    "a tenant that is none": spelled(tenant="Acme Ltd"),
    "a list for a recording": spelled(recording=[]),
    "an attempt that is none": spelled(attempt="1"),
    "a call that is none": spelled(call="+44"),
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused(payload: bytes) -> None:
    """Only what ``encode`` writes is a manifest."""
    with pytest.raises(MalformedInput):
        vault_manifest.parse(payload)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_only_malformed_input_leaves_the_reader(data: st.DataObject) -> None:
    """Bytes are refused, or they are the one spelling of what was read."""
    changed = bytearray(PAYLOAD)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        manifest = vault_manifest.parse(bytes(changed))
    except MalformedInput:
        return
    assert manifest.encode() == changed
