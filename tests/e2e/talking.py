"""A call that goes on while a test acts, and what must hold of every span that a pause was to leave out."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from infra.local import listening, proofs
from infra.local.client import ApiProblem
from infra.local.unsealing import SealedCopies
from tests.e2e.conftest import BIN, VECTORS, Local

SPEECH = VECTORS / "speech"
LATEST_START_MS = 0
EARLIEST_START_MS = -400


def new_ucid() -> str:
    """A switch's universal call id, as the metadata carries it."""
    return f"00FA08{secrets.token_hex(8).upper()}"


class Talking:
    """A call in the background, of speech repeated for as long as it lasts.

    Args:
        local: Where it is recorded.
        seconds: How long it lasts.
        ucid: What payment systems know it by.
        callee: Whose line rings, if it matters.
        wait: Whether to wait until the cloud shows it as live.
        caller: What the caller's side sends, a WAV file.
    """

    def __init__(
        self,
        local: Local,
        seconds: float,
        ucid: str | None = None,
        *,
        callee: str | None = None,
        wait: bool = True,
        caller: Path = SPEECH / "alice.wav",
    ) -> None:
        self.local = local
        self.ucid = ucid or new_ucid()
        self._wait = wait
        self._command = [str(BIN / "dualtone-agent"), "call", "--target", local.line["sip_udp"], "--json", "--loop"]
        self._command += ["--caller-wav", str(caller), "--callee-wav", str(SPEECH / "bob.wav")]
        self._command += ["--duration", str(seconds), "--ucid", self.ucid]
        self._command += ["--callee", callee] if callee is not None else []

    def __enter__(self) -> Self:
        """Places the call."""
        known = {call["call_id"] for call in self._live()} if self._wait else set()
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self._wait:
            until = time.monotonic() + 15
            while not (new := [call["call_id"] for call in self._live() if call["call_id"] not in known]):
                assert time.monotonic() < until, "the call was not seen live"
                time.sleep(0.05)
            self.call_id: str = new[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the calling program, however far it is."""
        self._process.kill()
        self._process.communicate()

    def ended(self) -> dict[str, Any]:
        """Waits for the call's end; returns what the caller says of it."""
        said, complaint = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, complaint
        result: dict[str, Any] = json.loads(said.splitlines()[-1])
        return result

    def _live(self) -> list[dict[str, Any]]:
        try:
            calls: list[dict[str, Any]] = self.local.officer.get("/v1/calls")["calls"]
        except ApiProblem:
            return []
        return calls


def assert_left_out(
    local: Local,
    sealed: SealedCopies,
    recording: dict[str, Any],
    from_s: float,
    to_s: float,
    *,
    earliest_ms: float = EARLIEST_START_MS,
    ever: bool = True,
) -> dict[str, Any]:
    """Nothing of a span is in any sealed file or in what is played, and the recording says so with a certificate.

    Args:
        local: Where it was recorded.
        sealed: The copies of the sealed files.
        recording: Its JSON.
        from_s: Where the span begins, Unix seconds.
        to_s: Where it ends.
        earliest_ms: By how much more may be left out before it.
        ever: Whether no copy ever held any of it, or only none does now.

    Returns:
        The gap.
    """
    began_s = proofs.moment(recording["started_at"])
    from_ms, to_ms = 1000 * (from_s - began_s), 1000 * (to_s - began_s)
    gaps: list[dict[str, Any]] = [gap for gap in recording["gaps"] if gap["cause"] == proofs.PAYMENT]
    covering = [gap for gap in gaps if gap["from_ms"] <= max(from_ms, 0) + 1 and gap["to_ms"] >= to_ms - 1]
    assert {gap["channel"] for gap in covering} == {0, 1}, (from_ms, to_ms, recording["gaps"])
    assert all(gap["from_ms"] >= max(from_ms, 0) + earliest_ms for gap in covering), (from_ms, covering)
    for store in ("spool", "ingest"):
        arrivals = sealed.ever(store, recording["call_id"]) if ever else sealed.now(store, recording["call_id"])
        if ever:
            assert arrivals.size, f"nothing was seen in {store}: this would prove nothing"
        inside = (arrivals >= from_s * 1e6) & (arrivals <= to_s * 1e6)
        assert not inside.any(), f"{int(inside.sum())} arrivals of the span in {store}"
    played = listening.decode_opus(local.officer.audio(recording["recording_id"]))
    assert played.shape[0] >= to_ms * 8 - 160
    if to_ms - from_ms > 200:
        assert proofs.peak(played, max(from_ms, 0), to_ms) <= proofs.MAX_GAP_PEAK
    spoken = [listening.read_wav(SPEECH / f"{side}.wav") for side in ("alice", "bob")]
    for channel, samples in enumerate(spoken):
        whole = np.tile(samples, -(-played.shape[0] // samples.size))[: played.shape[0]]
        assert proofs.likeness(whole, played[:, channel], recording["gaps"]) >= 0.85
    assert all(gap["certificate"] for gap in covering)
    return covering[0]
