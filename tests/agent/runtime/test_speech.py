"""Speech for test calls: WAV, A-law, RTP."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.runtime import speech


def write_wav(path: Path, pcm: np.ndarray, rate_hz: int = 8_000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def decode(code: int) -> int:
    """A-law to 16-bit linear, by the text of ITU-T G.711 (the other direction than the table under test)."""
    code ^= 0x55
    segment, mantissa = code >> 4 & 7, code & 15
    magnitude = (mantissa << 4) + 8 if segment == 0 else ((mantissa << 4) + 0x108) << (segment - 1)
    return magnitude if code & 0x80 else -magnitude


def test_every_sample_becomes_the_value_of_its_interval() -> None:
    """For all 65536 samples the decoded value is off by at most half the step of its segment."""
    pcm = np.arange(-32_768, 32_768).astype(np.int16)
    codes = speech.alaw(pcm)
    values = np.array([decode(code) for code in range(256)])
    half_steps = np.array([8 << max((code ^ 0x55) // 16 % 8 - 1, 0) for code in range(256)])
    assert np.all(np.abs(values[codes] - pcm.astype(np.int64)) <= half_steps[codes])


@pytest.mark.parametrize(("sample", "code"), [(0, 0xD5), (-1, 0x55), (32_767, 0xAA), (-32_768, 0x2A), (1_000, 0xFA)])
def test_known_a_law_values(sample: int, code: int) -> None:
    """Silence, the smallest step, both ends and one in between, as ITU-T G.711 and every telephone have them."""
    assert speech.alaw(np.array([sample], np.int16)).tolist() == [code]


def test_an_8_khz_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """The samples of an 8 kHz file are encoded one by one."""
    pcm = np.arange(-500, 500, dtype=np.int16)
    assert np.array_equal(speech.load(write_wav(tmp_path / "a.wav", pcm)), speech.alaw(pcm))


def test_a_16_khz_file_is_halved_in_phase_and_without_aliases(tmp_path: Path) -> None:
    """A tone of 1 kHz keeps its phase; one of 6 kHz, which 8 kHz cannot hold, vanishes."""
    time_s = np.arange(16_000) / 16_000
    low, high = (10_000 * np.sin(2 * np.pi * hz * time_s) for hz in (1_000, 6_000))
    halved = speech.halved(low.astype(np.int16))
    assert halved.size == 8_000
    assert np.abs(halved[100:-100] - low[::2][100:-100]).max() < 100
    assert np.abs(speech.halved(high.astype(np.int16))[100:-100]).max() < 100
    assert speech.load(write_wav(tmp_path / "w.wav", low, 16_000)).size == 8_000


@pytest.mark.parametrize(
    ("rate_hz", "channels", "width"), [(44_100, 1, 2), (8_000, 2, 2), (8_000, 1, 1)], ids=["rate", "stereo", "8 bit"]
)
def test_other_files_are_refused_with_what_to_give(tmp_path: Path, rate_hz: int, channels: int, width: int) -> None:
    """The message names what the file has and what is wanted."""
    path = write_wav(tmp_path / "a.wav", np.zeros(400, np.int16), rate_hz, channels, width)
    with pytest.raises(MalformedInput, match="8000 or 16000 Hz, 16 bits, one channel"):
        speech.load(path)


@pytest.mark.parametrize("content", [None, b"", b"RIFFxxxx", struct.pack("<4sI4s", b"RIFF", 4, b"WAVE")])
def test_what_is_no_wav_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or damaged file is one line, not a trace."""
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MalformedInput, match=r"a\.wav"):
        speech.load(path)


def test_an_empty_wav_is_refused(tmp_path: Path) -> None:
    """There is nothing to say in it."""
    with pytest.raises(MalformedInput, match="no samples"):
        speech.load(write_wav(tmp_path / "a.wav", np.zeros(0, np.int16)))


@given(
    st.integers(1, 2_000),
    st.integers(0, 127),
    st.integers(0, 2**32 - 1),
    st.integers(0, 65_535),
    st.integers(0, 2**32 - 1),
)
def test_packets_carry_the_speech_in_order(size: int, payload_type: int, ssrc: int, first: int, stamp: int) -> None:
    """Headers count up and wrap, only the first packet has the marker, the payload is the speech, then silence."""
    samples = np.arange(size).astype(np.uint8)
    made = speech.packets(samples, payload_type=payload_type, ssrc=ssrc, sequence=first, timestamp=stamp)
    payload = b""
    for index, row in enumerate(made):
        data = row.tobytes()
        flags, marker_type, sequence, timestamp, source = struct.unpack("!BBHII", data[:12])
        assert flags == 0x80
        assert marker_type == payload_type | (0x80 if index == 0 else 0)
        assert sequence == (first + index) % 65_536
        assert timestamp == (stamp + 160 * index) % 2**32
        assert source == ssrc
        payload += data[12:]
    assert payload[:size] == samples.tobytes()
    assert set(payload[size:]) <= {speech.SILENCE}


@pytest.mark.parametrize(
    ("length", "loop", "expected"),
    [(2, False, [1, 2]), (5, False, [1, 2, 3, 0xD5, 0xD5]), (7, True, [1, 2, 3, 1, 2, 3, 1]), (2, True, [1, 2])],
)
def test_speech_is_cut_filled_or_repeated(length: int, loop: bool, expected: list[int]) -> None:
    """A call longer than its WAV is silent at the end, or hears it again."""
    assert speech.repeated(np.array([1, 2, 3], np.uint8), length, loop=loop).tolist() == expected
