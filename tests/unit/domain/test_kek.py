"""Two custodians: one share opens nothing, and nothing opens in another place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import kek, keytree
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.kek import KeyItem, KeyScope
from tests.vault_samples import ACME, GLOBEX, OTHER_RECORDING, RECORDING

A = bytes(range(0x40, 0x60))
B = bytes(range(0x80, 0xA0))
NONCE = bytes(12)
SCOPE = KeyScope(ACME, RECORDING)
NODES = keytree.puncture(keytree.full(bytes(range(32)), 60), 7, 9)
SEALED = kek.seal_nodes(NODES, A, B, SCOPE, NONCE)

shares = st.binary(min_size=32, max_size=32)


def test_both_shares_open() -> None:
    """What both custodians' shares sealed, both open."""
    assert kek.open_nodes(SEALED, A, B, SCOPE) == NODES


@given(shares.filter(lambda share: share != B))
def test_one_share_with_any_other_opens_nothing(share: bytes) -> None:
    """REQ: PCI DSS 4.0 requirement 3.7.6: whoever holds one share is as far from the key as whoever holds none."""
    with pytest.raises(IntegrityError):
        kek.open_nodes(SEALED, A, share, SCOPE)
    with pytest.raises(IntegrityError):
        kek.open_nodes(SEALED, share, B, SCOPE)


def test_exchanged_shares_open_nothing() -> None:
    """A's share is not B's."""
    with pytest.raises(IntegrityError):
        kek.open_nodes(SEALED, B, A, SCOPE)


@given(shares, shares, st.integers(0, 255))
def test_every_bit_of_each_share_counts(a: bytes, b: bytes, bit: int) -> None:
    """Each share is of full strength: no bit of either is without effect on the key."""
    if a == b:
        return
    flip = (1 << bit).to_bytes(32, "big")
    other_a = bytes(x ^ y for x, y in zip(a, flip, strict=True))
    other_b = bytes(x ^ y for x, y in zip(b, flip, strict=True))
    key = kek.derive_kek(a, b, SCOPE)
    if other_a != b:
        assert kek.derive_kek(other_a, b, SCOPE) != key
    if other_b != a:
        assert kek.derive_kek(a, other_b, SCOPE) != key


@pytest.mark.parametrize(
    ("a", "b"),
    [(A[:16], B), (A, B[:16]), (A[:16], B[:16]), (b"", A + B), (A + B, b""), (A + b"\0", B), (A, A)],
    ids=["half A", "half B", "two halves", "all in B", "all in A", "long A", "the same twice"],
)
def test_a_share_that_is_a_part_is_refused(a: bytes, b: bytes) -> None:
    """REQ: PCI DSS 4.0 requirement 3.7.6: a key simply split between custodians is not split knowledge."""
    with pytest.raises(IntegrityError):
        kek.derive_kek(a, b, SCOPE)


@pytest.mark.parametrize(
    "scope",
    [
        KeyScope(GLOBEX, RECORDING),
        KeyScope(ACME, OTHER_RECORDING),
        KeyScope(ACME, RECORDING, 2),
        KeyScope(TenantId("acme-"), RecordingId("ec_" + RECORDING[3:])),
    ],
    ids=["another tenant", "another recording", "another version", "a shifted boundary"],
)
def test_keys_moved_elsewhere_do_not_open(scope: KeyScope) -> None:
    """REQ: PCI DSS 4.0 requirement 3.7.7: keys substituted between recordings or tenants are rejected."""
    assert scope.info != SCOPE.info
    assert kek.derive_kek(A, B, scope) != kek.derive_kek(A, B, SCOPE)
    with pytest.raises(IntegrityError):
        kek.open_nodes(SEALED, A, B, scope)


def test_every_changed_bit_is_noticed() -> None:
    """Nonce, ciphertext and tag: each bit counts, and nothing may be missing or follow."""
    for position in range(len(SEALED) * 8):
        changed = bytearray(SEALED)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError):
            kek.open_nodes(bytes(changed), A, B, SCOPE)
    for damaged in (b"", SEALED[:11], SEALED[:27], SEALED[:-1], SEALED + b"\0", SEALED[1:]):
        with pytest.raises(IntegrityError):
            kek.open_nodes(damaged, A, B, SCOPE)


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_nonce_of_another_size(size: int) -> None:
    """GCM's nonce is 96 bits."""
    with pytest.raises(ValueError, match="12 bytes"):
        kek.seal_nodes(NODES, A, B, SCOPE, bytes(size))


def test_the_context_names_the_scope_and_nothing_personal() -> None:
    """CloudTrail shows the EncryptionContext: ids only."""
    assert SCOPE.context("A") == {"tenant": ACME, "recording": RECORDING, "custodian": "A", "version": "1"}
    assert SCOPE.context("B")["custodian"] == "B"


def test_keys_are_not_printed() -> None:
    """What a traceback shows of an item is its version, its KMS keys and its age."""
    item = KeyItem(1, b"sealed nodes", b"share a", b"share b", "arn:a", "arn:b", 5)
    assert repr(item) == "KeyItem(version=1, key_a_arn='arn:a', key_b_arn='arn:b', created_at_ms=5)"
