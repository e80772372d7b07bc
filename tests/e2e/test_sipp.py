"""SIPp, a client that is not ours, places the same kind of call over UDP and TCP."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import Law
from infra.local import listening
from tests.e2e.conftest import VECTORS, Local

SCENARIO = Path(__file__).parent / "sipp" / "siprec_uac.xml"
SPEECH_MS = 4_000
SAMPLES = SPEECH_MS * listening.SAMPLE_HZ // 1000


CALLS, RATE, SHORT_MS = 60, 30, 1_500

needs_sipp = pytest.mark.skipif(shutil.which("sipp") is None, reason="SIPp (Debian: sip-tester) is not installed")


@needs_sipp
@pytest.mark.parametrize(("transport", "address"), [("u1", "sip_udp"), ("t1", "sip_tcp")], ids=["udp", "tcp"])
def test_sipp_places_a_recorded_call(local: Local, tmp_path: Path, transport: str, address: str) -> None:
    """The scenario checks our answers; what SIPp spoke on its one leg is recorded under that leg's label and party."""
    spoken = listening.read_wav(VECTORS / "speech" / "alice.wav")[:SAMPLES]
    (tmp_path / "speech.alaw").write_bytes(g711.encode(Law.A, spoken).tobytes())
    call_id = f"sipp-{transport}-1@127.0.0.1"
    command = ["sipp", local.line[address], "-sf", str(SCENARIO), "-m", "1", "-t", transport, "-i", "127.0.0.1"]
    command += ["-mi", "127.0.0.1", "-d", str(SPEECH_MS), "-cid_str", f"sipp-{transport}-%u@127.0.0.1"]
    command += ["-nostdin", "-trace_err", "-timeout", "40", "-timeout_error"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    errors = "".join(path.read_text() for path in tmp_path.glob("*errors*"))
    assert result.returncode == 0, errors or result.stdout[-500:]
    recording = local.wait_recorded(call_id)
    (channel,) = [channel for channel in recording["channels"] if channel["label"] == "a_leg"]
    played = listening.decode_opus(local.officer.audio(recording["recording_id"]))
    found, _ = listening.correlation(spoken, played[:, channel["channel"]], max_lag_ms=100)
    assert found >= 0.9
    assert abs(recording["duration_ms"] - SPEECH_MS) <= 120
    assert recording["gaps"] == []


@needs_sipp
def test_sipp_places_many_calls_at_once(local: Local, tmp_path: Path) -> None:
    """Thirty a second by a client that is not ours: each is answered, and recorded once and whole."""
    spoken = listening.read_wav(VECTORS / "speech" / "bob.wav")[: SHORT_MS * listening.SAMPLE_HZ // 1000]
    (tmp_path / "speech.alaw").write_bytes(g711.encode(Law.A, spoken).tobytes())
    name = secrets.token_hex(4)
    command = ["sipp", local.line["sip_udp"], "-sf", str(SCENARIO), "-m", str(CALLS), "-r", str(RATE), "-t", "u1"]
    command += ["-i", "127.0.0.1", "-mi", "127.0.0.1", "-mp", "42000"]
    command += ["-d", str(SHORT_MS), "-cid_str", f"{name}-%u@127.0.0.1", "-nostdin", "-timeout", "60", "-timeout_error"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=90)
    assert result.returncode == 0, result.stdout[-500:]
    recordings = [local.wait_recorded(f"{name}-{number}@127.0.0.1") for number in range(1, CALLS + 1)]
    assert len({recording["recording_id"] for recording in recordings}) == CALLS
    assert max(abs(recording["duration_ms"] - SHORT_MS) for recording in recordings) <= 200
    assert all(recording["quality"][0]["lost"] == 0 for recording in recordings)
