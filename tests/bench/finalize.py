"""How fast a call is finalised: a real upload of G.711 through the real use case, the real ffmpeg, and moto as AWS.

The parties speak in turn, with pauses and overlaps, over a little line noise. CPU time is that of this process and its
ffmpeg, both kept on one core, moto's own work included. ``finalize_rest_x_realtime`` is the same without encoder and
without AWS: verify, unseal, decode, lay out, mix, measure, pad, seal. G.722, Opus and G.729 are rendered without AWS:
decoders, resampling and encoder are all that differs, and both parties speak at once. ``--memory`` measures the peak of
a long call in a process that holds nothing else. ``python -m tests.bench.finalize --minutes 60 --memory``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from moto import mock_aws

from dualtone.adapters import opus_encoder, speech_decoder
from dualtone.adapters.finalizer import finalizer
from dualtone.domain.audio.g711 import Law
from dualtone.domain.call_files import IngestKey
from dualtone.domain.ids import AttemptId, CallId, recording_id
from dualtone.domain.media_record import StreamBlock
from dualtone.usecases.open_call import OpenCall
from dualtone.usecases.render_audio import RenderAudio
from dualtone.usecases.seal_recording import seal
from infra.local.moto_fixes import mended
from tests.adapters.finalize.cloud import CREDENTIALS, decode, made_cloud, start_cold
from tests.call_samples import ANSWERED_US, CALL, INGEST_KEY, TENANT, AgentKey, Upload, blocks, compress, speech, upload
from tests.codec_samples import Reading, g722, g729, manifest, opus
from tests.listening import correlation

RATE: Final = 8000
PACKET: Final = 160
PER_SECOND: Final = RATE // PACKET
NOISE_RMS: Final = 8
SSRC: Final = (0x1A2B3C4D, 0x5E6F7081)

Pcm = npt.NDArray[np.int16]


@cache
def conversation(seconds: int = 60) -> tuple[Pcm, Pcm]:
    """A minute of two parties who speak in turn, 2 to 6 s each, with pauses and overlaps of up to 0.3 s."""
    dice = np.random.default_rng(2026)
    sides = [dice.normal(0, NOISE_RMS, seconds * RATE) for _ in range(2)]
    voices = [np.resize(speech(name), seconds * RATE).astype(np.float64) for name in ("alice", "bob")]
    at, speaker = 0, 0
    while at < seconds * RATE:
        until = min(seconds * RATE, at + int(dice.uniform(2, 6) * RATE))
        sides[speaker][at:until] += voices[speaker][at:until]
        at, speaker = max(at + RATE, until + int(dice.uniform(-0.3, 0.3) * RATE)), 1 - speaker
    return sides[0].clip(-32768, 32767).astype(np.int16), sides[1].clip(-32768, 32767).astype(np.int16)


def media(minutes: int) -> Iterator[StreamBlock]:
    """The call as the agent's ring gives it out: a block a second and stream, 50 packets of 20 ms, 3 ms of jitter."""
    octets = [compress(Law.A, side) for side in conversation()]
    dice = np.random.default_rng(7)
    offsets = np.arange(PER_SECOND)
    for second in range(60 * minutes):
        for stream in range(2):
            number = second * PER_SECOND + offsets
            start = second % 60 * RATE
            yield StreamBlock(
                stream=stream,
                ssrc=SSRC[stream],
                sequence=(number % 0x10000).astype(np.uint16),
                timestamp=(number * PACKET % 0x1_0000_0000).astype(np.uint32),
                arrival_us=ANSWERED_US + number * 20_000 + dice.integers(0, 3000, PER_SECOND),
                payload_type=np.full(PER_SECOND, 8, np.uint8),
                size=np.full(PER_SECOND, PACKET, np.uint16),
                payload=octets[stream][start : start + RATE],
            )


def run(minutes: int = 10) -> dict[str, Any]:
    """Measures.

    Args:
        minutes: Length of the call.

    Returns:
        The figures by name.
    """
    with _one_core(), _environment(CREDENTIALS), mock_aws(), mended():
        cloud = made_cloud()
        with _environment(cloud.environment()):
            start_cold()
            finalizer()(cloud.receive(cloud.seal(media(1))))  # what a warm process has done before
            again = CallId(CALL[:-1] + "1")
            key = cloud.receive(cloud.seal(media(minutes), part_seconds=60, call=again))
            before, wall = _cpu(), time.monotonic()
            finalizer()(key)
            wall = time.monotonic() - wall
            own, encoder = (after - earlier for after, earlier in zip(_cpu(), before, strict=True))
            heard = decode(cloud.opened(again))
            (recording,) = cloud.recordings(again)
            start_cold()
        rest = _rest(minutes)
        coded = coded_x_realtime(max(1, minutes // 5))
    seconds = 60.0 * minutes
    judged = [correlation(heard[: 60 * RATE, side], conversation()[side])[0] for side in range(2)]
    return {
        "finalize_minutes": minutes,
        "finalize_x_realtime": round(seconds / (own + encoder), 1),
        "finalize_encoder_x_realtime": round(seconds / encoder, 1),
        "finalize_rest_x_realtime": round(seconds / rest, 1),
        "finalize_cpu_s_with_moto": round(own + encoder, 3),
        "finalize_wall_s": round(wall, 3),
        "finalize_bytes_per_second": round(recording["vault_size_bytes"] / seconds),
        "finalize_correlation": round(min(judged), 3),
        **coded,
    }


class _Disk:
    """An upload on the agent's side, and the cloud's ingest key, without AWS."""

    def __init__(self, sent: Upload) -> None:
        self._sent = sent

    def get(self, key: str) -> bytes:
        return self._sent.files[key]

    def unwrap_call_key(self, ingest_key: str, wrapped: bytes) -> bytes:
        assert ingest_key == INGEST_KEY
        return wrapped


class _Replay:
    """An encoder that costs nothing: the pages were encoded before."""

    def __init__(self, pages: list[bytes]) -> None:
        self._pages = pages

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        assert samples.shape[1] == 2
        return []

    def finish(self) -> list[bytes]:
        return self._pages


def _rest(minutes: int) -> float:
    """CPU seconds of everything but the encoder and AWS."""
    key = AgentKey()
    sent = upload(media(minutes), key=key, wrap=lambda bound: bound, part_seconds=60)
    pages: list[bytes] = []
    with opus_encoder.started(RATE) as encoder:
        for _ in range(minutes):
            pages += encoder.write(np.stack(conversation(), axis=1))
        pages += encoder.finish()

    @contextmanager
    def replay(_rate_hz: int) -> Iterator[_Replay]:
        yield _Replay(pages)

    best = float("inf")
    for _ in range(3):
        before = time.process_time()
        _finalised(_Disk(sent), sent.manifest_key, key, RenderAudio(replay, speech_decoder.start))
        best = min(best, time.process_time() - before)
    return best


def _finalised(disk: Any, manifest_key: str, key: Any, render: RenderAudio) -> int:
    """All steps between the two ends: the bytes that would be stored."""
    reader = OpenCall(disk, disk)
    call = reader.manifest(IngestKey.parse(manifest_key), disk.get(manifest_key), key.public_der)
    rendering = render(call.manifest, call, reader.blocks(call, key.public_der, {INGEST_KEY}))
    assert rendering is not None
    assert not call.damage
    sealed = seal(
        rendering.header_pages,
        rendering.pages,
        tenant=TENANT,
        recording=recording_id(TENANT, CALL),
        generation=1,
        attempt=AttemptId("01JD0000000000000000000001"),
        call=CALL,
        started_at_ms=rendering.started_at_us // 1000,
        created_at_ms=0,
        agent_manifest_sha256=call.manifest_sha256,
        root=bytes(32),
    )
    return len(sealed.data)


def coded_x_realtime(minutes: int) -> dict[str, float]:
    """CPU of rendering a call of two parties in other codecs, decoders and encoder included: times real time."""
    repeats = minutes * 5
    figures = {}
    for name, coded in (("g722", g722), ("opus", opus), ("g729", g729)):
        sides = [replace(one, payloads=[*one.payloads[:600]] * repeats) for one in map(coded, ("alice", "bob"))]
        kept = [
            packet for stream, side in enumerate(sides) for packet in side.packets(stream=stream, ssrc=SSRC[stream])
        ]
        streams = [side.entry(stream, str(stream)) for stream, side in enumerate(sides)]
        said, parts = manifest(kept, streams), [[one] for one in blocks(kept)]
        before = _cpu()
        rendering = RenderAudio(opus_encoder.started, speech_decoder.start)(said, Reading(), parts)
        own, children = (after - earlier for after, earlier in zip(_cpu(), before, strict=True))
        assert rendering is not None
        assert rendering.duration_ms >= 59_000 * minutes
        figures[f"finalize_{name}_x_realtime"] = round(60 * minutes / (own + children), 1)
    return figures


def peak_mb(minutes: int) -> dict[str, float]:
    """Peak memory of a process that finalises a call of so many minutes, and of its ffmpeg; the upload is in files."""
    key = AgentKey()
    with tempfile.TemporaryDirectory() as directory:
        sent = upload(media(minutes), key=key, wrap=lambda bound: bound, part_seconds=60)
        for name, data in sent.files.items():
            Path(directory, name.replace("/", "!")).write_bytes(data)
        Path(directory, "agent.pem").write_text(key.public_pem)
        command = [sys.executable, "-m", "tests.bench.finalize", "--from", directory, "--key", sent.manifest_key]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return measured


class _Files:
    """An upload in a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def get(self, key: str) -> bytes:
        return Path(self._directory, key.replace("/", "!")).read_bytes()

    def unwrap_call_key(self, ingest_key: str, wrapped: bytes) -> bytes:
        assert ingest_key == INGEST_KEY
        return wrapped


def _finalise_files(directory: str, manifest_key: str) -> dict[str, float]:
    key = load_pem_public_key(Path(directory, "agent.pem").read_bytes())

    class Public:
        public_der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    watched: list[_Watched] = []

    @contextmanager
    def start(rate_hz: int) -> Iterator[_Watched]:
        with opus_encoder.started(rate_hz) as encoder:
            watched.append(_Watched(encoder))
            yield watched[0]

    _finalised(_Files(directory), manifest_key, Public, RenderAudio(start, speech_decoder.start))
    return {"finalize_peak_mb": _peak_mb(os.getpid()), "finalize_peak_ffmpeg_mb": watched[0].peak_mb}


class _Watched:
    """An encoder whose process is asked for its memory."""

    def __init__(self, encoder: opus_encoder.OpusEncoder) -> None:
        self._encoder = encoder
        self.peak_mb = 0.0

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        pages = self._encoder.write(samples)
        self.peak_mb = _peak_mb(self._encoder.pid)
        return pages

    def finish(self) -> list[bytes]:
        return self._encoder.finish()


def _peak_mb(pid: int) -> float:
    """Peak of a process's resident memory since it was started; getrusage would begin with its parent's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024, 1)


@contextmanager
def _one_core() -> Iterator[None]:
    """Keeps this process and its ffmpeg on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Holds environment variables for the length of a block."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process and of its children so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def main() -> int:
    """Runs the benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10, help="length of the call (default: 10)")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead of speed")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--from", dest="directory", help=argparse.SUPPRESS)
    parser.add_argument("--key", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.directory:
        print(json.dumps(_finalise_files(arguments.directory, arguments.key)))
        return 0
    result = peak_mb(arguments.minutes) if arguments.memory else run(arguments.minutes)
    for name, value in result.items():
        print(f"{name:32} {value!s:>24}")
    if arguments.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
