"""The plaintext scanner finds what it must find, and nothing in noise."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local import listening, proofs, scanner

SPEECH = Path(__file__).parents[3] / "vectors" / "speech"
ALICE = listening.read_wav(SPEECH / "alice.wav")
CODINGS = proofs.codings(ALICE)
NEEDLES = scanner.Needles({coding: [data] for coding, data in CODINGS.items()})
WINDOW = listening.SAMPLE_HZ * scanner.WINDOW_MS // 1000


def lively_windows() -> list[int]:
    """Starts, in samples, of 400 ms windows in which somebody speaks (silence has no content to betray)."""
    starts = range(0, ALICE.size - WINDOW, 977)
    return [start for start in starts if np.abs(ALICE[start : start + WINDOW]).mean() > 100]


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_every_spoken_window_is_found_at_any_offset(coding: str) -> None:
    """400 ms from anywhere in the speech, behind any number of other bytes, is found in each coding."""
    width = len(CODINGS[coding]) // ALICE.size
    noise = np.random.default_rng(1).bytes(3000)
    assert len(lively_windows()) > 50
    for number, start in enumerate(lively_windows()):
        window = CODINGS[coding][start * width : (start + WINDOW) * width]
        found = scanner.look("store", noise[: number * 7 % 3000] + window + noise, NEEDLES)
        assert coding in {finding.coding for finding in found}


def test_a_single_packet_between_headers_is_found() -> None:
    """20 ms of A-law inside an RTP packet in a capture file is enough."""
    alaw = CODINGS["A-law"]
    start = lively_windows()[10]
    assert scanner.look("capture", b"\x80\x08" + bytes(10) + alaw[start : start + 160] + b"\x80\x08", NEEDLES)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, lambda data: data.hex().encode()])
@pytest.mark.parametrize("lead", [b"", b"a", b"ab", b"abc"])
def test_text_codings_are_looked_into(encode: object, lead: bytes) -> None:
    """Base 64 of either alphabet and hexadecimal text hide nothing, at any alignment."""
    start = lively_windows()[20]
    text = lead + encode(CODINGS["mu-law"][start : start + WINDOW])  # type: ignore[operator]
    found = scanner.look("queue", b'{"body":"' + text + b'"}', NEEDLES)
    assert {finding.coding for finding in found} >= {"mu-law"}


@given(st.integers(0, 2**32))
def test_noise_is_not_speech(seed: int) -> None:
    """Ciphertext gives no false alarm."""
    assert scanner.look("noise", np.random.default_rng(seed).bytes(100_000), NEEDLES) == []


def test_small_and_empty_things() -> None:
    """Things shorter than a key are looked into without complaint."""
    for size in range(20):
        assert scanner.look("small", bytes(size), NEEDLES) == []


def test_snapshots_keep_each_thing_once() -> None:
    """The same bytes seen twice are kept once."""
    snapshots = scanner.Snapshots()
    snapshots.add([("a", b"one"), ("b", b"two")])
    snapshots.add([("a", b"one")])
    assert list(snapshots) == [("a", b"one"), ("b", b"two")]
    assert snapshots.size_bytes == 6
