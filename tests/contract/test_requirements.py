"""Every environment is pinned and hashed, and no file says from where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.txt"))
_REQUIREMENT = re.compile(r"^([a-z0-9._-]+)==(\S+) \\$")


def _pins(name: str) -> dict[str, str]:
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for line in lines if (match := _REQUIREMENT.match(line))}


def test_there_is_a_lock_for_each_environment() -> None:
    """Each .txt has its .in."""
    assert LOCKS == ["agent.txt", "checkov.txt", "ministack.txt", "pip.txt", "run.txt", "sam.txt", "test.txt"]
    assert all((REQUIREMENTS / name).with_suffix(".in").is_file() for name in LOCKS)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_address(name: str) -> None:
    """Nothing but pins, hashes and comments."""
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.lstrip().startswith(("#", "--hash=sha256:")):
            assert _REQUIREMENT.match(line), line
    assert "://" not in text
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_test_environment_holds_the_products() -> None:
    """`make demo` runs in either: what test.txt adds changes no version of run.txt."""
    run, test = _pins("run.txt"), _pins("test.txt")
    assert run == {name: test.get(name) for name in run}


def test_the_agents_environment_is_a_part_of_the_products() -> None:
    """The same versions, without the embedded cloud, the functions' own packages and what they bring."""
    run, agent = _pins("run.txt"), _pins("agent.txt")
    assert agent.items() < run.items()
    assert not agent.keys() & {"moto", "chalice", "aws-lambda-powertools", "ffmpeg-python", "flask", "docker", "pip"}


def test_every_environment_is_installed_by_the_same_pip() -> None:
    """The one of pip.txt."""
    assert _pins("run.txt")["pip"] == _pins("pip.txt")["pip"]
