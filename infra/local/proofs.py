"""What the demo proves, each by itself: signature, absence of plaintext, who speaks where, what a pause leaves out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import Law
from infra.local import listening, scanner
from infra.local.payment import Answer
from infra.local.scanner import Finding, Needles, Snapshots
from infra.local.stores import STORES, Stores
from infra.local.unsealing import SealedCopies

MIN_CORRELATION: Final = 0.9
MAX_DURATION_ERROR_MS: Final = 40
GAP_START_ERROR_MS: Final = (-400, 0)
GAP_END_ERROR_MS: Final = (0, 120)
MAX_GAP_PEAK: Final = 2
PAYMENT: Final = "payment"
_INSIDE_MS: Final = 60


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
    packets, length = list(listening.opus_packets(ogg))[2:], scanner.WINDOW_MS // 20
    # Not just any: the call is paused somewhere, and packets of silence prove nothing either.
    first = max(range(len(packets) - length + 1), key=lambda at: sum(map(len, packets[at : at + length])))
    windows["Opus packets"] = b"".join(packets[first : first + length])
    return {store: all(_found(stores, store, data, wanted) for data in windows.values()) for store in STORES}


def scan(snapshots: Snapshots, wanted: Needles) -> list[Finding]:
    """Looks into everything that was seen."""
    return [finding for place, data in snapshots for finding in scanner.look(place, data, wanted)]


def likeness(spoken: listening.Samples, played: listening.Samples, gaps: Sequence[Mapping[str, Any]]) -> float:
    """How well a side matches what was spoken outside the recording's gaps."""
    kept = spoken.copy()
    for gap in gaps:
        kept[_samples(gap["from_ms"]) : _samples(gap["to_ms"])] = 0
    return round(listening.correlation(kept, played)[0], 4)


def paused(recording: Mapping[str, Any], played: listening.Samples, pause: Answer, resume: Answer) -> dict[str, Any]:
    """What the pause left out, measured on the recording that is played.

    Args:
        recording: Its JSON.
        played: int16[n, 2] at 8 kHz.
        pause: How the report that card entry begins was answered.
        resume: How the report that it ended was answered.
    """
    began = 1000 * moment(recording["started_at"])
    gaps = [gap for gap in recording["gaps"] if gap["cause"] == PAYMENT]
    effective = 1000 * moment(pause.call["effective_at"]) - began
    resumed = 1000 * moment(resume.call["effective_at"]) - began
    starts, ends = [gap["from_ms"] - effective for gap in gaps], [gap["to_ms"] - resumed for gap in gaps]
    return {
        "gap_ms": [[gap["from_ms"], gap["to_ms"]] for gap in gaps],
        "gap_start_error_ms": round(max(starts), 1) if max(starts) > 0 else round(min(starts), 1),
        "gap_end_error_ms": round(min(ends), 1) if min(ends) < 0 else round(max(ends), 1),
        "pause_ack_ms": pause.ms,
        "resume_latency_ms": resume.ms,
        "gap_peak": max(peak(played, gap["from_ms"], gap["to_ms"]) for gap in gaps),
    }


def cut_late(recording: Mapping[str, Any], played: listening.Samples, span: tuple[float, float]) -> dict[str, Any]:
    """Whether a span that was cut from the vault, Unix seconds, is silent, and told in the recording."""
    began = moment(recording["started_at"])
    from_ms, to_ms = (round(1000 * (at - began)) for at in span)
    told = any(
        gap["cause"] == PAYMENT and gap["from_ms"] <= from_ms and to_ms <= gap["to_ms"] for gap in recording["gaps"]
    )
    return {"late_gap_peak": peak(played, from_ms - _INSIDE_MS, to_ms + _INSIDE_MS), "late_gap_told": told}


def packets_of_the_gap(sealed: SealedCopies, recording: Mapping[str, Any]) -> dict[str, int]:
    """How many packets that arrived within the gap any sealed copy held; and, that it is no wonder, how many in all."""
    began_us = 1_000_000 * moment(recording["started_at"])
    call = recording["call_id"]
    found = {store: sealed.ever(store, call) - began_us for store in ("ingest", "spool")}
    gaps = [(1000 * gap["from_ms"], 1000 * gap["to_ms"]) for gap in recording["gaps"] if gap["cause"] == PAYMENT]
    inside = {
        store: sum(int(((arrivals > first) & (arrivals < last)).sum()) for first, last in set(gaps))
        for store, arrivals in found.items()
    }
    return {
        "gap_packets_in_ingest": inside["ingest"],
        "gap_packets_in_spool": inside["spool"],
        "ingest_packet_times": int(found["ingest"].size),
    }


def peak(played: listening.Samples, from_ms: float, to_ms: float) -> int:
    """The loudest sample, on any channel, 60 ms inside a span."""
    inside = played[_samples(from_ms + _INSIDE_MS) : _samples(to_ms - _INSIDE_MS)]
    return int(np.abs(inside.astype(np.int32)).max())


def moment(text: str) -> float:
    """Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def rfc3339(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _samples(ms: float) -> int:
    return max(0, round(ms * listening.SAMPLE_HZ / 1000))


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
        "gap_start_error_ms": GAP_START_ERROR_MS[0] <= result["gap_start_error_ms"] <= GAP_START_ERROR_MS[1],
        "gap_end_error_ms": GAP_END_ERROR_MS[0] <= result["gap_end_error_ms"] <= GAP_END_ERROR_MS[1],
        "gap_peak": result["gap_peak"] <= MAX_GAP_PEAK,
        "gap_packets_in_ingest": result["gap_packets_in_ingest"] == 0,
        "gap_packets_in_spool": result["gap_packets_in_spool"] == 0,
        "ingest_packet_times": result["ingest_packet_times"] > 0,
        "too_late_seconds": result["too_late_seconds"] is not None,
        "late_gap_peak": result["late_gap_peak"] <= MAX_GAP_PEAK,
        "late_gap_told": result["late_gap_told"] is True,
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
