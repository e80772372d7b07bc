"""What the demo proves, each proof by itself: signature, absence of plaintext, who speaks where."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import Law
from infra.local import listening, scanner
from infra.local.scanner import Finding, Needles, Snapshots
from infra.local.stores import STORES, Stores

MIN_CORRELATION: Final = 0.9
MAX_DURATION_ERROR_MS: Final = 40


def openssl_verdict(message: str, signature: str, public_key: str) -> str:
    """Lets openssl, which shares no code with us, check the manifest's signature; ``ok`` or what it said."""
    program = shutil.which("openssl")
    if program is None:
        return "openssl is not installed"
    command = [program, "dgst", "-sha256", "-verify", public_key, "-signature", signature, message]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    said = result.stdout.strip() or result.stderr.strip()
    return "ok" if (result.returncode, said) == (0, "Verified OK") else said


def codings(samples: listening.Samples) -> dict[str, bytes]:
    """One speaker in every coding in which plaintext could lie about."""
    alaw, ulaw = g711.encode(Law.A, samples), g711.encode(Law.MU, samples)
    return {
        "PCM": samples.astype("<i2").tobytes(),
        "PCM, big-endian": samples.astype(">i2").tobytes(),
        "A-law": alaw.tobytes(),
        "mu-law": ulaw.tobytes(),
        "PCM decoded from A-law": g711.decode(Law.A, alaw).astype("<i2").tobytes(),
    }


def needles(sources: Iterable[Path], ogg: bytes) -> Needles:
    """Everything that the scanner looks for: both speakers in all codings, and the recording's own Opus packets."""
    wanted: dict[str, list[bytes]] = {"Opus packets": list(listening.opus_packets(ogg))[2:]}
    for source in sources:
        for coding, data in codings(listening.read_wav(source)).items():
            wanted.setdefault(coding, []).append(data)
    return Needles(wanted)


def planted_windows_found(stores: Stores, source: Path, ogg: bytes, wanted: Needles) -> dict[str, bool]:
    """Plants 400 ms of speech in every store, in every coding, and reports for each store whether all were found."""
    samples = _liveliest_window(listening.read_wav(source))
    windows = codings(samples)
    packets = list(listening.opus_packets(ogg))[2:]
    middle = len(packets) // 2
    windows["Opus packets"] = b"".join(packets[middle : middle + scanner.WINDOW_MS // 20])
    return {store: all(_found(stores, store, data, wanted) for data in windows.values()) for store in STORES}


def scan(snapshots: Snapshots, wanted: Needles) -> list[Finding]:
    """Looks into everything that was seen."""
    return [finding for place, data in snapshots for finding in scanner.look(place, data, wanted)]


def channel_of(recording: dict[str, Any], role: str) -> int:
    """The channel on which a role speaks; raises ValueError when the recording names none."""
    for channel in recording["channels"]:
        if channel["role"] == role:
            return int(channel["channel"])
    raise ValueError(f"the recording names no {role}")


def unmet(result: dict[str, Any]) -> list[str]:
    """Names each figure of the demo that is not as it must be."""
    expected = {
        "caller_correlation": result["caller_correlation"] >= MIN_CORRELATION,
        "callee_correlation": result["callee_correlation"] >= MIN_CORRELATION,
        "duration_error_ms": result["duration_error_ms"] <= MAX_DURATION_ERROR_MS,
        "plaintext_windows_found": result["plaintext_windows_found"] == 0,
        "planted_windows_found": all(result["planted_windows_found"].values()),
        "signature_openssl": result["signature_openssl"] == "ok",
        "found_by_number": result["found_by_number"] is True,
        "seen_by_other_tenant": result["seen_by_other_tenant"] is False,
    }
    return [f"{name} = {result[name]}" for name, met in expected.items() if not met]


def _found(stores: Stores, store: str, data: bytes, wanted: Needles) -> bool:
    with stores.planted(store, data):
        return any(scanner.look(place, seen, wanted) for place, seen in stores.contents(store))


def _liveliest_window(samples: listening.Samples) -> listening.Samples:
    """The 400 ms with the most energy: a window of silence would prove nothing."""
    size = listening.SAMPLE_HZ * scanner.WINDOW_MS // 1000
    energy = np.add.reduceat(samples.astype(np.int64) ** 2, np.arange(0, samples.size - size + 1, size))
    start = int(energy[:-1].argmax()) * size
    return samples[start : start + size]
