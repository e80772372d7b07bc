"""The key tree: what a punctured tree can still derive, and what it never can again."""

from __future__ import annotations

import hmac
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain import keytree
from dualtone.domain.errors import MalformedInput, NotFound
from dualtone.domain.keytree import Node, NodeSet

ROOT = bytes(range(32))


def leaf_by_definition(root: bytes, count: int, leaf: int) -> bytes:
    """The leaf key as the module's docstring defines it, without any tree."""
    key = root
    for bit in f"{leaf:0{keytree.depth_of(count)}b}" if count > 1 else "":
        key = hmac.digest(key, b"DTV1/node" + bytes([int(bit)]), "sha256")
    return key


def ancestors(count: int, leaf: int) -> set[tuple[int, int]]:
    depth = keytree.depth_of(count)
    return {(level, leaf >> (depth - level)) for level in range(depth + 1)}


def punctured(count: int, leaves: list[tuple[int, int]]) -> NodeSet:
    nodes = keytree.full(ROOT, count)
    for first, last in leaves:
        nodes = keytree.puncture(nodes, first, last)
    return nodes


def assert_forgets(nodes: NodeSet, forgotten: set[int], probe: set[int]) -> None:
    kept = {(node.depth, node.position) for node in nodes.nodes}
    for leaf in probe:
        if leaf in forgotten:
            assert not kept & ancestors(nodes.count, leaf)
            assert list(keytree.derive_kept(nodes, leaf, leaf)) == [None]
            with pytest.raises(NotFound):
                keytree.derive(nodes, leaf)
        else:
            assert len(kept & ancestors(nodes.count, leaf)) == 1
            assert keytree.derive(nodes, leaf) == leaf_by_definition(ROOT, nodes.count, leaf)


def test_a_range_over_punctured_leaves_tells_which_they_are() -> None:
    """None in their places, the keys as ever in all others."""
    nodes = punctured(20, [(0, 0), (5, 7), (18, 19)])
    expected = [leaf_by_definition(ROOT, 20, leaf) if leaf not in {0, 5, 6, 7, 18, 19} else None for leaf in range(20)]
    assert list(keytree.derive_kept(nodes, 0, 19)) == expected
    assert list(keytree.derive_kept(nodes, 6, 18)) == expected[6:19]
    with pytest.raises(ValueError, match="no range"):
        list(keytree.derive_kept(nodes, 0, 20))


@pytest.mark.parametrize("count", range(1, 10))
def test_every_subset_of_a_small_tree(count: int) -> None:
    """Whatever set of leaves is punctured, exactly the others derive, with the keys they always had."""
    for size in range(count + 1):
        for subset in combinations(range(count), size):
            nodes = punctured(count, [(leaf, leaf) for leaf in subset])
            assert_forgets(nodes, set(subset), set(range(count)))
            assert keytree.decode(keytree.encode(nodes)) == nodes


@pytest.mark.parametrize("count", range(1, 34))
def test_every_range_of_a_small_tree(count: int) -> None:
    """Puncturing i..j at once is puncturing every leaf of it, in whatever order."""
    for first in range(count):
        for last in range(first, count):
            at_once = punctured(count, [(first, last)])
            backwards = punctured(count, [(leaf, leaf) for leaf in range(last, first - 1, -1)])
            assert at_once == backwards
            kept = {(node.depth, node.position) for node in at_once.nodes}
            for leaf in range(count):
                assert bool(kept & ancestors(count, leaf)) == (not first <= leaf <= last)


@st.composite
def trees_and_ranges(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 20_000))
    leaf = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(leaf, leaf), max_size=8))
    return count, [(min(pair), max(pair)) for pair in pairs]


@given(trees_and_ranges(), st.data())
@settings(max_examples=150, deadline=None)
def test_large_trees(tree: tuple[int, list[tuple[int, int]]], data: st.DataObject) -> None:
    """In a tree of hours, a punctured second never derives again and the seconds beside it do."""
    count, ranges = tree
    nodes = punctured(count, ranges)
    forgotten = {leaf for first, last in ranges for leaf in range(first, last + 1)}
    edges = {edge + step for pair in ranges for edge in pair for step in (-1, 0, 1) if 0 <= edge + step < count}
    random = data.draw(st.sets(st.integers(0, count - 1), max_size=10))
    assert_forgets(nodes, forgotten, edges | random | {0, count - 1})
    assert punctured(count, ranges[::-1]) == nodes
    assert keytree.decode(keytree.encode(nodes)) == nodes
    assert len(nodes.nodes) <= 2 * keytree.depth_of(count) * len(ranges) + 1


@given(trees_and_ranges(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_range_of_leaves_derives_as_its_leaves_do(
    tree: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    """Deriving i..j gives each leaf's key in order, or ends at the first punctured one."""
    count, ranges = tree
    nodes = punctured(count, ranges)
    forgotten = {leaf for first, last in ranges for leaf in range(first, last + 1)}
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, min(count - 1, first + 50)))
    derived: list[bytes] = []
    missing = sorted(forgotten & set(range(first, last + 1)))
    if missing:
        with pytest.raises(NotFound, match=f"segment {missing[0]} "):
            derived.extend(keytree.derive_range(nodes, first, last))
        last = missing[0] - 1
    else:
        derived.extend(keytree.derive_range(nodes, first, last))
    assert derived == [leaf_by_definition(ROOT, count, leaf) for leaf in range(first, last + 1)][: len(derived)]
    assert len(derived) == last - first + 1


def test_the_whole_tree_can_be_forgotten() -> None:
    """Nothing is left of a tree of which every leaf is punctured, leaves that never existed included."""
    assert punctured(5, [(0, 4)]).nodes == ()
    assert punctured(5, [(2, 4), (0, 1)]).nodes == ()


def test_a_tree_of_one_leaf_is_its_root() -> None:
    """A recording of at most a second has one key, and puncturing it leaves nothing."""
    assert keytree.derive(keytree.full(ROOT, 1), 0) == ROOT
    assert keytree.puncture(keytree.full(ROOT, 1), 0, 0).nodes == ()


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (0, 5), (3, 2), (5, 5)])
def test_leaves_outside_the_tree(first: int, last: int) -> None:
    """Asking for leaves that do not exist is the caller's mistake, not a destroyed key."""
    nodes = keytree.full(ROOT, 5)
    with pytest.raises(ValueError, match="no range of a tree with 5 leaves"):
        list(keytree.derive_range(nodes, first, last))
    with pytest.raises(ValueError, match="no range of a tree with 5 leaves"):
        keytree.puncture(nodes, first, last)


@pytest.mark.parametrize(("root", "count"), [(b"", 1), (bytes(31), 1), (bytes(33), 1)])
def test_a_root_of_another_size(root: bytes, count: int) -> None:
    """A root is 32 bytes."""
    with pytest.raises(ValueError, match="32 bytes"):
        keytree.full(root, count)


@pytest.mark.parametrize("count", [0, -1, keytree.MAX_LEAVES + 1])
def test_a_tree_of_impossible_size(count: int) -> None:
    """A tree has a leaf, and not more than can be handled."""
    with pytest.raises(ValueError, match="leaves"):
        keytree.full(ROOT, count)


def test_the_keys_of_a_segment_differ_from_each_other_and_from_any_node() -> None:
    """Encryption key, commitment key and child keys are derived under labels of their own."""
    node = keytree.full(ROOT, 2)
    keys = {ROOT, *keytree.leaf_keys(ROOT), keytree.derive(node, 0), keytree.derive(node, 1)}
    assert len(keys) == 5


def test_keys_are_not_printed() -> None:
    """What a traceback shows of a node set holds no key."""
    assert ROOT.hex() not in repr(keytree.full(ROOT, 4))
    assert repr(ROOT) not in repr(keytree.full(ROOT, 4))


_K = bytes(32)

REFUSED_SETS = {
    "no leaves": NodeSet(0, ()),
    "too many leaves": NodeSet(keytree.MAX_LEAVES + 1, ()),
    "deeper than the tree": NodeSet(4, (Node(3, 0, _K),)),
    "beyond its row": NodeSet(4, (Node(1, 2, _K),)),
    "out of order": NodeSet(4, (Node(2, 3, _K), Node(2, 0, _K))),
    "the same twice": NodeSet(4, (Node(2, 3, _K), Node(2, 3, _K))),
    "ancestor and descendant": NodeSet(4, (Node(1, 0, _K), Node(2, 1, _K))),
    "both children": NodeSet(4, (Node(2, 0, _K), Node(2, 1, _K))),
    "only leaves that do not exist": NodeSet(5, (Node(1, 0, _K), Node(2, 3, _K))),
}


@pytest.mark.parametrize("nodes", REFUSED_SETS.values(), ids=REFUSED_SETS)
def test_an_encoding_that_no_puncture_makes_is_refused(nodes: NodeSet) -> None:
    """One set of leaves, one encoding."""
    with pytest.raises(MalformedInput):
        keytree.decode(keytree.encode(nodes))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_only_malformed_input_leaves_the_reader(data: st.DataObject) -> None:
    """Bytes are refused, or they are the one encoding of what was read."""
    good = bytearray(keytree.encode(punctured(9, [(2, 3), (7, 7)])))
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(good[: data.draw(st.integers(0, len(good)))]) + data.draw(st.binary(max_size=2))
    try:
        nodes = keytree.decode(changed)
    except MalformedInput:
        return
    assert keytree.encode(nodes) == changed
