"""The part file: sealed records in a signed, chained file."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import part, signing
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.part import PartHeader, RecordType

CALL = CallId("01ARYZ6S410000000000000000")
HEADER = PartHeader(TenantId("acme"), AgentId("agt_01ARYZ6S410000000000000000"), CALL, 0, 0, part.NO_PREVIOUS)
KEY = ec.derive_private_key(7, ec.SECP256R1())
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
AEAD = AESGCM(bytes(range(32)))


def make(plaintexts: list[bytes]) -> bytes:
    """A whole signed part with these records."""
    body = part.encode_header(HEADER)
    for sequence, plaintext in enumerate(plaintexts):
        body += part.seal(AEAD, CALL, 0, RecordType.MEDIA, 3, sequence, plaintext)
    signed = signing.message("part", hashlib.sha256(body).digest())
    return body + part.encode_trailer(KEY.sign(signed, ec.ECDSA(hashes.SHA256())), len(plaintexts))


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_what_is_sealed_is_opened(plaintexts: list[bytes]) -> None:
    """A part reads back: header, signature, every record."""
    read = part.read(make(plaintexts))
    read.verify(PUBLIC)
    assert read.header == HEADER
    assert [part.unseal(AEAD, read.header, record) for record in read.records] == plaintexts


def test_every_changed_byte_is_detected() -> None:
    """No byte of a part can change unnoticed."""
    data = make([b"first second", b"second second"])
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises((MalformedInput, IntegrityError)):
            part.read(bytes(changed)).verify(PUBLIC)


def test_every_torn_tail_keeps_its_whole_records() -> None:
    """However a file is cut, the whole records before the tear are there and nothing else."""
    data = make([b"a" * 20, b"b" * 30])
    head = len(part.encode_header(HEADER))
    ends = [head, head + 15 + 20 + 16, head + 2 * (15 + 16) + 50]
    for length in range(head, len(data)):
        torn = part.read(data[:length])
        whole = sum(end <= length for end in ends) - 1
        assert (len(torn.records), torn.signature) == (whole, None)
        assert part.valid_length(data[:length]) == ends[whole]
        with pytest.raises(IntegrityError):
            torn.verify(PUBLIC)
    for length in range(head):
        with pytest.raises(MalformedInput):
            part.read(data[:length])


def test_a_record_opens_only_in_its_own_place() -> None:
    """Call, epoch, type, stream set and sequence are all bound by the tag."""
    record = part.read(make([b"second"])).records[0]
    frame = part.seal(AEAD, CALL, 0, RecordType.MEDIA, 3, 0, b"second")
    assert bytes(record.sealed) == frame[15:]
    strangers = [
        part.seal(AEAD, CallId("01ARYZ6S410000000000000001"), 0, RecordType.MEDIA, 3, 0, b"second"),
        part.seal(AEAD, CALL, 1, RecordType.MEDIA, 3, 0, b"second"),
        part.seal(AEAD, CALL, 0, RecordType.SESSION, 3, 0, b"second"),
        part.seal(AEAD, CALL, 0, RecordType.MEDIA, 4, 0, b"second"),
        part.seal(AEAD, CALL, 0, RecordType.MEDIA, 3, 1, b"second"),
    ]
    for stranger in strangers:
        moved = part.SealedRecord(RecordType.MEDIA, 3, 0, memoryview(stranger[15:]))
        with pytest.raises(IntegrityError):
            part.unseal(AEAD, HEADER, moved)


@pytest.mark.parametrize("data", [b"", b"DTP1", b"DTP2" + bytes(40), b"DTP1" + (2**31).to_bytes(4, "big") + bytes(50)])
def test_malformed(data: bytes) -> None:
    """What is no part is MalformedInput."""
    with pytest.raises(MalformedInput):
        part.read(data)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_only_malformed_input_escapes(garbage: bytes, position: int, value: int) -> None:
    """Arbitrary and mutated bytes raise nothing else."""
    data = bytearray(make([b"a second"]))
    data[position % len(data)] = value
    for candidate in (garbage, bytes(data), bytes(data) + garbage):
        try:
            part.read(candidate)
        except MalformedInput:
            continue
