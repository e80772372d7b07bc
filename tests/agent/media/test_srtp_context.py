"""Cryptographic contexts of SRTP: published vectors, every suite, keys that go, roll-overs that nobody heard."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pylibsrtp
import pytest

from dualtone.domain.errors import Unavailable
from sbc_agent.media import srtp_context
from sbc_agent.media.messages import KEY_BYTES, CryptoSpec, CryptoSuite
from sbc_agent.media.srtp import Unprotector
from sbc_agent.media.srtp_context import AUTHENTICATION_FAILED, OK, REPLAYED, TOO_OLD, CryptoContext, Library
from tests.agent.media import srtp_sender
from tests.agent.media.packets import packet, speech
from tests.agent.media.srtp_sender import Sender

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "srtp" / "vectors.json").read_text()
)
SUITES: tuple[CryptoSuite, ...] = tuple(KEY_BYTES)  # type: ignore[arg-type]


def sender(suite: CryptoSuite, *, mki: bytes = b"", seed: int = 0) -> Sender:
    return Sender(suite, bytes((seed + 7 * index) & 0xFF for index in range(KEY_BYTES[suite])), mki)


class Opener:
    """A context and the memory in which it opens packets."""

    def __init__(self, spec: CryptoSpec) -> None:
        self.context = CryptoContext(spec)
        self.memory = np.full(1_700, 0xEE, np.uint8)

    def open(self, data: bytes, *, at_any_roc: bool = False) -> tuple[int, bytes]:
        opens = self.context.open_at_any_roc if at_any_roc else self.context.open
        status, size = opens(data, self.memory.ctypes.data + 4)
        return status, self.memory[4 : 4 + size].tobytes()


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[name], ids=lambda vector: vector["source"])


def raw(vector: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


@of("counter_mode")
def test_the_senders_key_stream_is_the_standards(vector: dict[str, Any]) -> None:
    key, initial, stream = raw(vector, "key", "initial", "stream")
    assert srtp_sender.counter_mode(key, int.from_bytes(initial, "big"), len(stream)) == stream


@of("derivation")
def test_the_sender_derives_session_keys_as_the_standard(vector: dict[str, Any]) -> None:
    master, salt, *expected = raw(vector, "master_key", "master_salt", "key", "authentication_key", "salt")
    derived = [srtp_sender.derive(master, salt, label, len(one)) for label, one in enumerate(expected)]
    assert derived == expected


@of("galois")
def test_the_sender_seals_in_galois_mode_as_the_standard(vector: dict[str, Any]) -> None:
    key, salt, plain, protected = raw(vector, "key", "salt", "packet", "protected")
    assert srtp_sender.seal_galois(plain, key, salt, 0) == protected


@of("packets")
def test_a_published_packet_opens(vector: dict[str, Any]) -> None:
    master, plain, protected = raw(vector, "master", "packet", "protected")
    one = Sender(vector["suite"], master)
    assert one.protect(plain) == protected
    assert Opener(one.spec).open(protected) == (OK, plain)


@pytest.mark.parametrize("mki", [b"", b"\x01", b"12345678"], ids=["no MKI", "MKI of 1", "MKI of 8"])
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_opens_what_a_sender_protects(suite: CryptoSuite, mki: bytes) -> None:
    one = sender(suite, mki=mki)
    opener = Opener(one.spec)
    for number in range(70_000, 70_010):
        plain = packet(number, speech(1, number, 20 + number % 200))
        assert opener.open(one.protect(plain)) == (OK, plain)


@pytest.mark.parametrize("suite", SUITES)
def test_one_changed_bit_anywhere_is_not_authentic(suite: CryptoSuite) -> None:
    one = sender(suite)
    opener = Opener(one.spec)
    plain = packet(7, speech(1, 7, 20))
    data = one.protect(plain)
    for bit in range(16, 8 * len(data)):  # the first two bytes say how a packet is read
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert opener.open(bytes(changed))[0] != OK, bit
    assert opener.open(data) == (OK, plain)


@pytest.mark.parametrize("suite", SUITES)
def test_no_packet_opens_twice(suite: CryptoSuite) -> None:
    one = sender(suite)
    opener = Opener(one.spec)
    first, later = (one.protect(packet(number, speech(1, number))) for number in (1, 5_000))
    assert opener.open(first)[0] == OK
    assert opener.open(first)[0] == REPLAYED
    assert opener.open(later)[0] == OK
    assert opener.open(first)[0] == TOO_OLD


@pytest.mark.parametrize("suite", SUITES)
def test_a_packet_that_names_another_key_is_not_authentic(suite: CryptoSuite) -> None:
    data = sender(suite, mki=b"\x02").protect(packet(1, speech(1, 1)))
    assert Opener(sender(suite, mki=b"\x01").spec).open(data)[0] == AUTHENTICATION_FAILED


@pytest.mark.parametrize("size", range(30))
@pytest.mark.parametrize("mki", [b"", b"\x01\x02"], ids=["no MKI", "MKI"])
@pytest.mark.parametrize("suite", SUITES)
def test_what_is_shorter_than_a_packet_never_opens(suite: CryptoSuite, mki: bytes, size: int) -> None:
    data = sender(suite, mki=mki).protect(packet(1, speech(1, 1)))
    opener = Opener(sender(suite, mki=mki).spec)
    assert opener.open(data[:size])[0] != OK
    assert opener.open(data)[0] == OK


@pytest.mark.parametrize("roc", [1, 2, 33, 64])
@pytest.mark.parametrize("suite", SUITES)
def test_a_sender_that_rolled_over_before_it_was_heard_is_found(suite: CryptoSuite, roc: int) -> None:
    one = sender(suite, mki=b"\x09")
    opener = Opener(one.spec)
    first, second, wrapped = (packet(number, speech(1, number)) for number in (65_530, 65_535, 3))
    assert opener.open(one.protect(first, roc))[0] == AUTHENTICATION_FAILED
    assert opener.open(one.protect(first, roc), at_any_roc=True) == (OK, first)
    assert opener.open(one.protect(wrapped, roc + 1)) == (OK, wrapped)
    assert opener.open(one.protect(second, roc)) == (OK, second)


@pytest.mark.parametrize("suite", SUITES)
def test_a_sender_that_rolled_over_while_it_was_not_heard_is_found(suite: CryptoSuite) -> None:
    one = sender(suite)
    opener = Opener(one.spec)
    before, after, wrapped = (packet(number, speech(1, number)) for number in (40_000, 500, 501))
    assert opener.open(one.protect(before, 0))[0] == OK
    assert opener.open(one.protect(after, 3))[0] != OK
    assert opener.open(one.protect(after, 3), at_any_roc=True) == (OK, after)
    assert opener.open(one.protect(wrapped, 3)) == (OK, wrapped)
    assert opener.open(one.protect(wrapped, 4))[0] != OK


@pytest.mark.parametrize("suite", SUITES)
def test_a_search_that_finds_nothing_leaves_the_context_as_it_was(suite: CryptoSuite) -> None:
    one, other = sender(suite), sender(suite, seed=99)
    opener = Opener(one.spec)
    first, second = (packet(number, speech(1, number)) for number in (1, 2))
    assert opener.open(other.protect(first), at_any_roc=True)[0] == AUTHENTICATION_FAILED
    assert opener.open(one.protect(first)) == (OK, first)
    assert opener.open(other.protect(second), at_any_roc=True)[0] == AUTHENTICATION_FAILED
    assert opener.open(one.protect(second)) == (OK, second)
    rolled = packet(3, speech(1, 3))
    assert opener.open(one.protect(rolled, 1), at_any_roc=True) == (OK, rolled)


def test_a_closed_context_has_overwritten_its_key() -> None:
    one = sender("AEAD_AES_256_GCM")
    context = CryptoContext(one.spec)
    assert context.is_of(one.spec)
    context.close()
    assert not context.is_of(one.spec)
    assert context.is_of(one.spec.model_copy(update={"key": bytes(len(one.master))}))
    context.close()


@pytest.fixture
def library() -> Iterator[None]:
    """The library is loaded anew in the test, and after it."""
    srtp_context.library.cache_clear()
    yield
    srtp_context.library.cache_clear()


@pytest.mark.usefixtures("library")
def test_plain_rtp_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing, that is said when it is asked for or when a key comes, and not before."""
    monkeypatch.setitem(sys.modules, "pylibsrtp", None)
    unprotector = Unprotector(2)
    with pytest.raises(Unavailable, match="not installed"):
        srtp_context.prove()
    with pytest.raises(Unavailable, match="not installed"):
        unprotector.set_keys(0, [Sender(SUITES[0], bytes(KEY_BYTES[SUITES[0]])).spec])
    assert not unprotector.is_protected.any()
    assert not unprotector.is_used


@pytest.mark.usefixtures("library")
def test_a_library_that_hides_its_functions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build of pylibsrtp: its file is a library, and srtp_unprotect is not in it."""
    binding = SimpleNamespace(ffi=None, lib=None, __file__=None)  # the C library
    monkeypatch.setattr(pylibsrtp, "_binding", binding)
    with pytest.raises(Unavailable, match="lacks functions"):
        srtp_context.prove()
    with pytest.raises(AttributeError, match="srtp_unprotect"):
        Library(binding)


def test_this_machine_opens_every_suite() -> None:
    srtp_context.prove()
