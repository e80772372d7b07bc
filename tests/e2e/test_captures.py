"""Captures of a real SBC (OpenSIPS with rtpengine), played at the agent by the replay tool beside the repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import listening
from tests.e2e.conftest import VECTORS, Local

TOOL = Path(__file__).parents[3] / "shared" / "tools" / "siprec_replay.py"
CAPTURES = sorted((VECTORS / "captures").glob("*.siprec.json.gz"))

pytestmark = pytest.mark.skipif(
    not TOOL.exists(),
    reason="the replay tool is kept beside the repository; test_sipp.py plays a foreign client always",
)


def play(captures: list[Path], local: Local, transport: str) -> list[dict[str, object]]:
    """Plays captures all at once; returns one object a call."""
    command = [sys.executable, str(TOOL), *map(str, captures), "--target", local.line[f"sip_{transport}"]]
    command += ["--transport", transport, "--json"]
    if transport == "tls":
        command += ["--ca", local.line["sip_tls_certificate"]]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    answers = [json.loads(text) for text in result.stdout.splitlines()]
    return [answer for answer in answers if answer["type"] == "call"]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_every_capture_replays_without_findings_and_sounds_as_captured(
    local: Local, tmp_path: Path, transport: str
) -> None:
    """The SBC finds nothing wrong with our answers, and each recorded channel is what the capture's reference says.

    SRTP is among them: what came protected is heard as what came in the clear.
    """
    calls = play(CAPTURES, local, transport)
    assert len(calls) == len(CAPTURES) >= 5
    assert [call["findings"] for call in calls] == [[]] * len(calls)
    for call in calls:
        recording = local.wait_recorded(str(call["call_id"]))
        wav = tmp_path / f"{call['capture']}.wav"
        wav.write_bytes(listening.wav_bytes(listening.decode_opus(local.officer.audio(recording["recording_id"]))))
        capture = next(path for path in CAPTURES if path.name.startswith(str(call["capture"])))
        command = [sys.executable, str(TOOL), str(capture)]
        for channel in recording["channels"]:
            command += ["--judge", f"{channel['label']}={wav}:{channel['channel']}"]
        judged = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout.splitlines()
        verdicts = [json.loads(text) for text in judged]
        assert len(verdicts) == 2
        for verdict in verdicts:
            assert verdict["ok"], verdict
            assert max(verdict["silent_where_paused"], default=0) <= 5, verdict
