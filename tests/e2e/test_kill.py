"""kill -9 at random moments: every complete record of the spool is in one recording, once; what is lost is declared.

A caller and a callee whose pitch changes with every second, so that each second of what is played can be told from
every other. While the call lasts, one of the agent's processes is killed again and again, at moments that a seed draws.
Before each kill the test reads the spool by the format's description alone (``infra/formats/part.md``).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import struct
import subprocess
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from infra.local import listening, proofs
from tests.e2e.conftest import BIN, Local, start_local, stop_local
from tests.e2e.test_local import descendants

SAMPLE_HZ = 8_000
WINDOW_MS = 100
PACKET_MS = 20
LATE_MS = 200  # packets come late where the machine is busy; they are played when they were due
FILLED_RMS = 5_000  # of a tone that fills a window it is 5,657
HEARD_RMS = 2_000
ADOPTED_WITHIN_S = 2.0  # where the processors have nothing else to do; longer in proportion where others want them
SETTLE_S = 3.0  # after the last kill the call goes on for so long
MEDIA = 1
TONES = {"caller": (400, 35), "callee": (3_200, -35)}  # Hz in the first second, and the step to the next

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Record:
    """A media record of the spool: where it stands, and when its packets arrived."""

    call: str
    epoch: int
    sequence: int
    from_us: int
    to_us: int


@dataclass
class Rounds:
    """What was done to a call, and what was seen meanwhile."""

    records: set[Record] = field(default_factory=set)
    kills: list[tuple[str, float]] = field(default_factory=list)


def frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The complete frames of a part: type, sequence, from, span."""
    (header_bytes,) = struct.unpack_from(">I", data, 4)
    at = 8 + header_bytes
    while at + 4 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 4 + size > len(data):
            return  # torn
        kind, _, sequence, from_us, span_us = struct.unpack_from(">BHQQI", data, at + 4)
        yield kind, sequence, from_us, span_us
        at += 4 + size


def complete_records(spool: Path) -> set[Record]:
    """Every complete media record that lies in the spool."""
    found = set()
    for path in [*spool.glob("*/*.dtp"), *spool.glob("*/*.dtp.open")]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # it was just given its name, which is read as well
        if len(data) < 8 or data[:4] != b"DTP1":
            continue
        epoch = json.loads(data[8 : 8 + struct.unpack_from(">I", data, 4)[0]])["epoch"]
        for kind, sequence, from_us, span_us in frames(data):
            if kind == MEDIA:
                found.add(Record(path.parent.name, epoch, sequence, from_us, from_us + span_us))
    return found


def busy() -> float:
    """By how many the processors are shared: 1 where they have nothing else to do."""
    waiting = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return max(1.0, max(os.getloadavg()[0], waiting) / (os.cpu_count() or 1))


def write_tones(directory: Path, seconds: int) -> list[str]:
    """Two WAV files whose pitch says which second it is; returns the options that play them."""
    options = []
    for side, (first_hz, step_hz) in TONES.items():
        at = np.arange(SAMPLE_HZ) / SAMPLE_HZ
        pitches = (first_hz + step_hz * second for second in range(seconds))
        tone = np.concatenate([8_000 * np.sin(2 * np.pi * hz * at) for hz in pitches]).astype("<i2")
        with wave.open(str(directory / f"{side}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_HZ)
            file.writeframes(tone.tobytes())
        options += [f"--{side}-wav", str(directory / f"{side}.wav")]
    return options


def process_of(local: Local, which: str) -> int | None:
    """The agent's SIP or media process, if it runs at this moment."""
    sign = {"sip": b"dualtone-agent\0run", "media": b"-m\0sbc_agent.media\0"}[which]
    for pid in descendants(local.process.pid):
        try:
            if sign in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue
    return None


def log_lines(local: Local) -> list[dict[str, Any]]:
    (log,) = [Path(name) for name in local.line["log_files"] if name.endswith("agent.log")]
    return [json.loads(text) for text in log.read_text().splitlines() if text.startswith("{")]


def wait_for(local: Local, event: str, since_s: float, within_s: float = 20.0) -> float:
    """Waits for a line of the agent's log; returns how long after a moment it came."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        for line in log_lines(local):
            at_s = datetime.fromisoformat(line["time"]).timestamp()
            if line["event"] == event and at_s > since_s - 0.001:
                return at_s - since_s
        time.sleep(0.02)
    raise AssertionError(f"no {event} within {within_s} s")


def kill_at_random(local: Local, draw: random.Random, rounds: Rounds) -> None:
    """One round: wait for a moment, read the spool, kill; one in four kills again while the agent comes back."""
    time.sleep(draw.uniform(0.3, 3.5))
    kill(local, draw, rounds)
    if draw.random() < 0.25:
        time.sleep(draw.uniform(0.0, 0.6))
        kill(local, draw, rounds)


def kill(local: Local, draw: random.Random, rounds: Rounds) -> None:
    which = draw.choice(["sip", "media"])
    while (pid := process_of(local, which)) is None:
        time.sleep(0.01)
    rounds.records |= complete_records(Path(local.line["spool_dir"]))
    wall_s = time.time()
    os.kill(pid, signal.SIGKILL)
    rounds.kills.append((which, wall_s))


def pitch(samples: Samples) -> float:
    """The strongest frequency of a window, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size), 8_192))
    return float(np.argmax(spectrum) * SAMPLE_HZ / 8_192)


def second_heard(samples: Samples, side: str) -> int | None:
    """Which second of a side a window is of; None where it is not filled, or lies over a change of pitch."""
    if rms(samples) < FILLED_RMS:
        return None
    first_hz, step_hz = TONES[side]
    second = (pitch(samples) - first_hz) / step_hz
    return round(second) if abs(second - round(second)) < 0.25 else None


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def a_call_survives(local: Local, directory: Path, draw: random.Random, kills: int) -> Rounds:
    """A call, so many kills, and the proof of what became of every record."""
    seconds, rounds, began_s = 6 + 6 * kills, Rounds(), time.time()
    command = [str(BIN / "dualtone-agent"), "call", "--target", local.line["sip_udp"], "--json"]
    with subprocess.Popen([*command, *write_tones(directory, seconds)], stdout=subprocess.PIPE, text=True) as calling:
        wait_for(local, "call_began", began_s)
        for _ in range(kills):
            kill_at_random(local, draw, rounds)
            took_s = wait_for(local, "call_adopted", rounds.kills[-1][1])
            print(f"{rounds.kills[-1][0]} killed, call taken over after {1000 * took_s:.0f} ms")
            assert took_s <= ADOPTED_WITHIN_S * busy()
        time.sleep(SETTLE_S)
        rounds.records |= complete_records(Path(local.line["spool_dir"]))
        assert calling.stdout is not None
        (called,) = [json.loads(text) for text in calling.stdout if "sip_call_id" in text]
    assert (called["ended_by"], called["bye_status"]) == ("us", 200)
    recording = local.wait_recorded(called["sip_call_id"])
    records = {record for record in rounds.records if record.call == recording["call_id"]}
    assert kills <= max(record.epoch for record in records) <= len(rounds.kills), "each run went on under its own key"
    prove(local, recording, records, rounds, media_started_ms=_wall_ms(called["media_started_at"]))
    return rounds


def prove(
    local: Local, recording: dict[str, Any], records: set[Record], rounds: Rounds, media_started_ms: float
) -> None:
    """Every record is heard in its place and nowhere else; what is not heard is declared."""
    played = listening.decode_opus(local.officer.audio(recording["recording_id"]))
    started_ms = _wall_ms(recording["started_at"])
    for side in TONES:
        channel = proofs.channel_of(recording, side)
        gaps = [
            (gap["from_ms"], gap["to_ms"])
            for gap in recording["gaps"]
            if gap["cause"] == "restart" and gap["channel"] == channel
        ]
        assert 1 <= len(gaps) <= len(rounds.kills), "restarts are declared, none twice"
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(gaps))
        samples = played[:, channel]
        once_and_in_place(samples, side, media_started_ms - started_ms)
        for record in records:
            from_ms, to_ms = record.from_us / 1000 - started_ms, record.to_us / 1000 - started_ms
            assert not any(from_ms + 2 < end and begin < to_ms - 2 for begin, end in gaps), "not declared lost"
            heard = heard_ms(samples, from_ms - LATE_MS, to_ms + PACKET_MS + LATE_MS)
            assert heard >= 0.9 * (to_ms - from_ms), "heard"


def once_and_in_place(samples: Samples, side: str, lead_ms: float) -> None:
    """No second is there twice, and each where it was spoken.

    Args:
        samples: What is played, int16[n] at 8 kHz.
        side: Who speaks.
        lead_ms: When it was that the speech began, on the recording's timeline.
    """
    windows: dict[int, int] = {}
    for at_ms in range(0, samples.size * 1000 // SAMPLE_HZ - WINDOW_MS, WINDOW_MS):
        window = samples[at_ms * SAMPLE_HZ // 1000 : (at_ms + WINDOW_MS) * SAMPLE_HZ // 1000]
        if (second := second_heard(window, side)) is not None:
            windows[second] = windows.get(second, 0) + 1
            assert abs(at_ms + WINDOW_MS / 2 - lead_ms - 1000 * second - 500) < 750
    assert max(windows.values()) <= 1000 // WINDOW_MS


def heard_ms(samples: Samples, from_ms: float, to_ms: float) -> int:
    """How much of a span is not silent, in steps of 10 ms."""
    step = SAMPLE_HZ // 100
    first, last = max(round(from_ms * SAMPLE_HZ / 1000), 0), round(to_ms * SAMPLE_HZ / 1000)
    return 10 * sum(
        rms(samples[at : at + step]) > HEARD_RMS for at in range(first, min(last, samples.size - step), step)
    )


def _wall_ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local cloud of its own: its agent comes and goes."""
    running = start_local(tmp_path_factory.mktemp("kill"), "--hold-back", "1")
    yield running
    assert stop_local(running) == 0


def test_a_call_survives_three_kills(killed: Local, tmp_path: Path) -> None:
    """Three rounds in one call."""
    a_call_survives(killed, tmp_path, random.Random(3), kills=3)


@pytest.mark.long
def test_twenty_rounds(killed: Local, tmp_path: Path) -> None:
    """Twenty rounds in five calls."""
    draw = random.Random(20)
    for number in range(5):
        directory = tmp_path / str(number)
        directory.mkdir()
        a_call_survives(killed, directory, draw, kills=4)
