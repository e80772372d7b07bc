"""Rebuilds the G.729 vectors: ``python tests/vectors/g729/build.py``, where Debian's ``libbcg729-0`` is installed."""

from __future__ import annotations

import ctypes
import wave
from pathlib import Path

HERE = Path(__file__).parent
FRAME_SAMPLES = 80
MOST_BYTES = 10


def encoded(samples: bytes, *, detects_voice: bool) -> bytes:
    """The frames of 16-bit samples at 8 kHz, each behind its length."""
    library = ctypes.CDLL("libbcg729.so.0")
    library.initBcg729EncoderChannel.restype = ctypes.c_void_p
    channel = ctypes.c_void_p(library.initBcg729EncoderChannel(ctypes.c_uint8(detects_voice)))
    bits, length = ctypes.create_string_buffer(MOST_BYTES), ctypes.c_uint8()
    frames = bytearray()
    for at in range(0, len(samples) - 2 * FRAME_SAMPLES + 1, 2 * FRAME_SAMPLES):
        frame = (ctypes.c_int16 * FRAME_SAMPLES).from_buffer_copy(samples[at : at + 2 * FRAME_SAMPLES])
        library.bcg729Encoder(channel, frame, bits, ctypes.byref(length))
        frames += bytes([length.value]) + bits.raw[: length.value]
    library.closeBcg729EncoderChannel(channel)
    return bytes(frames)


def main() -> None:
    """Writes both files."""
    for name, detects_voice in (("alice", False), ("bob", True)):
        with wave.open(str(HERE.parent / "speech" / f"{name}.wav")) as file:
            samples = file.readframes(file.getnframes())
        (HERE / f"{name}.bits").write_bytes(encoded(samples, detects_voice=detects_voice))


if __name__ == "__main__":
    main()
