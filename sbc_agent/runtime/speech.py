"""Speech for test calls: WAV files become A-law, A-law becomes RTP packets. Pure but for reading the file."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.audio import g711
from dualtone.domain.errors import MalformedInput

CLOCK_HZ: Final = 8_000
PACKET_MS: Final = 20
SAMPLES_A_PACKET: Final = CLOCK_HZ * PACKET_MS // 1000
SILENCE: Final = 0xD5  # A-law of 0
_RTP_HEADER_BYTES: Final = 12
_VERSION_2: Final = 0x80
_MARKER: Final = 0x80
_FILTER_TAPS: Final = 63
_WIDE_HZ: Final = 16_000
_SAMPLE_BYTES: Final = 2


def alaw(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Encodes 16-bit samples to A-law.

    Args:
        pcm: int16[n].

    Returns:
        uint8[n].
    """
    return g711.encode(g711.Law.A, pcm)


def load(path: Path) -> npt.NDArray[np.uint8]:
    """Reads a WAV file: 16-bit mono, 8 kHz, or 16 kHz which is filtered and halved.

    Returns:
        A-law at 8 kHz, uint8[n].

    Raises:
        MalformedInput: If it cannot be read or has another form; the text says which forms will do.
    """
    try:
        with wave.open(str(path), "rb") as file:
            rate_hz, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except FileNotFoundError as error:
        raise MalformedInput(f"{path} does not exist") from error
    except (OSError, EOFError, wave.Error) as error:
        raise MalformedInput(f"{path} is no PCM WAV file") from error
    if channels != 1 or width != _SAMPLE_BYTES or rate_hz not in {CLOCK_HZ, _WIDE_HZ}:
        raise MalformedInput(
            f"{path} has {rate_hz} Hz, {8 * width} bits, {channels} channels: "
            "give a WAV with 8000 or 16000 Hz, 16 bits, one channel"
        )
    pcm = np.frombuffer(data, "<i2").astype(np.int16)
    if not pcm.size:
        raise MalformedInput(f"{path} holds no samples")
    return alaw(halved(pcm) if rate_hz == _WIDE_HZ else pcm)


def halved(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Takes 16 kHz to 8 kHz: a windowed-sinc low-pass at 3.8 kHz, then every second sample.

    Args:
        pcm: int16[n] at 16 kHz.

    Returns:
        int16[ceil(n/2)] at 8 kHz, in phase with the input.
    """
    offsets = np.arange(_FILTER_TAPS) - _FILTER_TAPS // 2
    cutoff = 2 * 3_800 / _WIDE_HZ
    taps = cutoff * np.sinc(cutoff * offsets) * np.hamming(_FILTER_TAPS)
    filtered = np.convolve(pcm.astype(np.float64), taps / taps.sum(), mode="same")
    return np.clip(np.rint(filtered[::2]), -32_768, 32_767).astype(np.int16)


def repeated(samples: npt.NDArray[np.uint8], length: int, *, loop: bool) -> npt.NDArray[np.uint8]:
    """Makes speech as long as the call: cut, or repeated from the start, or filled with silence.

    Args:
        samples: A-law, uint8[n].
        length: Samples wanted.
        loop: Whether short speech is repeated.

    Returns:
        A-law, uint8[length].
    """
    if loop:
        return np.resize(samples, length)
    filled = np.full(length, SILENCE, np.uint8)
    filled[: samples.size] = samples[:length]
    return filled


def packets(
    samples: npt.NDArray[np.uint8], *, payload_type: int, ssrc: int, sequence: int, timestamp: int
) -> npt.NDArray[np.uint8]:
    """Makes the RTP packets of a stream (RFC 3550 section 5.1), the marker on the first (RFC 3551 section 4.1).

    Args:
        samples: A-law at 8 kHz, uint8[n]; the last packet is filled with silence.
        payload_type: 0..127.
        ssrc: 32 bits.
        sequence: First sequence number; wraps at 16 bits.
        timestamp: First timestamp; wraps at 32 bits.

    Returns:
        uint8[packets, 172], one packet of 20 ms a row.
    """
    count = -(-samples.size // SAMPLES_A_PACKET)
    index = np.arange(count, dtype=np.int64)
    made = np.empty((count, _RTP_HEADER_BYTES + SAMPLES_A_PACKET), np.uint8)
    made[:, 0] = _VERSION_2
    made[:, 1] = payload_type
    made[:1, 1] |= _MARKER
    made[:, 2:4] = ((sequence + index) & 0xFFFF).astype(">u2").view(np.uint8).reshape(-1, 2)
    stamps = (timestamp + index * SAMPLES_A_PACKET) & 0xFFFF_FFFF
    made[:, 4:8] = stamps.astype(">u4").view(np.uint8).reshape(-1, 4)
    made[:, 8:12] = np.frombuffer(ssrc.to_bytes(4, "big"), np.uint8)
    made[:, _RTP_HEADER_BYTES:] = repeated(samples, count * SAMPLES_A_PACKET, loop=False).reshape(count, -1)
    return made
