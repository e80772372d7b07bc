"""The page on the recording policy, its example and `dualtone policy`: what they show works, over HTTP."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from chalicelib import payment_routes, policy_answers
from chalicelib.requests import PaymentReport
from dualtone.adapters import api_wiring
from dualtone.domain.ids import TenantId
from dualtone.domain.recording_policy import Basis, Match, Record, Rule
from infra.cli import policy
from infra.local import cli
from infra.local.cloud import LocalCloud
from tests.adapters.api.test_recording_policy import forget_policy, put
from tests.adapters.api.test_rights import version_in_force

DOCS: Final = Path(__file__).parents[3] / "infra" / "docs"
PAGE: Final = (DOCS / "recording-policy.md").read_text()
EXAMPLE: Final = DOCS / "recording-policy.toml"
Run = Callable[..., int]


def rows(heading: str) -> set[str]:
    """What the first column of the table under a heading names."""
    table = re.search(rf"^\| `?{heading}`? \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None
    return {name for row in table[1].splitlines() for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


@pytest.fixture
def run(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `dualtone policy ...` as an administrator of a tenant without a policy, by the environment."""
    monkeypatch.setenv("DUALTONE_API", cloud.api_url)
    monkeypatch.setenv("DUALTONE_TOKEN", cloud.tenants["globex"].tokens["administrator"])
    monkeypatch.chdir(DOCS)
    yield lambda *arguments: cli.main(["policy", *arguments])
    forget_policy("globex")


def test_the_commands_of_the_page_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In their order; what `show` writes says the same as what was set, and is taken again."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    setting, showing, trying = (shlex.split(line)[2:] for line in block.splitlines())
    assert run(*setting) == 0
    assert capsys.readouterr().out.startswith("version 1 is in force: 7 rules, ")
    assert showing[1] == ">"
    assert run(showing[0]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown) == {"version": 1, **tomllib.loads(EXAMPLE.read_text())}
    assert run(*trying) == 0
    assert capsys.readouterr().out == "hotline: consent, waits for a decision (without one: discard), basis consent\n"
    file = tmp_path / "in-force.toml"
    file.write_text(shown)
    assert run("set", str(file)) == 0
    assert capsys.readouterr().out.startswith("version 2 is in force")
    assert run("set", str(file)) == 1
    assert "version 1 is not the one in force: read the policy again" in capsys.readouterr().err
    assert run("show", "--version", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1


def test_a_policy_is_tried_before_it_is_in_force(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """By a file, at a time, with what is known of the call."""
    at_night = ("--at", "2026-11-25T03:00:00Z", "--file", EXAMPLE.name)
    assert run("try", "--caller", "+441632960001", "--callee", "2001", "--queue", "other", *at_night) == 0
    assert capsys.readouterr().out == (
        "night: live keep, waits for a decision (without one: discard), basis legitimate interests\n"
    )
    assert run("try", "--callee", "2150", "--file", EXAMPLE.name, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["now"]["rule"], answer["now"]["regulated"], answer["now"]["version"]) == ("dealing-room", True, 1)
    assert run("try", "--caller", "+441632960001", "--file", EXAMPLE.name) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(", by what is known")
    assert second.startswith("if nothing more is known 30 seconds after the answer: ")
    assert run("show") == 0
    assert capsys.readouterr().out == "version = 0\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rules]]\nid = 'x'", "rules.0: rule `x`: `record`: write always,"),
        ("[[rules]]\nid = 'x'\nrecord = 'never'\nbasis = 'contract'\nregulated = true", "a regulated rule records"),
        ("rules = 1", "rules: "),
        ("[[rules", "no TOML"),
        ("[[rules]]\nmatch.hours = 09:00:00", "write dates and times in quotation marks"),
    ],
)
def test_a_file_that_is_not_right_is_1_and_says_what_to_write(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    """Nothing is put in force."""
    file = tmp_path / "policy.toml"
    file.write_text(text)
    assert run("set", str(file)) == 1
    assert says in capsys.readouterr().err
    assert run("set", str(tmp_path / "none.toml")) == 1
    assert "No such file" in capsys.readouterr().err
    assert run("show") == 0
    assert capsys.readouterr().out == "version = 0\n"


def test_an_officer_may_try_and_not_set(
    run: Run, officer: str, capsys: pytest.CaptureFixture[str], cloud: LocalCloud
) -> None:
    """The API's refusal is the command's."""
    token = ("--token", cloud.tenants["globex"].tokens["officer"])
    assert run("set", EXAMPLE.name, *token) == 1
    assert "recording-policy:change" in capsys.readouterr().err
    assert run("try", *token) == 0


def test_every_member_has_its_row() -> None:
    """A new one is explained here, or this fails."""
    assert rows("record") == set(get_args(Record))
    explained = rows("member")
    assert explained == {field.name for field in fields(Match)}
    names = {field.name for field in fields(Rule)} - {"id", "name", "record", "match"}
    (whoever,) = re.findall(r"\| member \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    assert {name for row in whoever.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])} == names
    assert set(get_args(Basis)) <= set(re.findall(r"`(\w+)`", PAGE))
    outcomes = get_args(policy_answers.Decided.model_fields["outcome"].annotation)
    assert set(re.findall(r"^\| `([a-z]+)` \| 20[02] \|", PAGE, re.MULTILINE)) == set(outcomes)


def test_every_message_shown_is_one_that_is_taken() -> None:
    """The kinds that decide are named, and the example is one of them."""
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        PaymentReport.model_validate(json.loads(block))
    for kind in payment_routes.DECISIONS:
        assert f"`{kind}`" in PAGE


def test_a_policy_with_every_member_survives_being_written(administrator: str, capsys: Any) -> None:
    """`show` leaves out what is said by saying nothing, and nothing else."""
    whole = {
        "id": "whole",
        "record": "consent",
        "basis": "consent",
        "name": 'Quote " and \\ and ü',
        "match": {"lines": ["2*"], "hours": "22:00-06:00", "timezone": "UTC"},
        "accept_keys": "1",
        "headers": {"name": "X", "accept": ["y"]},
        "tones": "keep",
        "card": "off",
        "on_failure": "closed",
    }
    assert put(administrator, {"rules": [whole]}, version_in_force()).status == 200
    stored = api_wiring.recording_policies().current(TenantId("acme"))
    assert stored is not None
    shown = policy_answers.RecordingPolicy.of(stored).model_dump(mode="json")
    assert tomllib.loads("\n".join(policy.written(shown))) == {"version": version_in_force(), "rules": [whole]}
