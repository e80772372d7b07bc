"""``make demo ONCE=1``: what the issue wants of its one JSON line, checked by another hand than the demo's own."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path


def test_the_demo_proves_a_call_from_the_sbc_to_the_ear(tmp_path: Path) -> None:
    """One call is recorded, found, played, verified; nothing of it lies in the clear anywhere."""
    command = [str(Path(sys.executable).parent / "dualtone"), "demo", "--once", "--data-dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert line["caller_correlation"] >= 0.9
    assert line["callee_correlation"] >= 0.9
    assert line["duration_error_ms"] <= 40
    assert line["plaintext_windows_found"] == 0, line["plaintext_findings"]
    assert set(line["planted_windows_found"]) == {
        "spool",
        "ingest",
        "vault",
        "tables",
        "queues",
        "logs",
        "temporary_files",
    }
    assert all(line["planted_windows_found"].values())
    assert line["scanned_bytes"] > 200_000
    assert line["signature_openssl"] == "ok"
    assert line["found_by_number"] is True
    assert line["seen_by_other_tenant"] is False
    assert -400 <= line["gap_start_error_ms"] <= 0
    assert 0 <= line["gap_end_error_ms"] <= 120
    assert 0 < line["pause_ack_ms"] < 3000
    assert 0 < line["resume_latency_ms"] < 3000
    assert line["gap_peak"] <= 2
    assert line["gap_packets_in_ingest"] == line["gap_packets_in_spool"] == 0
    assert line["ingest_packet_times"] > 500, "of eight seconds that were kept"
    assert 0 <= line["too_late_seconds"] < 30
    assert line["late_gap_peak"] <= 2
    assert line["late_gap_told"] is True
    assert set(line["seconds"]) == {"start", "call", "finalise", "play", "late", "scan"}
    for name in ("source_alice", "source_bob", "played_wav", "manifest", "message", "signature", "public_key"):
        assert Path(line["paths"][name]).stat().st_size > 0
    with wave.open(line["paths"]["played_wav"]) as played:
        assert (played.getnchannels(), played.getframerate()) == (2, 8000)
