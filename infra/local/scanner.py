"""Looks for plaintext audio where none may be: in every store of the local cloud, on the agent's disk, in logs.

The scanner knows what was spoken and in which codings it could lie about: PCM as it was spoken and as a recorder would
have decoded it, A-law, mu-law, and the Opus packets of the finished recording. It takes keys of eight bytes from a fine
grid of that audio and looks for them at every offset of everything it is shown, so that 400 ms of speech cannot hide:
40 bytes in a row (5 ms of G.711) are enough to be seen. Base 64 and hexadecimal text is looked into as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

KEY_BYTES: Final = 8
GRID_BYTES: Final = 20
PROOF_BYTES: Final = 40
WINDOW_MS: Final = 400
_MIN_DISTINCT: Final = 6
_BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/_-]{48,}={0,2}")
_HEX_RUN: Final = re.compile(rb"(?:[0-9a-fA-F]{2}){32,}")

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Finding:
    """Plaintext audio that was found.

    Attributes:
        place: Where: a store and a name in it.
        coding: As what.
        offset: Byte offset in what was looked at (after decoding, if it was base 64 or hexadecimal text).
    """

    place: str
    coding: str
    offset: int


class Needles:
    """All that is looked for, prepared once.

    Args:
        codings: The audio in each coding, by name: one continuous byte string, or one a packet.
    """

    def __init__(self, codings: Mapping[str, Sequence[bytes]]) -> None:
        keys: list[npt.NDArray[np.uint64]] = []
        self._sources: list[tuple[str, bytes]] = []
        self._origin: list[npt.NDArray[np.int64]] = []
        for coding, pieces in codings.items():
            for piece in pieces:
                positions = np.arange(0, len(piece) - PROOF_BYTES + 1, GRID_BYTES)
                if not positions.size:
                    continue
                windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(piece, np.uint8), PROOF_BYTES)
                lively = _distinct(windows[positions]) >= _MIN_DISTINCT
                positions = positions[lively]
                raw = np.ascontiguousarray(windows[positions, :KEY_BYTES])
                keys.append(raw.view(np.uint64).reshape(-1))
                self._origin.append(np.column_stack([np.full(positions.size, len(self._sources)), positions]))
                self._sources.append((coding, piece))
        order_keys = np.concatenate(keys) if keys else np.empty(0, np.uint64)
        origin = np.concatenate(self._origin) if keys else np.empty((0, 2), np.int64)
        order = np.argsort(order_keys, kind="stable")
        self._keys, self._by_key = order_keys[order], origin[order]

    def __len__(self) -> int:
        return int(self._keys.size)

    def find(self, data: Bytes) -> Iterator[tuple[str, int]]:
        """Yields coding and offset of each run of audio in ``data``, at most one a coding."""
        seen: set[str] = set()
        array = np.frombuffer(data, np.uint8)
        for shift in range(min(KEY_BYTES, max(0, array.size - KEY_BYTES + 1))):
            usable = (array.size - shift) // KEY_BYTES * KEY_BYTES
            words = array[shift : shift + usable].view(np.uint64)
            place = np.searchsorted(self._keys, words)
            place[place == self._keys.size] = 0
            hits = np.flatnonzero(self._keys[place] == words) if self._keys.size else np.empty(0, np.int64)
            for hit in hits:
                offset = int(hit) * KEY_BYTES + shift
                coding = self._proved(data, offset, words[hit])
                if coding is not None and coding not in seen:
                    seen.add(coding)
                    yield coding, offset

    def _proved(self, data: Bytes, offset: int, key: np.uint64) -> str | None:
        """In which coding the audio goes on behind a key that matched; None if it does not."""
        first, last = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        for source, position in self._by_key[first:last]:
            coding, piece = self._sources[int(source)]
            if bytes(data[offset : offset + PROOF_BYTES]) == piece[position : position + PROOF_BYTES]:
                return str(coding)
        return None


def look(place: str, data: Bytes, needles: Needles) -> list[Finding]:
    """Looks into one thing, and into base 64 and hexadecimal text within it."""
    findings = [Finding(place, coding, offset) for coding, offset in needles.find(data)]
    for layer in decoded_layers(bytes(data)):
        findings += [Finding(place, coding, offset) for coding, offset in needles.find(layer)]
    return findings


def decoded_layers(data: bytes) -> Iterator[bytes]:
    """Yields what base 64 (both alphabets, every alignment) and hexadecimal runs in ``data`` decode to."""
    for match in _BASE64_RUN.finditer(data):
        run = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        for start in range(4):
            body = run[start : start + (len(run) - start) // 4 * 4]
            yield base64.b64decode(body)
    for match in _HEX_RUN.finditer(data):
        for start in range(2):
            body = match[0][start:]
            yield binascii.unhexlify(body[: len(body) // 2 * 2])


class Snapshots:
    """Keeps one copy of every different thing that was seen while a call ran, to be looked into afterwards."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[str, bytes]] = {}

    def add(self, things: Iterable[tuple[str, bytes]]) -> None:
        """Takes named bytes; what was seen before is not kept twice."""
        for place, data in things:
            self._seen.setdefault(hashlib.sha256(data).digest(), (place, data))

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._seen.values())

    @property
    def size_bytes(self) -> int:
        """How much was kept."""
        return sum(len(data) for _, data in self._seen.values())


def _distinct(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How many different bytes each row has; silence and tones have few and would match by chance."""
    ordered = np.sort(rows, axis=1)
    changes: npt.NDArray[np.int64] = np.count_nonzero(np.diff(ordered, axis=1), axis=1)
    return changes + 1
