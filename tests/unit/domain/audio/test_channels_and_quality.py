"""Streams on channels, and what is measured there."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from dualtone.domain.audio import channels
from dualtone.domain.audio.quality import Loudness
from dualtone.domain.recording_entry import Role


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("caller callee", (0, 1)),
        ("callee caller", (1, 0)),
        ("unknown unknown", (0, 1)),
        ("unknown caller", (1, 0)),
        ("callee unknown", (1, 0)),
        ("unknown", (0,)),
        ("callee", (1,)),
        ("caller caller", (0, 0)),
        ("unknown unknown unknown unknown", (0, 1, 0, 1)),
        ("caller callee unknown", (0, 1, 0)),
        ("", ()),
    ],
)
def test_assignment(roles: str, expected: tuple[int, ...]) -> None:
    """Roles decide; the rest fills up."""
    assert channels.assign(cast("list[Role]", roles.split())) == expected


def test_more_than_two_streams_are_added_up_and_limited() -> None:
    """Samples never wrap round."""
    window = np.array([[30_000, -30_000, 5], [1, 2, 3], [30_000, -30_000, 6]], np.int16)
    assert channels.mix(window, (0, 1, 0)).tolist() == [[32_767, -32_768, 11], [1, 2, 3]]


def test_two_streams_are_only_ordered() -> None:
    """And interleaved for the encoder."""
    window = np.array([[1, 2], [3, 4]], np.int16)
    assert channels.interleave(channels.mix(window, (1, 0))).tolist() == [[3, 1], [4, 2]]
    assert channels.mix(window[:1], (1,)).tolist() == [[0, 0], [1, 2]]


def test_silence_is_measured_in_frames_across_windows() -> None:
    """A channel that speaks half of the time, in windows that do not end with frames."""
    loudness = Loudness(2)
    speech = np.zeros((2, 100 * 160), np.int16)
    speech[0, : 50 * 160] = 1000
    for start in range(0, speech.shape[1], 333):
        loudness.add(speech[:, start : start + 333])
    assert loudness.silence_ratio == (0.5, 1.0)
    assert loudness.one_sided == (False, True)


def test_a_silent_call_is_not_one_sided() -> None:
    """Nor is an empty one."""
    loudness = Loudness(2)
    assert loudness.silence_ratio == (1.0, 1.0)
    loudness.add(np.zeros((2, 8000), np.int16))
    assert loudness.one_sided == (False, False)
