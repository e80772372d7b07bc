"""Rebuilds the vectors of the vault's formats: ``python tests/vectors/vault/build.py`` writes them beside itself.

A second implementation, written from ``infra/formats/vault-object.md`` and sharing no code with the product: where the
two disagree, one of them or the document is wrong. All inputs are fixed, signatures are RFC 6979, so that the output is
the same every time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TENANT = "acme"
RECORDING = "rec_mfrggzdfmztwq2lkmfrggzdfmz"
OTHER_RECORDING = "rec_aaaaaaaaaaaaaaaaaaaaaaaaaa"
ATTEMPT = "01JD0000000000000000000001"
CALL = "01JD0000000000000000000000"
ROOT = bytes(range(32))
SHARE_A = bytes(range(0x40, 0x60))
SHARE_B = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0xF0, 0xFC))
PAGE_BODIES = (b"first second", b"second 2 ....", b"third second", b"fourth secnd", b"last")
AGENT_MANIFEST_SHA256 = hashlib.sha256(b"the agent's manifest").hexdigest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC of RFC 2104 with SHA-256."""
    return hmac.new(key, message, hashlib.sha256).digest()


def canonical(value: object) -> bytes:
    """Canonical JSON for values with ASCII keys and no floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def node_key(root: bytes, depth: int, position: int) -> bytes:
    """The key of a node: the bits of its position, from the most significant, lead down from the root."""
    key = root
    for level in range(depth - 1, -1, -1):
        key = hmac_sha256(key, b"DTV1/node" + bytes([position >> level & 1]))
    return key


def co_path(count: int, punctured: set[int]) -> list[tuple[int, int]]:
    """The nodes that stay: those with a leaf below them and none punctured, whose parent has a punctured one."""
    depth = (count - 1).bit_length()

    def leaves(d: int, p: int) -> set[int]:
        width = 1 << (depth - d)
        return set(range(p * width, min((p + 1) * width, count)))

    places = [(d, p) for d in range(depth + 1) for p in range(1 << d)]
    kept = [
        (d, p)
        for d, p in places
        if leaves(d, p) and not leaves(d, p) & punctured and (d == 0 or leaves(d - 1, p >> 1) & punctured)
    ]
    return sorted(kept, key=lambda place: place[1] << (depth - place[0]))


def node_set(root: bytes, count: int, punctured: set[int]) -> bytes:
    """The encoding of a node set."""
    nodes = co_path(count, punctured)
    head = b"DTK1" + count.to_bytes(4, "big") + len(nodes).to_bytes(4, "big")
    return head + b"".join(bytes([d]) + p.to_bytes(4, "big") + node_key(root, d, p) for d, p in nodes)


def ogg_page(body: bytes, sequence: int) -> bytes:
    """An Ogg page of RFC 3533 with one packet (its checksum is left at zero: the vault does not read it)."""
    lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
    granule = (48_000 * sequence).to_bytes(8, "little")
    fixed = b"OggS\x00\x00" + granule + b"SER1" + sequence.to_bytes(4, "little") + bytes(4)
    return fixed + bytes([len(lacing)]) + lacing + body


def head(recording: str, pages: list[bytes], header_pages: bytes) -> bytes:
    """Magic, length and header."""
    body = canonical(
        {
            "format": 1,
            "generation": 1,
            "header_pages": base64.b64encode(header_pages).decode(),
            "media_type": "audio/ogg; codecs=opus",
            "offset_table": [[len(list(run)), size] for size, run in groupby(map(len, pages))],
            "recording": recording,
            "segment_count": len(pages),
            "segment_ms": 1000,
        }
    )
    return b"DTV1" + len(body).to_bytes(4, "big") + body


def segment(leaf: bytes, head_hash: bytes, index: int, page: bytes) -> bytes:
    """Commitment, ciphertext and tag."""
    place = head_hash + index.to_bytes(4, "big")
    commitment = hmac_sha256(hmac_sha256(leaf, b"DTV1/commit"), place)
    return commitment + AESGCM(hmac_sha256(leaf, b"DTV1/encrypt")).encrypt(bytes(12), page, place)


def merkle_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, as the section defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + merkle_root(leaves[:k]) + merkle_root(leaves[k:])).digest()


def hkdf(ikm: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 of RFC 5869 without salt, 32 bytes."""
    return hmac_sha256(hmac_sha256(bytes(32), ikm), info + b"\x01")


def key_tree_vectors() -> list[dict[str, Any]]:
    """Trees with their leaves, punctured and not."""
    cases = [(1, []), (2, []), (5, []), (5, [2]), (5, [0, 1, 4]), (8, [3, 4]), (8, list(range(8))), (3600, [2820])]
    vectors = []
    for count, punctured in cases:
        depth = (count - 1).bit_length()
        shown = range(count) if count <= 8 else (0, 2819, 2821, count - 1)
        vectors.append(
            {
                "root": ROOT.hex(),
                "leaves": count,
                "punctured": punctured,
                "node_set": node_set(ROOT, count, set(punctured)).hex(),
                "keys": {str(leaf): node_key(ROOT, depth, leaf).hex() for leaf in shown if leaf not in punctured},
            }
        )
    return vectors


def kek_vector() -> dict[str, Any]:
    """A node set under two shares."""
    info = canonical([TENANT, RECORDING, 1])
    kek = hkdf(SHARE_A + SHARE_B, info)
    plain = node_set(ROOT, len(PAGE_BODIES), set())
    return {
        "tenant": TENANT,
        "recording": RECORDING,
        "version": 1,
        "share_a": SHARE_A.hex(),
        "share_b": SHARE_B.hex(),
        "info": info.decode(),
        "kek": kek.hex(),
        "nonce": NONCE.hex(),
        "node_set": plain.hex(),
        "sealed": (NONCE + AESGCM(kek).encrypt(NONCE, plain, info)).hex(),
    }


def object_vector() -> dict[str, Any]:
    """A whole object with its signed manifest."""
    header_pages = ogg_page(b"OpusHead", 0) + ogg_page(b"OpusTags", 1)
    pages = [ogg_page(body, number + 2) for number, body in enumerate(PAGE_BODIES)]
    encoded = head(RECORDING, pages, header_pages)
    head_hash = hashlib.sha256(encoded).digest()
    depth = (len(pages) - 1).bit_length()
    leaf_keys = [node_key(ROOT, depth, index) for index in range(len(pages))]
    segments = [
        segment(key, head_hash, index, page) for index, (key, page) in enumerate(zip(leaf_keys, pages, strict=True))
    ]
    data = encoded + b"".join(segments)
    leaf_hashes = sorted(hashlib.sha256(b"\x00" + part).digest() for part in segments)
    manifest = canonical(
        {
            "agent_manifest_sha256": AGENT_MANIFEST_SHA256,
            "attempt": ATTEMPT,
            "call": CALL,
            "created_at_ms": 1_732_444_870_000,
            "format": 1,
            "generation": 1,
            "header_sha256": head_hash.hex(),
            "header_size_bytes": len(encoded),
            "leaves_sha256": hashlib.sha256(b"".join(leaf_hashes)).hexdigest(),
            "media_type": "audio/ogg; codecs=opus",
            "merkle_root": merkle_root(segments).hex(),
            "object_sha256": hashlib.sha256(data).hexdigest(),
            "object_size_bytes": len(data),
            "recording": RECORDING,
            "segment_count": len(pages),
            "segment_ms": 1000,
            "started_at_ms": 1_732_444_800_000,
            "tenant": TENANT,
        }
    )
    private = ec.derive_private_key(int.from_bytes(ROOT, "big"), ec.SECP256R1())
    message = b"DUALTONE/v1/recording\0" + manifest
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "tenant": TENANT,
        "recording": RECORDING,
        "generation": 1,
        "attempt": ATTEMPT,
        "call": CALL,
        "started_at_ms": 1_732_444_800_000,
        "created_at_ms": 1_732_444_870_000,
        "agent_manifest_sha256": AGENT_MANIFEST_SHA256,
        "root": ROOT.hex(),
        "header_pages": header_pages.hex(),
        "pages": [page.hex() for page in pages],
        "head_sha256": head_hash.hex(),
        "leaf_keys": [key.hex() for key in leaf_keys],
        "segments": [part.hex() for part in segments],
        "object": data.hex(),
        "object_key": f"{TENANT}/{RECORDING}/0001/{ATTEMPT}.dtv",
        "manifest": manifest.decode(),
        "signature": private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)).hex(),
        "public_key_der": public.hex(),
    }


def refused_vectors(vector: dict[str, Any]) -> list[dict[str, str]]:
    """The object of ``object_vector`` as a forger might leave it, and how a verifier names what is wrong."""
    segments = [bytes.fromhex(part) for part in vector["segments"]]
    data = bytes.fromhex(vector["object"])
    size = len(data) - sum(map(len, segments))
    pages = [bytes.fromhex(page) for page in vector["pages"]]
    other_head = head(OTHER_RECORDING, pages, bytes.fromhex(vector["header_pages"]))
    other_hash = hashlib.sha256(other_head).digest()
    other_leaves = [node_key(ROOT[::-1], 3, index) for index in range(len(pages))]
    other = other_head + b"".join(
        segment(key, other_hash, index, page) for index, (key, page) in enumerate(zip(other_leaves, pages, strict=True))
    )
    exchanged = [segments[2], segments[1], segments[0], *segments[3:]]
    last = data[:-1] + bytes([data[-1] ^ 1])
    cases = [
        ("one bit of the last tag", "altered", last),
        ("one bit of the media type", "altered", data.replace(b"audio/ogg", b"audio/ogf", 1)),
        ("the last byte is missing", "truncated", data[:-1]),
        ("the last segment is missing", "truncated", data[: -len(segments[-1])]),
        ("half of the head", "truncated", data[: size // 2]),
        ("nothing at all", "truncated", b""),
        ("one byte behind the end", "extended", data + b"\x00"),
        ("two segments of equal size changed places", "reordered", data[:size] + b"".join(exchanged)),
        (
            "one segment stands twice",
            "altered",
            data[:size] + b"".join([segments[0], segments[1], segments[0], *segments[3:]]),
        ),
        ("the object of another recording", "swapped", other),
    ]
    return [{"name": name, "reason": reason, "object": forged.hex()} for name, reason, forged in cases]


def build() -> dict[str, Any]:
    """All vector files by name."""
    vector = object_vector()
    return {
        "key_tree.json": key_tree_vectors(),
        "kek.json": kek_vector(),
        "object.json": vector,
        "refused.json": refused_vectors(vector),
    }


def spelled(value: object) -> str:
    """A vector file's text."""
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    for name, value in build().items():
        Path(__file__).with_name(name).write_text(spelled(value), encoding="utf-8")
