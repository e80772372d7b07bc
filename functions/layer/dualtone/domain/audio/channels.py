"""Which stream is heard on which of the two channels. Pure.

Who speaks is never guessed from the order of the streams: the caller's stream goes to channel 0 and the callee's to
channel 1 if the metadata tells roles; otherwise channels are merely filled in the streams' order, and the index says
so. More than two streams are added up, samples limited to 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.recording_entry import Role

CHANNELS: Final = 2

Window = npt.NDArray[np.int16]

_PLACES: Final[Mapping[Role, int]] = {"caller": 0, "callee": 1}


def assign(roles: Sequence[Role]) -> tuple[int, ...]:
    """Chooses a channel for each stream.

    Args:
        roles: What the sender of each stream is, in the order of the streams.

    Returns:
        Channel of each stream. Streams of unknown role fill the emptier channel, the first one first.
    """
    chosen = [_PLACES.get(role) for role in roles]
    for place, channel in enumerate(chosen):
        if channel is None:
            taken = [chosen.count(candidate) for candidate in range(CHANNELS)]
            chosen[place] = taken.index(min(taken))
    return tuple(channel for channel in chosen if channel is not None)


def mix(window: Window, channel_of: Sequence[int]) -> Window:
    """Lays streams onto the channels.

    Args:
        window: int16[streams, n].
        channel_of: Channel of each stream.

    Returns:
        int16[2, n].
    """
    if len(set(channel_of)) == len(channel_of):
        stereo = np.zeros((CHANNELS, window.shape[1]), np.int16)
        stereo[list(channel_of)] = window
        return stereo
    total = np.zeros((CHANNELS, window.shape[1]), np.int32)
    for stream, channel in enumerate(channel_of):
        total[channel] += window[stream]
    limits = np.iinfo(np.int16)
    return np.clip(total, limits.min, limits.max).astype(np.int16)


def interleave(stereo: Window) -> npt.NDArray[np.int16]:
    """Turns int16[2, n] into int16[n, 2], contiguous: the order in which encoders take samples."""
    mixed = np.empty((stereo.shape[1], CHANNELS), np.int16)
    for channel in range(CHANNELS):
        mixed[:, channel] = stereo[channel]
    return mixed
