"""The command: its help, its exit status, and what it says when it cannot do what was asked."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import enrolment_code
from sbc_agent.runtime import cli, status
from sbc_agent.runtime.config import Endpoint
from tests.agent.runtime import web
from tests.agent.runtime.spooled import CloudKey

CLOUD = CloudKey()
CODE = enrolment_code.make(b"s" * 16, CLOUD.der)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(
        f"""
[agent]
state_dir = "{tmp_path}/state"
spool_dir = "{tmp_path}/spool"
[media]
address = "127.0.0.1"
ports = "40000-40099"
pool_size = 4
[uplink]
api = "http://127.0.0.1:1"
"""
    )
    return path


def exit_of(arguments: list[str]) -> int:
    """The exit status, also where argparse ends the process."""
    try:
        return cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("command", [[], ["run"], ["enrol"], ["status"], ["call"]])
def test_help_is_there_for_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--help explains and names the exit statuses."""
    assert exit_of([*command, "--help"]) == 0
    assert "exit status: 0 done" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["fly"], "invalid choice"),
        (["enrol"], "--code"),
        (["enrol", "--code", "x", "--api", "http://example.com"], "plain http"),
        (["enrol", "--code", "x", "--name", ""], "1 to 64 printable characters"),
        (["call", "--target", ":1", "--caller-wav", "a", "--callee-wav", "b"], "write a host and a port"),
        (["call", "--target", "a:b", "--caller-wav", "a", "--callee-wav", "b"], "write a host and a port"),
        (["call", "--target", "a", "--caller-wav", "a", "--callee-wav", "b", "--duration", "0"], "from 0.02 to 86400"),
        (["call", "--target", "a", "--caller-wav", "a", "--callee-wav", "b", "--calls", "0"], "from 1 to 100000"),
        (["call", "--target", "a", "--caller-wav", "a", "--callee-wav", "b", "--transport", "sctp"], "invalid choice"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage errors say what is wrong and what will do."""
    assert exit_of(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["enrol", "--code", CODE], ["status"]], ids=["run", "enrol", "status"])
def test_wrong_settings_are_2(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault is a line; there is no trace."""
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\nstate_dir = 5\n")
    assert exit_of([*command, "--config", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"dualtone-agent: {path}: ") for line in lines)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run"], "not enrolled: run dualtone-agent enrol"),
        (["status"], "no agent runs with"),
        (["enrol", "--code", CODE], "no answer from 127.0.0.1: connection refused"),
        (["enrol", "--code", "nonsense"], "an enrolment code looks like DT1-"),
    ],
    ids=["run", "status", "enrol", "mistyped"],
)
def test_what_fails_is_1_and_told_in_a_line(
    settings: Path, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was asked for did not succeed; one line says why."""
    assert exit_of([*command, "--config", str(settings)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_enrol_reads_the_code_from_standard_input(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A code on the command line would show in the list of processes; "-" keeps it out, --api names the cloud."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{CODE}\n"))
    with web.serving(lambda *_: (200, CLOUD.enrolment())) as server:
        assert exit_of(["enrol", "--config", str(settings), "--code", "-", "--api", server.url, "--name", "rec-1"]) == 0
    assert "enrolled as agt_" in capsys.readouterr().out
    assert (settings.parent / "state" / "identity.json").exists()


def test_check_tells_what_is_wrong_with_the_machine(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``run --check`` needs no enrolment and ends; a spool that cannot be used is fatal."""
    assert exit_of(["run", "--check", "--config", str(settings)]) == 0
    (settings.parent / "spool").rmdir()
    (settings.parent / "spool").write_text("")
    assert exit_of(["run", "--check", "--config", str(settings)]) == 1
    assert "fatal: agent.spool_dir" in capsys.readouterr().err


def test_a_defect_is_told_by_class_and_place(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error shows neither a trace nor its text, which could hold a number."""

    def broken(_: Path) -> Any:
        raise ZeroDivisionError("+442079460123")

    monkeypatch.setattr(status, "ask", broken)
    assert exit_of(["status", "--config", str(settings)]) == 70
    error = capsys.readouterr().err
    assert "a defect: ZeroDivisionError at cli.py:" in error
    assert "44207" not in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "target"), [("a.test", Endpoint("a.test", 5060)), ("192.0.2.1:5070", Endpoint("192.0.2.1", 5070))]
)
def test_a_target_has_a_default_port(text: str, target: Endpoint) -> None:
    """5060, as RFC 3261 has it."""
    parse: Callable[[str], Endpoint] = cli._target
    assert parse(text) == target


def test_a_wav_that_cannot_be_used_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file is a line before any call is placed."""
    missing = str(tmp_path / "none.wav")
    assert exit_of(["call", "--target", "127.0.0.1:1", "--caller-wav", missing, "--callee-wav", missing]) == 1
    assert "none.wav does not exist" in capsys.readouterr().err
