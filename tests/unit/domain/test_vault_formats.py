"""The specification's worked example is the vectors', byte for byte."""

from __future__ import annotations

import hmac
import json
import re
from pathlib import Path

from tests.vectors.vault import build

FORMATS = Path(__file__).parents[3] / "infra" / "formats"
EXAMPLE = (FORMATS / "vault-object.md").read_text(encoding="utf-8").partition("## 5. Worked example")[2]
TIGHT = re.sub(r"\s+", "", EXAMPLE)


def test_the_worked_example() -> None:
    """Every value of the example stands in the document as the second implementation computes it."""
    vectors = build.build()
    vault, keys, trees = vectors["object.json"], vectors["kek.json"], vectors["key_tree.json"]
    data = bytes.fromhex(vault["object"])
    size = 8 + int.from_bytes(data[4:8], "big")
    leaf = bytes.fromhex(vault["leaf_keys"][2])
    segment = vault["segments"][2]
    values = {
        "prefix": data[:8].hex(),
        "header": data[8:size].decode(),
        "header_hash": vault["head_sha256"],
        "leaf(2)": vault["leaf_keys"][2],
        "K_enc": hmac.digest(leaf, b"DTV1/encrypt", "sha256").hex(),
        "K_com": hmac.digest(leaf, b"DTV1/commit", "sha256").hex(),
        "place": vault["head_sha256"] + "00000002",
        "page": vault["pages"][2],
        "commitment": segment[:64],
        "ciphertext": segment[64:-32],
        "tag": segment[-32:],
        "node set": keys["node_set"],
        "punctured node set": next(tree for tree in trees if tree["punctured"] == [2])["node_set"],
        "info": keys["info"],
        "KEK_1": keys["kek"],
        "nodes": keys["sealed"],
    }
    missing = [name for name, value in values.items() if re.sub(r"\s+", "", value) not in TIGHT]
    assert missing == []
    assert data.find(bytes.fromhex(segment)) == 490


def test_every_field_is_described() -> None:
    """Header and manifest have no field that the specification does not name."""
    vault = build.build()["object.json"]
    data = bytes.fromhex(vault["object"])
    header = json.loads(data[8 : 8 + int.from_bytes(data[4:8], "big")])
    for document, fields in (("vault-object.md", header), ("manifest.md", json.loads(vault["manifest"]))):
        text = (FORMATS / document).read_text(encoding="utf-8")
        assert [field for field in fields if f"`{field}`" not in text] == []
