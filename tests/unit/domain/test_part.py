"""The part file: sealed records in a signed, chained file."""

from __future__ import annotations

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
from dualtone.domain.part import PartDigest, PartHeader, RecordHead, RecordType

CALL = CallId("01ARYZ6S410000000000000000")
HEADER = PartHeader(TenantId("acme"), AgentId("agt_01ARYZ6S410000000000000000"), CALL, 0, 0, part.NO_PREVIOUS)
KEY = ec.derive_private_key(7, ec.SECP256R1())
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
AEAD = AESGCM(bytes(range(32)))


SECOND_US = 1_000_000
HEAD = RecordHead(RecordType.MEDIA, 3, 0, 0, SECOND_US - 1)


def make(plaintexts: list[bytes]) -> bytes:
    """A whole signed part with these records, each of which holds one second."""
    body = part.encode_header(HEADER)
    digest = PartDigest(body)
    for sequence, plaintext in enumerate(plaintexts):
        head = HEAD._replace(sequence=sequence, from_us=sequence * SECOND_US)
        frame = part.seal(AEAD, CALL, 0, head, plaintext)
        digest.add(frame)
        body += frame
    signed = signing.message("part", digest.value)
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
    ends = [head, head + 27 + 20 + 16, head + 2 * (27 + 16) + 50]
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
    """Call, epoch, type, stream set, sequence and time are all bound by the tag."""
    record = part.read(make([b"second"])).records[0]
    frame = part.seal(AEAD, CALL, 0, HEAD, b"second")
    assert (record.head, bytes(record.sealed)) == (HEAD, frame[part.FRAME_HEAD_BYTES :])
    strangers = [
        part.seal(AEAD, CallId("01ARYZ6S410000000000000001"), 0, HEAD, b"second"),
        part.seal(AEAD, CALL, 1, HEAD, b"second"),
        *(
            part.seal(AEAD, CALL, 0, HEAD._replace(**change), b"second")
            for change in (
                {"type": RecordType.SESSION},
                {"stream_set": 4},
                {"sequence": 1},
                {"from_us": 1},
                {"span_us": SECOND_US},
            )
        ),
    ]
    for stranger in strangers:
        moved = part.SealedRecord(HEAD, memoryview(stranger[part.FRAME_HEAD_BYTES :]))
        with pytest.raises(IntegrityError):
            part.unseal(AEAD, HEADER, moved)


SPANS = st.lists(st.tuples(st.integers(0, 7 * SECOND_US), st.integers(0, 7 * SECOND_US)), max_size=4)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), SPANS, st.integers(0, 200))
def test_what_is_cut_is_gone_and_everything_still_verifies(
    plaintexts: list[bytes], spans: list[tuple[int, int]], torn: int
) -> None:
    """Records that overlap a span become stubs; digest and signature stay; again changes nothing; torn parts too."""
    whole = make(plaintexts)
    data = whole[: len(whole) - torn] if torn < len(whole) - len(part.encode_header(HEADER)) else whole
    before, result = part.read(data), part.cut(data, spans)
    after = part.read(result)
    assert (after.digest, after.signature, after.header) == (before.digest, before.signature, HEADER)
    assert part.cut(result, spans) == result
    if after.signature:
        after.verify(PUBLIC)
    for old, new in zip(before.records, after.records, strict=True):
        end_us = old.head.from_us + old.head.span_us
        hit = any(first <= end_us and last >= old.head.from_us for first, last in spans)
        assert new.head == old.head._replace(type=RecordType.REMOVED if hit else RecordType.MEDIA)
        assert (bytes(old.sealed) in result) is not hit


def test_only_media_is_cut() -> None:
    """What was signalled at that time stays; a stub that does not hold a hash is malformed."""
    body = part.encode_header(HEADER) + part.seal(AEAD, CALL, 0, HEAD._replace(type=RecordType.SESSION), b"who")
    assert part.cut(body, [(0, SECOND_US)]) == body
    cut = part.cut(make([b"second"]), [(0, 0)])
    with pytest.raises(MalformedInput):
        part.read(cut.replace((23 + 32).to_bytes(4, "big"), (23 + 31).to_bytes(4, "big"), 1))


def test_another_frame_does_not_pass_for_a_cut_one() -> None:
    """The stub is bound by the digest: neither its hash nor what it says of itself can be changed unnoticed."""
    cut = part.cut(make([b"first", b"second"]), [(0, 0)])
    for position in range(len(cut)):
        changed = bytearray(cut)
        changed[position] ^= 1
        with pytest.raises((MalformedInput, IntegrityError)):
            part.read(bytes(changed)).verify(PUBLIC)


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
