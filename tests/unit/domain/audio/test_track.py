"""Samples in their places, silence between them, and no hard border to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio.decoding import Decoded
from dualtone.domain.audio.track import FADES_A_SECOND, Track

LOUD = 10_000
FADE = 8000 // FADES_A_SECOND
WINDOW = 8000


def decoded(*spans: tuple[int, int]) -> Decoded:
    """Loud pieces from and to a place."""
    size = np.array([last - first for first, last in spans], np.int64)
    position = np.array([first for first, _ in spans], np.int64)
    return Decoded(position, size, np.full(int(size.sum()), LOUD, np.int16), int((position + size).max()))


def laid(
    *pieces: Decoded, silent: Sequence[tuple[int, int]] = (), windows: int = 1, fades: bool = True
) -> npt.NDArray[np.int16]:
    """What a track gives out from 0 on."""
    track = Track(8000, 0, 0, silent, fades=fades)
    for piece in pieces:
        assert track.lay(piece)
    return np.concatenate([track.take(WINDOW // windows) for _ in range(windows)])


def test_audio_begins_and_ends_softly() -> None:
    """Twenty samples to each side of a gap rise or fall; the gap is silent, the rest as it was."""
    heard = laid(decoded((0, 1000), (2000, 3000)))
    assert not heard[1000:2000].any()
    assert not heard[3000:].any()
    for first, last in ((0, 1000), (2000, 3000)):
        assert (heard[first + FADE : last - FADE] == LOUD).all()
        rising = heard[first : first + FADE].astype(np.int64)
        assert (np.diff(rising) > 0).all()
        assert rising[0] < LOUD / 100
        assert np.array_equal(heard[last - FADE : last], rising[::-1])


def test_what_follows_seamlessly_is_not_touched() -> None:
    """Piece by piece, in one go or in several, packets that touch are one."""
    heard = laid(decoded((0, 160), (160, 320)), decoded((320, 480), (480, WINDOW)))
    assert (heard[FADE : WINDOW - FADE] == LOUD).all()


def test_audio_is_soft_beside_what_will_be_silenced() -> None:
    """A pause in the middle of a piece: what is left of it ends and begins as at any gap."""
    heard = laid(decoded((0, WINDOW)), silent=[(3000, 4000)])
    assert (heard[3000 - FADE - 1], heard[4000 + FADE]) == (LOUD, LOUD)
    assert heard[2999] < LOUD / 100
    assert heard[4000] < LOUD / 100


@pytest.mark.parametrize("fades", [True, False])
@given(
    spans=st.lists(st.tuples(st.integers(0, WINDOW - 1), st.integers(1, 900)), max_size=12),
    windows=st.sampled_from([1, 2, 5, 25]),
)
def test_windows_do_not_show(spans: list[tuple[int, int]], windows: int, *, fades: bool) -> None:
    """However a track is cut into windows, what it gives out is the same, and zero where nothing was laid."""
    pieces = [decoded((first, min(first + size, WINDOW))) for first, size in spans]
    heard = laid(*pieces, fades=fades)
    assert np.array_equal(laid(*pieces, windows=windows, fades=fades), heard)
    covered = np.zeros(WINDOW, np.bool_)
    for first, size in spans:
        covered[first : first + size] = True
    assert not heard[~covered].any()
    assert fades or (heard[covered] == LOUD).all()


def test_what_comes_too_late_is_left_out() -> None:
    """And said; what of it still lies ahead is heard."""
    track = Track(8000, 0, 0, (), fades=False)
    track.take(WINDOW)
    assert not track.lay(decoded((WINDOW - 100, WINDOW + 100)))
    assert (track.take(WINDOW)[:101] == [LOUD] * 100 + [0]).all()


def test_neighbours_go_with_a_window() -> None:
    """What a resampler needs before and after it."""
    track = Track(16_000, 0, 32, (), fades=False)
    track.lay(decoded((0, 16_000)))
    track.take(4000)
    window = track.take(2000)
    assert window.size == 4000 + 2 * 32
    assert (window == LOUD).all()
