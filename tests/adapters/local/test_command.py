"""The command `dualtone local`: its options, its one line, and what becomes of its child."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.local import cli, local
from infra.local.agent import AgentPlan, _media_pairs, _options, _settings
from infra.local.cli import SUBCOMMANDS
from sbc_agent.runtime import config

ROOT = Path(__file__).parents[3]


def parsed(*arguments: str) -> argparse.Namespace:
    """The options of `dualtone local`."""
    parser = argparse.ArgumentParser()
    local.add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults_take_free_ports() -> None:
    """Nothing need be said: ports are drawn, the data directory is temporary."""
    options = parsed()
    assert (options.api_port, options.sip_port, options.sip_tcp_port, options.aws_port) == (0, 0, 0, 0)
    assert (options.json, options.data_dir, options.hold_back, options.media_ports) == (False, None, 5.0, "20000-29999")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--api-port", "65536"),
        ("--api-port", "-1"),
        ("--hold-back", "31"),
        ("--hold-back", "nan"),
        ("--hold-back", "soon"),
        ("--media-ports", "30000-20000"),
        ("--media-ports", "80-90"),
        ("--media-ports", "20000"),
    ],
)
def test_impossible_options_are_refused(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each with a message that names the value."""
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_lists_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    """Without importing any of them."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text and entry.summary in text for name, entry in SUBCOMMANDS.items())


def test_the_settings_are_what_the_agent_reads(tmp_path: Path) -> None:
    """The file that is written for the agent passes the agent's own checks."""
    plan = AgentPlan(
        directory=tmp_path / 'a "b"',
        log=tmp_path / "agent.log",
        api="http://127.0.0.1:1234",
        environment={},
        sip_port=0,
        sip_tcp_port=5061,
        media_ports="20000-20099",
        hold_back_s=1.5,
    )
    settings = config.parse(_settings(plan))
    assert settings.agent.spool_dir == plan.spool_dir
    assert (settings.media.pool_size, settings.media.hold_back_ms) == (50, 1500)
    assert (str(settings.sip.udp), str(settings.sip.tcp)) == ("127.0.0.1:0", "127.0.0.1:5061")


@pytest.mark.parametrize(("ports", "pairs"), [("20000-20003", 2), ("20001-20004", 1), ("20001-20002", 0)])
def test_pairs_of_ports(ports: str, pairs: int) -> None:
    """An even port and the odd one above it."""
    assert _media_pairs(ports) == pairs


def test_the_ping_is_a_sip_request() -> None:
    """OPTIONS with the header fields that RFC 3261 section 8.1.1 makes mandatory."""
    head, _, body = _options("127.0.0.1:5060", 40000).decode().partition("\r\n\r\n")
    names = {line.partition(":")[0] for line in head.split("\r\n")[1:]}
    assert {"To", "From", "CSeq", "Call-ID", "Max-Forwards", "Via"} <= names
    assert body == ""


def test_an_earlier_agent_is_left_alone(tmp_path: Path) -> None:
    """A data directory that is used again gets a fresh place for its agent."""
    first = local._fresh(tmp_path / "agent")
    first.mkdir()
    second = local._fresh(tmp_path / "agent")
    second.mkdir()
    assert [first.name, second.name, local._fresh(tmp_path / "agent").name] == ["agent", "agent-2", "agent-3"]


def test_standard_output_carries_the_line_alone(tmp_path: Path) -> None:
    """Whatever is printed meanwhile, by Python or by anything else in the process, goes to the log."""
    program = (
        "import os, sys; from pathlib import Path; from infra.local.local import _quiet_stdout\n"
        "with _quiet_stdout(Path(sys.argv[1])) as say:\n"
        "    print('a handler prints'); os.write(1, b'a library writes\\n'); say('the line')\n"
        "print('afterwards')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "the line\nafterwards\n"
    assert sorted((tmp_path / "functions.log").read_text().splitlines()) == ["a handler prints", "a library writes"]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_tethered_child_dies_with_its_parent() -> None:
    """Kill -9 of the parent leaves no child."""
    tethered = "[sys.executable, '-m', 'infra.local.tether', str(os.getpid()), '/bin/sleep', '60']"
    program = f"import os, subprocess, sys\nprint(subprocess.Popen({tethered}).pid, flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until = time.monotonic() + 10
        while "sleep" not in Path(f"/proc/{child}/cmdline").read_text() and time.monotonic() < until:
            time.sleep(0.01)
        assert not _gone(child)
        os.kill(parent.pid, signal.SIGKILL)
    while not _gone(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert _gone(child)


def test_a_tether_to_somebody_else_is_refused() -> None:
    """If the parent died before it could be tied to, the command does not start."""
    command = [sys.executable, "-m", "infra.local.tether", "1", "/bin/echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stdout == ""


def test_a_stop_while_starting_interrupts_and_a_second_one_does_not() -> None:
    """SIGTERM before the line is an end as orderly as one after it."""
    stopping = local._Stopping()
    with stopping.handlers():
        with pytest.raises(local._Stopped):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stopping.wait(0)
