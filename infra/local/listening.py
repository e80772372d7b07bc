"""Judges a recording as a listener would: what was spoken against what is played."""

from __future__ import annotations

import io
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

SAMPLE_HZ: Final = 8000
Samples = npt.NDArray[np.int16]

_OGG_HEAD_BYTES: Final = 27


def read_wav(path: Path) -> Samples:
    """Reads a 16-bit mono WAV at 8 kHz: int16[n]; raises ValueError for another form."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, SAMPLE_HZ):
            raise ValueError(f"{path.name}: 16-bit mono at 8 kHz is wanted")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def decode_opus(data: bytes) -> npt.NDArray[np.int16]:
    """Decodes an Ogg/Opus file with ffmpeg: int16[n, 2] at 8 kHz. Through pipes: nothing touches a disk."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "pipe:0"]
    command += ["-f", "s16le", "-ar", str(SAMPLE_HZ), "-ac", "2", "pipe:1"]
    result = subprocess.run(command, input=data, capture_output=True, check=True)  # noqa: S603 - our own command
    return np.frombuffer(result.stdout, "<i2").astype(np.int16).reshape(-1, 2)


def picture(wav: bytes) -> bytes:
    """Draws a two-channel WAV as a PNG: the caller above, the callee below."""
    drawing = "color=white:s=1200x240[paper];[0:a]volume=10dB,showwavespic=split_channels=1:s=1200x240"
    drawing += ":colors=#1f5fa8|#c2562b[ink];[paper][ink]overlay"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "pipe:0", "-filter_complex", drawing]
    command += ["-frames:v", "1", "-c:v", "png", "-f", "image2pipe", "pipe:1"]
    return subprocess.run(command, input=wav, capture_output=True, check=True).stdout  # noqa: S603 - our own command


def wav_bytes(samples: npt.NDArray[np.int16]) -> bytes:
    """A WAV file of int16[n, channels] at 8 kHz."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(SAMPLE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def correlation(spoken: Samples, played: Samples, max_lag_ms: int = 40) -> tuple[float, float]:
    """How well what is played matches what was spoken.

    Args:
        spoken: The source, int16[n] at 8 kHz.
        played: One channel of the recording, int16[m] at 8 kHz.
        max_lag_ms: Lags up to this many milliseconds either way are tried.

    Returns:
        The best Pearson correlation, and the lag in milliseconds at which it was found (positive: played later).
    """
    reach = max_lag_ms * SAMPLE_HZ // 1000
    size = spoken.size
    padded = np.zeros(size + 2 * reach)
    usable = min(played.size, size + reach)
    padded[reach : reach + usable] = played[:usable]
    source = spoken - spoken.mean()
    best, best_lag = -1.0, 0
    for shift in range(2 * reach + 1):
        window = padded[shift : shift + size]
        window = window - window.mean()
        norm = float(np.sqrt((source**2).sum() * (window**2).sum()))
        value = float((source * window).sum()) / norm if norm else 0.0
        if value > best:
            best, best_lag = value, shift - reach
    return best, best_lag * 1000 / SAMPLE_HZ


def opus_packets(ogg: bytes) -> Iterator[bytes]:
    """Yields the packets of an Ogg stream, headers included (RFC 3533 section 6: lacing values below 255 end one)."""
    position, packet = 0, b""
    while position + _OGG_HEAD_BYTES <= len(ogg):
        count = ogg[position + 26]
        lacing = ogg[position + _OGG_HEAD_BYTES : position + _OGG_HEAD_BYTES + count]
        position += _OGG_HEAD_BYTES + count
        for size in lacing:
            packet += ogg[position : position + size]
            position += size
            if size < 255:  # noqa: PLR2004 - the lacing rule
                yield packet
                packet = b""
