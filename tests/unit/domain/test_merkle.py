"""RFC 9162: the tree hash, and proofs of inclusion that hold for one leaf in one place."""

from __future__ import annotations

import hashlib

import pytest

from dualtone.domain import merkle
from dualtone.domain.errors import IntegrityError

# The leaves and roots of the reference tests of Certificate Transparency (merkletree/merkle_tree_test of the original
# implementation, kept by every later one): the root over the first n leaves.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def root_by_definition(leaves: list[bytes]) -> bytes:
    """MTH as section 2.1.1 writes it."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_by_definition(leaves[:k]) + root_by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_known_roots(size: int) -> None:
    """REQ: RFC 9162 section 2.1.1: the roots that every implementation of Certificate Transparency knows."""
    assert merkle.root(map(merkle.leaf_hash, LEAVES[:size])).hex() == ROOTS[size]


@pytest.mark.parametrize("size", range(70))
def test_the_definition(size: int) -> None:
    """The root is that of the recursive definition for every shape of tree."""
    leaves = [number.to_bytes(2, "big") for number in range(size)]
    assert merkle.root(map(merkle.leaf_hash, leaves)) == root_by_definition(leaves)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_is_proven_in_its_place_and_in_no_other(size: int) -> None:
    """REQ: RFC 9162 sections 2.1.3.1 and 2.1.3.2."""
    hashes = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    root = merkle.root(hashes)
    for index in range(size):
        proof = merkle.inclusion_proof(index, hashes)
        assert len(proof) <= (size - 1).bit_length()
        merkle.verify_inclusion(hashes[index], index, size, proof, root)
        for wrong in set(range(-1, size + 2)) - {index}:
            with pytest.raises(IntegrityError):
                merkle.verify_inclusion(hashes[index], wrong, size, proof, root)


def test_the_proof_of_rfc_9162_section_2_1_5() -> None:
    """REQ: RFC 9162 section 2.1.5: of seven leaves, d3 is proven by [c, g, l], d4 by [f, j, k], d6 by [i, k]."""
    hashes = [merkle.leaf_hash(bytes([number])) for number in range(7)]
    _a, _b, c, _d, _e, f, j = hashes
    g, i = merkle.root(hashes[:2]), merkle.root(hashes[4:6])
    k, right = merkle.root(hashes[:4]), merkle.root(hashes[4:])
    assert merkle.inclusion_proof(3, hashes) == [c, g, right]
    assert merkle.inclusion_proof(4, hashes) == [f, j, k]
    assert merkle.inclusion_proof(6, hashes) == [i, k]


def test_a_damaged_proof() -> None:
    """A proof that is too short, too long, or differs in one bit proves nothing."""
    hashes = [merkle.leaf_hash(bytes([number])) for number in range(11)]
    root = merkle.root(hashes)
    proof = merkle.inclusion_proof(5, hashes)
    flipped = [bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:]]
    for damaged in (proof[:-1], proof[1:], [*proof, bytes(32)], [], flipped, proof[::-1]):
        with pytest.raises(IntegrityError):
            merkle.verify_inclusion(hashes[5], 5, 11, damaged, root)
    with pytest.raises(IntegrityError):
        merkle.verify_inclusion(hashes[4], 5, 11, proof, root)
    with pytest.raises(IntegrityError):
        merkle.verify_inclusion(hashes[5], 5, 11, proof, bytes(32))


def test_a_node_is_no_leaf() -> None:
    """Prefixes keep a pair of hashes from passing as one leaf (second preimages)."""
    hashes = [merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")]
    assert merkle.leaf_hash(b"".join(hashes)) != merkle.root(hashes)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_proof_for_a_leaf_that_is_not_there(index: int) -> None:
    """Only existing leaves are proven."""
    with pytest.raises(ValueError, match="no such leaf"):
        merkle.inclusion_proof(index, [bytes(32)] * 3)
