"""The people on site and the end of an agent: desks, handsets, figures and revocation against a running agent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import requests

from infra.local.client import ApiClient
from tests.e2e.conftest import BIN, Local, start_local, stop_local
from tests.e2e.talking import Talking

WITHIN_S = 60.0
"""A revocation takes effect within a minute."""


def _settings(local: Local) -> Path:
    return Path(local.line["spool_dir"]).parent / "agent.toml"


def _desk(local: Local, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`dualtone desk ...` as the person at the desk runs it."""
    environment = os.environ | {"XDG_CONFIG_HOME": str(directory)}
    command = [str(BIN / "dualtone"), "desk", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def _added(local: Local, *lines: str) -> dict[str, str]:
    """What `dualtone-agent desk add` shows, by its first word."""
    options = [option for line in lines for option in ("--line", line)]
    command = [str(BIN / "dualtone-agent"), "desk", "add", "Reception", *options, "--config", str(_settings(local))]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return dict(re.findall(r"^(\w+) +(\S+)$", told, re.MULTILINE))


def _written(directory: Path, local: Local, shown: dict[str, str]) -> None:
    """The person's settings."""
    path = directory / "dualtone" / "desk.toml"
    path.parent.mkdir()
    lines = {"agent": local.line["agent_lan"], "token": shown["token"], "fingerprint": shown["fingerprint"]}
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in lines.items()))
    path.chmod(0o600)


def _metric(local: Local, name: str) -> float:
    text = requests.get(local.line["metrics"], timeout=10).text
    return sum(
        float(value) for value in re.findall(rf"^dualtone_agent_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    )


def _waited(reached: Callable[[], bool], within_s: float) -> float:
    """Waits until something is so; returns the seconds that it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() < began + within_s, f"not within {within_s} s"
        time.sleep(0.2)
    return time.monotonic() - began


def test_a_desk_pauses_its_own_call_on_the_agent(local: Local, tmp_path: Path) -> None:
    """Added while the agent runs; the person's client pauses and resumes; the ledger names the desk by its id."""
    address = local.line["agent_lan"]
    shown = _added(local, "+442079460101")
    port = address.rpartition(":")[2]
    assert shown["agent"] == f"https://127.0.0.1:{port}" if port != "0" else shown["agent"]
    _written(tmp_path, local, shown)
    assert _desk(local, tmp_path, "pause").returncode == 5
    with Talking(local, 8) as talking:
        assert _desk(local, tmp_path, "pause").stdout == "paused: nothing of this call is being kept\n"
        (call,) = json.loads(_desk(local, tmp_path, "status", "--json").stdout)["calls"]
        assert (call["call_id"], call["state"]) == (talking.call_id, "paused")
        assert _metric(local, "calls_live") == 1
        assert _desk(local, tmp_path, "resume").stdout == "recording again\n"
        sip = talking.ended()["sip_call_id"]
    recording = local.wait_recorded(sip)
    commands = local.officer.get(f"/v1/calls/{recording['call_id']}")["commands"]
    assert [(one["action"], one["by"].partition("_")[0]) for one in commands] == [
        ("pause", "desk:desk"),
        ("resume", "desk:desk"),
    ]


def test_a_desk_keeps_one_call_and_disowns_another(tmp_path: Path) -> None:
    """On demand: it waits until the desk keeps it. Personal: nothing leaves the site. Regulated: a sentence says no."""
    on_demand, private, regulated = "+442079460701", "+442079460702", "+442079460703"
    why = {"basis": "legitimate_interests"}
    rules: list[dict[str, object]] = [
        {"id": "dealers", "match": {"lines": [regulated]}, "record": "always", "regulated": True, **why},
        {"id": "asked", "match": {"lines": [on_demand]}, "record": "on_demand", **why},
        {"id": "own", "match": {"lines": [private]}, "record": "always", "personal_allowed": True, **why},
    ]
    running = start_local(tmp_path / "local", "--hold-back", "1")
    try:
        administrator = ApiClient(running.line["api"], running.line["tenants"]["acme"]["administrator"])
        administrator.put("/v1/recording-policy", {"rules": rules}, if_match='"0"')
        _waited(lambda: any((tmp_path / "local").rglob("recording-policy.json")), 20)
        shown = _added(running, on_demand, private, regulated)
        _written(tmp_path, running, shown)
        with Talking(running, 6, wait=False, callee=on_demand) as talking:
            _waited(lambda: _state(running, tmp_path) == "waiting", 10)
            assert _desk(running, tmp_path, "keep").stdout == "this call is kept\n"
            assert _state(running, tmp_path) == "recording"
            kept = talking.ended()["sip_call_id"]
        with Talking(running, 5, wait=False, callee=private) as talking:
            _waited(lambda: _state(running, tmp_path) == "waiting", 10)
            assert _desk(running, tmp_path, "personal").stdout == "personal: nothing of this call is kept\n"
            assert _state(running, tmp_path) == "not_recorded"
            disowned = talking.ended()["sip_call_id"]
        with Talking(running, 5, wait=False, callee=regulated) as talking:
            _waited(lambda: _state(running, tmp_path) == "recording", 10)
            done = _desk(running, tmp_path, "personal")
            assert (done.returncode, done.stderr) == (
                6,
                "dualtone desk: this line must be recorded: the call is kept\n",
            )
            last = talking.ended()["sip_call_id"]
        running.wait_recorded(kept)
        running.wait_recorded(last)
        assert running.officer.status(f"/v1/calls?sip_call_id={disowned}") == 404
    finally:
        assert stop_local(running) == 0


def _state(local: Local, directory: Path) -> str | None:
    """How the desk's one call stands."""
    calls = json.loads(_desk(local, directory, "status", "--json").stdout)["calls"]
    return calls[0]["state"] if calls else None


def test_a_revoked_agent_stops_within_a_minute(tmp_path: Path) -> None:
    """Its live call is recorded to its end and stays in the spool; the next gets 503, also after a restart."""
    running = start_local(tmp_path, "--hold-back", "1")
    try:
        administrator = ApiClient(running.line["api"], running.line["tenants"]["acme"]["administrator"])
        (agent,) = [one["agent_id"] for one in administrator.get("/v1/agents")["agents"] if one["state"] == "active"]
        with Talking(running, 8) as talking:
            administrator.post(f"/v1/agents/{agent}/revoke", {})
            took_s = _waited(partial(_is_revoked, running), WITHIN_S)
            refused = _call_status(running)
            assert refused == 503, f"a new call was answered {refused} {took_s:.1f} s after the revocation"
            assert talking.ended()["bye_status"] == 200
        spool = Path(running.line["spool_dir"])
        kept = [path for path in spool.iterdir() if path.is_dir() and path.name == talking.call_id]
        _waited((kept[0] / "manifest.json").exists, 30)
        _restarted(running, tmp_path)
        assert _metric(running, "revoked") == 1
        assert _call_status(running) == 503
        assert (kept[0] / "manifest.json").exists()
    finally:
        assert stop_local(running) == 0


def test_an_old_key_gives_way_and_what_it_signed_is_believed(tmp_path: Path) -> None:
    """After a restart the next key is announced; the media process signs on with the earlier one, and is recorded."""
    running = start_local(tmp_path, "--hold-back", "1")
    try:
        key = Path(running.line["spool_dir"]).parent / "state" / "agent.key"
        before = key.read_bytes()
        os.utime(key, (time.time() - 91 * 86_400,) * 2)
        _restarted(running, tmp_path)
        _waited(lambda: key.read_bytes() != before, 30)
        with Talking(running, 3) as talking:
            sip = talking.ended()["sip_call_id"]
        assert running.wait_recorded(sip)["call_id"] == talking.call_id
    finally:
        assert stop_local(running) == 0


def _restarted(local: Local, data_dir: Path) -> None:
    """Kills the agent, and waits until it was started again."""
    killed, line = local.line["pids"]["sip"], data_dir / "local.json"
    os.kill(killed, 9)
    _waited(lambda: json.loads(line.read_text())["pids"]["sip"] != killed, 30)
    local.line = json.loads(line.read_text())


def _is_revoked(local: Local) -> bool:
    return _metric(local, "revoked") == 1


def _call_status(local: Local) -> int:
    """How a test call's INVITE is answered."""
    speech = Path(__file__).parents[1] / "vectors" / "speech"
    command = [str(BIN / "dualtone-agent"), "call", "--target", local.line["sip_udp"], "--json", "--duration", "1"]
    command += ["--caller-wav", str(speech / "alice.wav"), "--callee-wav", str(speech / "bob.wav")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"\b(200|[45]\d\d)\b", done.stderr + done.stdout)
    assert found is not None, done.stderr
    return int(found[1])
