"""ffmpeg between two pipes: pages of a second, exact to the sample, the same every time, gone when it is over."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from dualtone.adapters import opus_encoder
from dualtone.domain.audio import channels, ogg
from dualtone.domain.audio.ogg import EqualPages, Page
from dualtone.domain.errors import Unavailable
from tests.adapters.finalize.cloud import decode
from tests.call_samples import speech
from tests.listening import correlation

STEREO = np.stack((speech("alice"), speech("bob")))
PRE_SKIP = 312


def encoded(samples: np.ndarray, window: int) -> list[bytes]:
    pages: list[bytes] = []
    with opus_encoder.started(8000) as encoder:
        for at in range(0, samples.shape[1], window):
            pages += encoder.write(channels.interleave(samples[:, at : at + window]))
        pages += encoder.finish()
    return pages


def test_pages_of_a_second() -> None:
    """Two header pages, then fifty packets of 20 ms a page; granules count samples of 48 kHz, pre-skip included."""
    pages = encoded(STEREO, 30_000)
    assert [ogg.is_header(page) for page in pages] == [True, True] + [False] * 13
    audio = [Page.parse(page) for page in pages[2:]]
    assert [len(page.packets()) for page in audio] == [50] * 12 + [1]
    assert [page.granule for page in audio[:3]] == [48_000, 96_000, 144_000]
    assert audio[-1].granule == STEREO.shape[1] * 6 + PRE_SKIP


@pytest.mark.parametrize("samples", [160, 161, 7999, 8000, 8001, 12_345])
def test_every_length_is_exact(samples: int) -> None:
    """What is decoded is as long as what was encoded, to the sample, padding or not."""
    pages = encoded(STEREO[:, :samples], 4000)
    audio = EqualPages(page for page in pages if not ogg.is_header(page))
    whole = b"".join(page for page in pages if ogg.is_header(page)) + b"".join(audio)
    assert len(decode(whole)) == samples
    assert np.array_equal(decode(whole), decode(b"".join(pages)))


def test_the_same_samples_give_the_same_bytes() -> None:
    """Whatever the windows: nothing of the clock, the machine or chance is in it."""
    assert encoded(STEREO[:, :24_000], 24_000) == encoded(STEREO[:, :24_000], 777)


def test_the_parties_stay_apart() -> None:
    """Each side is heard well, and hardly at all on the other channel: at least 40 dB below."""
    quiet = STEREO.copy()
    quiet[1] = 0
    heard = decode(b"".join(encoded(quiet, 8000)))
    assert correlation(heard[:, 0], quiet[0])[0] >= 0.9
    level = np.sqrt(np.mean(heard.astype(np.float64) ** 2, axis=0))
    assert level[1] < level[0] / 100


@pytest.mark.parametrize("then", ["more comes", "it is ended"])
def test_an_encoder_that_dies_is_noticed(then: str) -> None:
    """Killed in the middle: the event comes again, and no process is left."""
    with opus_encoder.started(8000) as encoder:
        os.kill(encoder.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            encoder.write(np.zeros((800_000, 2), np.int16)) if then == "more comes" else encoder.finish()
    assert not exists(encoder)


def test_leaving_early_leaves_nothing_behind() -> None:
    """An exception in the middle of a call ends the process and closes the pipes."""
    with pytest.raises(ZeroDivisionError), opus_encoder.started(8000) as encoder:
        division(encoder)
    assert not exists(encoder)


def division(encoder: opus_encoder.OpusEncoder) -> None:
    """Something that goes wrong while an encoder is at work."""
    encoder.write(channels.interleave(STEREO[:, :8000]))
    raise ZeroDivisionError


def exists(encoder: opus_encoder.OpusEncoder) -> bool:
    """Whether the encoder's process is there."""
    try:
        os.kill(encoder.pid, 0)
    except ProcessLookupError:
        return False
    return True
