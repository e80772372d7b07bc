"""``dualtone demo``: one real call with a payment in it, from the SBC to the ear, and the proof of what became of it.

The demo is a stranger to the product: it starts ``dualtone local --json``, places a SIPREC call with ``dualtone-agent
call``, and then uses the public API with an officer's token. What it prints it has measured.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from infra.local import listening, payment, proofs
from infra.local.client import ApiClient, ApiProblem
from infra.local.payment import Answer, PaymentSystem
from infra.local.scanner import Snapshots
from infra.local.stores import STORES, Stores
from infra.local.unsealing import SealedCopies

ROOT: Final = Path(__file__).resolve().parents[2]
SPEECH: Final = ROOT / "tests" / "vectors" / "speech"
CALLER: Final = "+442079460101"
CALLEE: Final = "+12025550147"
_START_S: Final = 60
_FINISH_S: Final = 90
_POLL_S: Final = 0.1
_WATCH_S: Final = 1.0
_LIVE_S: Final = 10
_CALL_S: Final = 60
_BEFORE_PAYING_S: Final = 2.5
_PAYING_S: Final = 3.5
_LATE_FROM_S: Final = 1.0


class DemoFailed(Exception):  # noqa: N818 - what happened, in a word
    """Something did not happen as it must; the message says what and where to look."""


@dataclass(slots=True)
class Stages:
    """How long each stage took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str, say: str) -> Iterator[None]:
        """Runs a stage, tells of it on stderr, and keeps its time."""
        print(f"  {say} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``dualtone demo``."""
    parser.add_argument("--once", action="store_true", help="exit after printing one JSON line of what was proved")
    parser.add_argument("--data-dir", type=Path, help="where everything is kept (default: a new one below .demo/)")
    parser.add_argument("--hold-back", type=float, default=5.0, metavar="S", help="hold-back in seconds (default: 5)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; returns the exit status."""
    data_dir: Path = (arguments.data_dir or ROOT / ".demo" / time.strftime("run-%Y%m%d-%H%M%S")).resolve()
    temporary = data_dir / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    print("Dualtone: one real call with a payment in it, from the SBC to the ear", file=sys.stderr)
    try:
        with stages.timed("start", "starting the embedded cloud, an enrolled agent and the API"):
            process, line = _start(data_dir, temporary, arguments.hold_back)
        try:
            result = _prove(line, data_dir, temporary, stages)
            print(json.dumps(result), flush=True)
            if not arguments.once:
                _say_where_to_look(line, result)
                process.wait()
        finally:
            _stop(process)
    except KeyboardInterrupt:
        return 0
    except (DemoFailed, ApiProblem, subprocess.CalledProcessError) as error:
        print(f"the demo failed: {error}\nlogs: {data_dir}", file=sys.stderr)
        return 1
    failures = proofs.unmet(result)
    for failure in failures:
        print(f"not as it must be: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _start(data_dir: Path, temporary: Path, hold_back_s: float) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    command = [_command("dualtone"), "local", "--json", "--data-dir", str(data_dir), "--hold-back", str(hold_back_s)]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}, start_new_session=True
    )
    watchdog = threading.Timer(_START_S, process.kill)
    watchdog.start()
    try:
        text = process.stdout.readline() if process.stdout else ""
    finally:
        watchdog.cancel()
    if not text.startswith("{"):
        _stop(process)
        raise DemoFailed(f"`dualtone local` did not start within {_START_S} s")
    return process, json.loads(text)


def _prove(line: dict[str, Any], data_dir: Path, temporary: Path, stages: Stages) -> dict[str, Any]:
    """Places the call and measures what became of it."""
    tenant = line["agent_tenant"]
    officer = ApiClient(line["api"], line["tenants"][tenant]["officer"])
    stranger = ApiClient(
        line["api"], next(roles["officer"] for name, roles in line["tenants"].items() if name != tenant)
    )
    evidence = data_dir / "evidence"
    evidence.mkdir(exist_ok=True)
    sources = {side: Path(shutil.copy(SPEECH / f"{side}.wav", evidence)) for side in ("alice", "bob")}
    stores, snapshots = Stores(line, temporary), Snapshots()

    payments = PaymentSystem(line["webhook_url"], line["webhook_secret"])
    ucid = f"00FA08{secrets.token_hex(8).upper()}"

    with _watching(stores, snapshots), SealedCopies(line) as sealed:
        with stages.timed(
            "call", "a SIPREC call: Alice calls Bob, twelve seconds, and pays by card in the midst of it"
        ):
            call, pause, resume = _call_with_a_payment(line["sip_udp"], sources, officer, payments, ucid)
        with stages.timed("finalise", "hold-back drains, parts go up, the finaliser decodes, encodes, seals, commits"):
            found = _wait_for_recording(officer, call["sip_call_id"])
    recording_id = found["recording_id"]

    with stages.timed("play", "search by number, play back, verify"):
        recording = officer.get(f"/v1/recordings/{recording_id}")
        ogg = officer.audio(recording_id)
        played = listening.decode_opus(ogg)
        hits = officer.post("/v1/recordings/search", {"number": CALLER})["recordings"]
        seen_by_other = stranger.status(f"/v1/recordings/{recording_id}") != 404  # noqa: PLR2004 - HTTP
        paths = _keep_evidence(evidence, officer.get(f"/v1/recordings/{recording_id}/evidence"), ogg, played)
        verdict = proofs.openssl_verdict(paths["message"], paths["signature"], paths["public_key"])
        paused = proofs.paused(recording, played, pause, resume)
        in_ingest = proofs.packets_of_the_gap(sealed, recording)

    with stages.timed(
        "late", "the payment system reports another span when the recording is made: it is cut out of the vault"
    ):
        late, cut = _late_report(recording, payments, ucid)
        late_played = listening.decode_opus(officer.audio(recording_id))
        late_proof = proofs.cut_late(officer.get(f"/v1/recordings/{recording_id}"), late_played, late)

    with stages.timed("scan", "scanning every store for plaintext, after finding what is planted there"):
        needles = proofs.needles(sources.values(), ogg)
        planted = proofs.planted_windows_found(stores, next(iter(sources.values())), ogg, needles)
        for store in STORES:
            snapshots.add(stores.contents(store))
        findings = proofs.scan(snapshots, needles)

    caller, callee = (proofs.channel_of(recording, role) for role in ("caller", "callee"))
    wavs = {side: listening.read_wav(path) for side, path in sources.items()}
    longest_ms = max(samples.size for samples in wavs.values()) * 1000 / listening.SAMPLE_HZ
    return {
        "call_id": recording["call_id"],
        "recording_id": recording_id,
        "sip_call_id": call["sip_call_id"],
        "caller_correlation": proofs.likeness(wavs["alice"], played[:, caller], recording["gaps"]),
        "callee_correlation": proofs.likeness(wavs["bob"], played[:, callee], recording["gaps"]),
        "duration_error_ms": abs(round(recording["duration_ms"] - longest_ms)),
        **paused,
        **in_ingest,
        "too_late_seconds": cut["seconds_until_gone"],
        **late_proof,
        "plaintext_windows_found": len(findings),
        "plaintext_findings": [f"{finding.coding} in {finding.place}" for finding in findings[:10]],
        "planted_windows_found": planted,
        "scanned_bytes": snapshots.size_bytes,
        "signature_openssl": verdict,
        "found_by_number": any(hit["recording_id"] == recording_id for hit in hits),
        "seen_by_other_tenant": seen_by_other,
        "paths": {f"source_{side}": str(path) for side, path in sources.items()} | paths,
        "seconds": stages.seconds,
    }


@contextlib.contextmanager
def _watching(stores: Stores, snapshots: Snapshots) -> Iterator[None]:
    """Takes a copy of all stores once a second while the call runs: plaintext that lay there briefly shows too."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_WATCH_S):
            for store in STORES:
                snapshots.add(stores.contents(store))

    thread = threading.Thread(target=watch, name="watch stores")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _call_with_a_payment(
    target: str, sources: dict[str, Path], officer: ApiClient, payments: PaymentSystem, ucid: str
) -> tuple[dict[str, Any], Answer, Answer]:
    """Places the call; while it runs, the payment system reports that card entry begins, and that it ended."""
    command = [_command("dualtone-agent"), "call", "--target", target, "--json", "--ucid", ucid]
    command += ["--caller", CALLER, "--callee", CALLEE]
    command += ["--caller-wav", str(sources["alice"]), "--callee-wav", str(sources["bob"])]
    calling = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
    try:
        _wait_until_live(officer)
        time.sleep(_BEFORE_PAYING_S)
        pause = payments.report(payment.STARTED, {"ucid": ucid}, effective_at=proofs.rfc3339(time.time()))
        if pause.body.get("outcome") != "acknowledged":
            raise DemoFailed(f"the pause was answered {pause.status} {pause.body}")
        time.sleep(_PAYING_S)
        resume = payments.report(payment.ENDED, {"ucid": ucid})
        said, complaint = calling.communicate(timeout=_CALL_S)
    finally:
        calling.kill()
        calling.wait()
    if calling.returncode:
        raise DemoFailed(f"the call was not taken: {complaint.strip()}")
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer, pause, resume


def _wait_until_live(officer: ApiClient) -> None:
    until = time.monotonic() + _LIVE_S
    while not officer.get("/v1/calls")["calls"]:
        if time.monotonic() > until:
            raise DemoFailed(f"no live call was seen within {_LIVE_S} s")
        time.sleep(_POLL_S)


def _late_report(
    recording: dict[str, Any], payments: PaymentSystem, ucid: str
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Reports a second of the call for which it is too late; returns the span, Unix seconds, and what was answered."""
    began = proofs.moment(recording["started_at"])
    span = began + _LATE_FROM_S, began + _LATE_FROM_S + 1
    answer = payments.report(
        payment.STARTED, {"ucid": ucid}, effective_at=proofs.rfc3339(span[0]), until=proofs.rfc3339(span[1])
    )
    if answer.body.get("outcome") != "too_late":
        raise DemoFailed(f"the late pause was answered {answer.status} {answer.body}")
    return span, answer.call


def _wait_for_recording(officer: ApiClient, sip_call_id: str) -> dict[str, Any]:
    until = time.monotonic() + _FINISH_S
    while time.monotonic() < until:
        try:
            found = officer.get("/v1/calls", {"sip_call_id": sip_call_id})
            if found["state"] == "recorded":
                return found
        except ApiProblem as problem:
            if problem.status != 404:  # noqa: PLR2004 - HTTP
                raise
        time.sleep(_POLL_S)
    raise DemoFailed(f"no recording of the call within {_FINISH_S} s")


def _keep_evidence(evidence: Path, answer: dict[str, Any], ogg: bytes, played: Any) -> dict[str, str]:
    wav = listening.wav_bytes(played)
    files = {
        "played_wav": ("played.wav", wav),
        "picture": ("played.png", listening.picture(wav)),
        "played_opus": ("played.opus", ogg),
        "manifest": ("manifest.json", base64.b64decode(answer["manifest"])),
        "message": ("manifest.signed", base64.b64decode(answer["message"])),
        "signature": ("manifest.sig", base64.b64decode(answer["signature"])),
        "public_key": ("recording-signing.pem", answer["public_key"].encode()),
    }
    for name, data in files.values():
        (evidence / name).write_bytes(data)
    return {what: str(evidence / name) for what, (name, _) in files.items()}


def _say_where_to_look(line: dict[str, Any], result: dict[str, Any]) -> None:
    paths: dict[str, str] = result["paths"]
    tenant = line["agent_tenant"]
    print(
        f"""
  Listen:     {paths["played_wav"]}  (caller left, callee right)
  Look:       {paths["picture"]}
  Evidence:   {Path(paths["manifest"]).parent}
  API:        {line["api"]}/v1/openapi.json
              curl -H "Authorization: $TOKEN" {line["api"]}/v1/recordings
              TOKEN={line["tenants"][tenant]["officer"]}
  Call it:    dualtone-agent call --target {line["sip_udp"]} --caller-wav A.wav --callee-wav B.wav
  Stores:     AWS_ENDPOINT_URL={line["aws_endpoint"]}  (any AWS client, any credentials)
  Stop:       Ctrl-C
""",
        file=sys.stderr,
        flush=True,
    )


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command(name: str) -> str:
    """One of our commands, from beside the running interpreter."""
    return str(Path(sys.executable).parent / name)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m infra.local.demo``."""
    parser = argparse.ArgumentParser(prog="dualtone demo", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
