"""The Merkle tree of RFC 9162 over SHA-256: one hash for many leaves, and short proofs that a leaf is among them.

# REQ: RFC 9162 section 2.1.1: MTH({}) = HASH(), MTH({d}) = HASH(0x00 || d), MTH(D) = HASH(0x01 || left || right),
# the left part taking the largest power of two leaves that is smaller than their number. Consistency proofs (section
# 2.1.4) are not here: a recording's tree never grows. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from dualtone.domain.errors import IntegrityError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()


def leaf_hash(data: bytes | memoryview) -> bytes:
    """The hash of one leaf, 32 bytes."""
    digest = hashlib.sha256(b"\x00")
    digest.update(data)
    return digest.digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes in order (section 2.1.1), 32 bytes.

    Args:
        leaf_hashes: What ``leaf_hash`` gave for each leaf; may be empty.
    """
    # Complete subtrees wait on a stack and merge as a binary counter carries; what is left then folds from the right.
    stack: list[bytes] = []
    for count, leaf in enumerate(leaf_hashes, 1):
        node = leaf
        carry = count
        while not carry & 1:
            node = _parent(stack.pop(), node)
            carry >>= 1
        stack.append(node)
    if not stack:
        return EMPTY_ROOT
    node = stack.pop()
    while stack:
        node = _parent(stack.pop(), node)
    return node


def inclusion_proof(index: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """The siblings from a leaf up to the root (section 2.1.3.1).

    Args:
        index: The leaf, from 0.
        leaf_hashes: The hashes of all leaves.

    Returns:
        At most ceil(log2(leaves)) hashes, the leaf's sibling first.

    Raises:
        ValueError: If there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise ValueError("no such leaf")
    low, high = 0, len(leaf_hashes)
    proof: list[bytes] = []
    while high - low > 1:
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if index < middle:
            proof.append(root(leaf_hashes[middle:high]))
            high = middle
        else:
            proof.append(root(leaf_hashes[low:middle]))
            low = middle
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> None:
    """Checks that a leaf stands at a place below a root (section 2.1.3.2).

    Args:
        leaf: The leaf's hash.
        index: Its place, from 0.
        size: How many leaves the tree has.
        proof: What ``inclusion_proof`` gave.
        expected_root: The root that is trusted.

    Raises:
        IntegrityError: If it does not, or the proof is too short or too long.
    """
    # Step 1: the place exists.
    if not 0 <= index < size:
        raise IntegrityError("the tree has no such leaf")
    # Step 2 and 3: walk up from the leaf; fn is the node's place in its row, sn the last place of that row.
    fn, sn, node = index, size - 1, leaf
    # Step 4: a sibling for every element of the proof.
    for sibling in proof:
        if sn == 0:
            raise IntegrityError("the inclusion proof is too long")
        if fn & 1 or fn == sn:
            node = _parent(sibling, node)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            node = _parent(node, sibling)
        fn >>= 1
        sn >>= 1
    # Step 5: the top is reached, and it is the trusted root.
    if sn != 0:
        raise IntegrityError("the inclusion proof is too short")
    if node != expected_root:
        raise IntegrityError("the leaf is not in the tree at this place")


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
