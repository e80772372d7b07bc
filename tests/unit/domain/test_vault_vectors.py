"""The checked-in vectors: rebuilt by a second implementation, and reproduced by the product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import kek, keytree, vault_object, vault_verifier
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.kek import KeyScope
from dualtone.domain.vault_verifier import VerificationError
from dualtone.usecases.seal_recording import seal
from tests.vectors.vault import build

VECTORS = Path(build.__file__).parent


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


OBJECT = load("object.json")


@pytest.mark.parametrize("name", ["key_tree.json", "kek.json", "object.json", "refused.json"])
def test_the_script_rebuilds_them(name: str) -> None:
    """What is checked in is what the second implementation writes."""
    assert (VECTORS / name).read_text(encoding="utf-8") == build.spelled(build.build()[name])


@pytest.mark.parametrize("vector", load("key_tree.json"), ids=lambda v: f"{v['leaves']} without {len(v['punctured'])}")
def test_key_trees(vector: dict[str, Any]) -> None:
    """Node sets and leaf keys are the same byte for byte."""
    nodes = keytree.full(bytes.fromhex(vector["root"]), vector["leaves"])
    for leaf in vector["punctured"]:
        nodes = keytree.puncture(nodes, leaf, leaf)
    assert keytree.encode(nodes).hex() == vector["node_set"]
    for leaf, key in vector["keys"].items():
        assert keytree.derive(nodes, int(leaf)).hex() == key


def test_the_key_under_two_shares() -> None:
    """Derivation and sealing are the same byte for byte."""
    vector = load("kek.json")
    shares = bytes.fromhex(vector["share_a"]), bytes.fromhex(vector["share_b"])
    scope = KeyScope(TenantId(vector["tenant"]), RecordingId(vector["recording"]), vector["version"])
    nodes = keytree.decode(bytes.fromhex(vector["node_set"]))
    assert scope.info.decode() == vector["info"]
    assert kek.derive_kek(*shares, scope).hex() == vector["kek"]
    assert kek.seal_nodes(nodes, *shares, scope, bytes.fromhex(vector["nonce"])).hex() == vector["sealed"]
    assert kek.open_nodes(bytes.fromhex(vector["sealed"]), *shares, scope) == nodes


def test_the_object() -> None:
    """Object, name and manifest are the same byte for byte, and verify with the second implementation's signature."""
    fixed = ("tenant", "recording", "generation", "attempt", "call", "started_at_ms", "created_at_ms")
    result = seal(
        bytes.fromhex(OBJECT["header_pages"]),
        [bytes.fromhex(page) for page in OBJECT["pages"]],
        root=bytes.fromhex(OBJECT["root"]),
        agent_manifest_sha256=OBJECT["agent_manifest_sha256"],
        **{name: OBJECT[name] for name in fixed},
    )
    assert result.data.hex() == OBJECT["object"]
    assert result.manifest_payload.decode() == OBJECT["manifest"]
    assert result.vault_key == OBJECT["object_key"]
    assert verified(OBJECT["object"])


def test_its_segments() -> None:
    """Each segment opens with the leaf key of the vector, and gives the page."""
    head = vault_object.parse_head(bytes.fromhex(OBJECT["object"]))
    assert head.sha256.hex() == OBJECT["head_sha256"]
    for index, (key, segment, page) in enumerate(
        zip(OBJECT["leaf_keys"], OBJECT["segments"], OBJECT["pages"], strict=True)
    ):
        opened = vault_object.open_segment(head, index, bytes.fromhex(key), bytes.fromhex(segment))
        assert opened.hex() == page


@pytest.mark.parametrize("vector", load("refused.json"), ids=lambda vector: vector["name"])
def test_forgeries(vector: dict[str, str]) -> None:
    """Each forgery is refused for its reason."""
    with pytest.raises(VerificationError) as caught:
        verified(vector["object"])
    assert caught.value.reason == vector["reason"]


def verified(data: str) -> bool:
    vault_verifier.verify_object(
        bytes.fromhex(data),
        OBJECT["manifest"].encode(),
        bytes.fromhex(OBJECT["signature"]),
        bytes.fromhex(OBJECT["public_key_der"]),
        tenant=OBJECT["tenant"],
        recording=OBJECT["recording"],
    )
    return True
