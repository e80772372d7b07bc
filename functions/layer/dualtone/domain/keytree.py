"""A key for every second, from one root, so that a second can be forgotten for good.

The tree of Goldreich, Goldwasser and Micali (1986) over HMAC-SHA256: a node's key gives its children's keys and never
the other way. Whoever holds a set of nodes can derive exactly the leaves below them. To forget leaves i..j, the set is
replaced by the co-path that covers all other leaves: a punctured pseudorandom function (Boneh and Waters 2013).

::

    child(key, bit) = HMAC-SHA256(key, "DTV1/node" || bit)        bit is one byte, 0 left or 1 right
    K_enc           = HMAC-SHA256(leaf, "DTV1/encrypt")
    K_com           = HMAC-SHA256(leaf, "DTV1/commit")

Keys are 32 bytes. A tree over ``count`` leaves has the smallest depth d with 2**d >= count; leaves from ``count`` on do
not exist. Pure: the root is an argument.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dualtone.domain.errors import MalformedInput, NotFound

KEY_BYTES: Final = 32
MAX_LEAVES: Final = 1 << 20
"""Twelve days of seconds: far above any recording, far below what could exhaust a reader."""

_MAGIC: Final = b"DTK1"
_HEAD: Final = struct.Struct(">4sII")
_NODE: Final = struct.Struct(">BI32s")
_CHILDREN: Final = (b"DTV1/node\x00", b"DTV1/node\x01")
_ENCRYPT: Final = b"DTV1/encrypt"
_COMMIT: Final = b"DTV1/commit"


class Node(NamedTuple):
    """A node that is kept: its place and its key. Depth 0 is the root; positions count from the left within a depth."""

    depth: int
    position: int
    key: bytes


class LeafKeys(NamedTuple):
    """The two keys of one segment, each 32 bytes: one encrypts, one commits."""

    encrypt: bytes
    commit: bytes


@dataclass(frozen=True, slots=True)
class NodeSet:
    """What is left of a key tree: the largest subtrees in which nothing was punctured, from left to right.

    The set of punctured leaves determines the set of nodes, whatever the order in which they were punctured, so that
    a node set has one encoding.

    Attributes:
        count: How many leaves the tree has, 1 to 2**20.
        nodes: The kept nodes, disjoint, in the order of their leaves. Not shown when printed.
    """

    count: int
    nodes: tuple[Node, ...] = field(repr=False)

    @property
    def depth(self) -> int:
        """The depth of the leaves."""
        return depth_of(self.count)


def depth_of(count: int) -> int:
    """The depth of a tree with ``count`` leaves; raises ValueError outside 1 to 2**20."""
    if not 1 <= count <= MAX_LEAVES:
        raise ValueError(f"a key tree has 1 to {MAX_LEAVES} leaves")
    return (count - 1).bit_length()


def full(root: bytes, count: int) -> NodeSet:
    """The set of a tree in which nothing is punctured: its root.

    Args:
        root: 32 fresh random bytes.
        count: The number of leaves.

    Raises:
        ValueError: If an argument has the wrong size.
    """
    if len(root) != KEY_BYTES:
        raise ValueError("the root of a key tree is 32 bytes")
    depth_of(count)
    return NodeSet(count, (Node(0, 0, root),))


def derive(nodes: NodeSet, leaf: int) -> bytes:
    """The 32-byte key of one leaf; raises NotFound if it was punctured, ValueError if there is no such leaf."""
    return next(derive_range(nodes, leaf, leaf))


def derive_range(nodes: NodeSet, first: int, last: int) -> Iterator[bytes]:
    """The keys of the leaves ``first`` to ``last``, both included, in order; about two HMACs a leaf.

    Args:
        nodes: What is kept of the tree.
        first: The first leaf, from 0.
        last: The last leaf, at least ``first``.

    Yields:
        32 bytes for each leaf.

    Raises:
        NotFound: When it comes to a leaf that was punctured.
        ValueError: If the tree has no such leaves.
    """
    for leaf, key in enumerate(derive_kept(nodes, first, last), first):
        if key is None:
            raise NotFound(f"the key of segment {leaf} was destroyed")
        yield key


def derive_kept(nodes: NodeSet, first: int, last: int) -> Iterator[bytes | None]:
    """The keys of the leaves ``first`` to ``last``, both included, in order, where they were not punctured.

    Args:
        nodes: What is kept of the tree.
        first: The first leaf, from 0.
        last: The last leaf, at least ``first``.

    Yields:
        32 bytes for each leaf, or None for one that was punctured.

    Raises:
        ValueError: If the tree has no such leaves.
    """
    _check_range(nodes.count, first, last)
    depth = nodes.depth
    expected = first
    for node in nodes.nodes:
        low, high = _leaves(node, depth)
        if high < first or low > last:
            continue
        while expected < low:
            yield None
            expected += 1
        for key in _expand(node, depth, first, last):
            yield key
            expected += 1
    while expected <= last:
        yield None
        expected += 1


def puncture(nodes: NodeSet, first: int, last: int) -> NodeSet:
    """Forgets the leaves ``first`` to ``last``, both included.

    Args:
        nodes: What is kept of the tree; leaves that are punctured already stay so.
        first: The first leaf to forget, from 0.
        last: The last one.

    Returns:
        The set from which every other leaf derives as before and those never again: no node of it is an ancestor of
        a punctured leaf, and inverting HMAC-SHA256 is the only way up.

    Raises:
        ValueError: If the tree has no such leaves.
    """
    _check_range(nodes.count, first, last)
    depth = nodes.depth
    kept = [part for node in nodes.nodes for part in _without(node, depth, nodes.count, first, last)]
    return NodeSet(nodes.count, tuple(kept))


def leaf_keys(leaf: bytes) -> LeafKeys:
    """Splits a leaf key into the key that encrypts a segment and the key that commits to it."""
    return LeafKeys(hmac.digest(leaf, _ENCRYPT, "sha256"), hmac.digest(leaf, _COMMIT, "sha256"))


def encode(nodes: NodeSet) -> bytes:
    """The one encoding of a node set: ``DTK1`` | u32 leaves | u32 nodes | (u8 depth | u32 position | key[32])..."""
    return _HEAD.pack(_MAGIC, nodes.count, len(nodes.nodes)) + b"".join(_NODE.pack(*node) for node in nodes.nodes)


def decode(data: bytes) -> NodeSet:
    """Reads what ``encode`` wrote and nothing else.

    Raises:
        MalformedInput: If the bytes are not the encoding of a set that ``full`` and ``puncture`` can make.
    """
    if len(data) < _HEAD.size:
        raise MalformedInput("a node set is longer")
    magic, count, size = _HEAD.unpack_from(data)
    if magic != _MAGIC or not 1 <= count <= MAX_LEAVES or len(data) != _HEAD.size + size * _NODE.size:
        raise MalformedInput("not a node set")
    nodes = tuple(Node(*_NODE.unpack_from(data, _HEAD.size + number * _NODE.size)) for number in range(size))
    result = NodeSet(count, nodes)
    _check_canonical(result)
    return result


def _check_canonical(nodes: NodeSet) -> None:
    end = -1
    previous: Node | None = None
    for node in nodes.nodes:
        if node.depth > nodes.depth or node.position >> node.depth:
            raise MalformedInput("a node outside its tree")
        low, high = _leaves(node, nodes.depth)
        if low <= end or low >= nodes.count:
            raise MalformedInput("nodes that overlap, are out of order or have no leaf")
        if previous and previous.depth == node.depth and previous.position ^ 1 == node.position:
            raise MalformedInput("both children of a node instead of the node")
        end, previous = high, node


def _check_range(count: int, first: int, last: int) -> None:
    if not 0 <= first <= last < count:
        raise ValueError(f"leaves {first} to {last} are no range of a tree with {count} leaves")


def _leaves(node: Node, depth: int) -> tuple[int, int]:
    """The first and the last leaf below a node."""
    shift = depth - node.depth
    return node.position << shift, ((node.position + 1) << shift) - 1


def _child(node: Node, bit: int) -> Node:
    return Node(node.depth + 1, node.position << 1 | bit, hmac.digest(node.key, _CHILDREN[bit], "sha256"))


def _expand(node: Node, depth: int, first: int, last: int) -> Iterator[bytes]:
    """The leaf keys below a node that fall into a range which it touches, left to right."""
    stack = [node]
    while stack:
        top = stack.pop()
        if top.depth == depth:
            yield top.key
        else:
            half = sum(_leaves(top, depth)) >> 1
            if last > half:
                stack.append(_child(top, 1))
            if first <= half:
                stack.append(_child(top, 0))


def _without(node: Node, depth: int, count: int, first: int, last: int) -> Iterator[Node]:
    """The largest nodes below ``node`` that have a leaf of the tree and none of the punctured ones."""
    stack = [node]
    while stack:
        top = stack.pop()
        low, high = _leaves(top, depth)
        if low >= count or (first <= low and min(high, count - 1) <= last):
            continue
        if high < first or low > last:
            yield top
        else:
            stack += [_child(top, 1), _child(top, 0)]
